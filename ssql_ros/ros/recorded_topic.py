"""One topic of the recorder: its type, the QoS that fits its publishers, and the messages that never came."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

from ssql_ros.contract.stamped import NANOSECONDS

# A reader's queue must last from one take to the next, and through a hiccup of the machine.
QUEUE_DEPTH = 1000


def message_type(name: str) -> Any:
    """Return the message class of a ROS type. Raises ImportError or AttributeError where it is not installed."""
    package, kind, message = name.split("/")
    return getattr(importlib.import_module(f"{package}.{kind}"), message)


def bag_qos(profile: QoSProfile) -> Qos:
    """Return a publisher's QoS as a bag holds it; the numbers of the policies are rmw's."""
    deadline, lifespan, lease = (
        QosTime(duration.nanoseconds // NANOSECONDS, duration.nanoseconds % NANOSECONDS)
        for duration in (profile.deadline, profile.lifespan, profile.liveliness_lease_duration)
    )
    return Qos(
        history=QosHistory(int(profile.history)),
        depth=int(profile.depth),
        reliability=QosReliability(int(profile.reliability)),
        durability=QosDurability(int(profile.durability)),
        deadline=deadline,
        lifespan=lifespan,
        liveliness=QosLiveliness(int(profile.liveliness)),
        liveliness_lease_duration=lease,
        avoid_ros_namespace_conventions=bool(profile.avoid_ros_namespace_conventions),
    )


def matching_qos(offered: list[QoSProfile]) -> QoSProfile:
    """Return the strongest QoS that every one of the offers satisfies."""
    reliable = all(profile.reliability == ReliabilityPolicy.RELIABLE for profile in offered)
    latched = all(profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for profile in offered)
    return QoSProfile(
        depth=QUEUE_DEPTH,
        history=HistoryPolicy.KEEP_LAST,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


@dataclass
class SequenceWatch:
    """Counts messages that a topic's only publisher numbered and that never came.

    With several publishers the numbers mix and nothing can be said, so gaps count only where `settle` finds the same
    single publisher before and after them.
    """

    missed: int = 0
    _publisher: str | None = None
    _last: int | None = None
    _suspected: int = 0

    def take(self, number: int | None) -> None:
        """Note the number of a message that came."""
        if number is None:
            return
        if self._last is not None and number > self._last + 1:
            self._suspected += number - self._last - 1
        self._last = number

    def settle(self, publishers: list[Any]) -> None:
        """Note which publishers there are now (TopicEndpointInfo)."""
        only = str(publishers[0].endpoint_gid) if len(publishers) == 1 else None
        if only is not None and only == self._publisher:
            self.missed += self._suspected
        else:
            self._last = None
        self._suspected, self._publisher = 0, only


@dataclass
class Topic:
    """One topic to record.

    Attributes:
        name: as asked for; `resolved`: with namespace and remaps.
        fault: why it, or a part of it, is not recorded, in words; empty: it is, or nobody has published it yet.
        last_time: ns, when its newest message was received.
    """

    name: str
    resolved: str
    subscription: Any = None
    fault: str = ""
    last_time: int = 0
    watch: SequenceWatch = field(default_factory=SequenceWatch)
