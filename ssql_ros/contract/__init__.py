"""The contract of a robot: what an observation and an action vector mean, from ROS messages and back."""

from ssql_ros.contract.contract import Contract
from ssql_ros.contract.contract_file import load_contract
from ssql_ros.contract.observation import ObservationAssembler
from ssql_ros.contract.robot_files import config_folder, find_contract, find_nodes_file, robot_folder, told_otherwise
from ssql_ros.contract.schema import ContractError

__all__ = [
    "Contract",
    "ContractError",
    "ObservationAssembler",
    "config_folder",
    "find_contract",
    "find_nodes_file",
    "load_contract",
    "robot_folder",
    "told_otherwise",
]
