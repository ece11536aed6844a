"""Messages of the types that are tables, from numbers: what `message_kinds` reads, written."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from typing import Any

from ssql_ros.contract.message_kinds import REDUCTIONS, Kind
from ssql_ros.contract.schema import ContractError
from ssql_ros.contract.serialised import PLAIN_CDR
from ssql_ros.contract.stamped import NANOSECONDS

_SECTOR = re.compile(r"(?P<name>\w+)\((?P<low>[^,]+), ?(?P<high>[^)]+)\)")
_BEAMS, _FREE, _FAR = 360, 2.0, 30.0  # of a scan: number, m that they measure, m that they measure at most


def kind_bytes(kind: Kind, stamp: int, fields: Mapping[str, float]) -> bytes:
    """Return the bytes of a message, up to the last value of its table; zeros behind them are a whole message.

    Args:
        stamp: ns, where the type has one.
        fields: numbers by the contract's names of fields, SI units; what is not given is 0.

    Raises:
        ContractError: a field that cannot be told from any value of the table.
    """
    values, data = _values(kind, fields), bytearray()
    for name, code in kind.layout:
        _write(data, code, divmod(stamp, NANOSECONDS) if code == "header" else values.get(name))
    return PLAIN_CDR + b"\0\0" + bytes(data)


def _values(kind: Kind, fields: Mapping[str, float]) -> dict[str, Any]:
    """Return the table's values that read as these fields."""
    codes = dict(kind.layout)
    values: dict[str, Any] = {}
    if "ranges" in codes and "angle_increment" in codes:
        values = _scan(fields)
    elif {"range", "max_range"} <= set(codes):
        values = {"range": fields.get("range", _FREE), "min_range": 0.0, "max_range": _FAR}
    else:
        for field, value in fields.items():
            _place(values, codes, field, value)
    # Read back by the reader that everybody else uses: what it does not find, nobody will.
    missing = [field for field in fields if not _reads(kind, values, field)]
    if missing:
        raise ContractError(f"a {kind.name}: cannot be made from {', '.join(missing)}; its table has no such value")
    return values


def _reads(kind: Kind, values: dict[str, Any], field: str) -> bool:
    try:
        return math.isfinite((kind.read or kind._plain)(field)(values))
    except (KeyError, IndexError, ValueError, TypeError, AttributeError):
        return False


def _place(values: dict[str, Any], codes: Mapping[str, str], field: str, value: float) -> None:
    whole, _, axis = field.rpartition(".")
    if field in codes:
        values[field] = value
    elif whole in codes and axis in "xyz":
        values.setdefault(whole, [0.0] * int(codes[whole][:-1]))["xyz".index(axis)] = value
    elif element := re.fullmatch(r"(\w+)\[(\d+)\]", field):
        numbers, at = values.setdefault(element[1], []), int(element[2])
        numbers += [0.0] * (at + 1 - len(numbers))
        numbers[at] = value


def _scan(fields: Mapping[str, float]) -> dict[str, Any]:
    """Return a scan all around whose sectors measure what is wanted; where they overlap, the later one's."""
    step, ranges = 2.0 * math.pi / _BEAMS, [_FREE] * _BEAMS
    first = 0.5 * step - math.pi  # whole degrees lie between two beams
    for field, value in fields.items():
        sector = _SECTOR.fullmatch(field)
        if sector is None or sector["name"] not in REDUCTIONS:
            continue
        low, high = math.radians(float(sector["low"])), math.radians(float(sector["high"]))
        for i in range(_BEAMS):
            if low + (first + i * step - low) % (2.0 * math.pi) <= high:
                ranges[i] = value
    angles = {"angle_min": first, "angle_max": -first, "angle_increment": step}
    return {**angles, "range_min": 0.0, "range_max": _FAR, "ranges": ranges}


def _write(data: bytearray, code: str, value: Any) -> None:
    """Add a value, aligned to its own size (CDR)."""
    if code == "header":
        _aligned(data, 4, struct.pack("<iI", *value))
        code, value = "string", ""
    if code in ("string", "strings", "skip_layout"):
        if code == "string":
            text = str(value or "").encode() + b"\0"
            _aligned(data, 4, struct.pack("<I", len(text)) + text)
        else:  # no texts, no dimensions, and of a layout its offset
            _aligned(data, 4, bytes(4 if code == "strings" else 8))
        return
    letter, several = code.rstrip("[]")[-1], len(code) > 1
    numbers = list(value or []) if several else [value or 0]
    if code.endswith("[]"):
        _aligned(data, 4, struct.pack("<I", len(numbers)))
    elif several:
        numbers += [0] * (int(code[:-1]) - len(numbers))
    size = struct.calcsize(f"<{letter}")
    if numbers:
        _aligned(data, size, struct.pack(f"<{len(numbers)}{letter}", *numbers))


def _aligned(data: bytearray, size: int, more: bytes) -> None:
    data += bytes(-len(data) % size) + more
