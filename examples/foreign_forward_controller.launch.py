"""The gait of foreign_forward_controller.py behind the shield: a simulated Minitaur, the shield, the gait.

ros2 launch examples/foreign_forward_controller.launch.py
"""

import sys
from dataclasses import replace
from pathlib import Path

from launch.actions import ExecuteProcess

from launch import LaunchDescription
from ssql_ros.graph.launching import CONTRACT, NAMESPACE, PARAMS_FILE, SHIELD, USE_SIM_TIME, described, required, shield

ARGUMENTS = (CONTRACT, *SHIELD, NAMESPACE, replace(USE_SIM_TIME, default=True), PARAMS_FILE)
PROGRAM = Path(__file__).with_name("foreign_forward_controller.py")
REMAP = "position_controller/commands:=forward_commands_raw"


def generate_launch_description() -> LaunchDescription:
    """Return simulator, shield, and the program, whose output goes to the shield."""

    def nodes(values: dict) -> list:
        world = {"task": "minitaur", "contract": values["contract"], "real_time": True}
        program = [sys.executable, str(PROGRAM), "--ros-args", "-r", REMAP]
        return [
            required("sim_node", values, **world),
            *shield(values),
            ExecuteProcess(cmd=program, output="screen"),
        ]

    return described(__file__, ARGUMENTS, nodes)
