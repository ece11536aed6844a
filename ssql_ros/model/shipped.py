"""Which bundle a robot's shield serves where none is named."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open

from ssql_ros.contract import robot_folder
from ssql_ros.model.bundle import BundleError


def bundle_folder(robot: str) -> Path:
    """Return the folder of the bundles that are shipped with a robot: `bundles`, beside the folder of its settings."""
    return robot_folder(robot).parent / "bundles"


def find_shipped_bundle(robot: str, folder: Path | None = None) -> Path:
    """Return the bundle with a robot's safety critic: ROBOT_critic, else the first ROBOT_* that has one.

    Args:
        robot: as its contract names it.
        folder: where to look; None: where its bundles are shipped.

    Raises:
        BundleError: none is shipped; the text lists the robots that have one.
    """
    folder = bundle_folder(robot) if folder is None else folder
    named = folder / f"{robot}_critic.safetensors"
    candidates = [named] if named.is_file() else sorted(folder.glob(f"{robot}_*.safetensors"))
    for path in candidates:
        if _has_critic(path):
            return path
    others = sorted({path.name.rpartition("_")[0] for path in folder.glob("*_*.safetensors") if _has_critic(path)})
    raise BundleError(
        f"{folder}: no bundle with a safety critic of {robot} is shipped, only of {', '.join(others) or 'nobody'}; "
        f"name one (parameter, launch argument or option `bundle`)"
    )


def _has_critic(path: Path) -> bool:
    """Tell whether a bundle holds a safety critic, by the names of its arrays alone."""
    try:
        with safe_open(path, framework="numpy") as file:
            return any(name.startswith("critic.") for name in file.keys())  # noqa: SIM118 (not a mapping)
    except Exception as error:  # safetensors raises several kinds
        raise BundleError(f"{path}: is not a whole safetensors file: {error}") from error
