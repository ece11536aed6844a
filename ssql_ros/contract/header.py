"""Stamps of messages' headers, in whole nanoseconds."""

from __future__ import annotations

from typing import Any

from ssql_ros.contract.schema import ContractError
from ssql_ros.contract.stamped import NANOSECONDS


def stamp_of(message: Any) -> int:
    """Return the header stamp of `message` in ns."""
    stamp = message.header.stamp
    return stamp.sec * NANOSECONDS + stamp.nanosec


def check_stamp(message: Any, what: str, who: str = "the driver") -> int:
    """Return the header stamp of `message` in ns; raise ContractError where it is no time at all.

    `what`: the topic; `who`: fills it.
    """
    stamp = message.header.stamp
    if not (0 <= stamp.nanosec < NANOSECONDS and stamp.sec >= 0):
        raise ContractError(
            f"{what}: header.stamp: expected sec >= 0 and nanosec below 10^9, got sec {stamp.sec}, nanosec "
            f"{stamp.nanosec}; {who} fills it wrongly"
        )
    return stamp.sec * NANOSECONDS + stamp.nanosec


def set_stamp(message: Any, nanoseconds: int) -> None:
    """Set the header stamp of `message`, given in ns. Raises ContractError beyond the 32 bits of its seconds."""
    seconds = int(nanoseconds // NANOSECONDS)
    if not -(2**31) <= seconds < 2**31:
        raise ContractError(f"{type(message).__name__}.header.stamp: {nanoseconds} ns does not fit")
    message.header.stamp.sec = seconds
    message.header.stamp.nanosec = int(nanoseconds % NANOSECONDS)
