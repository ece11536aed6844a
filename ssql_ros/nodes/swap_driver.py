"""A robot's driver that records everything while models are swapped; for `ssql bench swap`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rclpy
from rclpy.experimental.events_executor import EventsExecutor
from rclpy.node import Node
from sensor_msgs.msg import Imu, JointState

from ssql_ros.msg import ModelStatus, Proposal, ShieldedAction, ShieldState
from ssql_ros.nodes.announcer import Announcer
from ssql_ros.nodes.process import EVENT, LATCHED
from ssql_ros.nodes.round_trip import RoundTripError, Step
from ssql_ros.spec.messages import set_stamp


@dataclass
class Record:
    """What was sent and heard, in order; times are s of the steady clock."""

    observations: list[tuple[float, int, Step]] = field(default_factory=list)  # when, stamp, what
    commands: list[tuple[float, JointState]] = field(default_factory=list)
    proposals: list[Proposal] = field(default_factory=list)
    accounts: list[ShieldedAction] = field(default_factory=list)
    swaps: list[tuple[float, float, dict[str, ModelStatus]]] = field(default_factory=list)  # begin, end, answers


class SwapDriver:
    """Publishes sensors at a fixed rate, and announces bundles in between. Use as a context manager.

    Args:
        period: s, between observations.
    """

    def __init__(self, period: float) -> None:
        rclpy.init()
        self._node = Node("swap_driver")
        self._executor = EventsExecutor()
        self._executor.add_node(self._node)
        self._period, self._due = period, time.monotonic()
        self.record = Record()
        self.states: list[ShieldState] = []
        self._imu = self._node.create_publisher(Imu, "imu/data", EVENT)
        self._joints = self._node.create_publisher(JointState, "joint_states", EVENT)
        for kind, topic, receive, qos in (
            (JointState, "joint_commands", self._on_command, EVENT),
            (Proposal, "joint_proposals", lambda message: self.record.proposals.append(message), EVENT),
            (ShieldedAction, "shield_node/shielded_action", lambda m: self.record.accounts.append(m), EVENT),
            (ShieldState, "shield_node/state", self.states.append, LATCHED),
        ):
            self._node.create_subscription(kind, topic, receive, qos)
        self.announcer = Announcer(self._node, "bench swap")

    def _on_command(self, message: JointState) -> None:
        self.record.commands.append((time.monotonic(), message))

    def connect(self, receivers: int, check: Callable[[], None], patience: float = 30.0) -> None:
        """Wait until that many nodes answer announcements. `check` raises when one of their processes has ended.

        Raises:
            RoundTripError: they are not there after `patience` s.
        """
        end = time.monotonic() + patience
        while len(self.announcer.receivers()) < receivers or not self._imu.get_subscription_count():
            check()
            if time.monotonic() > end:
                raise RoundTripError(f"{receivers} nodes that take models: nobody came for {patience:g} s")
            self._executor.spin_once(timeout_sec=0.05)
        self._due = time.monotonic()

    def step(self, step: Step) -> None:
        """Publish one observation when it is due, and take in what comes until the next one is."""
        self._spin_until(self._due)
        self._due = max(self._due + self._period, time.monotonic())
        stamp = time.time_ns()
        for message in (step.imu, step.joint_states):
            set_stamp(message, stamp)
        self.record.observations.append((time.monotonic(), stamp, step))
        self._imu.publish(step.imu)
        self._joints.publish(step.joint_states)
        self._spin_until(self._due)

    def _spin_until(self, end: float) -> None:
        while (left := end - time.monotonic()) > 0.0:
            self._executor.spin_once(timeout_sec=left)

    def announce(self, path: Path, contract_id: str, with_data: bool) -> Any:
        """Announce a bundle; return the offer, whose answers `announcer` collects."""
        return self.announcer.announce(path, contract_id, with_data)

    def __enter__(self) -> SwapDriver:
        """Return this."""
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnect."""
        self._executor.remove_node(self._node)
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown()
