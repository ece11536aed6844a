"""The simulated Minitaur, a controller and the shield between them.

    ros2 launch ssql_ros minitaur.launch.py mode:=monitor sigma:=0.3 rho:=0.85 bound:=2.0

Without a simulator (simulator:=false) the same graph waits for a driver; without a controller (controller:=false),
for yours.
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription

SHIELD_ARGUMENTS = (
    ("bundle", "", "path of the bundle with the safety critic; empty: the one shipped"),
    ("mode", "enforce", "enforce: decisions go to the robot; monitor: they are only published"),
    ("epsilon", "", "threshold on q_safe, above 0 and below 1; empty: the bundle's own"),
    ("namespace", "", "namespace of all nodes"),
    ("use_sim_time", "true", "true when the simulator publishes /clock"),
    ("record", "false", "true: record everything into a bag"),
    ("output", "", "folder of the bag; empty: bags/ROBOT_TIME"),
)
ARGUMENTS = (
    ("simulator", "true", "false: a driver publishes joint_states, imu/data and odom instead"),
    ("real_time", "true", "false: lock-step, as fast as possible"),
    ("controller", "true", "false: yours publishes joint_commands_raw"),
    ("sigma", "0.1", "noise of the scripted trot, action units"),
    ("rho", "0.0", "correlation of the noise from step to step"),
    ("bound", "0.3", "largest deviation from the trot; 2 bounds nothing"),
    ("seed", "0", "of the first episode"),
)


def generate_launch_description() -> LaunchDescription:
    """Return simulator, controller and shield."""
    declared = (*SHIELD_ARGUMENTS, *ARGUMENTS)
    value = {name: LaunchConfiguration(name) for name, _, _ in declared}
    seed = ParameterValue(value["seed"], value_type=int)
    use_sim_time = ParameterValue(value["use_sim_time"], value_type=bool)
    shield = PythonLaunchDescriptionSource(str(Path(__file__).parent / "shield.launch.py"))
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(name, default_value=default, description=text) for name, default, text in declared),
            Node(
                package="ssql_ros",
                executable="sim_node",
                name="sim_node",
                namespace=value["namespace"],
                output="screen",
                condition=IfCondition(value["simulator"]),
                parameters=[{"real_time": ParameterValue(value["real_time"], value_type=bool), "seed": seed}],
            ),
            Node(
                package="ssql_ros",
                executable="behaviour_node",
                name="behaviour_node",
                namespace=value["namespace"],
                output="screen",
                condition=IfCondition(value["controller"]),
                parameters=[
                    {
                        **{name: ParameterValue(value[name], value_type=float) for name in ("sigma", "rho", "bound")},
                        "seed": seed,
                        "use_sim_time": use_sim_time,
                    }
                ],
            ),
            IncludeLaunchDescription(shield, launch_arguments=[(name, value[name]) for name, _, _ in SHIELD_ARGUMENTS]),
        ]
    )
