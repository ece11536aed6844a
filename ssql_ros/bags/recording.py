"""Records from a queue in a thread of its own, so that who hands messages over never waits for a disk."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from rosbags.interfaces import Qos

from ssql_ros.bags.definitions import BagError, Definition, Definitions
from ssql_ros.bags.writer import BagWriter

POLL_SECONDS = 0.05
FLUSH_SECONDS = 1.0  # what a kill or a loss of power can cost
FLUSH_BYTES = 1 << 20


class Recording:
    """A bag that a thread writes from a bounded queue.

    `add_topic`, `put`, `stop` and `close` are for one thread; the figures may be read from any.

    Args:
        writer: of a new bag; from here on the recording's own.
        max_bytes: how much may wait in the queue; what comes beyond is dropped and counted.
        report: called from the writing thread with what went wrong, in words, once per trouble.

    Attributes:
        received: messages that `put` was given, by topic; the dropped ones too.
        dropped: messages that found the queue full, by topic.
        problem: what is wrong with the bag now, in words; empty: nothing.
    """

    def __init__(self, writer: BagWriter, max_bytes: int, report: Callable[[str], None]) -> None:
        self.path = writer.path
        self.received: dict[str, int] = {}
        self.dropped: dict[str, int] = {}
        self.problem = ""
        self._writer, self._max_bytes, self._report = writer, max_bytes, report
        self._definitions = Definitions()
        # (topic, time, data) of a message; (topic, type, QoS, definition) of a topic. Appending and taking are atomic.
        self._queue: deque[tuple] = deque()
        self._put_bytes = self._taken_bytes = 0
        self._safe_messages = 0
        self._notes: dict[str, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bag writer", daemon=True)
        self._thread.start()

    def add_topic(self, topic: str, type_name: str, qos: Sequence[Qos]) -> None:
        """Announce a topic; see `BagWriter.add_topic`. Raises BagError where its type has no definition."""
        self._queue.append((topic, type_name, tuple(qos), self._definitions.definition(type_name)))
        self.received[topic] = self.dropped[topic] = 0

    def put(self, topic: str, received_time: int, data: bytes) -> bool:
        """Hand one message over; False: the queue is full and the message is dropped.

        Args:
            received_time: ns of the system clock.
            data: CDR.
        """
        self.received[topic] += 1
        if self.queued_bytes + len(data) > self._max_bytes:
            self.dropped[topic] += 1
            return False
        self._put_bytes += len(data)
        self._queue.append((topic, received_time, data))
        return True

    @property
    def queued_bytes(self) -> int:
        """Return how many bytes wait in the queue."""
        return self._put_bytes - self._taken_bytes

    @property
    def lost(self) -> int:
        """Return, once closed, how many messages did not reach the bag, the dropped ones included."""
        return sum(self.received.values()) - self._safe_messages

    @property
    def finished(self) -> bool:
        """Tell whether the bag is closed, or given up."""
        return not self._thread.is_alive()

    def stop(self, notes: dict[str, str] | None = None) -> None:
        """Have what was handed over written and the bag closed, without waiting for it.

        Args:
            notes: texts for the bag's metadata.
        """
        self._notes.update(notes or {})
        self._stop.set()

    def close(self) -> None:
        """Write everything that was handed over and close the bag; `problem` and `lost` tell how that went."""
        self.stop()
        self._thread.join()

    @property
    def state(self) -> str:
        """Return in words what it does."""
        return "recording"

    def values(self) -> dict[str, str]:
        """Return figures, by name."""
        dropped = str(sum(self.dropped.values()))
        return {"bag": str(self.path), "queued_bytes": str(self.queued_bytes), "dropped_messages": dropped}

    def summary(self) -> str:
        """Return, once closed, what is in the bag."""
        counts = ", ".join(f"{topic} {count - self.dropped[topic]}" for topic, count in self.received.items())
        return f"bag {self.path}: {sum(self.received.values()) - self.lost} messages ({counts})"

    def _run(self) -> None:
        try:
            self._write_until_stopped()
            self._take_queued()
        except OSError as error:
            self._trouble(f"{self.path}: cannot be written: {error.strerror or error}")
        except Exception as error:
            # Whatever it is must not end the thread silently: the operator believes that a recording is running.
            self._trouble(f"{self.path}: recording stopped: {type(error).__name__}: {error}")
        try:
            self._writer.note(self._notes)
            self._writer.close()
            self._safe_messages = sum(self._writer.counts.values())
        except BagError as error:
            self._trouble(str(error))

    def _write_until_stopped(self) -> None:
        due = time.monotonic() + FLUSH_SECONDS
        while not self._stop.wait(POLL_SECONDS):
            try:
                if self.problem:
                    self._flush()
                self._take_queued()
                if time.monotonic() >= due:
                    self._flush()
                    due = time.monotonic() + FLUSH_SECONDS
            except OSError as error:
                # The disk is full, say. The writer still holds what it could not write, and the queue the rest:
                # when there is room again before the queue is full, nothing is lost.
                self._trouble(f"{self.path}: cannot be written: {error.strerror or error}; trying again")
                self._stop.wait(FLUSH_SECONDS)

    def _take_queued(self) -> None:
        while self._queue:
            topic, *rest = self._queue.popleft()
            if isinstance(rest[-1], Definition):
                self._writer.add_topic(topic, *rest)
                continue
            self._writer.write(topic, *rest)
            self._taken_bytes += len(rest[-1])
            if self._writer.held_bytes > FLUSH_BYTES:
                self._flush()

    def _flush(self) -> None:
        self._writer.flush()
        self._safe_messages = sum(self._writer.counts.values())
        if self.problem:
            self.problem = ""
            self._report(f"{self.path}: can be written again")

    def _trouble(self, text: str) -> None:
        if text != self.problem:
            self.problem = text
            self._report(text)
