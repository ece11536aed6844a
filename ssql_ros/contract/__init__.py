"""The contract of a robot: what an observation and an action vector mean, from ROS messages and back."""

from ssql_ros.contract.contract import Contract
from ssql_ros.contract.contract_file import config_folder, find_contract, find_nodes_file, load_contract, robot_folder
from ssql_ros.contract.observation import ObservationAssembler
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
]
