"""A driver, a controller and an operator, wrong on purpose, that judge what comes back; for `ssql bench soak`."""

from __future__ import annotations

import copy
import math
import time
from collections import Counter, deque
from typing import Any, ClassVar

import numpy as np
from sensor_msgs.msg import Imu, JointState

from bench.round_trip import Driver, Step
from ssql_ros.contract import Contract
from ssql_ros.contract.messages import fill_joint_state, set_stamp
from ssql_ros.contract.stamped import NANOSECONDS
from ssql_ros.msg import ShieldedAction, ShieldState
from ssql_ros.ros.process import COMMAND, EVENT, LATCHED
from ssql_ros.shield.decision import Decision

GARBAGE = bytes(range(64))
SETTLED = 0.3  # s, from a shield's first command after it was away until its lateness counts
FLOOD = 20  # messages in the place of one


class SoakDriver(Driver):
    """Sends a recorded walk at the control period, wrong where it is told to be.

    Attributes:
        sensors, controller, operator: what each does wrong now; empty: nothing.
        excused: the shield is stopped, dead or taken out, and need not command.
        unsafe: commands that no driver may be sent, by what is wrong with them.
        late: commands that came over two periods after the one before, though this process was in time.
        worst: s, the longest such gap.
        heard: the newest decisions, and when their accounts came.
        changed: when the newest commands came that no controller had asked for.
    """

    SENSORS: ClassVar = (
        "silent",
        "nan",
        "partial",
        "unstamped",
        "ahead",
        "behind",
        "twice",
        "flood",
        "garbage",
        "one only",
    )
    CONTROLLER: ClassVar = (
        "silent",
        "nan",
        "beyond its limits",
        "other names",
        "garbage",
        "flood",
        "late stamps",
        "noise",
    )

    def __init__(self, contract: Contract, steps: list[Step], rng: np.random.Generator) -> None:
        super().__init__("soak_driver")
        self.sensors = self.controller = self.operator = ""
        self.excused = True
        self.unsafe: Counter[str] = Counter()
        self.late = self.commands = 0
        self.worst = 0.0
        self.states: list[ShieldState] = []
        self.heard: deque[tuple[float, Decision]] = deque(maxlen=1000)
        self.changed: deque[float] = deque(maxlen=1000)
        self._asked: deque[bytes] = deque(maxlen=100)
        self._contract, self._steps, self._rng = contract, steps, rng
        self._period, self._count, self._due = contract.control_period, 0, time.monotonic()
        self._names = list(contract.commanded.joint_names)
        self._low, self._high = contract.joint_limits
        self._last, self._behind, self._back = math.inf, 0.0, math.inf
        make = self.node.create_publisher
        self._imu, self._joints = make(Imu, "imu/data", EVENT), make(JointState, "joint_states", EVENT)
        self._raw, self._hand = (
            make(JointState, name, COMMAND) for name in ("joint_commands_raw", "joint_commands_takeover")
        )
        for kind, topic, receive, qos in (
            (JointState, "joint_commands", self._on_command, EVENT),
            (ShieldedAction, "shield_node/shielded_action", self._on_account, EVENT),
            (ShieldState, "shield_node/state", self.states.append, LATCHED),
        ):
            self.node.create_subscription(kind, topic, receive, qos)

    @property
    def due(self) -> float:
        """Return when the next period's messages are sent, s on the steady clock."""
        return self._due

    def step(self) -> None:
        """Send one period's messages when they are due, and take in what comes until then."""
        self.rest(self._due)
        now = time.monotonic()
        self._behind = max(0.0, now - self._due)
        self._due = max(self._due + self._period, now)
        step = self._steps[self._count % len(self._steps)]
        self._count += 1
        stamp = self._stamp()
        self._sense(step, stamp)
        self._command(step, stamp)
        if self.operator and self._count % 5 == 0:
            self._hand.publish(fill_joint_state(JointState(), 0, self._names, position=self._safe()))
        del self.states[:-1]

    def _stamp(self) -> int:
        return time.time_ns()

    def _safe(self) -> np.ndarray:
        command = self._contract.joint_command(self._contract.safe_action)
        assert command is not None
        return command

    # What is sent.

    def _sense(self, step: Step, stamp: int) -> None:
        how = self.sensors
        if how == "silent":
            return
        shift = {"ahead": 10 * NANOSECONDS, "behind": -NANOSECONDS, "unstamped": -stamp}.get(how, 0)
        for publisher, message in ((self._imu, step.imu), (self._joints, step.joint_states)):
            if how == "one only" and publisher is self._imu:
                continue
            if how == "garbage":
                publisher.publish(GARBAGE)
                continue
            sent = copy.deepcopy(message) if how in ("nan", "partial") else message
            if how == "nan":
                _spoil(sent)
            elif how == "partial" and publisher is self._joints:
                sent.name, sent.position, sent.velocity = sent.name[:-1], sent.position[:-1], sent.velocity[:-1]
            set_stamp(sent, stamp + shift)
            for _ in range({"twice": 2, "flood": FLOOD}.get(how, 1)):
                publisher.publish(sent)

    def _command(self, step: Step, stamp: int) -> None:
        how, message = self.controller, step.command
        if how == "silent":
            return
        if how == "garbage":
            self._raw.publish(GARBAGE)
            return
        sent = copy.deepcopy(message) if how else message
        values = np.array(sent.position)
        if how == "nan":
            values[0] = math.nan
        elif how == "beyond its limits":
            values = values * 100.0
        elif how == "noise":
            values = values + self._rng.normal(0.0, 0.5, len(values))
        elif how == "other names":
            sent.name = [f"arm_{name}" for name in sent.name]
        sent.position = values.tolist()
        self._asked.append(values.tobytes())
        set_stamp(sent, stamp - NANOSECONDS if how == "late stamps" else stamp)
        for _ in range(FLOOD if how == "flood" else 1):
            self._raw.publish(sent)

    # What comes back.

    def _on_command(self, message: JointState) -> None:
        now = time.monotonic()
        self.commands += 1
        values = np.array(message.position)
        if values.tobytes() not in self._asked:
            self.changed.append(now)
        if list(message.name) != self._names or values.shape != self._low.shape:
            self.unsafe["names"] += 1
        elif not np.isfinite(values).all():
            self.unsafe["not finite"] += 1
        elif (values < self._low - 1e-6).any() or (values > self._high + 1e-6).any():
            self.unsafe["beyond the limits"] += 1
        gap, self._last = now - self._last, now
        if self.excused:
            self._back = now
            return
        # Where this process was late itself, it cannot tell.
        if now - self._back > SETTLED and gap > 2.0 * self._period and self._behind < 0.5 * self._period:
            self.late += 1
            self.worst = max(self.worst, gap)

    def _on_account(self, message: ShieldedAction) -> None:
        decision = Decision(message.decision)
        self.heard.append((time.monotonic(), decision))
        judged = (
            decision in (Decision.PASSED, Decision.RESAMPLED) and message.enforced and not math.isnan(message.epsilon)
        )
        # An action that passed with words only is the shield's that was taken out.
        if judged and not message.q_safe_action <= message.epsilon and "disabled" not in message.reason:
            self.unsafe["let through above epsilon"] += 1


def _spoil(message: Any) -> None:
    if isinstance(message, Imu):
        message.orientation.x = math.nan
    else:
        message.position[0] = math.nan
