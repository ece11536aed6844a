"""The simulator as a robot driver: publishes sensors, takes joint commands, keeps the contract's command time-out.

Lock-step (as fast as possible): after each observation it waits for the command that answers it. Real time: a step
every control period of the steady clock, with whatever command is there. Either way nothing downstream can tell it
from a driver: topics, types and stamps are those of one.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter
from rosgraph_msgs.msg import Clock as ClockMessage
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger

from ssql_ros.contract import ContractError, told_otherwise
from ssql_ros.contract.messages import CommandReader, fill, set_stamp, stamp_of
from ssql_ros.contract.stamped import NANOSECONDS
from ssql_ros.contract.topics import CLOCK_TOPIC, EPISODE_TOPIC, FORWARD_TOPIC, INCIDENT_TOPIC
from ssql_ros.msg import Episode, Incident
from ssql_ros.nodes.sensors import MESSAGES
from ssql_ros.robots import DEFAULT
from ssql_ros.robots.tasks import Task, find_task
from ssql_ros.ros.command_topics import hear_commands
from ssql_ros.ros.executor import executor_for
from ssql_ros.ros.guard import Guard
from ssql_ros.ros.inputs import message_type
from ssql_ros.ros.parameters import Parameter, declare
from ssql_ros.ros.process import COMMAND, EVENT, LATCHED, run_node

PARAMETERS = (
    Parameter("task", DEFAULT, "which world", fixed=True),
    Parameter("real_time", False, "step on the steady clock instead of in lock-step with the commands", fixed=True),
    Parameter("seed", 0, "seed of the next episode; goes up by one with each", low=0, high=2**31 - 1),
    Parameter("auto_reset", True, "begin the next episode when one has ended; else wait for ~/reset", fixed=True),
    Parameter("patience", 0.5, "s, how long lock-step waits for a command before time goes on", low=0.02, high=60.0),
    Parameter("max_steps", 0, "control periods of an episode; 0: as many as the world says", 0, 10**6, fixed=True),
    Parameter("contract", "", "YAML of the same vectors, told in other messages; empty: the task's own", fixed=True),
    Parameter("world", "{}", "options of the world in place of the task's, in JSON", fixed=True),
)
# How long it takes to begin, on the robot's clock: the gap by which all see a new episode.
RESET_SECONDS = 1.0


class SimNode(Node):
    """Drives one world."""

    def __init__(self) -> None:
        super().__init__("sim_node")
        self.value_of = declare(self, PARAMETERS)
        task = find_task(self.value_of("task"))
        self.contract = told_otherwise(task.contract(), self.value_of("contract"))
        self.body = task.plug.body(task.make(**self._world_of(task)), self.contract)
        trigger = self.contract.observed.trigger
        # The trigger last: whoever hears it has heard the others.
        self._sensors = {
            name: self.create_publisher(message_type(source.type), source.topic, EVENT)
            for name, source in sorted(self.contract.inputs.items(), key=lambda item: item[0] == trigger)
        }
        self._period = round(self.contract.control_period * NANOSECONDS)
        self._timeout = round(self.contract.command_timeout * NANOSECONDS)
        self._safe_command = self.contract.joint_command(self.contract.safe_action)
        # Simulated time starts at 1 s, as 0 would read as "not set"; in real time stamps are a driver's: the system's.
        self._now = time.time_ns() if self.value_of("real_time") else NANOSECONDS
        self._command: np.ndarray | None = None  # the newest, None before the first
        self._command_time = 0  # ns of simulated time, when it was taken
        self._answered = False  # a command for the current observation is there
        self._driven = False  # somebody has commanded this robot at all
        self._reset_asked = threading.Event()
        self._clock_out = self.create_publisher(ClockMessage, CLOCK_TOPIC, EVENT)
        self._incident = self.create_publisher(Incident, INCIDENT_TOPIC, LATCHED)
        self._episode = self.create_publisher(Episode, EPISODE_TOPIC, LATCHED)
        told = self.contract.commanded
        self._read, self._read_forward = (CommandReader(self.contract, name) for name in (told.topic, FORWARD_TOPIC))
        hear_commands(self, self.contract, told.topics, self._take, COMMAND, Guard(self.get_logger()))
        self.create_subscription(Float64MultiArray, FORWARD_TOPIC, self._on_forward_command, COMMAND)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self._episodes = 0
        self._begin()

    def _world_of(self, task: Task) -> dict[str, Any]:
        """Return the options of the world. Raises ValueError where the parameter `world` is not of a JSON object."""
        try:
            given = json.loads(self.value_of("world"))
        except ValueError:
            given = None
        if not isinstance(given, dict):
            raise ValueError(f"parameter world: expected an object in JSON, got {self.value_of('world')!r}")
        steps = {"max_steps": self.value_of("max_steps")} if self.value_of("max_steps") else {}
        return {**task.world("finetune"), **steps, **given}

    # Commands, and the driver's time-out.

    def _on_forward_command(self, message: Float64MultiArray) -> None:
        self._take(lambda: message, read=self._read_forward.array_command)

    def _take(self, parse: Any, _arrival: float = 0.0, read: Any = None) -> None:
        try:
            if (message := parse()) is None:  # of some joints only
                return
            command = (read or self._read.joint_command)(message)
            stamp = stamp_of(message) if hasattr(message, "header") else 0
        except ContractError as error:
            self.get_logger().error(str(error), throttle_duration_sec=1.0)
            return
        # An answer to an earlier observation is not one to this. Unstamped commands count as they come.
        if stamp == 0 or stamp >= self._now or self.value_of("real_time"):
            self._command, self._command_time, self._answered, self._driven = command, self._now, True, True

    def _target(self) -> np.ndarray:
        """Return the joint command to follow: the newest, or the safe one when that is older than the time-out."""
        if self._command is None or self._now - self._command_time >= self._timeout:
            if self._driven and self._command is not None:
                self.get_logger().warning("command time-out: safe stop", throttle_duration_sec=1.0)
            return self._safe_command
        return self._command

    # Episodes.

    def _begin(self) -> None:
        self._seed = self.value_of("seed")
        self._reset_asked.clear()
        info = self.body.reset(self._seed)
        self.set_parameters([RosParameter("seed", value=self._seed + 1)])
        self._steps, self._return, self._ended, self._distance = 0, 0.0, False, 0.0
        self._was_incident, self._command = False, None
        self._publish(info)

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._reset_asked.set()
        response.success, response.message = True, f"the next episode has seed {self.value_of('seed')}"
        return response

    def advance(self) -> None:
        """Simulate one control period, or begin the next episode when it is time for it."""
        if self._reset_asked.is_set() or (self._ended and self.value_of("auto_reset")):
            self._now += round(RESET_SECONDS * NANOSECONDS)
            self._episodes += 1
            self._begin()
            return
        if self._ended:
            return
        _, reward, terminated, truncated, info = self.body.step(self._target())
        self._now += self._period
        self._steps += 1
        self._return += reward
        self._distance += info["velocity"] * self.contract.control_period
        self._ended = terminated or truncated
        self._publish(info)
        if self._ended:
            self._publish_episode(info)

    @property
    def idle(self) -> bool:
        """Tell whether an episode has ended and nobody has asked for the next."""
        return self._ended and not self.value_of("auto_reset") and not self._reset_asked.is_set()

    @property
    def answered(self) -> bool:
        """Tell whether the current observation has its command.

        So has an episode's last one before the next begins: else an answer could come late and be taken for one to the
        first observation of the next.
        """
        return self._answered

    @property
    def waiting(self) -> bool:
        """Tell whether nobody has commanded this robot yet, nor asked for a reset."""
        return not self._driven and not self._reset_asked.is_set()

    # What a driver publishes.

    def _publish(self, info: dict[str, Any]) -> None:
        self._answered = False
        self.publish_sensors()
        if info["incident"] != self._was_incident or self._steps == 0:
            self._was_incident = info["incident"]
            message = fill(Incident(), incident=info["incident"], margin=info["margin"], cause=info["cause"])
            set_stamp(message, self._now)
            self._incident.publish(message)

    def publish_sensors(self) -> None:
        """Publish the clock and what the sensors say of the current instant."""
        stamp = self._now
        self._clock_out.publish(ClockMessage(clock=Time(sec=stamp // NANOSECONDS, nanosec=stamp % NANOSECONDS)))
        readings = self.body.readings()
        for name, publisher in self._sensors.items():
            publisher.publish(MESSAGES[self.contract.inputs[name].type](readings[name], stamp))

    def _publish_episode(self, info: dict[str, Any]) -> None:
        message = fill(
            Episode(),
            episode=self._episodes,
            seed=self._seed,
            steps=self._steps,
            incident=info["incident"],
            return_sum=self._return,
            velocity_mean=self._distance / (self._steps * self.contract.control_period),
            cause=info["cause"],
        )
        set_stamp(message, self._now)
        self._episode.publish(message)

    def close(self) -> None:
        """Close the world."""
        self.body.close()


REPEAT = 0.02  # s, how often a robot that nobody has commanded yet says where it is, as a driver does


def drive(node: SimNode, stopped: Any) -> None:
    """Step `node`'s world until `stopped()`: in lock-step with its commands, or in real time."""
    executor = executor_for(node)
    real_time, period = node.value_of("real_time"), node.contract.control_period
    due = time.monotonic() + period
    try:
        while rclpy.ok() and not stopped():
            wait = due - time.monotonic()
            if wait > 0 and (real_time or not node.answered or node.idle):
                executor.spin_once(timeout_sec=wait)
                continue
            if not real_time and node.waiting:
                # Time stands still until somebody drives; who came late must still see where the robot is.
                node.publish_sensors()
                due = time.monotonic() + REPEAT
                continue
            node.advance()
            # In real time a late step does not shift the ones after it, unless it is late by more than a period.
            patience = REPEAT if node.waiting else node.value_of("patience")
            due = max(due + period, time.monotonic()) if real_time else time.monotonic() + patience
    finally:
        executor.remove_node(node)
        executor.shutdown()


def main() -> int:
    """Run the node."""
    sys.setswitchinterval(0.0005)
    return run_node(SimNode, drive)
