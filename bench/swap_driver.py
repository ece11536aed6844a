"""A robot's driver that keeps its pace and records everything while models are swapped; for `ssql bench swap`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sensor_msgs.msg import Imu, JointState

from bench.round_trip import Driver, Step
from ssql_ros.contract.messages import set_stamp
from ssql_ros.contract.topics import ANNOUNCEMENTS, STATUS
from ssql_ros.msg import ModelStatus, Proposal, ShieldedAction, ShieldState
from ssql_ros.ros.process import ANSWERS, EVENT, LATCHED, raise_priority


@dataclass
class Record:
    """What was sent and heard, in order; times are s of the steady clock."""

    observations: list[tuple[float, int, Step]] = field(default_factory=list)  # when, stamp, what
    commands: list[tuple[float, JointState]] = field(default_factory=list)
    proposals: list[Proposal] = field(default_factory=list)
    accounts: list[ShieldedAction] = field(default_factory=list)
    swaps: list[tuple[float, float, list[ModelStatus]]] = field(default_factory=list)  # begin, end, answers


class SwapDriver(Driver):
    """Publishes sensors at a fixed rate. Use as a context manager.

    Args:
        period: s, between observations.
        priority: SCHED_FIFO priority of this process's threads from here on; 0: normal.

    Attributes:
        states, answers: what the shield says of itself, and what the nodes make of announcements.
    """

    def __init__(self, period: float, priority: int) -> None:
        super().__init__("swap_driver")
        if priority:
            raise_priority(self.node, priority)
        self._period, self._due = period, time.monotonic()
        self.record = Record()
        self.states: list[ShieldState] = []
        self.answers: list[ModelStatus] = []
        self._imu = self.node.create_publisher(Imu, "imu/data", EVENT)
        self._joints = self.node.create_publisher(JointState, "joint_states", EVENT)
        for kind, topic, receive, qos in (
            (JointState, "joint_commands", self._on_command, EVENT),
            (Proposal, "joint_proposals", lambda message: self.record.proposals.append(message), EVENT),
            (ShieldedAction, "shield_node/shielded_action", lambda m: self.record.accounts.append(m), EVENT),
            (ShieldState, "shield_node/state", self.states.append, LATCHED),
            (ModelStatus, STATUS, self.answers.append, ANSWERS),
        ):
            self.node.create_subscription(kind, topic, receive, qos)

    def _on_command(self, message: JointState) -> None:
        self.record.commands.append((time.monotonic(), message))

    def connect(self, receivers: int, check: Callable[[], None], patience: float = 30.0) -> None:
        """Wait until that many nodes take announcements, and one makes them. `check` raises when a process has ended.

        Raises:
            RoundTripError: they are not there after `patience` s.
        """
        counted = self.node.count_subscribers, self.node.count_publishers

        def there() -> bool:
            heard = self._imu.get_subscription_count() > 0
            return heard and [count(ANNOUNCEMENTS) for count in counted] == [receivers, 1]

        self.wait(there, check, patience, f"expected {receivers} nodes that take models and an announcer")
        self._due = time.monotonic()

    def step(self, step: Step) -> None:
        """Publish one observation when it is due, and take in what comes until the next one is."""
        self.rest(self._due)
        self._due = max(self._due + self._period, time.monotonic())
        stamp = time.time_ns()
        for message in (step.imu, step.joint_states):
            set_stamp(message, stamp)
        self.record.observations.append((time.monotonic(), stamp, step))
        self._imu.publish(step.imu)
        self._joints.publish(step.joint_states)
        self.rest(self._due)

    def __exit__(self, *_: object) -> None:
        """Disconnect, and drive with no priority any more."""
        if os.sched_getscheduler(0) == os.SCHED_FIFO:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        super().__exit__()
