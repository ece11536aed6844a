"""The shield's way from sensors and proposals to commands: what runs while a robot waits."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from ssql_ros.msg import Proposal, ShieldedAction
from ssql_ros.nodes.guard import Guard
from ssql_ros.nodes.inputs import INPUT_TYPES, parser_of
from ssql_ros.nodes.process import COMMAND, EVENT, SENSOR, raise_priority
from ssql_ros.shield import Decision, ShieldSettings
from ssql_ros.shield_loop import ShieldLoop, Tick
from ssql_ros.spec import ContractError
from ssql_ros.spec.contract import JOINT_STATE
from ssql_ros.spec.messages import (
    CommandReader,
    InputReader,
    check_stamp,
    fill,
    fill_joint_command,
    set_stamp,
)
from ssql_ros.spec.stamped import NANOSECONDS

STOPPING = 1.0  # s, how long the way to the safe action may take when the shield stops
LATEST = 2**31 * NANOSECONDS  # ns, beyond what a message's stamp can say
MANY = 2**31


class ShieldControl:
    """Connects a `ShieldLoop` to topics, and sends one command every control period once it is started.

    Subscriptions fill the loop's slots. The one that completes an input has it decided on at once, as a hand-over to
    another thread would cost a wake-up. A thread on the steady clock decides for every period that ends without, and
    publishes the accounts, which nobody waits for. While the loop only watches, proposals go on as they come.

    Args:
        node: whose topics, clock and log are used.
        guard: takes what callbacks raise.
        forward: commands go out as Float64MultiArray instead of JointState.
        on_observation: called for readings that come while `started` is False and a whole observation is there.
        on_decision: called after each decision, in the tick's thread.

    Attributes:
        lock: hold it to read or change the loop.
        inputs: names of the topics that observations come from.
        proposals: names of the topics that proposals come from.
    """

    def __init__(
        self,
        node: Any,
        loop: ShieldLoop,
        guard: Guard,
        forward: bool,
        on_observation: Callable[[], None],
        on_decision: Callable[[Tick], None],
    ) -> None:
        self.loop = loop
        self.lock = threading.Condition()
        self._node, self._contract, self._guard = node, loop.contract, guard
        self._on_observation, self._on_decision = on_observation, on_decision
        # Read with every message: Clock.now() makes objects around the number that is wanted.
        self._clock = node.get_clock().handle
        self._thread: threading.Thread | None = None
        self._running = False
        self._accounts: list[tuple[Tick, float]] = []
        # One message, filled anew each time: making one takes as long as filling it.
        self._message = Float64MultiArray() if forward else JointState()
        self._command = node.create_publisher(type(self._message), self._contract.commanded.topic, COMMAND)
        self._account = node.create_publisher(ShieldedAction, "~/shielded_action", EVENT)
        self._interventions = node.create_publisher(ShieldedAction, "~/interventions", EVENT)
        sources = [self._contract.inputs[name] for name in self._contract.observed_inputs]
        self.inputs = [source.topic for source in sources]
        # Where a driver's stamps are not used, those that a controller copies from them say nothing either.
        self._stamped = all(source.stamps == "header" for source in sources)
        # All is taken raw: what comes at a high rate is read without making messages (see spec.serialised), and bytes
        # that are no message raise here, where they are counted, and not in the executor.
        readers: dict[str, tuple[Any, Callable[[bytes], None]]] = {
            "joint_commands_raw": (JointState, self._joint_command_reader("joint_commands_raw")),
            "joint_proposals": (Proposal, self._proposal_reader("joint_proposals")),
            "forward_commands_raw": (Float64MultiArray, self._array_reader("forward_commands_raw")),
        }
        self.proposals = list(readers)
        subscribed = [
            *((INPUT_TYPES[source.type], source.topic, self._reader(source.name), SENSOR) for source in sources),
            *((kind, topic, receive, COMMAND) for topic, (kind, receive) in readers.items()),
        ]
        self._subscriptions = [
            node.create_subscription(kind, topic, guard(topic, receive), qos, raw=True)
            for kind, topic, receive, qos in subscribed
        ]

    @property
    def started(self) -> bool:
        """Tell whether commands are sent."""
        return self._thread is not None

    def fault(self) -> str:
        """Return why nothing can be decided on what is observed now, or an empty text."""
        with self.lock:
            return self.loop.observation_fault(time.monotonic(), self._now())

    def publishers_of(self, name: str) -> int:
        """Return how many publishers of an input can be told apart: each gives features of its own, or none."""
        frames = self.loop.assembler.frames
        if not frames.sources(name):
            return MANY  # nothing is known yet
        if self._contract.inputs[name].type == JOINT_STATE and frames.counts["foreign"]:
            return MANY
        return len(frames.sources(name))

    def start(self, priority: int) -> None:
        """Begin to send commands. `priority`: SCHED_FIFO priority of who decides; 0: normal scheduling."""
        if priority:
            raise_priority(self._node, priority)  # of this thread, which serves subscriptions; the tick's inherits it
        self.loop.start(time.monotonic())
        self._running = True
        self._thread = threading.Thread(target=self._run, name="tick", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send the safe action, unless the shield only watches, and no command after that."""
        if self._thread is None:
            return
        with self.lock:
            self._running = False
            self.lock.notify()
        self._thread.join()
        self._thread = None
        if self.loop.watching:
            return
        frame = self.loop.assembler.frame if self.loop.assembler.newest is not None else None
        source, end = self.loop.source, time.monotonic() + STOPPING
        while (command := source.held(frame)) is not None:
            self._publish_command(command, self._now())
            if source.arrived or time.monotonic() > end:
                return
            time.sleep(self._contract.control_period)

    def disconnect(self) -> None:
        """Give up the topics."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        for publisher in (self._command, self._account, self._interventions):
            self._node.destroy_publisher(publisher)

    # What comes in.

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
                self._log(str(error))
                with self.lock:
                    loop.unreadable(name, str(error))
                return
            if self._thread is None and not self.fault():
                self._on_observation()

        return receive

    def _joint_command_reader(self, topic: str) -> Callable[[bytes], None]:
        parse, reader = parser_of(JOINT_STATE), CommandReader(self._contract, topic)

        def receive(data: bytes) -> None:
            arrival = time.monotonic()
            try:
                message = parse(data)
                stamp = self._stamp_of(message, topic)
            except ContractError as error:
                self._refuse(str(error), 0, arrival)
                return
            self._propose(lambda: reader.joint_command(message), stamp, arrival)

        return receive

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

    def _propose(self, read: Callable[[], np.ndarray], stamp: int, arrival: float) -> None:
        try:
            joints = read()
            action = self._contract.action_of(joints)
        except ContractError as error:
            self._refuse(str(error), stamp, arrival)
            return
        self._take(action, joints, stamp, arrival)

    def _take(self, action: np.ndarray, joints: np.ndarray, stamp: int, arrival: float, **distribution: Any) -> None:
        """Hand a proposal to the loop, and on to the robot where the loop only watches."""
        stamp = stamp if self._stamped else 0
        with self.lock:
            loop = self.loop
            if stamp:
                loop.inputs.answers.hear(stamp, arrival, self._now())
            taken = loop.propose(action, joints, stamp, arrival - self._delay(stamp), **distribution)
            if taken and self._running and loop.watching:
                self._publish_command(loop.relayed(joints, stamp), stamp or self._now())
            self._answer(arrival)

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

    def _refuse(self, fault: str, stamp: int, arrival: float) -> None:
        self._log(fault)
        with self.lock:
            self.loop.unreadable_proposal(fault, stamp)
            self._answer(arrival)

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

    # What goes out.

    def _answer(self, arrival: float) -> None:
        """Decide here and now when the input is complete. The lock is held."""
        if self._running and self.loop.input_complete():
            self._decide(arrival)
            self.lock.notify()

    def _run(self) -> None:
        """Decide for every period that ends without a decision, and publish the accounts of all decisions."""
        running = True
        while running:
            with self.lock:
                while self._running and not self._accounts and (wait := self.loop.wait(time.monotonic())) > 0.0:
                    self.lock.wait(wait)
                running = self._running
                if running and not self._accounts:
                    self._decide(time.monotonic())
                accounts, self._accounts = self._accounts, []
            for tick, seconds in accounts:
                try:
                    self._on_decision(tick)
                except Exception as error:  # what is said of a decision must not end the tick
                    self._guard.note("report", error)
                if not self._account.get_subscription_count() and not self._interventions.get_subscription_count():
                    continue  # nobody asks: the processor is free for the next command
                try:
                    self._publish_account(tick, seconds)
                except Exception as error:  # a failing publisher must not end the tick
                    self._guard.note("account", error)

    def _decide(self, since: float) -> None:
        """Take one decision and send its command. The lock is held. `since`: s, when the input was complete."""
        begun = time.monotonic()
        try:
            tick = self.loop.tick(begun, self._now())
            if time.monotonic() - begun > self._contract.control_period:
                # This process was stopped in the middle of it: what was decided is of before.
                tick = self.loop.tick(time.monotonic(), self._now())
        except Exception as error:  # whatever it is, the robot needs a command now, and the next period its own
            self._guard.note("tick", error)
            if not self.loop.watching:
                self._publish_command(self._contract.joint_command(self._contract.safe_action), self._now())
            return
        self._accounts.append((tick, time.monotonic() - since))
        if tick.joint_command is None:
            return
        held = tick.verdict.decision is Decision.HELD
        try:
            self._publish_command(tick.joint_command, self._now() if held else tick.stamp)
        except Exception as error:  # a failing publisher must not end the tick
            self._guard.note("command", error)

    def _publish_command(self, joints: np.ndarray, stamp: int) -> None:
        if isinstance(self._message, Float64MultiArray):
            fill(self._message, data=joints)
        else:
            fill_joint_command(self._message, self._contract, joints, stamp if 0 <= stamp < LATEST else 0)
        self._command.publish(self._message)

    def _publish_account(self, tick: Tick, seconds: float) -> None:
        verdict = tick.verdict
        account = fill(
            ShieldedAction(),
            decision=verdict.decision,
            enforced=tick.enforced,
            proposal=tick.proposal,
            action=verdict.action,
            q_safe_proposal=verdict.q_proposal,
            q_safe_action=verdict.q_action,
            **threshold_fields(tick.settings),
            candidates_scored=verdict.scored,
            candidates_safe=verdict.safe,
            history_missing=tick.history_missing,
            decision_time=seconds,
            bundle_id=tick.bundle_id,
            reason=verdict.reason,
        )
        set_stamp(account, tick.stamp if tick.stamp < LATEST else 0)
        self._account.publish(account)
        if verdict.decision is not Decision.PASSED:
            self._interventions.publish(account)


def threshold_fields(settings: ShieldSettings) -> dict[str, float]:
    """Return rule, epsilon and delta as messages carry them: NaN for the threshold of the other rule."""
    epsilon, delta = (math.nan if value is None else value for value in (settings.epsilon, settings.delta))
    return {"rule": settings.rule, "epsilon": epsilon, "delta": delta}
