"""The simulated Minitaur, a controller and the shield between them.

    ros2 launch ssql_ros minitaur.launch.py mode:=monitor sigma:=0.3 rho:=0.85 bound:=2.0

Without a simulator (simulator:=false) the same graph waits for a driver; without a controller (controller:=false),
for yours.
"""

from dataclasses import replace

from launch import LaunchDescription
from ssql_ros.graph.launching import NAMESPACE, SHIELD, USE_SIM_TIME, described, required, shield
from ssql_ros.nodes.behaviour_node import PARAMETERS
from ssql_ros.ros.parameters import Parameter

NOISE = tuple(parameter for parameter in PARAMETERS if parameter.name in ("sigma", "rho", "bound", "seed"))
ARGUMENTS = (
    *SHIELD,
    NAMESPACE,
    replace(USE_SIM_TIME, default=True),
    Parameter("simulator", True, "false: a driver publishes joint_states, imu/data and odom instead"),
    Parameter("real_time", True, "false: lock-step, as fast as possible"),
    Parameter("controller", True, "false: yours publishes joint_commands_raw"),
    *NOISE,
)


def generate_launch_description() -> LaunchDescription:
    """Return simulator, controller and shield."""

    def nodes(values: dict) -> list:
        started = []
        if values["simulator"]:
            started.append(required("sim_node", values, real_time=values["real_time"], seed=values["seed"]))
        if values["controller"]:
            noise = {parameter.name: values[parameter.name] for parameter in NOISE}
            started.append(required("behaviour_node", values, **noise))
        return [*started, *shield({**values, "contract": "minitaur"})]

    return described(__file__, ARGUMENTS, nodes)
