"""Gathers rows into chunks and brings them to disk: bounded there and in memory, whatever the disk does."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from ssql_ros.live.buffer import LiveBuffer

CHUNK = 1000  # rows, where no episode ends before
RETRY = 1.0  # s, between two attempts at a disk that refuses


class LiveWriter:
    """The writer of a buffer.

    Args:
        disk_bytes: of chunks; beyond them the oldest go.
        most_unwritten: rows that wait in memory while the disk refuses; beyond them the oldest whole chunk is lost.

    Attributes:
        fault: why nothing is written at the moment; empty: it is.
        retired: chunks that went for room.
        lost: rows that the disk never took.
    """

    def __init__(self, buffer: LiveBuffer, disk_bytes: int, most_unwritten: int) -> None:
        self.fault, self.retired, self.lost = "", 0, 0
        self._buffer, self._disk_bytes, self._most = buffer, disk_bytes, max(most_unwritten, CHUNK)
        self._open: list[dict[str, Any]] = []
        self._waiting: deque[list[dict[str, Any]]] = deque()
        self._unwritten = 0
        self._retry_at = 0.0

    @property
    def unwritten(self) -> int:
        """Return how many rows are in memory alone."""
        return self._unwritten

    def add(self, row: dict[str, Any]) -> None:
        """Take in a row. A chunk holds whole episodes where they are short enough."""
        if row["first"] or len(self._open) >= CHUNK:
            self._close()
        self._open.append(row)
        self._unwritten += 1
        while self._unwritten > self._most and self._waiting:
            gone = len(self._waiting.popleft())
            self._unwritten, self.lost = self._unwritten - gone, self.lost + gone

    def _close(self) -> None:
        if self._open:
            self._waiting.append(self._open)
            self._open = []

    def write(self, everything: bool = False) -> None:
        """Write the chunks that are complete; `everything`: the one that is begun too, and without a pause."""
        if everything:
            self._close()
        if not everything and time.monotonic() < self._retry_at:
            return
        try:
            while self._waiting:
                self._buffer.append(self._waiting[0])
                self._unwritten -= len(self._waiting.popleft())
                self.retired += self._buffer.retire(self._disk_bytes)
        except (ValueError, OSError) as error:
            self.fault, self._retry_at = str(error), time.monotonic() + RETRY
            return
        self.fault = ""
