"""The learner as a node: listens to what a robot publishes, never stands in its way, and announces what passes.

What it hears becomes transitions as a bag's messages do, and is kept on disk; a process of its own learns from them
(see learning/live_worker.py), so that no gradient step ever delays a callback. A policy that has passed every gate is
announced on `model_announcements`; who serves policies and shields verifies it again.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter
from std_srvs.srv import Trigger

from ssql_ros.contract import find_contract, load_contract
from ssql_ros.data.rewards import reward_of
from ssql_ros.live.buffer import LiveBuffer, recorded_from
from ssql_ros.live.settings import LIVE_ALGORITHMS, LiveSettings, claim
from ssql_ros.live.writer import CHUNK, LiveWriter
from ssql_ros.model.bundle import load_bundle, write_whole
from ssql_ros.model.policy import behaviour_of
from ssql_ros.nodes.learner_inputs import LearnerInputs
from ssql_ros.nodes.offers import Offers
from ssql_ros.nodes.worker_process import WorkerProcess
from ssql_ros.robots import DEFAULT
from ssql_ros.ros.announcer import Announcer
from ssql_ros.ros.diagnostics import Diagnostics
from ssql_ros.ros.guard import Guard
from ssql_ros.ros.parameters import Parameter, declare
from ssql_ros.ros.process import run_node

PARAMETERS = (
    Parameter("contract", DEFAULT, "robot name or path of its contract YAML", fixed=True),
    Parameter("behaviour", "", "bundle that tells the behaviour policy; its critic judges in shadow", fixed=True),
    Parameter("folder", "", "where buffer, checkpoint and offers lie; an old one is gone on with", fixed=True),
    Parameter("algorithm", "ssql", "what learns", choices=LIVE_ALGORITHMS, fixed=True),
    Parameter("settings", "{}", 'of the algorithm, JSON by name, e.g. {"temperature": 0.02}', fixed=True),
    Parameter("first_steps", 2000, "transitions before learning begins", low=1, high=10**9, fixed=True),
    Parameter("updates_per_step", 1.0, "gradient steps a transition, at most", low=1e-3, high=1e3, fixed=True),
    Parameter("round_updates", 3000, "gradient steps before a policy is judged", low=1, high=10**9, fixed=True),
    Parameter("shadow_steps", 250, "transitions that it is judged on in shadow", low=1, high=10**6, fixed=True),
    Parameter("return_margin", 0.05, "of the returns' range: how much worse it may be", low=0.0, high=1.0, fixed=True),
    Parameter("goal", None, "of the reward, in place of the contract's, m/s; not set or empty: its own", fixed=True),
    Parameter("replay", 500_000, "transitions in memory; beyond them the oldest are forgotten", 1, 10**8, fixed=True),
    Parameter("disk_megabytes", 2048, "MB of transitions on disk; beyond them the oldest go", 1, 10**7, fixed=True),
    Parameter("most_unwritten", 20_000, "transitions that may wait for the disk", CHUNK, 10**7, fixed=True),
    Parameter("seed", 0, "of the networks", low=0, high=2**31 - 1, fixed=True),
    Parameter("announce", True, "announce what passes every gate; else it only lies in the folder"),
    Parameter("signing_key", "", "private key that signs announcements; empty: none does", fixed=True),
    Parameter("with_data", True, "the file goes along in the announcement, for other machines"),
)
PASSED_ON = ("first_steps", "updates_per_step", "round_updates", "shadow_steps", "return_margin", "replay", "seed")
TOLD = ("steps", "updates", "rounds", "critic_loss", "incidents", "breaches", "overridden", "paused", "refused_chunks")


class LearnerNode(Node):
    """Listens, keeps, and announces; the worker learns."""

    def __init__(self) -> None:
        super().__init__("learner_node")
        self.value_of = declare(self, PARAMETERS)
        self.contract = load_contract(find_contract(self.value_of("contract")))
        for name in ("behaviour", "folder"):
            if not self.value_of(name):
                raise ValueError(f"parameter {name}: expected a path, got none")
        shield = load_bundle(self.value_of("behaviour"), self.contract)
        shield.need("critic")
        behaviour, goal = behaviour_of(shield), self._goal()
        try:
            reward = reward_of(self.contract, goal)
        except ValueError as error:
            raise ValueError(f"parameter goal: {error}; leave it empty" if goal is not None else str(error)) from error
        self._folder = Path(self.value_of("folder")).absolute()
        self._lock = self._claim()
        source = recorded_from(self.contract, behaviour, reward)
        sizes = (self.contract.observation_size, behaviour.n_context, self.contract.action_size)
        buffer = LiveBuffer(self._folder / "buffer", sizes, source)
        buffer.claim()
        self._write_settings(shield.path, behaviour.describe(), source)
        self._writer = LiveWriter(buffer, self.value_of("disk_megabytes") * 10**6, self.value_of("most_unwritten"))
        self.guard = Guard(self.get_logger())
        self._inputs = LearnerInputs(self, self.contract, reward, behaviour.n_context, self.guard, self._writer.add)
        self._offers = Offers(self, Announcer(self, "learner_node", self.value_of("signing_key")), self.contract.id)
        self._state: dict[str, Any] = {}
        self._problem, self._verdict, self._fault, self._retired = "", "none yet", "", 0
        self._worker = WorkerProcess(self._folder, self.get_logger())
        for name in ("pause", "resume", "train"):
            self.create_service(Trigger, f"~/{name}", self.guard.service(name, self._pass_on(name)))
        self.create_service(Trigger, "~/export", self.guard.service("export", self._on_export))
        self.add_post_set_parameters_callback(self._on_parameters)
        self._diagnostics = Diagnostics(self, "learner", self._describe)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        parts = (
            (0.1, self._keep),
            (0.1, self._serve_worker),
            (0.1, self._offers.hear),
            (1.0, self._diagnostics.publish),
        )
        for period, serve in parts:
            self.create_timer(period, self.guard(serve.__name__, serve), clock=steady)

    def _goal(self) -> float | None:
        """Return the goal that is put in the place of the contract's; None: none is. A number, or a text of one."""
        given = self.value_of("goal")
        if given is None or given == "":
            return None
        try:
            goal = math.nan if isinstance(given, (bool, list)) else float(given)
        except (ValueError, TypeError):
            goal = math.nan
        if not math.isfinite(goal):
            raise ValueError(f"parameter goal: expected a number in m/s, or nothing, got {given!r}")
        return goal

    def _claim(self) -> Any:
        try:
            return claim(self._folder / "learner.lock", wait=False)
        except BlockingIOError as error:
            raise ValueError(f"parameter folder: {self._folder} is in use by another learner") from error

    def _write_settings(self, shield: str, behaviour: dict[str, Any], source: dict[str, Any]) -> None:
        try:
            algorithm = json.loads(self.value_of("settings"))
        except ValueError as error:
            raise ValueError(f"parameter settings: expected JSON, got {self.value_of('settings')!r}") from error
        if not isinstance(algorithm, dict):
            raise ValueError(f"parameter settings: expected JSON by name, got {self.value_of('settings')!r}")
        settings = LiveSettings(
            contract=str(Path(self.contract.path).absolute()),
            behaviour=behaviour,
            shield=str(Path(shield).absolute()),
            source=source,
            algorithm=self.value_of("algorithm"),
            settings=algorithm,
            **{name: self.value_of(name) for name in PASSED_ON},
        )
        write_whole(self._folder / "live.json", json.dumps(dataclasses.asdict(settings), indent=1).encode())

    def _on_parameters(self, changes: list[RosParameter]) -> None:
        if any(change.name == "announce" and change.value for change in changes):
            self._offers.ask_again()

    def _keep(self) -> None:
        """Bring what is complete to disk; say once when that fails, and once when it works again."""
        self._writer.write()
        fault, before = self._writer.fault, self._fault
        self._fault = fault
        if fault and not before:
            self.get_logger().error(f"{fault}; transitions wait in memory, and are tried again every second")
        elif before and not fault:
            self.get_logger().info(f"the disk takes transitions again; {self._writer.lost} were lost meanwhile")
        if self._writer.retired > self._retired:
            gone, self._retired = self._writer.retired - self._retired, self._writer.retired
            limit = self.value_of("disk_megabytes")
            self.get_logger().info(f"the {gone} oldest chunks went: the buffer has reached {limit} MB (disk_megabytes)")

    # The worker.

    def _serve_worker(self) -> None:
        for message in self._worker.told():
            if message["event"] == "progress":
                self._state = message
            elif message["event"] == "judged":
                self._on_verdict(message)
            elif message["event"] == "problem":
                self._problem = str(message.get("words"))
                self.get_logger().error(f"worker: {self._problem}")

    def _on_verdict(self, message: dict[str, Any]) -> None:
        number = message["round"]
        words = "; ".join(f"{gate['name']}: {gate['words']}" for gate in message["gates"])
        failed = [gate["name"] for gate in message["gates"] if not gate["passed"]]
        self._verdict = f"round {number}: {'passed' if message['passed'] else 'refused'}: {words}"
        if not message["passed"]:
            self.get_logger().warning(f"round {number} is not announced, {', '.join(failed)} failed: {words}")
            return
        self.get_logger().info(self._verdict)
        if self.value_of("announce"):
            path, with_data = Path(message["path"]), self.value_of("with_data")
            self._offers.offer(number, path, with_data, f"learned live: {self._verdict}")

    def _pass_on(self, word: str) -> Callable[[Trigger.Request, Trigger.Response], Trigger.Response]:
        def serve(_request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            response.success = self._worker.say(word)
            response.message = f"the worker is told to {word}" if response.success else "the worker is not running"
            return response

        return serve

    def _on_export(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._writer.write(everything=True)
        told = self._worker.export()
        response.success, response.message = bool(told["path"]), told["path"] or told["words"]
        return response

    # Reports.

    def _describe(self) -> tuple[bytes, str, dict[str, str]]:
        writer, state, account = self._writer, self._state, self._inputs.account
        values = {"made" if name == "kept" else name: str(count) for name, count in account.items()}
        values |= {name: str(state.get(name, "")) for name in TOLD}
        values |= {"unwritten": str(writer.unwritten), "lost": str(writer.lost), "retired_chunks": str(writer.retired)}
        values |= {"restarts": str(self._worker.restarts), "verdict": self._verdict, "problem": self._problem}
        values |= {"exceptions": ", ".join(f"{kind} {count}" for kind, count in self.guard.counts.items())}
        values |= self._offers.describe()
        return *self._summary(account), values

    def _summary(self, account: dict[str, int]) -> tuple[bytes, str]:
        """Return level and words: the gravest of what there is to say."""
        state, missing, refused = self._state, self._inputs.missing(), self._offers.refused()
        errors = (
            self._fault,
            "the worker has ended; it is started again" if self._worker.ended else "",
            self._offers.fault,
        )
        warnings = (
            f"{self._writer.lost} transitions were lost: the disk did not take them" if self._writer.lost else "",
            missing,
            _without_context(account),
            refused,
            f"{state['breaches']} breaches of the behaviour policy's promise" if state.get("breaches") else "",
            f"{sum(self.guard.counts.values())} exceptions in callbacks" if self.guard.counts else "",
        )
        for level, found in ((DiagnosticStatus.ERROR, errors), (DiagnosticStatus.WARN, warnings)):
            if words := "; ".join(filter(None, found)):
                return level, words
        return DiagnosticStatus.OK, "paused" if state.get("paused") else "listening"

    def close(self) -> None:
        """Keep what is there, and let the worker save and end."""
        self._inputs.finish()
        self._writer.write(everything=True)
        if self._writer.fault:
            self.get_logger().error(f"{self._writer.unwritten} transitions are lost: {self._writer.fault}")
        self._worker.close()


def _without_context(account: dict[str, int]) -> str:
    without = account["without_context"]
    if not without or without < account["kept"]:
        return ""
    return f"{without} transitions without the behaviour policy's context, which joint_proposals tells: none are kept"


def main() -> int:
    """Run the node."""
    return run_node(LearnerNode, lambda node, stopped: node.guard.spin(node, stopped))
