"""A bundle's policy alone: it reads the robot's sensors and publishes joint_proposals for the shield.

With the simulated Minitaur, the shield, and no other controller:

    ros2 launch ssql_ros minitaur.launch.py controller:=false
    ros2 launch ssql_ros policy.launch.py bundle:=/where/it/is.safetensors use_sim_time:=true
"""

from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription

ARGUMENTS = (
    ("contract", "minitaur", "robot name or path of its contract YAML"),
    ("bundle", "", "path of the bundle with the policy; empty: config/bundles/ROBOT_ssql"),
    ("best", "false", "true: the policy's most probable action instead of a draw"),
    ("output", "proposal", "proposal: joint_proposals for the shield; command: plain joint commands"),
    ("seed", "0", "of the first episode's draws"),
    ("bundle_folder", "", "announced bundle files are taken where they lie in this folder; empty: none are"),
    ("namespace", "", "namespace of the node"),
    ("use_sim_time", "false", "true when a simulator publishes /clock"),
    ("commands_out", "joint_commands", "topic to which the driver listens: what the policy hears of what was executed"),
)
TYPES = {"best": bool, "seed": int, "use_sim_time": bool}


def generate_launch_description() -> LaunchDescription:
    """Return the policy."""
    value = {name: LaunchConfiguration(name) for name, _, _ in ARGUMENTS}
    parameters = {
        name: ParameterValue(value[name], value_type=TYPES.get(name, str))
        for name in value
        if name not in ("namespace", "commands_out")
    }
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, default, text in ARGUMENTS
            ),
            Node(
                package="ssql_ros",
                executable="policy_node",
                name="policy_node",
                namespace=value["namespace"],
                output="screen",
                remappings=[("joint_commands", value["commands_out"])],
                parameters=[parameters],
            ),
        ]
    )
