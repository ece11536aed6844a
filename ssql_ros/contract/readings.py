"""What the alignment holds: the readings of each publisher, and the frames that are made of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ssql_ros.contract.stamped import StampedBuffer

# So many intervals in a row that are longer than before are a slower publisher; fewer are losses.
BELIEVED = 3


class Reading(NamedTuple):
    """One message's values, and when it came: s on the steady clock, as the message's first copy did."""

    values: np.ndarray
    time: float


class Source:
    """One publisher's share of an input: the features that its messages hold.

    Attributes:
        places: where in the frame its values go.
        columns: which of the input's features they are; None: all of them.
        interval: ns, from one stamp to the next, as far as can be told; 0: not known.
    """

    def __init__(self, name: str, places: np.ndarray, columns: np.ndarray | None) -> None:
        self.name, self.places, self.columns = name, places, columns
        self.readings: StampedBuffer[Reading] = StampedBuffer()
        self.interval = self._longer = 0

    def is_final(self, stamp: int, skew: int) -> bool:
        """Tell whether what a frame at `stamp` holds of this is what it will go on to hold, as far as can be told.

        The next reading is expected one interval after the newest.
        """
        newest = self.readings.stamps[-1] if self.readings.stamps else None
        if newest is None:
            return False
        if newest >= stamp - skew:
            return newest >= stamp or (self.interval > 0 and newest + self.interval > stamp)
        return newest + self.interval > stamp + skew

    def hear(self, stamp: int) -> None:
        """Take in the stamp of a message that is newer than all before."""
        apart = stamp - self.readings.stamps[-1]
        # After a loss it is twice as long, and the next will not be: a longer one is believed when it goes on.
        self._longer = self._longer + 1 if self.interval and 2 * apart > 3 * self.interval else 0
        if not 0 < self._longer < BELIEVED:
            self.interval, self._longer = apart, 0


@dataclass(slots=True)
class Frame:
    """One control period.

    Attributes:
        stamp: ns, of its trigger.
        due: ns, where the grid puts the next one.
        steps: control periods since the frame before it; 0: the first of an episode.
        begin: ns, stamp of the first frame of the history that this one is in.
        values: (n_frame,); None: of an input there is nothing to hold.
        held: stamp and arrival of each reading in it, by source.
        stale: values are to be made anew, as something came that may belong to it.
        leap: how the robot was put elsewhere since the frame before, which begins a history; empty: it was not.
    """

    stamp: int
    due: int
    steps: int
    begin: int = 0
    values: np.ndarray | None = None
    held: list[tuple[Source, int, float]] = field(default_factory=list)
    stale: bool = True
    leap: str = ""

    @property
    def time(self) -> float:
        """Return when the oldest reading in it came, s on the steady clock."""
        return min((time for _, _, time in self.held), default=-math.inf)
