"""What the topics of a robot hold: type, rate, and the range of every number that a contract could read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssql_ros.contract import ContractError
from ssql_ros.contract.fields import BY_JOINT, COMMAND_TYPES, MESSAGE_FIELDS
from ssql_ros.contract.message_kinds import kinds
from ssql_ros.contract.sensor_values import FIELD_VALUES, turned
from ssql_ros.contract.serialised import reader_of

JOINT_UNITS = {"position": "rad", "velocity": "rad/s", "effort": "N m"}
JOINT_FIELDS = tuple(JOINT_UNITS)
LOOKED_AT = 20_000  # messages of a topic
# Below this a number stands still.
STILL = 1e-9
SCAN = "sensor_msgs/msg/LaserScan"


@dataclass
class Signal:
    """One topic.

    Attributes:
        times: ns, when messages came; stamps: ns, what they say themselves, 0: nothing.
        values: by field, or by (joint, field) of a JointState.
        joints: names, in the order in which they first came.
        view: rad, least and largest angle of a scan.
        broken: messages that cannot be read; fault: the first of them, in words.
    """

    topic: str
    kind: str
    times: list[int] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)
    values: dict[str | tuple[str, str], list[float]] = field(default_factory=dict)
    joints: list[str] = field(default_factory=list)
    view: tuple[float, float] | None = None
    broken: int = 0
    fault: str = ""

    @property
    def stamped(self) -> bool:
        """Return whether messages say when they were measured."""
        return bool(self.stamps) and min(self.stamps) > 0 and len(set(self.stamps)) > len(self.stamps) // 2

    @property
    def interval(self) -> float:
        """Return the median time between messages, s; inf: there is only one."""
        times = np.sort(np.array(self.stamps if self.stamped else self.times))
        apart = np.diff(times)
        apart = apart[apart > 0]
        return float(np.median(apart)) / 1e9 if len(apart) else float("inf")

    def moves(self, key: str | tuple[str, str]) -> bool:
        """Return whether a number is there and changes."""
        found = self.values.get(key, ())
        return len(found) > 1 and float(np.ptp(np.array(found))) > STILL

    def range(self, key: str | tuple[str, str]) -> tuple[float, float]:
        """Return the least and the largest value of a number."""
        found = np.array(self.values[key])
        return float(found.min()), float(found.max())


def signals_of(messages: Iterable[tuple[str, str, int, bytes]]) -> dict[str, Signal]:
    """Return the topics that a contract can read or command, by name.

    Args:
        messages: topic, type, ns when it came, CDR; in the order in which they came.
    """
    found: dict[str, Signal] = {}
    takers: dict[str, Callable[[bytes], None]] = {}
    for topic, kind, time, data in messages:
        if kind not in MESSAGE_FIELDS and kind not in COMMAND_TYPES:
            continue
        if topic not in found:
            found[topic] = Signal(topic, kind)
            takers[topic] = _taker(found[topic])
        signal = found[topic]
        if signal.kind != kind or len(signal.times) >= LOOKED_AT:
            continue
        try:
            takers[topic](data)
        except ContractError as error:
            signal.broken += 1
            signal.fault = signal.fault or str(error)
            continue
        signal.times.append(time)
    return {topic: signal for topic, signal in found.items() if signal.times}


def _refuse(data: bytes) -> Any:
    raise ContractError(f"expected little-endian CDR, got the header {data[:4].hex()}")


def _taker(signal: Signal) -> Callable[[bytes], None]:
    parse = reader_of(signal.kind, _refuse)
    values_of = _joints if signal.kind in BY_JOINT else _numbers(signal)

    def take(data: bytes) -> None:
        message = parse(data)
        found = values_of(message)
        stamp = message.header.stamp
        signal.stamps.append(stamp.sec * 1_000_000_000 + stamp.nanosec)
        for key, value in found.items():
            if np.isfinite(value):
                signal.values.setdefault(key, []).append(value)
        if signal.kind in BY_JOINT:
            signal.joints += [name for name in message.name if name not in signal.joints]
        if signal.kind == SCAN:
            told = message.values
            signal.view = (told["angle_min"], told["angle_min"] + told["angle_increment"] * (len(told["ranges"]) - 1))

    return take


def _joints(message: Any) -> dict[Any, float]:
    columns = {field: getattr(message, field) for field in JOINT_FIELDS}
    return {
        (joint, field): column[i]
        for field, column in columns.items()
        for i, joint in enumerate(message.name)
        if i < len(column)
    }


def _numbers(signal: Signal) -> Callable[[Any], dict[Any, float]]:
    kind, topic = signal.kind, signal.topic
    if kind in FIELD_VALUES:
        with_pose = kind.endswith("Odometry")

        def by_hand(message: Any) -> dict[Any, float]:
            values: dict[Any, float] = dict(FIELD_VALUES[kind](message, topic))
            if with_pose and any(message.pose.pose.orientation):
                values |= turned(message.pose.pose.orientation, topic)
            return values

        return by_hand
    table = kinds()[kind]
    if kind == SCAN:
        return lambda message: {}
    if "data[i]" in table.fields:
        return lambda message: {f"data[{i}]": value for i, value in enumerate(message.values["data"])}
    fields = [name for name in table.fields if name not in table.patterns]
    read = table.reader(fields, topic)
    return lambda message: dict(zip(fields, read(message), strict=True))
