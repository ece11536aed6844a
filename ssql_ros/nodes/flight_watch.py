"""What a recorder hears in flight mode beside taking messages: events of the shield, and ~/snapshot."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rclpy.serialization import deserialize_message
from std_srvs.srv import Trigger

from ssql_ros.bags import BagError, Event, EventRules, FlightRecorder, FlightSettings
from ssql_ros.bags.flight_events import SNAPSHOT
from ssql_ros.contract.topics import ACCOUNT_TOPIC, INCIDENT_TOPIC, STATE_TOPIC
from ssql_ros.msg import Incident, ShieldedAction, ShieldState
from ssql_ros.ros.guard import Guard
from ssql_ros.ros.parameters import Parameter

PARAMETERS = (
    Parameter("flight", False, "keep the last seconds in memory, and write them when something happens", fixed=True),
    Parameter("flight_seconds", 30.0, "s, kept in memory and written before an event", 0.1, 3600.0, fixed=True),
    Parameter("after_seconds", 5.0, "s, written after an event", 0.1, 600.0, fixed=True),
    Parameter("most_files", 100, "files in the folder, from which on no more is written", 1, 100_000, fixed=True),
)
# By their names before any remapping: heard and recorded whatever else is.
EVENT_TOPICS = {ACCOUNT_TOPIC: ShieldedAction, STATE_TOPIC: ShieldState, INCIDENT_TOPIC: Incident}


class FlightWatch:
    """Gives a flight recorder its events.

    Args:
        node: whose service and log are used.
        take_all: takes every message that has come so far.
    """

    def __init__(self, node: Any, recorder: FlightRecorder, take_all: Callable[[], None]) -> None:
        self.recorder = recorder
        self._take_all, self._rules = take_all, EventRules()
        self._guard = Guard(node.get_logger())
        self._hear = self._guard("event", self._heard)  # a message that is none must end nothing
        node.create_service(Trigger, "~/snapshot", self._guard.service("snapshot", self._snapshot))

    def take(self, name: str, kind: Any, data: bytes, stamp: int, published: int) -> None:
        """Look at a message that was taken.

        Args:
            name: of its topic, before any remapping; `kind`: its class.
            stamp, published: ns of the system clock, when it was received and sent; 0: not known.
        """
        if EVENT_TOPICS.get(name) is kind:
            self._hear(kind, data, stamp, published)

    def _heard(self, kind: Any, data: bytes, stamp: int, published: int) -> None:
        for event in self._events(deserialize_message(data, kind), stamp, published):
            try:
                self.recorder.event(event)
            except BagError:
                continue  # it has been said, and is counted

    def _events(self, message: Any, stamp: int, published: int) -> Iterator[Event]:
        if isinstance(message, ShieldState):
            return self._rules.state(message, stamp)
        if isinstance(message, Incident):
            return self._rules.incident(message, stamp, published)
        return self._rules.decision(message, stamp)

    def _snapshot(self, _request: Any, response: Any) -> Any:
        self._take_all()
        try:
            file = self.recorder.event(Event(SNAPSHOT, time.time_ns(), "snapshot: asked for by ~/snapshot"))
        except BagError as error:
            response.success, response.message = False, str(error)
            return response
        response.success, response.message = not file.problem, file.problem or str(file.path)
        return response


def flight_recorder(node: Any, value_of: Callable[[str], Any], folder: Path, custom: dict[str, str]) -> FlightRecorder:
    """Return a flight recorder by a node's parameters. Raises BagError where its folder cannot be made."""
    before, after, most = (value_of(name) for name in ("flight_seconds", "after_seconds", "most_files"))
    settings = FlightSettings(before, after, value_of("queue_megabytes") * 1_000_000, most)

    # A logger takes one severity from one place in the code.
    def report(text: str) -> None:
        node.get_logger().error(text)

    def tell(text: str) -> None:
        node.get_logger().info(text)

    return FlightRecorder(folder, settings, custom, report, tell)
