"""Stamped values of one topic, held for frames that may still ask for them, and how far they may be apart."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from ssql_ros.spec.observation import NANOSECONDS

# How long a frame waits for what is late.
WINDOW = round(0.5 * NANOSECONDS)
# A step back on one topic by more than this is a clock that was set, or a simulation begun anew; by less, a message is
# late.
JUMP = 4 * WINDOW
# What is older than this, seen from the newest of its topic, is held for no frame any more.
HORIZON = JUMP + 2 * WINDOW


class Held:
    """Stamped values of one topic, in the order of stamps, as far back as they can still serve."""

    def __init__(self) -> None:
        self.stamps: list[int] = []
        self.values: list[np.ndarray] = []

    def add(self, stamp: int, value: np.ndarray) -> bool:
        """Put in a value; where its stamp is there already, replace the value and return False."""
        stamps = self.stamps
        if not stamps or stamp > stamps[-1]:
            stamps.append(stamp)
            self.values.append(value)
            if stamps[0] < stamp - 2 * HORIZON:
                self._forget(bisect_right(stamps, stamp - HORIZON))
            return True
        at = bisect_right(stamps, stamp)
        if at and stamps[at - 1] == stamp:
            self.values[at - 1] = value
            return False
        stamps.insert(at, stamp)
        self.values.insert(at, value)
        return True

    def until(self, stamp: int) -> tuple[int, np.ndarray] | None:
        """Return the newest value not later than `stamp`; forget what is older than that."""
        at = bisect_right(self.stamps, stamp)
        if not at:
            return None
        if at > 1:
            self._forget(at - 1)
        return self.stamps[0], self.values[0]

    def _forget(self, count: int) -> None:
        del self.stamps[:count], self.values[:count]
