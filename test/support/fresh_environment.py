"""A virtual environment of a few distributions of this one, without a network: links to what is installed here."""

import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

PREFIX, SITE = Path(sys.prefix), Path(sysconfig.get_path("purelib"))


def closure(wanted: Iterable[str]) -> set[str]:
    """Return the names of distributions that requirements ask for, and of all that those ask for."""
    found: set[tuple[str, str]] = set()
    todo = [Requirement(text) for text in wanted]
    while todo:
        requirement = todo.pop()
        for extra in ("", *requirement.extras):
            if (requirement.name, extra) in found:
                continue
            found.add((requirement.name, extra))
            for text in metadata.requires(requirement.name) or ():
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    todo.append(needed)
    return {name for name, _ in found}


def ros_at_run_time(requirements: Path) -> list[str]:
    """Return the distributions of ROS that requirements.in lists as those of run time."""
    listed = requirements.read_text().partition("# Building")[0].splitlines()
    return [line for line in listed if line and not line.startswith("#")]


def make(folder: Path, wanted: Iterable[str]) -> Path:
    """Make an environment of `ssql_ros`, of what it asks for without extras, and of `wanted`; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    site = folder / SITE.relative_to(PREFIX)
    names = closure(["ssql_ros", *wanted]) - {"ssql_ros"}
    tops = {path.parts[0] for name in names for path in metadata.files(name) or ()} - {"..", "__pycache__"}
    ours = {path.name for pattern in ("ssql_*", "_ssql_ros_venv.*") for path in SITE.glob(pattern)}
    for top in tops | ours:
        if not (site / top).exists():
            (site / top).symlink_to(SITE / top)
    # The libraries of ROS and what its index finds, beside the Python packages.
    for path in (PREFIX / "lib").iterdir():
        if not path.name.startswith("python"):
            (folder / "lib" / path.name).symlink_to(path)
    (folder / "share").symlink_to(PREFIX / "share")
    return folder / "bin" / "python"
