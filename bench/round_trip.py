"""Feeds graphs with observations and commands and times what comes back; for `ssql bench ros`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sensor_msgs.msg import Imu, JointState

from ssql_ros.contract.messages import fill_joint_state, fill_quaternion, fill_vector3, set_stamp, stamp_of
from ssql_ros.ros.client import Client
from ssql_ros.ros.process import COMMAND, EVENT


class RoundTripError(RuntimeError):
    """A graph is not there; the text says which."""


@dataclass(frozen=True)
class Step:
    """One control period of a recording, as messages: an observation and the command that a controller gave for it."""

    imu: Imu
    joint_states: JointState
    command: JointState


def step_messages(sensors: Any, joint_names: Sequence[str], joint_command: np.ndarray) -> Step:
    """Return a robot's reading (see ssql_sim.sensors) and the joint command (n_joint,) that answers it as messages."""
    imu = Imu()
    fill_quaternion(imu.orientation, sensors.orientation)
    fill_vector3(imu.angular_velocity, sensors.angular_velocity)
    fill_vector3(imu.linear_acceleration, sensors.linear_acceleration)
    joint_states = fill_joint_state(
        JointState(),
        0,
        sensors.joint_names,
        position=sensors.joint_position,
        velocity=sensors.joint_velocity,
        effort=sensors.joint_effort,
    )
    return Step(imu, joint_states, fill_joint_state(JointState(), 0, joint_names, position=joint_command))


@dataclass(frozen=True)
class Answer:
    """What came back. `seconds`: from just before the observation's first message left to the command's arrival."""

    seconds: float
    unchanged: bool


class Driver(Client):
    """A node of this process whose one thread sends and receives, so that no answer waits for another thread."""

    def wait(self, there: Callable[[], bool], check: Callable[[], None], patience: float, fault: str) -> None:
        """Take in what comes until something is there. Raises RoundTripError with `fault` after `patience` s.

        `check` raises when a process has ended.
        """
        end = time.monotonic() + patience
        while not there():
            check()
            if time.monotonic() > end:
                raise RoundTripError(f"{fault} for {patience:g} s")
            self.spin(0.05)

    def rest(self, until: float) -> None:
        """Take in what comes until the monotonic time `until`, in s."""
        while (left := until - time.monotonic()) > 0.0:
            self.spin(left)


class RoundTrips(Driver):
    """Talks to several graphs of equal topics, each in a namespace of its own, one at a time."""

    def __init__(self, namespaces: Sequence[str]) -> None:
        super().__init__("round_trips")
        self._arrived: tuple[float, JointState] | None = None
        self._publishers = {
            name: (
                self.node.create_publisher(Imu, f"{name}/imu/data", EVENT),
                self.node.create_publisher(JointState, f"{name}/joint_states", EVENT),
                self.node.create_publisher(JointState, f"{name}/joint_commands_raw", COMMAND),
            )
            for name in namespaces
        }
        self._subscriptions = {
            name: self.node.create_subscription(JointState, f"{name}/joint_commands", self._on_command, COMMAND)
            for name in namespaces
        }

    def _on_command(self, message: JointState) -> None:
        self._arrived = (time.perf_counter(), message)

    def connect(self, check: Callable[[], None], patience: float = 30.0) -> None:
        """Wait until every graph is connected. `check` raises when one of its processes has ended.

        Raises:
            RoundTripError: a graph is not there after `patience` s.
        """
        for name, publishers in self._publishers.items():
            connected = partial(self._connected, name, publishers)
            self.wait(connected, check, patience, f"{name}: nobody has connected to its topics")

    def _connected(self, name: str, publishers: Sequence[Any]) -> bool:
        answers = self.node.count_publishers(self._subscriptions[name].topic_name)
        return answers > 0 and all(publisher.get_subscription_count() for publisher in publishers)

    def send(self, name: str, step: Step, timeout: float, since: int = 0) -> Answer | None:
        """Send one step to a graph, stamped now; return its answer, or None when none came within `timeout` s.

        `since`: ns; an answer is stamped by the frame that it was decided on, which of sensors that come more often may
        have begun before this step, but after the one that was answered last; 0: no sensors in between.
        """
        stamp = time.time_ns()
        messages = (step.imu, step.joint_states, step.command)
        for message in messages:
            set_stamp(message, stamp)
        self._arrived = None
        start = time.perf_counter()
        for publisher, message in zip(self._publishers[name], messages, strict=True):
            publisher.publish(message)
        while (left := start + timeout - time.perf_counter()) > 0.0:
            self.spin(left)
            if self._arrived is not None and (since or stamp - 1) < stamp_of(self._arrived[1]) <= stamp:
                arrival, message = self._arrived
                return Answer(arrival - start, message.position == step.command.position)
        return None

    def sense(self, step: Step) -> None:
        """Send the sensors of one step to every graph, stamped now, with no command that answers them."""
        stamp = time.time_ns()
        for message in (step.imu, step.joint_states):
            set_stamp(message, stamp)
        for imu, joint_states, _ in self._publishers.values():
            imu.publish(step.imu)
            joint_states.publish(step.joint_states)
