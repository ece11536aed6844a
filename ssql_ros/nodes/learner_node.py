"""The learner as a node: listens to what the robot publishes, never stands in its way, and announces what passes.

It puts transitions together by stamps and keeps them on disk; a process of its own learns from them (see
learning/live_worker.py), so that no gradient step ever delays a callback. A policy that has passed every gate is
announced on `model_announcements`; who serves policies and shields verifies it again.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from nav_msgs.msg import Odometry
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from ssql_ros.bundle import load_bundle, write_whole
from ssql_ros.learning.live_buffer import LiveBuffer
from ssql_ros.msg import Proposal
from ssql_ros.nodes.announcer import Announcer
from ssql_ros.nodes.diagnostics import Diagnostics
from ssql_ros.nodes.parameters import Parameter, declare
from ssql_ros.nodes.process import run_node
from ssql_ros.nodes.shield_control import INPUT_TYPES
from ssql_ros.policy import behaviour_of
from ssql_ros.rewards import reward_of
from ssql_ros.spec import ContractError, find_contract, load_contract
from ssql_ros.spec.messages import CommandReader, InputReader, stamp_of
from ssql_ros.transitions import LiveTransition, TransitionAssembler

PARAMETERS = (
    Parameter("contract", "minitaur", "robot name or path of its contract YAML", fixed=True),
    Parameter("behaviour", "", "bundle that tells the behaviour policy; its critic judges in shadow", fixed=True),
    Parameter("folder", "", "where buffer, checkpoint and offers lie; an old one is gone on with", fixed=True),
    Parameter("goal", 0.4, "m/s, of the reward", low=-2.0, high=2.0, fixed=True),
    Parameter("first_steps", 2000, "transitions before learning begins", low=1, high=10**9, fixed=True),
    Parameter("updates_per_step", 1.0, "gradient steps a transition, at most", low=1e-3, high=1e3, fixed=True),
    Parameter("round_updates", 3000, "gradient steps before a policy is judged", low=1, high=10**9, fixed=True),
    Parameter("shadow_steps", 250, "transitions that it is judged on in shadow", low=1, high=10**6, fixed=True),
    Parameter("return_margin", 0.05, "of the returns' range: how much worse it may be", low=0.0, high=1.0, fixed=True),
    Parameter("settings", "{}", 'of the algorithm, JSON by name, e.g. {"temperature": 0.02}', fixed=True),
    Parameter("seed", 0, "of the networks", low=0, high=2**31 - 1, fixed=True),
    Parameter("announce", True, "announce what passes every gate; else it only lies in the folder"),
    Parameter("signing_key", "", "private key that signs announcements; empty: none does", fixed=True),
    Parameter("with_data", True, "the file goes along in the announcement, for other machines"),
)
# Deep: what waits here while the processor is busy is not lost. It delays nobody.
PATIENT = QoSProfile(depth=2000, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)
CHUNK = 1000  # transitions, where no episode ends before
RESTART_PAUSE = 2.0  # s, before a worker that has died is started again


class LearnerNode(Node):
    """Listens, keeps, and announces; the worker learns."""

    def __init__(self) -> None:
        super().__init__("learner_node")
        self.value_of = declare(self, PARAMETERS)
        self.contract = load_contract(find_contract(self.value_of("contract")))
        for name in ("behaviour", "folder"):
            if not self.value_of(name):
                raise ValueError(f"parameter {name}: expected a path, got none")
        source = load_bundle(self.value_of("behaviour"), self.contract)
        source.need("critic")
        behaviour = behaviour_of(source)
        self._folder = Path(self.value_of("folder")).absolute()
        self._reward = reward_of(self.contract, self.value_of("goal"))
        self._assembler = TransitionAssembler(self.contract, self._reward, behaviour.n_context)
        self._n_context = behaviour.n_context
        sizes = (self.contract.observation_size, behaviour.n_context, self.contract.action_size)
        self._buffer = LiveBuffer(self._folder / "buffer", sizes)
        self._unwritten: list[LiveTransition] = []
        self._fault = ""
        self._write_settings(source.path, behaviour.describe())
        self._announcer = Announcer(self, "learner_node", self.value_of("signing_key"))
        self._lock = threading.Lock()
        self._told: deque[dict[str, Any]] = deque()
        self._state: dict[str, Any] = {}
        self._last_verdict, self._announced, self._restarts = "none yet", 0, 0
        self._exported = threading.Event()
        self._worker: subprocess.Popen[str] | None = None
        self._retry_at = 0.0
        self._closing = False
        self._start_worker()
        self._listen()
        for name in ("pause", "resume", "train"):
            self.create_service(Trigger, f"~/{name}", self._pass_on(name))
        self.create_service(Trigger, "~/export", self._on_export)
        self._diagnostics = Diagnostics(self, "learner", self._describe)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(0.1, self._collect, clock=steady)
        self.create_timer(1.0, self._diagnostics.publish, clock=steady)

    def _write_settings(self, shield: str, behaviour: dict[str, Any]) -> None:
        try:
            algorithm = json.loads(self.value_of("settings"))
        except ValueError as error:
            raise ValueError(f"parameter settings: expected JSON, got {self.value_of('settings')!r}") from error
        names = ("first_steps", "updates_per_step", "round_updates", "shadow_steps", "return_margin", "seed")
        settings = {
            "contract": str(Path(self.contract.path).absolute()),
            "behaviour": behaviour,
            "shield": str(Path(shield).absolute()),
            "ssql": algorithm,
            **{name: self.value_of(name) for name in names},
        }
        write_whole(self._folder / "live.json", json.dumps(settings, indent=1).encode())

    # What the robot publishes.

    def _listen(self) -> None:
        for name in self.contract.observed_inputs:
            source = self.contract.inputs[name]
            self.create_subscription(INPUT_TYPES[source.type], source.topic, self._reader(name), PATIENT)
        self.create_subscription(Odometry, self.contract.inputs[self._reward.input].topic, self._on_odometry, PATIENT)
        topic = self.contract.commanded.topic
        self._commands = CommandReader(self.contract, topic)
        self.create_subscription(JointState, topic, self._on_command, PATIENT)
        self.create_subscription(Proposal, "joint_proposals", self._on_proposal, PATIENT)

    def _reader(self, name: str) -> Callable[[Any], None]:
        read = InputReader(self.contract, self.contract.inputs[name])

        def receive(message: Any) -> None:
            try:
                self._assembler.read(name, stamp_of(message), read(message))
            except ContractError as error:
                self._unreadable(error)

        return receive

    def _on_odometry(self, message: Odometry) -> None:
        position = message.pose.pose.position
        if not np.isfinite(position.x):
            self._unreadable(ContractError("odometry: position.x is not finite"))
            return
        self._assembler.locate(stamp_of(message), np.array([position.x]))

    def _on_command(self, message: JointState) -> None:
        try:
            action = self.contract.action_of(self._commands.joint_command(message))
        except ContractError as error:
            self._unreadable(error)
            return
        self._assembler.execute(stamp_of(message), self.contract.clip(action))

    def _on_proposal(self, message: Proposal) -> None:
        action, context = np.array(message.action, float), np.array(message.context, float)
        sizes = (len(action), len(context))
        if message.contract_id not in ("", self.contract.id) or sizes != (self.contract.action_size, self._n_context):
            self._unreadable(
                ContractError(
                    f"joint_proposals: expected {self.contract.action_size} numbers and a context of {self._n_context} "
                    f"for contract {self.contract.id}, got {sizes[0]} and {sizes[1]} for {message.contract_id!r}"
                )
            )
        elif not (np.isfinite(action).all() and np.isfinite(context).all()):
            self._unreadable(ContractError("joint_proposals: action or context is not finite"))
        else:
            self._assembler.propose(stamp_of(message), action, context)

    def _unreadable(self, error: Exception) -> None:
        self._assembler.counts["unreadable"] += 1
        self.get_logger().error(str(error), throttle_duration_sec=1.0)

    # What is kept.

    def _collect(self) -> None:
        for transition in self._assembler.take():
            # A chunk holds whole episodes where they are short enough.
            if transition.first or len(self._unwritten) >= CHUNK:
                self._write()
            self._unwritten.append(transition)
        self._serve_worker()

    def _write(self) -> None:
        try:
            self._buffer.append(self._unwritten)
        except ValueError as error:
            # Kept for the next attempt: a disk may have room again.
            self._fault = str(error)
            self.get_logger().error(self._fault, throttle_duration_sec=5.0)
            return
        self._unwritten, self._fault = [], ""

    # The worker.

    def _start_worker(self) -> None:
        command = [sys.executable, "-m", "ssql_ros.learning.live_worker", str(self._folder)]
        self._worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._hear, args=(self._worker,), name="worker", daemon=True).start()

    def _hear(self, worker: subprocess.Popen[str]) -> None:
        assert worker.stdout is not None
        for line in worker.stdout:
            try:
                told = json.loads(line)
                event = told["event"]
            except (ValueError, KeyError, TypeError):
                continue  # what it prints beside its reports is no report
            if event == "exported":
                with self._lock:
                    self._export = told
                self._exported.set()
            with self._lock:
                self._told.append(told)

    def _serve_worker(self) -> None:
        with self._lock:
            told, self._told = self._told, deque()
        for message in told:
            if message["event"] == "progress":
                self._state = message
            elif message["event"] == "judged":
                self._on_verdict(message)
            elif message["event"] == "problem":
                self.get_logger().error(f"worker: {message.get('words')}")
        if self._worker is None or self._worker.poll() is None or self._closing:
            return
        now = time.monotonic()
        if not self._retry_at:
            self._retry_at = now + RESTART_PAUSE
            self.get_logger().error(f"the worker has ended with status {self._worker.returncode}; it is started again")
        elif now >= self._retry_at:
            self._retry_at, self._restarts = 0.0, self._restarts + 1
            self._start_worker()

    def _on_verdict(self, message: dict[str, Any]) -> None:
        words = "; ".join(f"{gate['name']}: {gate['words']}" for gate in message["gates"])
        failed = [gate["name"] for gate in message["gates"] if not gate["passed"]]
        self._last_verdict = f"round {message['round']}: {'passed' if message['passed'] else 'refused'}: {words}"
        if not message["passed"]:
            self.get_logger().warning(f"not announced, {', '.join(failed)} failed: {words}")
            return
        self.get_logger().info(self._last_verdict)
        if self.value_of("announce"):
            summary = f"learned live: {self._last_verdict}"
            self._announcer.announce(Path(message["path"]), self.contract.id, self.value_of("with_data"), summary)
            self._announced += 1

    def _say(self, word: str) -> bool:
        worker = self._worker
        if worker is None or worker.stdin is None or worker.poll() is not None:
            return False
        try:
            worker.stdin.write(word + "\n")
            worker.stdin.flush()
        except OSError:
            return False
        return True

    def _pass_on(self, word: str) -> Callable[[Trigger.Request, Trigger.Response], Trigger.Response]:
        def serve(_request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            response.success = self._say(word)
            response.message = f"the worker is told to {word}" if response.success else "the worker is not running"
            return response

        return serve

    def _on_export(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._write()
        self._exported.clear()
        # The worker answers between two slices of learning: some tenths of a second, of this node's time alone.
        if not self._say("export") or not self._exported.wait(30.0):
            response.message = "the worker does not answer"
            return response
        with self._lock:
            told = self._export
        response.success, response.message = bool(told["path"]), told["path"] or told["words"]
        return response

    # Reports.

    def _describe(self) -> tuple[bytes, str, dict[str, str]]:
        counts, state = self._assembler.counts, self._state
        values = {name: str(counts[name]) for name in ("made", "episodes", "dropped", "incomplete", "late")}
        values |= {name: str(counts[name]) for name in ("duplicates", "unreadable")}
        names = (
            "steps",
            "updates",
            "rounds",
            "critic_loss",
            "incidents",
            "breaches",
            "overridden",
            "paused",
            "refused_chunks",
        )
        values |= {name: str(state.get(name, "")) for name in names}
        values |= {"announced": str(self._announced), "restarts": str(self._restarts), "verdict": self._last_verdict}
        if self._fault:
            return DiagnosticStatus.ERROR, self._fault, values
        if self._retry_at or self._worker is None:
            return DiagnosticStatus.ERROR, "the worker has ended; it is started again", values
        if state.get("breaches"):
            return DiagnosticStatus.WARN, f"{state['breaches']} breaches of the behaviour policy's promise", values
        return DiagnosticStatus.OK, "paused" if state.get("paused") else "listening", values

    def close(self) -> None:
        """Keep what is there, and let the worker save and end."""
        self._closing = True
        self._write()
        if self._say("stop") and self._worker is not None:
            try:
                self._worker.wait(20.0)
            except subprocess.TimeoutExpired:
                self._worker.kill()


def main() -> int:
    """Run the node."""
    return run_node(LearnerNode)
