"""A robot that learns on the job: policy_node drives, learner_node listens, learns, and announces what passes.

With a simulated robot and the shield, in three terminals or by including all three:

    ros2 launch ssql_ros robot.launch.py controller:=false bundle:=TROTS
    ros2 launch ssql_ros learn.launch.py bundle:=TROTS folder:=learned goal:=0.4 use_sim_time:=true

where TROTS is config/bundles/minitaur_trots.safetensors: the safe gaits, with the safety critic behind them.
"""

import json
from pathlib import Path

from launch import LaunchDescription
from ssql_ros.graph.launching import (
    CONTRACT,
    NAMESPACE,
    PARAMS_FILE,
    USE_SIM_TIME,
    LaunchArgumentError,
    bundle_with,
    contract_of,
    described,
    open_arguments,
    required,
)
from ssql_ros.model.bundle import load_bundle
from ssql_ros.model.policy import behaviour_of
from ssql_ros.nodes.learner_node import PARAMETERS
from ssql_ros.ros.parameters import Parameter

NAMES = ("folder", "algorithm", "announce", "settings", "replay", "disk_megabytes")
OWN = (
    *open_arguments(PARAMETERS, *NAMES),
    Parameter("goal", "", "of the reward, m/s, in place of the contract's; empty: the contract's own"),
)
ARGUMENTS = (
    CONTRACT,
    Parameter("bundle", "", "path of the bundle with the safe behaviour policy and the safety critic"),
    *OWN,
    NAMESPACE,
    USE_SIM_TIME,
    PARAMS_FILE,
)


def generate_launch_description() -> LaunchDescription:
    """Return policy and learner."""

    def nodes(values: dict) -> list:
        contract = contract_of(values)

        def load(path: Path) -> None:
            bundle = load_bundle(path, contract)
            bundle.need("critic")
            behaviour_of(bundle)

        bundle = str(bundle_with(values, load))
        if not values["folder"]:
            raise LaunchArgumentError("argument folder: expected a path, got none; give folder:=PATH, which may be new")
        try:
            json.loads(values["settings"] or "{}")
        except ValueError as error:
            raise LaunchArgumentError(
                f"argument settings: expected JSON, got {values['settings']!r}: {error}"
            ) from error
        own = {parameter.name: values[parameter.name] for parameter in OWN}
        robot = {"contract": values["contract"]}
        return [
            # The learner's offers lie in its folder: from there, and from nowhere else, the policy takes them.
            required("policy_node", values, bundle=bundle, bundle_folder=values["folder"], **robot),
            required("learner_node", values, behaviour=bundle, **robot, **own),
        ]

    return described(__file__, ARGUMENTS, nodes)
