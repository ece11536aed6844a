"""The flight recorder: the last seconds of a graph in memory, written as a bag whenever something happens.

Every event has a file that holds everything from `before` seconds before it to `after` seconds after it, as far as
memory and disk allow; what they did not allow is said in the file, in words, and counted. An event that comes while a
file is written is a part of that file, which then goes on. A file does not go on for ever: an event whose end would be
too far begins another, with its own seconds before.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from rosbags.interfaces import Qos, QosDurability

from ssql_ros.bags.definitions import BagError, Definitions
from ssql_ros.bags.flight_events import HELD, Event
from ssql_ros.bags.flight_ring import Message, Ring
from ssql_ros.bags.recording import Recording
from ssql_ros.bags.writer import BagWriter
from ssql_ros.contract.stamped import NANOSECONDS

# From its first event on a file goes on for at most so many times `after`.
LONGEST = 12
# ns; messages and events may come this much later than others that were received after them.
DISORDER = NANOSECONDS // 10
# ns, between two attempts to begin a file that cannot be made.
RETRY = NANOSECONDS
# Events that a file names; more are counted.
NAMED = 100
_NAME = re.compile(r"\d{8}T\d{6}Z_(?P<kind>[a-z]+)(_\d+)?")


class Clock(Protocol):
    """Steady time: the system's may be set while a recorder runs, and 30 s must remain 30 s."""

    def now(self) -> int:
        """Return ns of the steady clock."""

    def of(self, received: int) -> int:
        """Return ns of the steady clock for a time of the system clock that is just past."""


class SteadyClock:
    """This machine's."""

    def now(self) -> int:
        """Return ns of the steady clock."""
        return time.monotonic_ns()

    def of(self, received: int) -> int:
        """Return ns of the steady clock for a time of the system clock that is just past."""
        return time.monotonic_ns() - max(0, time.time_ns() - received)


@dataclass(frozen=True)
class FlightSettings:
    """What is kept, and what is written.

    Attributes:
        before, after: s, of a file, around its events.
        max_bytes: of messages in memory; a file that waits for the disk may hold twice as much beside.
        most_files: in the folder. None is ever removed: when they are there, nothing is written until some are moved
            away, as the first ones of a series tell most. Inputs that fail (`held`) take at most half of them, so that
            a loose cable leaves room for what it leads to.
    """

    before: float = 30.0
    after: float = 5.0
    max_bytes: int = 256_000_000
    most_files: int = 100


@dataclass
class FlightFile:
    """A bag that is being written.

    Attributes:
        begin, end: ns of the steady clock, of what it holds.
        latest: ns of the steady clock, beyond which it does not go on.
        events: that it is written for.
        problem: why it cannot be made, in words; empty: it is.
        missing: messages of its time that memory did not hold any more when they were to be written.
        carried: messages of latched topics from before it.
        tried: ns of the steady clock, when it was tried to make it.
    """

    path: Path
    begin: int
    end: int
    latest: int
    events: list[Event]
    recording: Recording | None = None
    problem: str = ""
    missing: int = 0
    carried: int = 0
    tried: int = 0

    def holds(self, time: int) -> bool:
        """Tell whether a message of this time is a part of it."""
        return self.recording is not None and self.begin <= time <= self.end


class FlightRecorder:
    """Keeps the newest messages and writes them when something happens. Used like a `Recording`, by one thread.

    Args:
        folder: of the bags; it is made, and may be there already.
        custom: texts for every bag's metadata, such as the contract id.
        report: called with what went wrong, in words, also from writing threads; `tell`: with what was done.
        record: begins a bag; raises BagError.

    Attributes:
        received: messages by topic.
        dropped: of those, by topic, that a file did not get, as the disk was too slow.
        lost: messages that did not reach their file, those included.
        files: paths of the bags that are written, the oldest first.
        refused: events for which there was no room.

    Raises:
        BagError: the folder cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        settings: FlightSettings,
        custom: dict[str, str],
        report: Callable[[str], None],
        tell: Callable[[str], None],
        clock: Clock | None = None,
        record: Callable[[Path], Recording] | None = None,
    ) -> None:
        self.path, self.settings = folder, settings
        self.clock: Clock = clock or SteadyClock()
        self.received: dict[str, int] = {}
        self.dropped: Counter[str] = Counter()
        self.lost = self.refused = 0
        self.files: list[Path] = []
        self._custom, self._report, self._tell = custom, report, tell
        self._record = record or self._recording
        self._before, self._after = (round(seconds * NANOSECONDS) for seconds in (settings.before, settings.after))
        self._ring = Ring(settings.max_bytes)
        self._topics: dict[str, tuple[str, tuple[Qos, ...]]] = {}
        self._definitions = Definitions()
        self._open: list[FlightFile] = []
        self._ending: list[FlightFile] = []
        self._failure = ""
        self._short = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BagError(f"{folder}: the flight folder cannot be made: {error.strerror or error}") from error

    def _recording(self, path: Path) -> Recording:
        custom = {**self._custom, "flight_before": f"{self.settings.before:g} s"}
        custom["flight_after"] = f"{self.settings.after:g} s"
        # What memory holds at an event is put into the queue at once, and must leave room for what follows.
        return Recording(BagWriter(path, custom), 2 * self.settings.max_bytes, self._report)

    def add_topic(self, topic: str, type_name: str, qos: Sequence[Qos]) -> None:
        """Announce a topic; see `BagWriter.add_topic`. Raises BagError where its type has no definition."""
        self._definitions.add(type_name)
        self._topics[topic] = type_name, tuple(qos)
        self.received[topic] = 0
        if all(profile.durability is QosDurability.TRANSIENT_LOCAL for profile in qos):
            self._ring.carry(topic, sum(profile.depth for profile in qos))
        for file in self._open:
            if file.recording is not None:
                file.recording.add_topic(topic, type_name, qos)

    def put(self, topic: str, received: int, data: bytes) -> None:
        """Take in one message. `received`: ns of the system clock; `data`: CDR."""
        self.received[topic] += 1
        message = Message(topic, self.clock.of(received), received, data)
        self._ring.put(message)
        for file in self._open:
            if file.holds(message.time):
                self._put(file, message)

    def event(self, event: Event) -> FlightFile:
        """Have a file written for an event; return it.

        Raises:
            BagError: the folder holds as many files as it may.
        """
        time = self.clock.of(event.stamp)
        newest = self._open[-1] if self._open else None
        if newest is not None and newest.begin <= time <= newest.end and time + self._after <= newest.latest:
            newest.events.append(event)
            if len(newest.events) <= NAMED:
                self._tell(f"{event.words}; in {newest.path} too")
            self._go_on(newest, time + self._after)
            return newest
        if fault := self.full(event.kind):
            self.refused += 1
            self._report(f"NOT written: {event.words}: {fault}")
            raise BagError(fault)
        begin, end, latest = time - self._before, time + self._after, time + LONGEST * self._after
        file = FlightFile(self._free_path(event), begin, end, latest, [event])
        self._open.append(file)
        self._begin(file)
        return file

    def _go_on(self, file: FlightFile, end: int) -> None:
        if end <= file.end:
            return
        before, file.end = file.end, end
        if file.recording is not None:
            # What came out of order, before the event that it follows.
            file.missing += self._ring.missing(before + 1, end)
            for message in self._ring.window(before + 1, end):
                self._put(file, message)

    def _begin(self, file: FlightFile) -> None:
        """Begin the bag of a file with what is in memory; where it cannot be made, a later call tries again."""
        file.tried = self.clock.now()
        try:
            file.recording = self._record(file.path)
        except BagError as error:
            if str(error) != file.problem:
                file.problem = str(error)
                self._report(f"{error}; trying again until {self.settings.after:g} s after {file.events[-1].words}")
            return
        if file.problem:
            self._report(f"{file.path}: can be written now")
            file.problem = ""
        for topic, (type_name, qos) in self._topics.items():
            file.recording.add_topic(topic, type_name, qos)
        first = file.events[0].stamp - self._before
        for message in self._ring.carried(file.begin):
            # At the begin of the file, not hours before it: tools would play those hours.
            file.carried += 1
            self._put(file, message._replace(received=first))
        for message in self._ring.window(file.begin, file.end):
            self._put(file, message)
        file.missing = self._ring.missing(file.begin, file.end)
        self._tell(f"{file.events[0].words}; writing {file.path}")

    def _put(self, file: FlightFile, message: Message) -> None:
        assert file.recording is not None
        if not file.recording.put(message.topic, message.received, message.data):
            self.dropped[message.topic] += 1

    def advance(self, now: int) -> None:
        """End files whose time is over, and let go of what is too old.

        Args:
            now: ns of the steady clock; everything that was received before has been taken in.
        """
        for file in self._open:
            if file.recording is None and self.clock.now() - file.tried >= RETRY:
                self._begin(file)
        for file in [file for file in self._open if now > file.end]:
            self._stop(file)
        for file in [file for file in self._ending if file.recording is not None and file.recording.finished]:
            self._finish(file)
        waiting = (file.begin for file in self._open if file.recording is None)
        self._ring.forget(min([now - self._before - DISORDER, *waiting]))
        self._look_at_memory(now)

    def _look_at_memory(self, now: int) -> None:
        """Say once when memory does not hold as much as is asked for."""
        short = self._ring.short(now - self._before)
        if short and not self._short:
            self._report(self.shortage())
        self._short = short

    def _stop(self, file: FlightFile, cut: str = "") -> None:
        self._open.remove(file)
        if file.recording is None:
            self._fail(f"{file.path}: NOT written, for {_named(file.events)}: {file.problem}")
            return
        told = [{"kind": event.kind, "stamp": event.stamp, "words": event.words} for event in file.events[:NAMED]]
        notes = {"flight_events": json.dumps(told), "flight_carried": str(file.carried)}
        if (more := len(file.events) - NAMED) > 0:
            notes["flight_more_events"] = str(more)
        if gone := file.missing + sum(file.recording.dropped.values()):
            notes["flight_missing"] = f"{gone} messages; {file.missing} of them memory did not hold"
        if cut:
            notes["flight_cut"] = cut
        file.recording.stop(notes)
        self._ending.append(file)

    def _finish(self, file: FlightFile) -> None:
        self._ending.remove(file)
        recording = file.recording
        assert recording is not None
        self.lost += recording.lost
        self.files.append(file.path)
        if recording.problem or recording.lost:
            what = recording.problem or "the disk was too slow"
            self._fail(f"{file.path}: {recording.lost} messages are not in it, for {_named(file.events)}: {what}")
            return
        self._failure = ""
        self._tell(f"{recording.summary()}, for {_named(file.events)}")

    def _fail(self, text: str) -> None:
        self._failure = text
        self._report(text)

    def close(self) -> None:
        """Write what is there of the files that are open; what was to follow is cut, and the files say so."""
        for file in self._open.copy():
            left = (file.end - self.clock.now()) / NANOSECONDS
            self._stop(file, f"the recorder ended {max(0.0, left):.1f} s before the end of this file")
        for file in self._ending.copy():
            assert file.recording is not None
            file.recording.close()
            self._finish(file)

    # What is told.

    def full(self, kind: str = "") -> str:
        """Return why there is no room for a file of an event of this kind, or an empty text."""
        try:
            found = Counter(m["kind"] for path in self.path.iterdir() if (m := _NAME.fullmatch(path.name)))
        except OSError:
            return ""  # writing will say it
        most, advice = self.settings.most_files, "move some elsewhere, or raise most_files"
        if found.total() >= most:
            return f"{self.path} holds {found.total()} files, most_files is {most}; {advice}"
        if kind == HELD and found[HELD] >= (half := max(1, most // 2)):
            return f"{self.path} holds {found[HELD]} files of held actions, half of most_files is {half}; {advice}"
        return ""

    @property
    def problem(self) -> str:
        """Return what is wrong with the files, in words; empty: nothing."""
        for file in [*self._open, *self._ending]:
            if problem := file.problem or (file.recording.problem if file.recording is not None else ""):
                return problem
        return self._failure or self.full()

    def shortage(self) -> str:
        """Return that memory holds less than is asked for, with the figure."""
        begin = self._ring.begin
        held = 0.0 if begin is None else (self.clock.now() - begin) / NANOSECONDS
        return (
            f"memory holds {held:.1f} s of {self.settings.before:g} s, in {self._ring.bytes / 1e6:.0f} MB; raise "
            "queue_megabytes, or record fewer topics"
        )

    @property
    def warning(self) -> str:
        """Return what is worth a warning, or an empty text."""
        return self.shortage() if self._short else ""

    @property
    def state(self) -> str:
        """Return in words what it does."""
        doing = ", ".join(f"writing {file.path.name}" for file in self._open)
        return doing or f"keeping the last {self.settings.before:g} s; {len(self.files)} files written"

    def values(self) -> dict[str, str]:
        """Return figures, by name."""
        queued = (file.recording.queued_bytes for file in [*self._open, *self._ending] if file.recording is not None)
        return {
            "folder": str(self.path),
            "files": str(len(self.files)),
            "newest_file": str(self.files[-1]) if self.files else "",
            "refused_events": str(self.refused),
            "held_messages": str(len(self._ring)),
            "held_bytes": str(self._ring.bytes),
            "forgotten_messages": str(self._ring.dropped),
            "queued_bytes": str(sum(queued)),
            "dropped_messages": str(self.dropped.total()),
        }

    def summary(self) -> str:
        """Return, once closed, what was written."""
        files = ", ".join(path.name for path in self.files) or "nothing happened"
        return f"flight files in {self.path}: {files}"

    def _free_path(self, event: Event) -> Path:
        name = f"{datetime.fromtimestamp(event.stamp / NANOSECONDS, UTC):%Y%m%dT%H%M%SZ}_{event.kind}"
        taken = {file.path for file in self._open}
        number, path = 1, self.path / name
        while path in taken or path.exists():
            number += 1
            path = self.path / f"{name}_{number}"
        return path


def _named(events: Sequence[Event]) -> str:
    more = f" and {len(events) - 3} more" if len(events) > 3 else ""
    return "; ".join(event.words for event in events[:3]) + more
