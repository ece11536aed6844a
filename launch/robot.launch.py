"""A simulated robot, a controller and the shield between them.

    ros2 launch ssql_ros robot.launch.py task:=minitaur mode:=monitor sigma:=0.3 rho:=0.85 bound:=2.0

Without a simulator (simulator:=false) the same graph waits for a driver; without a controller (controller:=false),
for yours.
"""

from dataclasses import replace

from launch import LaunchDescription
from ssql_ros.graph.launching import (
    NAMESPACE,
    PARAMS_FILE,
    SHIELD,
    USE_SIM_TIME,
    described,
    open_arguments,
    required,
    shield,
    task_of,
)
from ssql_ros.nodes.behaviour_node import PARAMETERS
from ssql_ros.robots import DEFAULT
from ssql_ros.ros.parameters import Parameter

BEHAVIOUR = open_arguments(PARAMETERS, "behaviour", "sigma", "rho", "bound", "seed")
ARGUMENTS = (
    Parameter("task", DEFAULT, "which robot, and what it is to do"),
    *SHIELD,
    NAMESPACE,
    replace(USE_SIM_TIME, default=True),
    PARAMS_FILE,
    Parameter("simulator", True, "false: a driver publishes the sensors instead"),
    Parameter("real_time", True, "false: lock-step, as fast as possible"),
    Parameter("controller", True, "false: yours publishes joint_commands_raw"),
    *BEHAVIOUR,
)


def generate_launch_description() -> LaunchDescription:
    """Return simulator, controller and shield."""

    def nodes(values: dict) -> list:
        task = task_of(values)
        values["contract"] = task.robot
        started = []
        if values["simulator"]:
            own = {"task": task.name, "real_time": values["real_time"], "seed": values["seed"]}
            started.append(required("sim_node", values, **own))
        if values["controller"]:
            behaviour = {parameter.name: values[parameter.name] for parameter in BEHAVIOUR}
            started.append(required("behaviour_node", values, contract=task.robot, **behaviour))
        return [*started, *shield(values)]

    return described(__file__, ARGUMENTS, nodes)
