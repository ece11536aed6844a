"""A robot that learns on the job: policy_node drives, learner_node listens, learns, and announces what passes.

With the simulated Minitaur and the shield, in three terminals or by including all three:

    ros2 launch ssql_ros minitaur.launch.py controller:=false bundle:=TROTS
    ros2 launch ssql_ros learn.launch.py bundle:=TROTS folder:=learned goal:=0.4 use_sim_time:=true

where TROTS is config/bundles/minitaur_trots.safetensors: the safe gaits, with the safety critic behind them.
"""

from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription

ARGUMENTS = (
    ("contract", "minitaur", "robot name or path of its contract YAML"),
    ("bundle", "", "path of the bundle with the safe behaviour policy and the safety critic"),
    ("folder", "", "where the learner keeps buffer, checkpoint and offers; an old one is gone on with"),
    ("goal", "", "of the reward, m/s, in place of the contract's; empty: the contract's own"),
    ("algorithm", "ssql", "what learns: ssql or iql"),
    ("announce", "true", "announce what passes every gate; else it only lies in the folder"),
    ("settings", "{}", "of the algorithm, JSON by name"),
    ("replay", "500000", "transitions in memory; beyond them the oldest are forgotten"),
    ("disk_megabytes", "2048", "MB of transitions on disk; beyond them the oldest go"),
    ("namespace", "", "namespace of the nodes"),
    ("use_sim_time", "false", "true when a simulator publishes /clock"),
)


def generate_launch_description() -> LaunchDescription:
    """Return policy and learner."""
    value = {name: LaunchConfiguration(name) for name, _, _ in ARGUMENTS}

    def typed(name: str, kind: type) -> ParameterValue:
        return ParameterValue(value[name], value_type=kind)

    common = {"contract": typed("contract", str), "use_sim_time": typed("use_sim_time", bool)}
    nodes = (
        ("policy_node", {"bundle": typed("bundle", str)}),
        (
            "learner_node",
            {
                "behaviour": typed("bundle", str),
                "folder": typed("folder", str),
                "goal": typed("goal", str),
                "algorithm": typed("algorithm", str),
                "announce": typed("announce", bool),
                "settings": typed("settings", str),
                "replay": typed("replay", int),
                "disk_megabytes": typed("disk_megabytes", int),
            },
        ),
    )
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, default, text in ARGUMENTS
            ),
            *(
                Node(
                    package="ssql_ros",
                    executable=name,
                    name=name,
                    namespace=value["namespace"],
                    output="screen",
                    parameters=[{**common, **parameters}],
                )
                for name, parameters in nodes
            ),
        ]
    )
