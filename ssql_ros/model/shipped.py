"""Which bundle a robot's shield or policy node serves where none is named."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open

from ssql_ros.contract import ContractError, config_folder, robot_folder
from ssql_ros.model.bundle import BundleError

NAMED = {"critic": "critic", "policy": "ssql"}
WORDS = {"critic": "safety critic", "policy": "policy"}


def bundle_folder(robot: str) -> Path:
    """Return the folder of the bundles that are shipped with a robot: `bundles`, beside the folder of its settings."""
    try:
        return robot_folder(robot).parent / "bundles"
    except ContractError:  # a robot that is not installed, of which there is a contract alone
        return config_folder() / "bundles"


def find_shipped_bundle(robot: str, folder: Path | None = None, part: str = "critic") -> Path:
    """Return the shipped bundle of a robot that holds its safety critic, or its policy.

    The one named for it, ROBOT_critic or ROBOT_ssql, comes first; else the first of ROBOT_* that holds it.

    Args:
        robot: as its contract names it.
        folder: where to look; None: where its bundles are shipped.
        part: "critic" or "policy".

    Raises:
        BundleError: none is shipped; the text lists the robots that have one.
    """
    folder = bundle_folder(robot) if folder is None else folder
    named = folder / f"{robot}_{NAMED[part]}.safetensors"
    candidates = [named] if named.is_file() else sorted(folder.glob(f"{robot}_*.safetensors"))
    for path in candidates:
        if _holds(path, part):
            return path
    others = sorted({path.name.rpartition("_")[0] for path in folder.glob("*_*.safetensors") if _holds(path, part)})
    raise BundleError(
        f"{folder}: no bundle with a {WORDS[part]} of {robot} is shipped, only of {', '.join(others) or 'nobody'}; "
        f"name one (parameter, launch argument or option `bundle`)"
    )


def _holds(path: Path, part: str) -> bool:
    """Tell whether a bundle holds a network, by the names of its arrays alone."""
    try:
        with safe_open(path, framework="numpy") as file:
            return any(name.startswith(f"{part}.") for name in file.keys())  # noqa: SIM118 (not a mapping)
    except Exception as error:  # safetensors raises several kinds
        raise BundleError(f"{path}: is not a whole safetensors file: {error}") from error
