"""A scripted driver: publishes what a contract's sensors read while a robot rests, and lets joints follow commands.

No robot and no simulator: a contract, a shield and a network are tried with it before hardware is touched. Topics,
types and joint names are the contract's; rates are the control rate, or those of nodes.yaml. It keeps the contract's
command time-out. The parameters from `only` on make it wrong on purpose, as drivers are.
"""

from __future__ import annotations

import json
import time
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Float64MultiArray

from ssql_ros.contract import Contract, ContractError, find_contract, load_contract
from ssql_ros.contract.messages import CommandReader
from ssql_ros.contract.topics import FORWARD_TOPIC
from ssql_ros.drivers.faults import Faults, read_renames
from ssql_ros.drivers.scripted import ScriptedRobot
from ssql_ros.nodes.sensors import sensor_message
from ssql_ros.robots import DEFAULT
from ssql_ros.ros.command_topics import hear_commands
from ssql_ros.ros.executor import executor_for
from ssql_ros.ros.graph_watch import node_of
from ssql_ros.ros.guard import Guard
from ssql_ros.ros.inputs import message_type
from ssql_ros.ros.parameters import Parameter, declare
from ssql_ros.ros.process import COMMAND, EVENT, SENSOR, run_node

LOOK = 1.0  # s, between two looks at who else publishes
FASTEST = 2000.0  # Hz, that any input can be published at
PARAMETERS = (
    Parameter("contract", DEFAULT, "robot name, or path of its contract YAML", fixed=True),
    Parameter(
        "rates", "{}", "Hz, by the contract's inputs, in JSON; an input that is not named: the control rate", fixed=True
    ),
    Parameter("only", "", "the input that is wrong as the others say; empty: all of them", fixed=True),
    Parameter("silent", False, "it is not published at all", fixed=True),
    Parameter("best_effort", False, "it is published best effort, not reliably", fixed=True),
    Parameter("stamps", "clock", "stamps of now, none, or the first one for ever", choices=("clock", "zero", "still")),
    Parameter("ahead", 0.0, "s, by which its clock is ahead; negative: behind", low=-1e9, high=1e9),
    Parameter("rename", "", "joints by other names: JOINT=NAME, several with commas between", fixed=True),
    Parameter("degrees", False, "angles and turning rates of joints are in degrees"),
    Parameter("w_first", False, "quaternions are (w, x, y, z) in fields named x, y, z, w"),
    Parameter("frame_id", "", "frame of poses; empty: the contract's"),
    Parameter("latched_commands", False, "it asks for commands that are kept (transient local)", fixed=True),
    Parameter("deaf", False, "it takes no commands at all", fixed=True),
)


class DriverNode(Node):
    """Publishes every input of one contract, each at its own rate; see `drive`."""

    def __init__(self) -> None:
        super().__init__("driver_node")
        self.value_of = declare(self, PARAMETERS, self._fault)
        self.guard = Guard(self.get_logger())
        contract = self.contract = load_contract(find_contract(self.value_of("contract")))
        only, names = self.value_of("only"), list(contract.inputs)
        if only and only not in names:
            raise ValueError(f"parameter only: {only!r} is no input of {contract.path}; known: {', '.join(names)}")
        self.periods = {name: 1.0 / rate for name, rate in self._rates(contract).items()}
        self._wrong = [only] if only else names
        self._robot = ScriptedRobot(contract)
        self._first = time.time_ns()
        trigger = contract.observed.trigger
        # The trigger last: whoever hears it has heard the others.
        self._outputs = {
            name: self.create_publisher(message_type(source.type), source.topic, self._qos(name))
            for name, source in sorted(contract.inputs.items(), key=lambda item: item[0] == trigger)
            if not (self.value_of("silent") and name in self._wrong)
        }
        self.publish(list(self._outputs))  # what cannot be published is said at start
        if not self.value_of("deaf"):
            self._listen()

    def _fault(self, values: dict[str, Any]) -> str:
        try:
            read_renames(values["rename"])
        except ValueError as error:
            return str(error)
        return ""

    def _rates(self, contract: Contract) -> dict[str, float]:
        """Return how often each input is published, Hz. Raises ValueError where the parameter `rates` is wrong."""
        try:
            given = json.loads(self.value_of("rates"))
        except ValueError:
            given = None
        if not isinstance(given, dict):
            raise ValueError(f"parameter rates: expected an object in JSON, got {self.value_of('rates')!r}")
        for name, rate in given.items():
            if name not in contract.inputs:
                known = ", ".join(contract.inputs)
                raise ValueError(f"parameter rates: {name!r} is no input of {contract.path}; known: {known}")
            if type(rate) not in (int, float) or not 0.0 < rate <= FASTEST:
                raise ValueError(f"parameter rates: {name}: expected Hz above 0, at most {FASTEST:g}, got {rate!r}")
        return {name: float(given.get(name, 1.0 / contract.control_period)) for name in contract.inputs}

    def _qos(self, name: str) -> QoSProfile:
        return SENSOR if self.value_of("best_effort") and name in self._wrong else EVENT

    def _listen(self) -> None:
        told = self.contract.commanded
        qos = COMMAND
        if self.value_of("latched_commands"):
            kept = DurabilityPolicy.TRANSIENT_LOCAL
            qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=kept)
        read = CommandReader(self.contract, told.topic)
        forwarded = CommandReader(self.contract, FORWARD_TOPIC)

        def take(whole: Any, _arrival: float) -> None:
            self._take(lambda: None if (message := whole()) is None else read.joint_command(message))

        hear_commands(self, self.contract, told.topics, take, qos, self.guard)
        self.create_subscription(
            Float64MultiArray,
            FORWARD_TOPIC,
            self.guard(FORWARD_TOPIC, lambda message: self._take(lambda: forwarded.array_command(message))),
            qos,
        )

    def _take(self, read: Any) -> None:
        try:
            command = read()
        except ContractError as error:
            self.get_logger().error(str(error), throttle_duration_sec=1.0)
            return
        if command is not None:
            self._robot.command(command, time.monotonic())

    def publish(self, names: list[str]) -> None:
        """Publish what some of the inputs read now, with one stamp."""
        was, now = self._robot.stopped, self.get_clock().now().nanoseconds
        self._robot.step(time.monotonic())
        if self._robot.stopped and not was:
            self.get_logger().warning("command time-out: safe stop")
        readings, faults = self._robot.readings(), self._faults()
        for name in names:
            reading, stamp = readings[name], now
            if name in self._wrong:
                reading, stamp = faults.reading(reading), faults.stamp(now, self._first)
            self._outputs[name].publish(sensor_message(self.contract.inputs[name].type, reading, max(stamp, 0)))

    def _faults(self) -> Faults:
        own = {name: self.value_of(name) for name in ("stamps", "ahead", "degrees", "w_first", "frame_id")}
        return Faults(rename=read_renames(self.value_of("rename")), **own)

    def look(self) -> None:
        """Say who else publishes what this does: a robot may be there, whose sensors are then drowned."""
        own = self.get_fully_qualified_name()
        for name, publisher in self._outputs.items():
            found = self.get_publishers_info_by_topic(publisher.topic_name)
            others = sorted({node_of(info) for info in found} - {own})
            if others:
                self.get_logger().error(
                    f"{', '.join(others)} also publishes {publisher.topic_name} ({name}): is a robot in this ROS "
                    "domain? end this driver, or give it a domain of its own (ROS_DOMAIN_ID)",
                    throttle_duration_sec=10.0,
                )

    @property
    def published(self) -> list[str]:
        """Return the names of the inputs that are published, the trigger last."""
        return list(self._outputs)


def drive(node: DriverNode, stopped: Any) -> None:
    """Publish each input when it is due, until `stopped()`."""
    executor = executor_for(node)
    due, looked = dict.fromkeys(node.published, time.monotonic()), time.monotonic()
    try:
        while rclpy.ok() and not stopped():
            wait = min(due.values(), default=time.monotonic() + 0.1) - time.monotonic()
            if time.monotonic() > looked + LOOK:
                looked = time.monotonic()
                node.look()
            if wait > 0.0:
                executor.spin_once(timeout_sec=min(wait, 0.1))
                continue
            now = time.monotonic()
            names = [name for name, at in due.items() if at <= now]
            node.publish(names)
            for name in names:
                # A late message does not shift those after it, unless it is late by more than a period.
                due[name] = max(due[name] + node.periods[name], now)
    finally:
        executor.remove_node(node)
        executor.shutdown()


def main() -> int:
    """Run the node."""
    return run_node(DriverNode, drive)
