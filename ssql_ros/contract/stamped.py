"""Stamped values of one stream, in the order of stamps, and how far apart they may be."""

from __future__ import annotations

from bisect import bisect_right
from typing import Generic, TypeVar

NANOSECONDS = 1_000_000_000
# How long a frame waits for what is late, before it is settled.
WINDOW = round(0.5 * NANOSECONDS)
# A step back by more than this is a clock that was set, or a simulation begun anew; by less, a message is late.
JUMP = 4 * WINDOW
# What is older than this, seen from the newest of its stream, is kept for no frame any more.
HORIZON = JUMP + 2 * WINDOW

T = TypeVar("T")


class StampedBuffer(Generic[T]):
    """Values of one stream in the order of their stamps (ns), as far back as they can still serve."""

    def __init__(self) -> None:
        self.stamps: list[int] = []
        self.values: list[T] = []

    def add(self, stamp: int, value: T) -> bool:
        """Put in a value; where its stamp is there already, replace the value and return False."""
        stamps = self.stamps
        if not stamps or stamp > stamps[-1]:
            stamps.append(stamp)
            self.values.append(value)
            if stamps[0] < stamp - 2 * HORIZON:
                self.forget_before(stamp - HORIZON)
            return True
        at = bisect_right(stamps, stamp)
        if at and stamps[at - 1] == stamp:
            self.values[at - 1] = value
            return False
        stamps.insert(at, stamp)
        self.values.insert(at, value)
        return True

    def get(self, stamp: int) -> T | None:
        """Return the value of exactly this stamp, or None."""
        at = bisect_right(self.stamps, stamp)
        return self.values[at - 1] if at and self.stamps[at - 1] == stamp else None

    def until(self, stamp: int) -> tuple[int, T] | None:
        """Return the newest (stamp, value) not later than `stamp`, or None."""
        at = bisect_right(self.stamps, stamp)
        return (self.stamps[at - 1], self.values[at - 1]) if at else None

    def after(self, stamp: int) -> tuple[int, T] | None:
        """Return the oldest (stamp, value) later than `stamp`, or None."""
        at = bisect_right(self.stamps, stamp)
        return (self.stamps[at], self.values[at]) if at < len(self.stamps) else None

    def choose(self, stamp: int, skew: int, max_age: int) -> int | None:
        """Return the index of the value that a frame at `stamp` holds, or None.

        The newest in [stamp - skew, stamp], else the oldest in (stamp, stamp + skew], else the newest that is not older
        than `max_age`.
        """
        stamps = self.stamps
        at = bisect_right(stamps, stamp)
        if at and stamps[at - 1] >= stamp - skew:
            return at - 1
        if at < len(stamps) and stamps[at] <= stamp + skew:
            return at
        return at - 1 if at and stamps[at - 1] >= stamp - max_age else None

    def forget_before(self, stamp: int) -> None:
        """Drop what is older than `stamp`, but for the newest of that: it may still be held."""
        count = bisect_right(self.stamps, stamp) - 1
        if count > 0:
            del self.stamps[:count], self.values[:count]

    def clear(self) -> None:
        """Drop everything."""
        self.stamps.clear()
        self.values.clear()

    def begin_anew(self, stamp: int) -> None:
        """Time begins anew at `stamp`: drop what is of the time before, unless all of it came since."""
        if self.stamps and self.stamps[-1] > stamp + WINDOW:
            self.clear()
