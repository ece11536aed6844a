"""The teleoperator of foreign_teleop.py behind the shield: a simulated boat, the shield, the teleoperator.

ros2 launch examples/foreign_teleop.launch.py contract:=boat_twist.yaml bundle:=boat_twist.safetensors
"""

import sys
from dataclasses import replace
from pathlib import Path

from launch.actions import ExecuteProcess

from launch import LaunchDescription
from ssql_ros.graph.launching import CONTRACT, NAMESPACE, PARAMS_FILE, SHIELD, USE_SIM_TIME, described, required, shield

ARGUMENTS = (
    replace(CONTRACT, default="boat_twist.yaml"),
    *SHIELD,
    NAMESPACE,
    replace(USE_SIM_TIME, default=True),
    PARAMS_FILE,
)
PROGRAM = Path(__file__).with_name("foreign_teleop.py")
REMAP = "cmd_vel:=cmd_vel_raw"


def generate_launch_description() -> LaunchDescription:
    """Return simulator, shield, and the program, whose output goes to the shield."""

    def nodes(values: dict) -> list:
        world = {"task": "boat", "contract": values["contract"], "real_time": True}
        program = [sys.executable, str(PROGRAM), "--ros-args", "-r", REMAP]
        return [
            required("sim_node", values, **world),
            *shield(values),
            ExecuteProcess(cmd=program, output="screen"),
        ]

    return described(__file__, ARGUMENTS, nodes)
