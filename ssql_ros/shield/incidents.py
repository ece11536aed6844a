"""Incidents while a robot runs: the contract's own rule, on the frames that are decided on and learned from."""

from __future__ import annotations

from ssql_ros.contract import Contract
from ssql_ros.contract.incident import Judged
from ssql_ros.contract.readings import Frame
from ssql_ros.contract.stamped import NANOSECONDS

# s by the stamps: a robot that is outside of its failure set for less than this is still in the same incident, so that
# one that trembles on the boundary is not told of fifty times a second.
SAME = 1.0


class IncidentWatch:
    """Judges frame by frame, and tells when an incident begins.

    Attributes:
        newest: what the rule says of the newest frame, None before the first.
        incidents: how many have begun.
        cause: of the newest incident, in words; empty: there was none.
    """

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._frame: Frame | None = None
        self._values: object = None
        self._begin = 0
        self._inside_at: int | None = None  # ns, stamp of the newest frame inside the failure set
        self.newest: Judged | None = None
        self.incidents = 0
        self.cause = ""

    @property
    def inside(self) -> bool:
        """Tell whether the newest frame lies in the failure set."""
        return self.newest is not None and self.newest.margin > 0.0

    def observe(self, frame: Frame) -> bool:
        """Judge a whole frame; return True where an incident begins with it, False also for the same frame again."""
        if frame is self._frame and frame.values is self._values:
            return False
        self._frame, self._values = frame, frame.values
        assert frame.values is not None
        if frame.begin != self._begin:
            self._begin, self._inside_at = frame.begin, None
        self.newest = judged = self._contract.judged(frame.values)
        if not judged.margin > 0.0:
            return False
        since, self._inside_at = self._inside_at, frame.stamp
        if since is not None and frame.stamp - since <= SAME * NANOSECONDS:
            return False
        self.incidents += 1
        self.cause = judged.words()
        return True
