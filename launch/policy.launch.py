"""A bundle's policy alone: it reads the robot's sensors and publishes joint_proposals for the shield.

With a simulated robot, the shield, and no other controller:

    ros2 launch ssql_ros robot.launch.py controller:=false
    ros2 launch ssql_ros policy.launch.py bundle:=/where/it/is.safetensors use_sim_time:=true
"""

from launch import LaunchDescription
from ssql_ros.graph.launching import (
    CONTRACT,
    NAMESPACE,
    PARAMS_FILE,
    USE_SIM_TIME,
    bundle_with,
    contract_of,
    described,
    open_arguments,
    remapped_commands,
    required,
)
from ssql_ros.model.bundle import load_bundle
from ssql_ros.model.policy import make_policy
from ssql_ros.nodes.policy_node import PARAMETERS
from ssql_ros.ros.parameters import Parameter

OWN = open_arguments(PARAMETERS, "bundle", "best", "output", "seed", "bundle_folder")
ARGUMENTS = (
    CONTRACT,
    *OWN,
    NAMESPACE,
    USE_SIM_TIME,
    PARAMS_FILE,
    Parameter(
        "commands_out",
        "",
        "topic to which the driver listens: what the policy hears of what was executed; empty: the contract's",
    ),
)


def generate_launch_description() -> LaunchDescription:
    """Return the policy."""

    def nodes(values: dict) -> list:
        contract = contract_of(values)
        if values["bundle"]:
            bundle_with(values, lambda path: make_policy(load_bundle(path, contract)))
        own = {parameter.name: values[parameter.name] for parameter in OWN}
        remap = remapped_commands(values, contract, commands_out=contract.commanded.topics)
        return [required("policy_node", values, remap, contract=values["contract"], **own)]

    return described(__file__, ARGUMENTS, nodes)
