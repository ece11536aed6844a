"""The shield alone, in front of any controller.

Remap your controller's output to `joint_commands_raw` (where commands are no JointState, to the contract's topic with
`_raw` behind it) and let the driver listen to the contract's topic (`joint_commands`), or name both:

    ros2 launch ssql_ros shield.launch.py contract:=minitaur commands_in:=/mine/commands commands_out:=/driver/commands
"""

from launch import LaunchDescription
from ssql_ros.graph.launching import (
    CONTRACT,
    NAMESPACE,
    PARAMS_FILE,
    SHIELD,
    USE_SIM_TIME,
    contract_of,
    described,
    remapped_commands,
    shield,
)
from ssql_ros.ros.parameters import Parameter

ARGUMENTS = (
    CONTRACT,
    *SHIELD,
    NAMESPACE,
    USE_SIM_TIME,
    PARAMS_FILE,
    Parameter(
        "commands_in",
        "",
        "topic on which the controller publishes, with {joint} where each joint has one; empty: the contract's",
    ),
    Parameter("commands_out", "", "topic to which the driver listens, likewise; empty: the contract's"),
)


def generate_launch_description() -> LaunchDescription:
    """Return the shield, and the recorder if asked for."""

    def nodes(values: dict) -> list:
        contract = contract_of(values)
        told = contract.commanded
        remap = remapped_commands(values, contract, commands_in=told.raw_topics, commands_out=told.topics)
        return shield(values, remap)

    return described(__file__, ARGUMENTS, nodes)
