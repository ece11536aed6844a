"""Environment of a Python that finds ROS 2 in its own virtual environment.

Run at start-up of every Python of the environment (by _ssql_ros_venv.pth). The dynamic linker reads
LD_LIBRARY_PATH only when a process starts, so the process replaces itself once where the variables
are not right yet. The ROS wheels do the same in ros_wheels_bootstrapper, but trust a guard variable
that another environment's Python may have set, and do not set AMENT_PREFIX_PATH; this module runs
before it (by name) and leaves it nothing to do.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path


def _prepend(first: list[str], value: str) -> str:
    """Path list `value` with the entries of `first` in front, each entry once."""
    rest = [entry for entry in value.split(os.pathsep) if entry and entry not in first]
    return os.pathsep.join(first + rest)


def _holds_other_ros(directory: str) -> bool:
    """True for a PYTHONPATH entry that would hide the environment's own rclpy."""
    return (Path(directory) / "rclpy").is_dir()


def environment(prefix: str, current: Mapping[str, str]) -> dict[str, str]:
    """Variables as they must be for the virtual environment `prefix`, given the `current` ones."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site_packages = Path(prefix, "lib", version, "site-packages")
    libraries = [str(Path(prefix, "lib"))]
    libraries += sorted(str(path) for path in site_packages.glob("ros_*.libs"))

    wanted = dict(current)
    wanted["LD_LIBRARY_PATH"] = _prepend(libraries, current.get("LD_LIBRARY_PATH", ""))
    wanted["AMENT_PREFIX_PATH"] = _prepend([prefix], current.get("AMENT_PREFIX_PATH", ""))
    wanted["_ROS_WHEELS_BOOTSTRAP_COMPLETE"] = "1"
    if "PYTHONPATH" in current:
        entries = current["PYTHONPATH"].split(os.pathsep)
        kept = [entry for entry in entries if not _holds_other_ros(entry)]
        if kept != entries:
            wanted["PYTHONPATH"] = os.pathsep.join(kept)
    return wanted


def enter() -> None:
    """Replace this process by itself with the right variables, unless they are right already."""
    wanted = environment(sys.prefix, os.environ)
    if wanted != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], wanted)


# Embedded interpreters have no command line to repeat.
if sys.executable and sys.orig_argv:
    enter()
