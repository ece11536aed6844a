"""What a shield hears: sensors and proposals, read from their bytes into the slots of its loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message
from std_msgs.msg import Float64MultiArray

from ssql_ros.contract import ContractError
from ssql_ros.contract.messages import CommandReader, InputReader, check_stamp
from ssql_ros.contract.stamped import NANOSECONDS
from ssql_ros.contract.topics import PROPOSAL_TOPIC, RAW_FORWARD_TOPIC
from ssql_ros.msg import Proposal
from ssql_ros.ros.command_topics import Take, hear_commands
from ssql_ros.ros.guard import Guard
from ssql_ros.ros.inputs import message_type, parser_of
from ssql_ros.ros.process import SENSOR
from ssql_ros.ros.qos import proposal_qos, subscribe
from ssql_ros.shield.loop import ShieldLoop


class ShieldInputs:
    """Subscribes to a contract's inputs and to every kind of proposal; whoever answers them fills in three methods.

    Args:
        node: whose topics, clock and log are used.
        guard: takes what callbacks raise.

    Attributes:
        lock: hold it to read or change the loop.
        inputs: names of the topics that observations come from.
        proposals: names of the topics that proposals come from.
        takeover_topics: of those that an operator's come from.
        qos: in force, by full name of a topic; commands' too once they can go out.
    """

    def __init__(self, node: Any, loop: ShieldLoop, guard: Guard) -> None:
        self.loop = loop
        self.lock = threading.Condition()
        contract = self._contract = loop.contract
        self._node, self._guard = node, guard
        # Read with every message: Clock.now() makes objects around the number that is wanted.
        self._clock = node.get_clock().handle
        sources = [contract.inputs[name] for name in contract.observed_inputs]
        self.inputs = [source.topic for source in sources]
        # Where a driver's stamps are not used, those that a controller copies from them say nothing either.
        self._stamped = all(source.stamps == "header" for source in sources)
        told, proposed = contract.commanded, proposal_qos(contract)
        # All is taken raw: what comes at a high rate is read without making messages (contract.serialised), and bytes
        # that are no message raise here, where they are counted, and not in the executor.
        readers: dict[str, tuple[Any, Callable[[bytes], None]]] = {
            PROPOSAL_TOPIC: (Proposal, self._proposal_reader(PROPOSAL_TOPIC)),
            RAW_FORWARD_TOPIC: (Float64MultiArray, self._array_reader(RAW_FORWARD_TOPIC)),
        }
        self.proposals, self.takeover_topics = [*told.raw_topics, *readers], told.takeover_topics
        subscribed = [
            *((message_type(source.type), source.topic, self._reader(source.name), SENSOR) for source in sources),
            *((kind, topic, receive, proposed) for topic, (kind, receive) in readers.items()),
        ]
        self._subscriptions = [
            subscribe(node, kind, topic, guard(topic, receive), qos, raw=True)
            for kind, topic, receive, qos in subscribed
        ]
        take, operator = self._joint_command_taker(told.raw_topic), self._joint_command_taker(told.takeover_topic, True)
        patience = loop.takeover.timeout  # an operator's commands come more slowly than a controller's
        self._subscriptions += hear_commands(node, contract, told.raw_topics, take, proposed, guard)
        self._subscriptions += hear_commands(node, contract, told.takeover_topics, operator, proposed, guard, patience)
        self.qos = {one.topic_name: one.qos_profile for one in self._subscriptions}

    def _answer(self, arrival: float) -> None:
        """Do what is due now that something has come, at `arrival` s on the steady clock. The lock is held."""
        raise NotImplementedError

    def _proposed(self, joints: np.ndarray, stamp: int, arrival: float, taken: bool) -> None:
        """Do what is due now that a proposal has come; `taken`: the loop did not drop it. The lock is held."""
        raise NotImplementedError

    def _observed(self) -> None:
        """Do what is due when a reading has been taken in. The lock is not held."""
        raise NotImplementedError

    def disconnect(self) -> None:
        """Give up the topics."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _reader(self, name: str) -> Callable[[bytes], None]:
        source, loop = self._contract.inputs[name], self.loop
        parse, read = parser_of(source.type), InputReader(self._contract, source)

        def receive(data: bytes) -> None:
            arrival = time.monotonic()
            try:
                message = parse(data)
                values = read(message)
                stamp = check_stamp(message, source.topic)
                clock = self._now()
                if source.stamps == "arrival":
                    # Later than the one before: two that come at one instant of a simulated clock are two.
                    stamp = max(clock or time.time_ns(), (loop.inputs.inputs[name].stamp or 0) + 1)
                with self.lock:
                    loop.read(name, stamp, arrival, clock, values)
                    self._answer(arrival)
            except ContractError as error:
                with self.lock:
                    loop.unreadable(name, str(error))
                self._log(str(error))
                return
            self._observed()

        return receive

    def _joint_command_taker(self, topic: str, operator: bool = False) -> Take:
        reader = CommandReader(self._contract, topic)

        def take(read: Callable[[], Any], arrival: float) -> None:
            try:
                message = read()
                if message is None:
                    return
                # An operator answers no observation, and sits at another clock: when it came is what counts.
                stamp = 0 if operator else self._stamp_of(message, topic)
            except ContractError as error:
                self._refuse(str(error), 0, arrival, operator)
                return
            self._propose(lambda: reader.joint_command(message), stamp, arrival, operator)

        return take

    def _array_reader(self, topic: str) -> Callable[[bytes], None]:
        reader = CommandReader(self._contract, topic)

        def receive(data: bytes) -> None:
            arrival = time.monotonic()
            message = self._parsed(data, Float64MultiArray, topic, arrival)
            if message is not None:
                self._propose(lambda: reader.array_command(message), 0, arrival)

        return receive

    def _parsed(self, data: bytes, kind: Any, topic: str, arrival: float) -> Any:
        """Return the message of a controller's bytes; None where they are none: that is a proposal too, a bad one."""
        try:
            return deserialize_message(data, kind)
        except Exception as error:  # rclpy says only that it cannot
            self._refuse(f"{topic}: {len(data)} bytes are not a whole {kind.__name__}: {error}", 0, arrival)
            return None

    def _propose(self, read: Callable[[], np.ndarray], stamp: int, arrival: float, operator: bool = False) -> None:
        try:
            joints = read()
            action = self._contract.action_of(joints)
        except ContractError as error:
            self._refuse(str(error), stamp, arrival, operator)
            return
        self._take(action, joints, stamp, arrival, operator=operator)

    def _take(self, action: np.ndarray, joints: np.ndarray, stamp: int, arrival: float, **told: Any) -> None:
        """Hand a proposal to the loop, and on to the robot where the loop only watches."""
        stamp = stamp if self._stamped else 0
        with self.lock:
            loop = self.loop
            if stamp:
                loop.inputs.answers.hear(stamp, arrival, self._now())
            taken = loop.propose(action, joints, stamp, arrival - self._delay(stamp), **told)
            self._proposed(joints, stamp, arrival, taken)

    def _proposal_reader(self, topic: str) -> Callable[[bytes], None]:
        reader = CommandReader(self._contract, topic)

        def receive(data: bytes) -> None:
            arrival = time.monotonic()
            message = self._parsed(data, Proposal, topic, arrival)
            if message is None:
                return
            try:
                stamp = self._stamp_of(message, topic)
                said = reader.proposal(message)
            except ContractError as error:
                self._refuse(str(error), 0, arrival)
                return
            distribution = said._asdict()
            self._take(
                distribution.pop("action"), self._contract.joint_command(said.action), stamp, arrival, **distribution
            )

        return receive

    def _stamp_of(self, message: Any, topic: str) -> int:
        """Return the stamp of a proposal, ns. Raises ContractError where it lies ahead: it answers no observation."""
        stamp, clock = check_stamp(message, topic, "the controller that publishes it"), self._now()
        ahead = (stamp - clock) / NANOSECONDS if clock and self._stamped else 0.0
        if ahead > 2.0 * self._contract.control_period:
            raise ContractError(
                f"{topic}: stamped {ahead:.3f} s ahead of this clock; expected the stamp of the observation that it "
                "answers, or 0"
            )
        return stamp

    def _refuse(self, fault: str, stamp: int, arrival: float, operator: bool = False) -> None:
        with self.lock:
            self.loop.unreadable_proposal(fault, stamp, arrival, operator)
            self._answer(arrival)
        self._log(fault)  # last: a line of it takes milliseconds on a robot's computer, and the robot waits

    def _log(self, fault: str) -> None:
        self._node.get_logger().error(fault, throttle_duration_sec=1.0)

    def _delay(self, stamp: int) -> float:
        """Return how old a message was on arrival by its own stamp, in s; 0 where stamp or clock is not set."""
        now = self._now()
        return max(0.0, (now - stamp) * 1e-9) if stamp and now else 0.0

    def _now(self) -> int:
        try:
            with self._clock:
                return self._clock.get_now().nanoseconds
        except ValueError:  # a /clock before its own beginning
            return 0
