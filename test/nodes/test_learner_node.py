"""A robot that learns on the job, over real processes: what must never happen to it when the learner is hurt."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from std_srvs.srv import Trigger

from ssql_ros.contract import config_folder
from ssql_ros.graph.processes import Graph
from ssql_ros.model.bundle import load_bundle
from ssql_ros.msg import ModelStatus, Proposal, ShieldState
from ssql_ros.robots.tasks import find_task
from ssql_ros.ros.conductor import Conductor
from ssql_ros.ros.process import ANSWERS, COMMAND, EVENT, LATCHED
from support.nodes import refusal

TASK = find_task("minitaur_trots")
GAITS = config_folder() / "bundles" / "minitaur_trots.safetensors"
# A short horizon is learned in seconds.
SETTINGS = {"hidden": [32, 32], "batch": 64, "samples": 4, "gamma": 0.5, "tau": 0.2, "learning_rate": 3e-3}
SETTINGS |= {"extraction_updates": 100, "extraction_samples": 8}


class Watched(Conductor):
    """A conductor that also hears what learner and receivers say."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph.check, controller="policy_node")
        self.statuses: list[ModelStatus] = []
        self.learner: dict[str, str] = {}
        self.states: list[ShieldState] = []
        self.node.create_subscription(ModelStatus, "model_status", self.statuses.append, ANSWERS)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.node.create_subscription(ShieldState, "shield_node/state", self.states.append, LATCHED)
        self.proposals = self.node.create_publisher(Proposal, "joint_proposals", COMMAND)
        self.odometry = self.node.create_publisher(Odometry, "odom", EVENT)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith(": learner"):
                self.learner = {value.key: value.value for value in status.values}

    def ask(self, service: str) -> Trigger.Response:
        return self._call(Trigger, f"learner_node/{service}", Trigger.Request())

    def accepted(self) -> set[str]:
        return {s.node.lstrip("/") for s in self.statuses if s.status == ModelStatus.ACCEPTED}

    def number(self, name: str) -> int:
        return int(self.learner.get(name) or 0)


@pytest.fixture
def graph(domain: int, tmp_path: Path) -> Iterator[Graph]:
    with Graph(tmp_path / "logs") as running:
        running.start("sim_node", task=TASK.name, auto_reset=False, max_steps=200)
        offers = str(tmp_path / "learner")
        running.start("policy_node", bundle=str(GAITS), bundle_folder=offers, use_sim_time=True)
        running.start("shield_node", bundle=str(GAITS), bundle_folder=offers, autostart=False, use_sim_time=True)
        running.start(
            "learner_node",
            behaviour=str(GAITS),
            folder=str(tmp_path / "learner"),
            goal=0.4,
            first_steps=600,
            round_updates=300,
            shadow_steps=100,
            updates_per_step=5.0,
            settings=json.dumps(SETTINGS),
        )
        yield running


@pytest.mark.ros
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_robot_learns_on_the_job_and_nothing_that_befalls_the_learner_reaches_it(
    graph: Graph, tmp_path: Path
) -> None:
    with Watched(graph) as conductor:
        conductor.configure_shield()
        conductor.wait_for_listener("learner_node", ["joint_states", "odom", "joint_commands", "joint_proposals"])
        walked = incidents = 0
        # Until a policy has passed every gate and is taken: how long it walks for that is the machine's.
        end = time.monotonic() + 400.0
        while "policy_node" not in conductor.accepted():
            for episode in conductor.episodes("enforce", walked, 1):
                walked, incidents = walked + 1, incidents + episode.incident
            assert time.monotonic() < end, conductor.learner
        assert incidents == 0
        assert conductor.accepted() == {"policy_node"}  # the critic in force stays
        offered = sorted((tmp_path / "learner" / "offered").iterdir())
        bundle = load_bundle(offered[0], TASK.contract())
        assert bundle.policy_kind == "supported_gaussian"
        assert [gate["name"] for gate in bundle.provenance["gates"]] == ["calibration", "support", "shadow", "return"]
        assert all(gate["passed"] for gate in bundle.provenance["gates"])
        accepted = [s.bundle_id for s in conductor.statuses if s.status == ModelStatus.ACCEPTED]
        assert bundle.id in accepted

        # Services.
        assert conductor.ask("pause").success
        conductor.wait(lambda: conductor.learner.get("paused") == "True", "the learner to pause")
        exported = conductor.ask("export")
        assert exported.success
        assert load_bundle(exported.message, TASK.contract()).policy is not None

        # Garbage is counted, and nothing else comes of it.
        before = conductor.number("unreadable")
        conductor.proposals.publish(Proposal(contract_id="another", action=[0.0] * 8))
        wild = Odometry()
        wild.pose.pose.position.x = float("nan")
        conductor.odometry.publish(wild)
        conductor.wait(lambda: conductor.number("unreadable") >= before + 2, "garbage to be counted")

        # A worker that is killed is started again; its node goes on.
        (worker,) = children(graph.processes["learner_node"].pid)
        os.kill(worker, signal.SIGKILL)
        conductor.wait(lambda: conductor.number("restarts") == 1, "the worker to be started again")
        assert conductor.number("made") > 0

        # A learner that is killed changes nothing of what the shield does.
        graph.processes["learner_node"].kill()
        graph.processes["learner_node"].wait()
        graph.stop("learner_node")
        in_force = conductor.states[-1].bundle_id
        for episode in conductor.episodes("enforce", walked, 2):
            assert not episode.incident
            assert episode.steps == 200
        assert conductor.states[-1].bundle_id == in_force
        assert conductor.states[-1].mode == ShieldState.ENFORCE


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"behaviour": ""}, "parameter behaviour: expected a path"),
        ({"settings": "{"}, "parameter settings: expected JSON"),
        ({"behaviour": "/nowhere.safetensors"}, "/nowhere.safetensors: cannot be read"),
        ({"behaviour": str(TASK.bundle_path())}, "behaviour policy None is unknown"),
    ],
)
def test_a_learner_that_cannot_begin_says_why(
    tmp_path: Path, domain: int, capfd: pytest.CaptureFixture[str], changed: dict[str, str], expected: str
) -> None:
    parameters = {"behaviour": str(GAITS), "folder": str(tmp_path / "learner"), **changed}
    assert expected in refusal("learner_node", capfd, **parameters)
