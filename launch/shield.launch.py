"""The shield alone, in front of any controller.

Remap your controller's output to `joint_commands_raw` and let the driver listen to `joint_commands`, or name both:

    ros2 launch ssql_ros shield.launch.py contract:=minitaur commands_in:=/mine/commands commands_out:=/driver/commands
"""

from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription

ARGUMENTS = (
    ("contract", "minitaur", "robot name or path of its contract YAML"),
    ("bundle", "", "path of the bundle with the safety critic; empty: the one shipped for the robot"),
    ("mode", "enforce", "enforce: decisions go to the robot; monitor: they are only published"),
    ("epsilon", "", "threshold on q_safe, above 0 and below 1; empty: the bundle's own"),
    ("namespace", "", "namespace of all nodes"),
    ("use_sim_time", "false", "true when a simulator publishes /clock"),
    ("record", "false", "true: record everything into a bag"),
    ("output", "", "folder of the bag; empty: bags/ROBOT_TIME"),
    ("commands_in", "joint_commands_raw", "topic on which the controller publishes"),
    ("commands_out", "joint_commands", "topic to which the driver listens"),
)


def generate_launch_description() -> LaunchDescription:
    """Return the shield, and the recorder if asked for."""
    value = {name: LaunchConfiguration(name) for name, _, _ in ARGUMENTS}
    use_sim_time = ParameterValue(value["use_sim_time"], value_type=bool)
    remappings = [("joint_commands_raw", value["commands_in"]), ("joint_commands", value["commands_out"])]
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, default, text in ARGUMENTS
            ),
            Node(
                package="ssql_ros",
                executable="shield_node",
                name="shield_node",
                namespace=value["namespace"],
                output="screen",
                remappings=remappings,
                parameters=[
                    {
                        "contract": ParameterValue(value["contract"], value_type=str),
                        "bundle": ParameterValue(value["bundle"], value_type=str),
                        "mode": ParameterValue(value["mode"], value_type=str),
                        "epsilon": ParameterValue(value["epsilon"], value_type=str),
                        "use_sim_time": use_sim_time,
                    }
                ],
            ),
            Node(
                package="ssql_ros",
                executable="recorder_node",
                name="recorder_node",
                namespace=value["namespace"],
                output="screen",
                condition=IfCondition(value["record"]),
                remappings=remappings,
                parameters=[
                    {
                        "contract": ParameterValue(value["contract"], value_type=str),
                        "output": ParameterValue(value["output"], value_type=str),
                        "use_sim_time": use_sim_time,
                    }
                ],
            ),
        ]
    )
