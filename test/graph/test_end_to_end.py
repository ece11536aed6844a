"""One story: simulate, record, convert, train, calibrate, serve in the shield, simulate again; real processes."""

import json
from pathlib import Path

import pytest

from ssql_ros.cli.main import main
from ssql_ros.data.data_set import DataSet
from ssql_ros.graph.processes import Graph
from ssql_ros.model.bundle import BundleError, Rule, load_bundle
from ssql_ros.model.critic import shielding_critic
from ssql_ros.msg import ShieldState
from ssql_ros.robots.tasks import find_task
from ssql_ros.ros.conductor import Conductor
from ssql_ros.ros.process import LATCHED

pytestmark = pytest.mark.ros
TASK = find_task("minitaur")
STEPS, EPISODES = 120, 4
SMALL = ["hidden=[32,32]", "actor_hidden=[32,32]", "learning_rate=0.003", "batch=64", "actor_batch=64"]
SMALL += ["gamma_safe=0.5", "tau=0.05"]


@pytest.mark.long
def test_from_a_recorded_walk_to_a_certified_bundle_in_the_shield(domain: int, tmp_path: Path, capfd) -> None:
    bag, data, run = tmp_path / "bag", tmp_path / "data", tmp_path / "run"
    with Graph(tmp_path / "first") as graph:
        graph.start("recorder_node", contract=TASK.robot, output=str(bag), use_sim_time=True)
        graph.start("sim_node", task=TASK.name, auto_reset=False, max_steps=STEPS)
        graph.start("behaviour_node", sigma=0.1, bound=0.3, use_sim_time=True)
        graph.start("shield_node", contract=TASK.robot, autostart=False, use_sim_time=True)
        with Conductor(graph.check) as conductor:
            conductor.configure_shield()
            conductor.wait_for_listener("recorder_node", ["joint_states", "imu/data", "odom", "joint_commands"])
            walked = [episode.steps for episode in conductor.episodes("monitor", 0, EPISODES)]
        for node in ("shield_node", "behaviour_node", "sim_node", "recorder_node"):
            graph.stop(node)
    assert walked == [STEPS] * EPISODES

    convert = ["bag", "convert", str(bag), "--contract", "minitaur", "--goal", "0.3", "--out", str(data), "--quiet"]
    assert main([*convert, "--json"]) == 0
    account = json.loads(capfd.readouterr().out.splitlines()[-1])
    # Every step that was walked is there, and no other.
    assert account["rows"] == STEPS * EPISODES
    assert account["episodes"] == EPISODES
    assert len(DataSet(data)) == STEPS * EPISODES

    # The bag's transitions are there already, and taken as they are.
    train = [
        "train",
        "safefql",
        "--bag",
        str(bag),
        "--transitions",
        str(data),
        "--task",
        "minitaur",
        "--steps",
        "250",
        "--out",
        str(run),
        "--quiet",
    ]
    assert main([*train, "--set", *SMALL]) == 0
    path = run / "bundle.safetensors"
    trained = tmp_path / "trained.safetensors"
    trained.write_bytes(path.read_bytes())
    certify = ["certify", str(path), "--states", "6", "--epsilon-s", "0.5", "--beta-s", "0.2", "--quiet"]
    assert main(certify) == 0
    # What six states allow to say depends on the walk; that it is said does not.
    assert "stored in" in capfd.readouterr().out
    bundle = load_bundle(path, TASK.contract())
    assert bundle.rule is Rule.MARGIN
    assert bundle.critic.certificate["n"] == 6
    if not bundle.critic.certificate["below"]:
        # Nothing is certified after so little: a shield refuses it, and serves what is not calibrated.
        with pytest.raises(BundleError, match="expected a certified threshold"):
            shielding_critic(bundle)
        path, bundle = trained, load_bundle(trained, TASK.contract())

    states: list[ShieldState] = []
    with Graph(tmp_path / "second") as graph:
        graph.start("sim_node", task=TASK.name, auto_reset=False, max_steps=STEPS)
        graph.start("policy_node", bundle=str(path), use_sim_time=True)
        graph.start("shield_node", bundle=str(path), autostart=False, use_sim_time=True)
        with Conductor(graph.check, controller="policy_node") as conductor:
            conductor.node.create_subscription(ShieldState, "shield_node/state", states.append, LATCHED)
            conductor.configure_shield()
            (episode,) = conductor.episodes("enforce", 0, 1)
    assert episode.steps > 0
    assert {state.bundle_id for state in states if state.bundle_id} == {bundle.id}
