"""Message types as tables: how their bytes are laid out, which numbers a frame can read of them, in which SI unit.

JointState, Imu and Odometry, which come at the highest rates, are read by hand in `serialised`; every other type has
its whole description here, and a package of yours adds its own by an entry point of the group `ssql_ros.inputs` that
names a `Kind`. Live and from bags the same bytes go through the same reader, so that they give the same numbers.
"""

from __future__ import annotations

import math
import re
import statistics
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any, NamedTuple

from ssql_ros.contract.schema import ContractError

GROUP = "ssql_ros.inputs"
ANY = "*"  # unit of a number whose message does not say what it is: the contract names any SI unit
_AXES = "xyz"
_SIZES = {"d": 8, "f": 4, "i": 4, "I": 4, "B": 1, "b": 1, "h": 2, "H": 2, "q": 8, "Q": 8, "?": 1}
_COUNT = struct.Struct("<I")
_TIME = struct.Struct("<iI")


class Stamp(NamedTuple):
    """builtin_interfaces/msg/Time."""

    sec: int
    nanosec: int


class Header(NamedTuple):
    """std_msgs/msg/Header."""

    stamp: Stamp


class Values(NamedTuple):
    """A message as its table has it; a type without a header has a stamp of 0."""

    header: Header
    values: dict[str, Any]


Read = Callable[[dict[str, Any]], float]


@dataclass(frozen=True)
class Kind:
    """One message type.

    Attributes:
        name: such as sensor_msgs/msg/Range.
        layout: the definition in order, up to the last value that is read: name and code of each. Codes: `header`,
            `string`, `strings`, `skip_layout` (std_msgs/msg/MultiArrayLayout), a letter of Python's `struct`
            (d f i I B b h H q Q ?), one with a number before it (an array of that length), or one with [] behind it
            (a sequence).
        fields: SI unit of each number that a frame can read, by its name; a name may hold patterns (see `patterns`).
        read: what gives a field's number from the values by name; raises KeyError for a field that is none. None: the
            fields are names of the layout, an array's with .x .y .z behind.
        patterns: regular expressions of fields with arguments, by how `fields` names them.
    """

    name: str
    layout: tuple[tuple[str, str], ...]
    fields: Mapping[str, str]
    read: Callable[[str], Read] | None = None
    patterns: Mapping[str, str] = field(default_factory=dict)

    @property
    def stamped(self) -> bool:
        """Return whether messages say when they were measured."""
        return self.layout[0][1] == "header"

    def unit(self, name: str) -> str | None:
        """Return the SI unit of a field; None: there is no such field."""
        for known, unit in self.fields.items():
            if name == known or (known in self.patterns and re.fullmatch(self.patterns[known], name)):
                return unit
        return None

    def parser(self) -> Callable[[bytes], Values]:
        """Return what reads the bytes of a message; it raises struct.error where they are too few."""
        layout = self.layout

        def parse(data: bytes) -> Values:
            end, values, stamp = 4, dict[str, Any](), Stamp(0, 0)
            for name, code in layout:
                if code == "header":
                    stamp = Stamp(*_TIME.unpack_from(data, _at(end, 4)))
                    end = _after_string(data, _at(end, 4) + _TIME.size)
                else:
                    values[name], end = _value(data, end, code)
            return Values(Header(stamp), values)

        return parse

    def reader(self, fields: Sequence[str], what: str) -> Callable[[Values], list[float]]:
        """Return what gives the numbers of `fields`, SI units, of a parsed message; it raises ContractError.

        Args:
            what: the topic, for error texts.
        """
        readers = [(name, (self.read or self._plain)(name)) for name in fields]

        def read(message: Values) -> list[float]:
            found = []
            for name, one in readers:
                try:
                    value = float(one(message.values))
                except (IndexError, ValueError, statistics.StatisticsError) as error:
                    raise ContractError(f"{what}: {name}: cannot be read of this message: {error}") from error
                found.append(value)
            return found

        return read

    def _plain(self, name: str) -> Read:
        whole, _, axis = name.rpartition(".")
        if axis in _AXES and whole and not any(name == known for known, _ in self.layout):
            place = _AXES.index(axis)
            return lambda values: values[whole][place]
        return lambda values: values[name]


def _at(end: int, size: int) -> int:
    """Return where a value of `size` bytes begins that follows `end`; the header of 4 bytes does not count."""
    return ((end - 4 + size - 1) & -size) + 4


def _after_string(data: bytes, end: int) -> int:
    start = _at(end, 4)
    end = start + _COUNT.size + int(_COUNT.unpack_from(data, start)[0])
    if end > len(data):
        raise struct.error(f"a text that ends at byte {end} of {len(data)}")
    return end


def _value(data: bytes, end: int, code: str) -> tuple[Any, int]:
    """Return the value that follows `end`, and where it ends."""
    if code == "string":
        start, end = _at(end, 4) + _COUNT.size, _after_string(data, end)
        return data[start : end - 1].decode(errors="replace"), end
    if code in ("strings", "skip_layout"):
        start = _at(end, 4)
        (count,) = _COUNT.unpack_from(data, start)
        end, texts = start + _COUNT.size, []
        for _ in range(count):
            text, end = _value(data, end, "string")
            texts.append(text)
            end = _at(end, 4) + 8 if code == "skip_layout" else end  # size and stride of a dimension
        return texts, _at(end, 4) + 4 if code == "skip_layout" else end  # data_offset
    letter, count = code.rstrip("[]")[-1], 1
    size = _SIZES[letter]
    if code.endswith("[]"):
        start = _at(end, 4)
        (count,) = _COUNT.unpack_from(data, start)
        end = start + _COUNT.size
        if not count:
            return (), end
        if count * size > len(data):
            raise struct.error(f"a sequence of {count} values in {len(data)} bytes")
    elif len(code) > 1:
        count = int(code[:-1])
    start = _at(end, size)
    values = struct.unpack_from(f"<{count}{letter}", data, start)
    return values if len(code) > 1 else values[0], start + count * size


def _xyz(name: str, unit: str) -> dict[str, str]:
    return {f"{name}.{axis}": unit for axis in _AXES}


# Laser scans: the beams of a sector, reduced to one number.
_NUMBER = r"-?\d+(?:\.\d+)?"
_SECTOR = rf"\(({_NUMBER}), ?({_NUMBER})\)"
REDUCTIONS: dict[str, Callable[[list[float]], float]] = {
    "min": min,
    "max": max,
    "mean": statistics.fmean,
    "median": statistics.median,
}


def _scan(name: str) -> Read:
    """Return what reduces a sector, as in min(-30, 30): degrees, REP-103 (left is positive), by the scan's own angles.

    As REP-117 has them: +inf, or beyond range_max, is nothing there and counts as range_max; -inf, or below range_min,
    is too near and counts as range_min; NaN is no measurement and is left out. A sector without one is an error.
    """
    function, low, high = re.fullmatch(rf"({'|'.join(REDUCTIONS)}){_SECTOR}", name).groups()  # type: ignore[union-attr]
    begin, end, reduce = math.radians(float(low)), math.radians(float(high)), REDUCTIONS[function]

    def read(values: dict[str, Any]) -> float:
        first, step, ranges = values["angle_min"], values["angle_increment"], values["ranges"]
        least, most = values["range_min"], values["range_max"]
        inside = []
        for i, distance in enumerate(ranges):
            # Turned to where the sector is: a scan may run from 0 to 360 degrees.
            angle = begin + (first + i * step - begin) % (2.0 * math.pi)
            if angle <= end and distance == distance:
                inside.append(min(max(distance, least), most))
        if not inside:
            raise ValueError(f"none of {len(ranges)} beams lies in the sector and measures")
        return reduce(inside)

    return read


def _element(name: str) -> Read:
    place = int(name[len("data[") : -1])
    return lambda values: values["data"][place]


def _range(name: str) -> Read:
    def read(values: dict[str, Any]) -> float:
        distance, least, most = (values[part] for part in ("range", "min_range", "max_range"))
        # -inf: too near; +inf: nothing there (REP-117).
        return least if distance == -math.inf else most if distance > most else distance

    return read


_HEADER = ("header", "header")
_BUILT_IN = (
    Kind(
        "geometry_msgs/msg/TwistStamped",
        (_HEADER, ("linear", "3d"), ("angular", "3d")),
        {**_xyz("linear", "m/s"), **_xyz("angular", "rad/s")},
    ),
    Kind(
        "geometry_msgs/msg/Twist",
        (("linear", "3d"), ("angular", "3d")),
        {**_xyz("linear", "m/s"), **_xyz("angular", "rad/s")},
    ),
    Kind(
        "geometry_msgs/msg/WrenchStamped",
        (_HEADER, ("force", "3d"), ("torque", "3d")),
        {**_xyz("force", "N"), **_xyz("torque", "N m")},
    ),
    Kind("std_msgs/msg/Float64", (("data", "d"),), {"data": ANY}),
    Kind(
        "std_msgs/msg/Float64MultiArray",
        (("layout", "skip_layout"), ("data", "d[]")),
        {"data[i]": ANY},
        _element,
        {"data[i]": r"data\[\d+\]"},
    ),
    Kind(
        "sensor_msgs/msg/LaserScan",
        (
            _HEADER,
            *((name, "f") for name in ("angle_min", "angle_max", "angle_increment", "time_increment", "scan_time")),
            ("range_min", "f"),
            ("range_max", "f"),
            ("ranges", "f[]"),
        ),
        {f"{name}(from, to)": "m" for name in REDUCTIONS},
        _scan,
        {f"{name}(from, to)": name + _SECTOR for name in REDUCTIONS},
    ),
    Kind(
        "sensor_msgs/msg/Range",
        (_HEADER, ("radiation_type", "B"), *((n, "f") for n in ("field_of_view", "min_range", "max_range", "range"))),
        {"range": "m"},
        _range,
    ),
    Kind(
        "sensor_msgs/msg/BatteryState",
        (
            _HEADER,
            *((n, "f") for n in ("voltage", "temperature", "current", "charge", "capacity", "design_capacity")),
            ("percentage", "f"),
        ),
        {"voltage": "V", "current": "A", "percentage": "1"},
    ),
)


@cache
def kinds() -> dict[str, Kind]:
    """Return the types by name: those above, then those of installed packages. What cannot be loaded is left out."""
    found = {kind.name: kind for kind in _BUILT_IN}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            kind = entry.load()
            if not isinstance(kind, Kind):
                raise TypeError(f"expected a ssql_ros.contract.message_kinds.Kind, got {type(kind).__name__}")
            found[kind.name] = kind
        except Exception as error:  # another package's mistake must not take the other types away
            print(f"input {entry.name}: {entry.value} cannot be loaded: {error!r}", file=sys.stderr)
    return found
