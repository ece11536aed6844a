"""What the learner hears of drivers that are not ours, and of robots that are no Minitaur, over real processes."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rclpy
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.experimental.events_executor import EventsExecutor
from rclpy.node import Node
from safetensors.numpy import load_file

from ssql_ros.contract import config_folder, find_contract, load_contract
from ssql_ros.graph.processes import Graph
from ssql_ros.model.bundle import load_bundle, save_bundle
from ssql_ros.model.probes import with_probes
from ssql_ros.robots.tasks import find_task
from support.nodes import refusal

DRIVER = Path(__file__).with_name("foreign_driver.py")
BUNDLES = config_folder() / "bundles"


class Listener:
    """Hears /diagnostics of the learner."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        rclpy.init()
        self.node = Node("listener")
        self._executor = EventsExecutor()
        self._executor.add_node(self.node)
        self.learner: dict[str, str] = {}
        self.message = ""
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith(": learner"):
                self.message = status.message
                self.learner = {value.key: value.value for value in status.values}

    def number(self, name: str) -> int:
        return int(self.learner.get(name) or 0)

    def wait(self, condition: Callable[[], object], seconds: float = 120.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (self.message, self.learner)
            self._graph.check()
            self._executor.spin_once(timeout_sec=0.1)

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.remove_node(self.node)
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()


def with_uniform(path: Path, robot: str, critic: Path) -> Path:
    """A bundle whose behaviour policy may do anything: any controller's actions are its own."""
    contract = find_task(robot).contract()
    size = contract.action_size
    behaviour = {"kind": "uniform", "low": [-1.0] * size, "high": [1.0] * size, "context": 0}
    bundle = load_bundle(critic, contract)
    other = replace(bundle, policy=None, policy_kind="behaviour", behaviour=behaviour, probes={})
    return Path(save_bundle(with_probes(other, contract), path).path)


def rows_of(folder: Path) -> dict[str, np.ndarray]:
    chunks = [load_file(path) for path in sorted((folder / "buffer").glob("chunk_*"))]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


@pytest.mark.ros
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "wanted",
    [{"best_effort": True, "imu_ahead": -3_000_000}, {"imu_ahead": 1_000_000, "garbage": True}],
)
def test_a_foreign_driver_gives_as_many_transitions_as_periods(tmp_path: Path, domain: int, wanted: dict) -> None:
    bundle = with_uniform(tmp_path / "any.safetensors", "minitaur", BUNDLES / "minitaur_critic.safetensors")
    folder = tmp_path / "learner"
    with Graph(tmp_path / "logs") as graph:
        graph.start("learner_node", behaviour=str(bundle), folder=str(folder))
        with Listener(graph) as listener:
            listener.wait(lambda: "waiting for" in listener.message and "0 publishers" in listener.message)
            subprocess.run(
                [sys.executable, str(DRIVER), json.dumps({"frames": 100, **wanted})], check=True, timeout=120
            )
            if wanted.get("garbage"):
                # Three messages on each of four topics; those on model_status end nothing either.
                listener.wait(lambda: listener.number("unreadable") == 12)
            listener.wait(lambda: listener.number("periods") > 0)
        graph.stop("learner_node", 30.0)
    rows = rows_of(folder)
    assert len(rows["reward"]) == 99
    np.testing.assert_allclose(rows["action"][:, 0], 0.01 * (np.arange(99) % 20), atol=1e-6)
    np.testing.assert_array_equal(rows["proposal"], rows["action"])
    assert np.unique(np.diff(rows["stamp"])).tolist() == [20_000_000]
    # 0.05 m/s against the contract's goal of 0.3, less what the actions jerk.
    assert rows["reward"][5] == pytest.approx(0.05, abs=1e-3)
    assert rows["first"].tolist() == [1.0] + 98 * [0.0]


@pytest.mark.ros
@pytest.mark.timeout(300)
def test_a_robot_that_is_put_elsewhere_is_told_and_no_transition_spans_it(tmp_path: Path, domain: int) -> None:
    bundle = with_uniform(tmp_path / "any.safetensors", "minitaur", BUNDLES / "minitaur_critic.safetensors")
    folder = tmp_path / "learner"
    with Graph(tmp_path / "logs") as graph:
        graph.start("learner_node", behaviour=str(bundle), folder=str(folder))
        with Listener(graph) as listener:
            listener.wait(lambda: "waiting for" in listener.message and "0 publishers" in listener.message)
            wanted = {"frames": 100, "carried": 50}
            subprocess.run([sys.executable, str(DRIVER), json.dumps(wanted)], check=True, timeout=120)
            listener.wait(lambda: listener.number("resets") == 1)
            assert "the position on odom moved by 2 m" in listener.learner["first_reset"]
        graph.stop("learner_node", 30.0)
    rows = rows_of(folder)
    assert 90 <= len(rows["reward"]) <= 98
    # No step of 2 m in one period, and an end that nobody knows is no incident.
    np.testing.assert_allclose(rows["reward"], 0.05, atol=1e-3)
    assert np.diff(rows["stamp"]).max() >= 40_000_000
    assert not rows["incident"].any()


def place_reward(tmp_path: Path) -> str:
    """The spider's contract with a reward."""
    document = yaml.safe_load(find_contract("spider").read_text())
    document["reward"] = {"kind": "distance", "input": "odometry", "goal": [6.5, 3.5]}
    path = tmp_path / "spider.yaml"
    path.write_text(yaml.safe_dump(document))
    return str(path)


@pytest.mark.ros
@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("robot", "algorithm"), [("boat", "ssql"), ("spider", "iql")])
def test_a_robot_that_is_no_minitaur_is_learned_from_and_a_round_is_judged(
    tmp_path: Path, domain: int, robot: str, algorithm: str
) -> None:
    folder, contract = tmp_path / "learner", robot
    settings = {"hidden": [32, 32], "batch": 64, "gamma": 0.5, "tau": 0.2, "learning_rate": 3e-3}
    if algorithm == "ssql":
        settings |= {"samples": 4, "extraction_updates": 50, "extraction_samples": 8}
    with Graph(tmp_path / "logs") as graph:
        if robot == "boat":
            bundle = with_uniform(tmp_path / "any.safetensors", "boat", BUNDLES / "boat_safefql.safetensors")
            graph.start("sim_node", task="boat")
            graph.start("behaviour_node", contract="boat", use_sim_time=True)
        else:
            task, contract = find_task("spider"), place_reward(tmp_path)
            source = load_bundle(BUNDLES / "spider_sqrl.safetensors", task.contract())
            # The safe rooms act, and are what is learned from.
            made = replace(source, policy=None, policy_kind="behaviour", behaviour=task.behaviour, probes={})
            made = with_probes(made, load_contract(contract))
            bundle = Path(save_bundle(made, tmp_path / "rooms.safetensors").path)
            graph.start("sim_node", task="spider")
            graph.start("policy_node", contract=contract, bundle=str(bundle), use_sim_time=True)
        shield = {"contract": contract, "bundle": str(bundle), "use_sim_time": True}
        graph.start("shield_node", **shield)
        limits = {"first_steps": 500, "round_updates": 100, "shadow_steps": 50, "updates_per_step": 5.0}
        source = {"contract": contract, "behaviour": str(bundle), "folder": str(folder)}
        graph.start("learner_node", **source, algorithm=algorithm, settings=json.dumps(settings), **limits)
        with Listener(graph) as listener:
            # Until a round has come to the gates that need the states of now, passed or not.
            listener.wait(lambda: "return: " in listener.learner.get("verdict", ""), 400.0)
            assert listener.number("made") > 500
            assert listener.learner["exceptions"] == ""
        graph.stop("learner_node", 30.0)
    rows, made = rows_of(folder), load_bundle(bundle, find_task(robot).contract())
    goal = np.array([1.5, 0.0] if robot == "boat" else [6.5, 3.5])
    expected = -np.linalg.norm(rows["observation"] - goal, axis=1)
    np.testing.assert_allclose(rows["reward"], expected, atol=1e-5)
    for path in (folder / "offered").glob("round_*"):
        offered = load_bundle(path, find_task(robot).contract())
        # The critic with its rule goes along.
        rules = [(bundle.critic.rule, getattr(bundle.critic, "delta", None)) for bundle in (offered, made)]
        assert rules[0] == rules[1]
        assert offered.policy_kind == "supported_gaussian"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"contract": "boat", "goal": 0.4}, "parameter goal: "),
        ({"contract": "spider"}, "key 'reward' is missing"),
        ({"contract": "boat", "goal": "fast"}, "parameter goal: expected a number in m/s"),
        ({"contract": "boat", "algorithm": "cpo"}, "expected one of ssql, iql"),
        ({"contract": "boat", "settings": "[1]"}, "parameter settings: expected JSON by name"),
    ],
)
def test_what_does_not_fit_the_contract_is_refused(
    tmp_path: Path, domain: int, capfd: pytest.CaptureFixture[str], changed: dict, expected: str
) -> None:
    robot = changed["contract"]
    critic = BUNDLES / ("boat_safefql.safetensors" if robot == "boat" else "spider_sqrl.safetensors")
    bundle = with_uniform(tmp_path / "any.safetensors", robot, critic)
    said = refusal("learner_node", capfd, behaviour=str(bundle), folder=str(tmp_path / "learner"), **changed)
    assert expected in said
