"""Which episodes of a data set nothing learns from: what is learned is judged on those."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssql_ros.data.data_set import DataSet
from ssql_ros.data.random_streams import Stream

# With fewer episodes than this a log is split by blocks of rows, which are less apart than episodes are.
LEAST_EPISODES, BLOCK = 10, 200


@dataclass(frozen=True)
class Parts:
    """A data set of N rows in two.

    Attributes:
        segment: (N,), a number for all rows that follow each other in one part: an episode, or a block of one.
        held: (N,) bool, rows that nothing learns from.
        blocks: segments are blocks of episodes, because there are too few episodes.
    """

    segment: np.ndarray
    held: np.ndarray
    blocks: bool

    @property
    def learned(self) -> np.ndarray:
        """Return the other rows (N,) bool."""
        return ~self.held

    def segments(self, held: bool = True) -> list[slice]:
        """Return the rows of each segment that is held out, or that is not, in order."""
        return [each for each in _runs(self.segment) if self.held[each.start] == held]


def parts_of(data: DataSet, share: float, seed: int) -> Parts:
    """Split a data set: `share` of the episodes that end in an incident, and of the others, are held out.

    Where there are fewer than ten episodes they are cut into blocks of 200 rows first.

    Raises:
        ValueError: too little data for two parts.
    """
    episode = np.asarray(data["episode"])
    segment, whole = episode, _runs(episode)
    blocks = share > 0.0 and len(whole) < LEAST_EPISODES
    if blocks:
        segment = np.zeros(len(episode), np.int64)
        count = 0
        for each in whole:
            for begin in range(each.start, each.stop, BLOCK):
                segment[begin : min(begin + BLOCK, each.stop)] = count
                count += 1
    held, runs = np.zeros(len(episode), bool), _runs(segment)
    if share > 0.0:
        if len(runs) < 2:
            raise ValueError(
                f"{data.path}: expected at least 2 episodes, or more than {BLOCK} steps, to hold some out; got "
                f"{len(whole)} of {len(episode)} steps: record more"
            )
        rng, incident = Stream.HELD_OUT.generator(seed), np.asarray(data["incident"], bool)
        ended = np.array([incident[run].any() for run in runs])
        for group in (np.flatnonzero(ended), np.flatnonzero(~ended)):
            # One event alone is learned from.
            count = min(max(round(share * len(group)), 1), len(group) - 1)
            for chosen in rng.permutation(group)[: max(count, 0)]:
                held[runs[chosen]] = True
        if not held.any():
            held[runs[rng.integers(len(runs))]] = True
    return Parts(segment, held, blocks)


def _runs(numbers: np.ndarray) -> list[slice]:
    if not len(numbers):
        return []
    cuts = (np.flatnonzero(np.diff(numbers)) + 1).tolist()
    return [slice(a, b) for a, b in zip([0, *cuts], [*cuts, len(numbers)], strict=True)]
