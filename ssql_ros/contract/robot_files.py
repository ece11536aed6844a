"""Where the files of a robot lie: its contract, its learning settings, its nodes' parameters."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ssql_ros.contract.contract import Contract
from ssql_ros.contract.contract_file import load_contract
from ssql_ros.contract.plugs import plugs
from ssql_ros.contract.schema import ContractError


def config_folder() -> Path:
    """Return the folder of shipped contracts and bundles: an overlay's share, the interpreter's, or the source tree's.

    Raises:
        ContractError: none of them is there; the text lists where it looked.
    """
    prefixes = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    source = Path(__file__).resolve().parents[2] / "config"
    folders = [*(prefix / "share" / "ssql_ros" / "config" for prefix in (*prefixes, Path(sys.prefix))), source]
    for folder in folders:
        if folder.is_dir():
            return folder
    raise ContractError(f"the contracts of ssql_ros are not installed; looked in {', '.join(map(str, folders))}")


def robot_folder(robot: str) -> Path:
    """Return the folder of a robot's settings, by its name: contract.yaml, learning.yaml, nodes.yaml.

    Raises:
        ContractError: there is no such robot; the text lists those that are there.
    """
    folder = config_folder() / robot
    if robot and (folder / "contract.yaml").is_file():
        return folder
    if robot in plugs() and (config := plugs()[robot].config) is not None:
        return config
    known = {path.parent.name for path in config_folder().glob("*/contract.yaml")} | set(plugs())
    raise ContractError(f"no contract {robot!r}: it is not a file, and no robot; known: {', '.join(sorted(known))}")


def find_contract(robot: str) -> Path:
    """Return the path of a contract by the robot's name, or `robot` itself where it is a file.

    Raises:
        ContractError: neither; the text lists the robots that are known.
    """
    return Path(robot) if Path(robot).is_file() else robot_folder(robot) / "contract.yaml"


def find_nodes_file(robot: str) -> Path | None:
    """Return the file of the nodes' parameters that lies beside a contract (see `find_contract`); None: none does."""
    path = find_contract(robot).with_name("nodes.yaml")
    return path if path.is_file() else None


def told_otherwise(own: Contract, given: str) -> Contract:
    """Return the contract of a file in place of a robot's own: the same vectors, told in other messages or topics.

    Args:
        given: the file; empty: `own` is returned.

    Raises:
        ContractError: it cannot be read, or its vectors are not the same; the text names what differs.
    """
    if not given:
        return own
    contract = load_contract(find_contract(given))
    if differing := own.differences(contract):
        raise ContractError(
            f"{given}: expected the vectors of {own.path}, told in other messages or on other topics at most; "
            f"{', '.join(differing)} differ: take them from there"
        )
    return contract
