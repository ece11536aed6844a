"""The recorder: writes the graph's topics to a rosbag2 bag (MCAP), as raw CDR, and says loudly when it cannot.

With `flight` it keeps the last seconds in memory, and writes them, with what follows, whenever something happens.

It listens at the side and never stands in the way of the robot. Messages are taken in bunches, every few
milliseconds, with the middleware's account of each: when it came, and its number at its publisher, so that messages
lost on the way are counted. A thread of its own writes them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

from ssql_ros.bags import BagWriter, FlightRecorder, Recording
from ssql_ros.contract import Contract, find_contract, load_contract
from ssql_ros.nodes.flight_watch import EVENT_TOPICS, FlightWatch, flight_recorder
from ssql_ros.nodes.flight_watch import PARAMETERS as FLIGHT_PARAMETERS
from ssql_ros.robots import DEFAULT
from ssql_ros.ros.diagnostics import Description, Diagnostics
from ssql_ros.ros.parameters import Parameter, declare
from ssql_ros.ros.process import run_node
from ssql_ros.ros.recorded_topic import Topic, bag_qos, matching_qos, message_type

OUTPUT = (
    "folder of the bag, must not exist; empty: bags/<robot>_<UTC time>. With flight: of the bags, may exist; empty: "
    "bags/<robot>_flight"
)
QUEUE = "MB that may wait for the disk before messages drop; with flight: MB of messages in memory"
PARAMETERS = (
    Parameter("contract", DEFAULT, "robot name or path of its contract: which topics to record", fixed=True),
    Parameter("output", "", OUTPUT, fixed=True),
    *FLIGHT_PARAMETERS,
    # An empty list has no type that rcl could check an override against, hence the empty text.
    Parameter("topics", [""], "topics to record; empty: inputs, commands and the shield's, by contract", fixed=True),
    Parameter("queue_megabytes", 256, QUEUE, 1, 65536, fixed=True),
)
SHIELD_TOPICS = (
    "shield_node/shielded_action",
    "shield_node/state",
    "shield_node/interventions",
    "shield_node/decision_records",
)
COMMAND_TOPICS = ("joint_commands_raw", "joint_proposals", "forward_commands_raw", "forward_commands")
OTHER_TOPICS = ("incident", "episode", "/clock")
DISCOVERY_SECONDS = 0.1
TAKE_SECONDS = 0.005


def contract_topics(contract: Contract) -> list[str]:
    """Return the relative names of the topics that a run by this contract is made of."""
    inputs = [source.topic for source in contract.inputs.values()]
    commands = [
        *contract.commanded.topics,
        *contract.commanded.raw_topics,
        *contract.commanded.takeover_topics,
        *COMMAND_TOPICS,
    ]
    return list(dict.fromkeys([*inputs, *commands, *SHIELD_TOPICS, *OTHER_TOPICS]))


class RecorderNode(Node):
    """Records topics from when their first publisher appears."""

    def __init__(self) -> None:
        super().__init__("recorder_node")
        value_of = declare(self, PARAMETERS)
        contract = load_contract(find_contract(value_of("contract")))
        names = [name for name in value_of("topics") if name] or contract_topics(contract)
        flight = value_of("flight")
        # By full name: two names may mean one topic.
        resolved = {self.resolve_topic_name(name): name for name in [*names, *(EVENT_TOPICS if flight else ())]}
        self._topics = [Topic(name, full_name) for full_name, name in resolved.items()]
        default = f"{contract.robot}_flight" if flight else f"{contract.robot}_{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        output = Path(value_of("output") or f"bags/{default}").expanduser().absolute()
        custom = {"robot": contract.robot, "contract_id": contract.id}
        self._flight: FlightWatch | None = None
        self._recording: Recording | FlightRecorder
        if flight:
            self._recording = flight_recorder(self, value_of, output, custom)
            self._flight = FlightWatch(self, self._recording, self.take_all)
        else:
            megabytes = value_of("queue_megabytes")
            self._recording = Recording(BagWriter(output, custom), megabytes * 1_000_000, self._report)
        self._dropped_reported = 0
        self._diagnostics = Diagnostics(self, "recording", self._describe)
        # The steady clock: the recorder must not stop with /clock.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(DISCOVERY_SECONDS, self._discover, clock=steady)
        self.create_timer(1.0, self._tell, clock=steady)
        doing, listed = "keeping for" if flight else "recording to", ", ".join(t.resolved for t in self._topics)
        self.get_logger().info(f"{doing} {self._recording.path}: {listed}")

    def _report(self, text: str) -> None:
        self.get_logger().error(text)

    def _discover(self) -> None:
        for topic in self._topics:
            publishers = self.get_publishers_info_by_topic(topic.name)
            topic.watch.settle(publishers)
            if not publishers or topic.fault:
                continue
            try:
                self._subscribe(topic, publishers)
            except (ImportError, AttributeError, ValueError, RuntimeError) as error:
                topic.fault = str(error)
                what = "not recorded" if topic.subscription is None else "not all recorded"
                self.get_logger().error(f"{topic.resolved} is {what}: {error}")

    def _subscribe(self, topic: Topic, publishers: list[Any]) -> None:
        """Subscribe to a topic, anew where a publisher has come that offers less than the others.

        Raises:
            ImportError, AttributeError, ValueError: its type is ambiguous, not installed or without a definition.
            RuntimeError: rcl refuses it.
        """
        types = sorted({info.topic_type for info in publishers})
        if len(types) > 1:
            raise ValueError(f"its publishers disagree on the type: {', '.join(types)}")
        offered = [info.qos_profile for info in publishers]
        qos = matching_qos(offered)
        if topic.subscription is None:
            kind = message_type(types[0])
            self._recording.add_topic(topic.resolved, types[0], [bag_qos(profile) for profile in offered])
            self.get_logger().info(f"recording {topic.resolved} ({types[0]})")
        else:
            had = topic.subscription.qos_profile
            # Of either policy the larger number asks less: reliable 1, best effort 2; transient local 1, volatile 2.
            if had.reliability >= qos.reliability and had.durability >= qos.durability:
                return
            self.get_logger().warning(f"{topic.resolved}: a publisher offers a weaker QoS; subscribing anew")
            self.take_all()
            self.destroy_subscription(topic.subscription)
            kind = topic.subscription.msg_type
        topic.subscription = self.create_subscription(kind, topic.name, self._taker(topic), qos, raw=True)

    def _taker(self, topic: Topic) -> Callable[[bytes, dict[str, Any]], None]:
        return lambda data, info: self._take(topic, data, info)

    def _take(self, topic: Topic, data: bytes, info: dict[str, Any]) -> None:
        topic.watch.take(info.get("publication_sequence_number"))
        # A bag is sorted by time: a system clock that is set back must not turn the order of messages round.
        topic.last_time = max(topic.last_time, info.get("received_timestamp") or time.time_ns())
        self._recording.put(topic.resolved, topic.last_time, data)
        if self._flight is not None:
            kind = topic.subscription.msg_type
            self._flight.take(topic.name, kind, data, topic.last_time, info.get("source_timestamp") or 0)

    def take_all(self) -> None:
        """Take every message that has come, of all topics, in the order in which they came."""
        taken, now = [], time.monotonic_ns()
        for topic in self._topics:
            subscription = topic.subscription
            if subscription is None:
                continue
            with subscription.handle:
                while (message := subscription.handle.take_message(subscription.msg_type, True)) is not None:
                    taken.append((topic, *message))
        taken.sort(key=lambda entry: entry[2].get("received_timestamp") or 0)
        for entry in taken:
            self._take(*entry)
        if self._flight is not None:
            self._flight.recorder.advance(now)

    def _tell(self) -> None:
        dropped = sum(self._recording.dropped.values())
        if dropped > self._dropped_reported:
            self._dropped_reported = dropped
            self.get_logger().error(f"the disk is too slow: {dropped} messages dropped so far, the queue is full")
        self._diagnostics.publish()

    def _describe(self) -> Description:
        recording = self._recording
        dropped, missed = sum(recording.dropped.values()), sum(topic.watch.missed for topic in self._topics)
        faulty = [topic for topic in self._topics if topic.fault]
        if recording.problem or dropped:
            level, message = DiagnosticStatus.ERROR, recording.problem or f"{dropped} messages dropped: queue full"
        elif faulty or missed:
            level = DiagnosticStatus.WARN
            message = f"{len(faulty)} topics not recorded, {missed} messages lost on the way"
        elif self._flight is not None and (warning := self._flight.recorder.warning):
            level, message = DiagnosticStatus.WARN, warning
        else:
            level, message = DiagnosticStatus.OK, recording.state
        values = {**recording.values(), "missed_messages": str(missed)}
        for topic in self._topics:
            count = str(recording.received.get(topic.resolved, "no publisher yet"))
            values[topic.resolved] = topic.fault or count
        return level, message, values

    def close(self) -> None:
        """Write everything that was received, close the bag and log what it holds."""
        self.take_all()
        recording, logger = self._recording, self.get_logger()
        recording.close()
        for topic in self._topics:
            topic.watch.settle(self.get_publishers_info_by_topic(topic.name))
            if topic.watch.missed:
                logger.error(f"{topic.resolved}: {topic.watch.missed} messages were lost on the way to the recorder")
        never = [topic.resolved for topic in self._topics if topic.resolved not in recording.received]
        if never:
            logger.info(f"never published: {', '.join(never)}")
        if recording.lost:
            logger.error(f"{recording.lost} messages are not in the bag; {recording.problem or 'the queue was full'}")
        logger.info(recording.summary())


def serve(node: RecorderNode, stopped: Callable[[], bool]) -> None:
    """Record until `stopped()` or ROS shuts down.

    The executor serves timers and parameters and wakes up for messages; they are then taken all at once, which costs
    a tenth of one executor turn each, and with the middleware's account, which EventsExecutor cannot give.
    """
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while rclpy.ok() and not stopped():
            executor.spin_once(timeout_sec=0.1)
            node.take_all()
            time.sleep(TAKE_SECONDS)
    except ExternalShutdownException:
        pass
    finally:
        executor.remove_node(node)
        executor.shutdown()


def main() -> int:
    """Run the recorder as a process."""
    return run_node(RecorderNode, serve)


if __name__ == "__main__":
    sys.exit(main())
