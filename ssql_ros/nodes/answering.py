"""A node that answers every whole observation of a robot with a proposal or a command, whoever decides.

The observation is assembled as the shield assembles it. Its past actions are what the robot was told, heard on the
contract's command topic: that is what was executed, whoever decided it, with a shield in between or without, and it
needs no knowledge of a shield's name or account. Where the last command is late, the answer waits for it, briefly.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from ssql_ros.contract import ContractError, ObservationAssembler, find_contract, load_contract
from ssql_ros.contract.messages import CommandReader, InputReader, check_stamp, fill, set_stamp
from ssql_ros.contract.topics import PROPOSAL_TOPIC
from ssql_ros.model.policy import ServedPolicy
from ssql_ros.model.proposal import Proposal as Draw
from ssql_ros.msg import Proposal
from ssql_ros.nodes.command_writer import CommandPublisher
from ssql_ros.robots import DEFAULT
from ssql_ros.ros.command_topics import Take, hear_commands
from ssql_ros.ros.diagnostics import Diagnostics
from ssql_ros.ros.guard import Guard
from ssql_ros.ros.inputs import message_type, parser_of
from ssql_ros.ros.parameters import Parameter, declare
from ssql_ros.ros.process import COMMAND, EVENT, SENSOR

# `output` each node declares with a default of its own.
PARAMETERS = (
    Parameter("contract", DEFAULT, "robot name or path of its contract YAML", fixed=True),
    Parameter("best", False, "answer with the most probable action instead of a draw"),
    Parameter("seed", 0, "seed of the next episode's draws; goes up by one with each", low=0, high=2**31 - 1),
)
OUTPUT = Parameter("output", "", "publish joint_proposals, or joint_commands_raw", choices=("command", "proposal"))
# An answer waits this share of a control period for the command before it; a policy must answer within it too.
SHARE = 0.25


class AnsweringNode(Node):
    """Answers each whole observation; a gap in the stamps begins a new episode, with the next seed."""

    def __init__(self, label: str, table: Iterable[Parameter]) -> None:
        super().__init__(label)
        self.value_of = declare(self, table)
        self.contract = load_contract(find_contract(self.value_of("contract")))
        self._limit = SHARE * self.contract.control_period
        self._assembler = ObservationAssembler(self.contract)
        self._rng = np.random.default_rng(0)
        self._lock = threading.Lock()  # held while the policy answers, and while another takes its place
        self._policy, self._source = self._load()
        self._episode = -1
        self._answered: int | None = None  # ns, stamp of the observation that was answered last
        self._answer: Callable[[], None] | None = None  # publishes it
        self._newest: int | None = None  # ns, stamp of the newest message of the trigger
        self._follows = False  # commands are heard, so that it makes sense to wait for one
        self._answers = self._unfollowed = 0
        self._fault = ""
        told = self.contract.commanded
        self._commands = CommandPublisher(self, self.contract, told.raw_topics, COMMAND)
        self._proposals = self.create_publisher(Proposal, PROPOSAL_TOPIC, COMMAND)
        self.guard = Guard(self.get_logger())
        for name in self.contract.observed_inputs:
            source = self.contract.inputs[name]
            kind, receive = message_type(source.type), self.guard(source.topic, self._reader(name))
            self.create_subscription(kind, source.topic, receive, SENSOR, raw=True)
        # Not only the newest: every command is part of the history.
        hear_commands(self, self.contract, told.topics, self._command_taker(told.topic), EVENT, self.guard)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        patience = self.guard("patience", self._on_patience_ended)
        self._patience = self.create_timer(self._limit, patience, clock=steady)
        self._patience.cancel()
        self._diagnostics = Diagnostics(self, label.removesuffix("_node"), self._describe)
        self.create_timer(1.0, self.guard("report", self._report), clock=steady)

    def _load(self) -> tuple[ServedPolicy, str]:
        """Return who decides, and its name."""
        raise NotImplementedError

    # What comes in.

    def _reader(self, name: str) -> Callable[[bytes], None]:
        source = self.contract.inputs[name]
        parse, read = parser_of(source.type), InputReader(self.contract, source)
        triggers = name == self.contract.observed.trigger
        arrivals = source.stamps == "arrival"

        def receive(data: bytes) -> None:
            try:
                message = parse(data)
                values = read(message)
                stamp = check_stamp(message, source.topic)
                if arrivals:
                    stamp = max(self.get_clock().now().nanoseconds, (self._newest or 0) + triggers)
                again = triggers and stamp == self._newest
                self._newest = stamp if triggers else self._newest
                self._assembler.read(name, stamp, time.monotonic(), values)
            except ContractError as error:
                self._note(str(error))
                return
            if again and stamp == self._answered and self._answer is not None:
                # An observation told again gets the same answer again: the first may have reached nobody.
                self._answer()
            self._answer_when_followed()

        return receive

    @property
    def _pending(self) -> bool:
        """Tell whether a whole observation is there that has no answer yet."""
        return self._assembler.stamp != self._answered and self._assembler.ready

    def _command_taker(self, topic: str) -> Take:
        reader = CommandReader(self.contract, topic)

        def take(read: Callable[[], Any], _arrival: float) -> None:
            try:
                message = read()
                if message is None:
                    return
                action = self.contract.clip(reader.joint_state(message))
                stamp = check_stamp(message, topic, "the node that publishes it")
            except ContractError as error:
                self._note(f"{topic}: {error}")
                return
            self._assembler.executed(action, stamp)
            self._follows = True
            self._answer_when_followed()

        return take

    def _on_patience_ended(self) -> None:
        self._patience.cancel()
        if self._pending:
            # One command went missing, or nobody commands any more: then no answer must wait for it.
            self._follows = False
            self._unfollowed += 1
            self._answer_now()

    # What goes out.

    def _answer_when_followed(self) -> None:
        if not self._pending:
            return
        if self._assembler.followed or not self._follows:
            self._patience.cancel()
            self._answer_now()
        elif self._patience.is_canceled():
            self._patience.reset()

    def _answer_now(self) -> None:
        observation = self._assembler.vector()
        # Whatever comes of it, it has had its turn.
        self._answered, self._answer = self._assembler.stamp, None
        with self._lock:
            if self._assembler.episode != self._episode:
                self._begin_episode()
            context = self._policy.context()
            if self.value_of("best"):
                draw = Draw(self._policy.best(observation), 0.0)
            else:
                draw = self._policy.propose(observation, self._rng)
            source = self._source
        if not np.isfinite(draw.action).all():
            self._note(f"{source}: the action is not finite")
            return
        self._fault = ""
        self._answers += 1
        self._answer = self._publisher_of(draw, context, source, self._answered or 0)
        self._answer()

    def _begin_episode(self) -> None:
        """Begin the policy's episode, with the next seed. The lock is held."""
        self._episode = self._assembler.episode
        seed = self.value_of("seed")
        self._rng = np.random.default_rng(seed)
        self._policy.reset(self._rng)
        self.set_parameters([RosParameter("seed", value=(seed + 1) % 2**31)])

    def _publisher_of(self, draw: Draw, context: np.ndarray, source: str, stamp: int) -> Callable[[], None]:
        if self.value_of("output") == "command":
            return partial(self._commands.publish, self.contract.joint_command(draw.action), stamp)
        said = {name: getattr(draw, name) for name in ("mean", "std", "low", "high")}
        proposal = fill(
            Proposal(),
            contract_id=self.contract.id,
            source=source,
            action=draw.action,
            context=context,
            squashed=draw.squashed,
            **{name: value for name, value in said.items() if value is not None},
        )
        set_stamp(proposal, stamp)
        return partial(self._proposals.publish, proposal)

    # Reports.

    def _note(self, fault: str) -> None:
        self._fault = fault
        self.get_logger().error(fault, throttle_duration_sec=1.0)

    def _report(self) -> None:
        self._diagnostics.publish()

    def _describe(self) -> tuple[bytes, str, dict[str, str]]:
        values = {
            "source": self._source,
            "answers": str(self._answers),
            "episodes": str(self._assembler.episode),
            "unfollowed": str(self._unfollowed),
            **{f"exceptions in {where}": str(count) for where, count in self.guard.counts.items()},
        }
        if self._fault:
            return DiagnosticStatus.ERROR, self._fault, values
        if not self._answers:
            return DiagnosticStatus.WARN, "no whole observation yet", values
        return DiagnosticStatus.OK, "serving", values
