"""Puts messages of several sources into the order of time, and opens no source before it is due."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator

Raw = tuple[str, str, int, bytes]  # topic, type, time in ns, CDR
TimedRaw = tuple[int, Raw]
# ns of the first and of the last message, and what yields all of them in the order of time.
Source = tuple[int, int, Callable[[], Iterator[TimedRaw]]]


def in_time(sources: Iterable[Source]) -> Iterator[TimedRaw]:
    """Yield the messages of all sources in the order of time; of one time, in the order of the sources.

    Memory: of those sources alone that overlap in time.
    """
    # One that is due is opened, its next message waits in the heap.
    waiting: list[tuple[int, int, TimedRaw, Iterator[TimedRaw]]] = []
    ordered = sorted(enumerate(sources), key=lambda source: (source[1][0], source[0]))
    for place, (number, (begin, end, messages)) in enumerate(ordered):
        while waiting and waiting[0][0] < begin:
            yield from _step(waiting)
        source = messages()
        if not waiting and (place + 1 == len(ordered) or ordered[place + 1][1][0] > end):
            yield from source
            continue
        for first in source:
            heapq.heappush(waiting, (first[0], number, first, source))
            break
    while waiting:
        yield from _step(waiting)


def _step(waiting: list[tuple[int, int, TimedRaw, Iterator[TimedRaw]]]) -> Iterator[TimedRaw]:
    """Yield the earliest message that waits, and put the next of its source in its place."""
    _, number, message, source = waiting[0]
    yield message
    for following in source:
        heapq.heapreplace(waiting, (following[0], number, following, source))
        return
    heapq.heappop(waiting)
