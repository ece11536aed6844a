"""A policy of stable-baselines3 behind the shield: a simulated boat, the shield, the policy that was imported.

ssql bundle import ppo_boat.zip --task boat --out ppo_boat.safetensors
ros2 launch examples/foreign_sb3_policy.launch.py policy:=ppo_boat.safetensors
"""

from dataclasses import replace

from launch import LaunchDescription
from ssql_ros.graph.launching import CONTRACT, NAMESPACE, PARAMS_FILE, SHIELD, USE_SIM_TIME, described, required, shield
from ssql_ros.ros.parameters import Parameter

ARGUMENTS = (
    Parameter("policy", "ppo_boat.safetensors", "bundle that `ssql bundle import` has made of the policy"),
    replace(CONTRACT, default="boat"),
    *SHIELD,
    NAMESPACE,
    replace(USE_SIM_TIME, default=True),
    PARAMS_FILE,
)


def generate_launch_description() -> LaunchDescription:
    """Return simulator, shield, and the policy, which is served by a node of its own."""

    def nodes(values: dict) -> list:
        world = {"task": "boat", "contract": values["contract"], "real_time": True}
        policy = {"contract": values["contract"], "bundle": values["policy"], "best": True}
        return [
            required("sim_node", values, **world),
            *shield(values),
            required("policy_node", values, **policy),
        ]

    return described(__file__, ARGUMENTS, nodes)
