"""The shield alone, in front of any controller.

Remap your controller's output to `joint_commands_raw` and let the driver listen to `joint_commands`, or name both:

    ros2 launch ssql_ros shield.launch.py contract:=minitaur commands_in:=/mine/commands commands_out:=/driver/commands
"""

from launch import LaunchDescription
from ssql_ros.graph.launching import (
    CONTRACT,
    NAMESPACE,
    PARAMS_FILE,
    SHIELD,
    USE_SIM_TIME,
    check_topics,
    described,
    shield,
)
from ssql_ros.ros.parameters import Parameter

ARGUMENTS = (
    CONTRACT,
    *SHIELD,
    NAMESPACE,
    USE_SIM_TIME,
    PARAMS_FILE,
    Parameter("commands_in", "joint_commands_raw", "topic on which the controller publishes"),
    Parameter("commands_out", "joint_commands", "topic to which the driver listens"),
)


def generate_launch_description() -> LaunchDescription:
    """Return the shield, and the recorder if asked for."""

    def nodes(values: dict) -> list:
        check_topics(values, "commands_in", "commands_out")
        return shield(values, {"joint_commands_raw": values["commands_in"], "joint_commands": values["commands_out"]})

    return described(__file__, ARGUMENTS, nodes)
