"""Reads MCAP files record by record from the front, past what is damaged, without needing index or summary.

Every other reader trusts the index at the end of a file, or the order in it. This one takes nothing for granted but the
records themselves (https://mcap.dev/spec): it goes through a file once to learn what is in it and when, and then gives
the messages in the order of their log time. After a place that makes no sense it looks for the next record that does.
"""

from __future__ import annotations

import mmap
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mcap.reader import SeekingReader
from mcap.records import Channel, Metadata, Schema, Statistics

from ssql_ros.bags.bounds import bounded_yaml
from ssql_ros.bags.mcap_scan import (
    CHANNEL,
    CHUNK,
    DATA_END,
    FOOTER,
    MAGIC,
    MESSAGE,
    MESSAGE_START,
    METADATA,
    RECORD_HEADER,
    SCHEMA,
    Buffer,
    Record,
    Scanner,
)
from ssql_ros.bags.ordering import TimedRaw, in_time

RUN = 4096  # messages outside of chunks that are read at once
# What has been read of a mapped file is given back to the system in pieces of this size, so that a file larger than
# memory can be read.
KEPT_BYTES = 1 << 24


@dataclass
class _Block:
    """A chunk, or a run of messages outside of chunks: what it spans in the file and in time."""

    start: int
    stop: int
    chunk: bool
    begin: int
    end: int
    channels: frozenset[int]


class McapFile(Scanner):
    """One MCAP file. `scan` it before anything else.

    Attributes:
        channels, schemas: by id; of two that differ the first.
        counts: messages that can be read, by channel id.
        begin, end: ns, log time of the first and the last; 0 where there is none.
        problems: in words; empty: nothing is wrong with the file.
        lost: messages that are known to be lost; None: something is, and nobody knows how many.
        compression: of the last chunk.
        custom: the texts that the recorder put into the metadata of rosbag2.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.schemas: dict[int, Schema] = {}
        self.counts: Counter[int] = Counter()
        self.begin = self.end = 0
        self.problems: list[str] = []
        self.custom: dict[str, str] = {}
        self._blocks: list[_Block] = []
        self._told: Statistics | None = None
        self._in_summary: dict[int, Channel] = {}
        self._first: set[int] = set()
        self._footer = False

    def scan(self) -> None:
        """Go through the whole file. Raises OSError where it cannot be read."""
        self._read_summary()
        known = set(self.channels)
        self._scan()
        if self._damage and set(self.channels) != known:
            # Which topics there are tells a message from noise: what was passed over before may make sense now.
            self._damage, self.lost, self._blocks, self._first, self._data_ended = [], 0, [], set(), False
            self.counts.clear()
            self._scan()
        self._judge()

    def _scan(self) -> None:
        run = array("Q")  # start, stop of consecutive messages; times and channels beside
        times, ids = array("Q"), set[int]()

        def close_run() -> None:
            if times:
                self._add(_Block(run[0], run[1], False, min(times), max(times), frozenset(ids)))
            del run[:], times[:]
            ids.clear()

        with self._mapped() as buffer:
            if buffer is None:
                self._damage, self.lost = ["is empty"], None
                return
            freed = 0
            for record in self._records(buffer, *self._span(buffer)):
                if record.at - freed > KEPT_BYTES and isinstance(buffer, mmap.mmap):
                    freed = record.at - record.at % mmap.PAGESIZE
                    buffer.madvise(mmap.MADV_DONTNEED, 0, freed)
                if record.opcode == MESSAGE:
                    self._data_ended = False
                    _, _, channel, _, time, _ = MESSAGE_START.unpack_from(buffer, record.start - RECORD_HEADER.size)
                    if run and (run[1] != record.at or len(times) == RUN):
                        close_run()
                    if not run:
                        run.extend((record.at, record.at))
                    run[1] = record.stop
                    times.append(time)
                    ids.add(channel)
                    self.counts[channel] += 1
                    continue
                close_run()
                if record.opcode == CHUNK:
                    self._data_ended = False
                    self._scan_chunk(record)
                self._learn(record)
            close_run()
            if not self._footer:
                self._damage.append("has no end: its writer did not close it")

    def messages(self, topics: Collection[str]) -> Iterator[TimedRaw]:
        """Yield (time, (topic, type, time, data)) of `topics` in the order of log time."""
        labels = {
            number: (channel.topic, self.label(channel))
            for number, channel in self.channels.items()
            if channel.topic in topics
        }
        blocks = [block for block in self._blocks if not block.channels.isdisjoint(labels)]
        with self._mapped() as buffer:
            if buffer is not None:
                yield from in_time(
                    (b.begin, b.end, lambda b=b: self._block(buffer, b, labels))  # type: ignore[misc]
                    for b in blocks
                )

    def records(self) -> Iterator[Record]:
        """Yield every record that can be read, in the order of writing, those of chunks in the place of the chunk."""
        with self._mapped() as buffer:
            if buffer is None:
                return
            freed = 0
            for record in self._records(buffer, *self._span(buffer)):
                if record.at - freed > KEPT_BYTES and isinstance(buffer, mmap.mmap):
                    freed = record.at - record.at % mmap.PAGESIZE
                    buffer.madvise(mmap.MADV_DONTNEED, 0, freed)
                if record.opcode != CHUNK:
                    yield record
                    continue
                try:
                    yield from self._inside(record)
                except ValueError:
                    continue  # told by `scan`

    def label(self, channel: Channel) -> str:
        """Return the type of a channel's messages; with their encoding where it is not that of ROS 2."""
        schema = self.schemas.get(channel.schema_id)
        name = schema.name if schema is not None else ""
        return name if channel.message_encoding == "cdr" else f"{name or 'no schema'} as {channel.message_encoding}"

    @contextmanager
    def _mapped(self) -> Iterator[mmap.mmap | None]:
        with open(self.path, "rb") as file:
            if not file.read(1):
                yield None
                return
            buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            # Not closed here: messages that are still held may lie in it.
            yield buffer

    @staticmethod
    def _span(buffer: Buffer) -> tuple[int, int]:
        """Return where records begin and end."""
        size = len(buffer)
        return min(len(MAGIC), size), size - len(MAGIC) if buffer[-len(MAGIC) :] == MAGIC and size > 16 else size

    def _read_summary(self) -> None:
        """Learn channels and numbers from the summary, where there is one: the data may have lost its own."""
        try:
            with open(self.path, "rb") as file:
                summary = SeekingReader(file, record_size_limit=1 << 28).get_summary()
        except Exception:  # whatever the library makes of damage: it is only a help
            return
        if summary is not None:
            self._in_summary = dict(summary.channels)
            self.channels, self.schemas = dict(summary.channels), dict(summary.schemas)
            told = summary.statistics
            if told is not None and told.message_count == sum(told.channel_message_counts.values()):
                self._told = told

    def _add(self, block: _Block) -> None:
        if not self._blocks:
            self.begin, self.end = block.begin, block.end
        self.begin, self.end = min(self.begin, block.begin), max(self.end, block.end)
        self._blocks.append(block)

    def _scan_chunk(self, chunk: Record) -> None:
        times, ids, begin = array("Q"), set[int](), RECORD_HEADER.size
        try:
            for record in self._inside(chunk, tell=True):
                if record.opcode == MESSAGE:
                    _, _, channel, _, time, _ = MESSAGE_START.unpack_from(record.buffer, record.start - begin)
                    times.append(time)
                    ids.add(channel)
                    self.counts[channel] += 1
                else:
                    self._learn(record)
        except ValueError as error:
            self._damage.append(f"the chunk at byte {chunk.at} cannot be read: {error}")
            self.lost = None
            return
        if times:
            self._add(_Block(chunk.at, chunk.stop, True, min(times), max(times), frozenset(ids)))

    def _learn(self, record: Record) -> None:
        """Take in a schema, a channel, or the end."""
        try:
            if record.opcode == SCHEMA:
                schema = Schema.read(record.stream())
                self.schemas.setdefault(schema.id, schema)
            elif record.opcode == CHANNEL:
                channel = Channel.read(record.stream())
                # The data's own goes before the summary's.
                if channel.id not in self._first:
                    self._first.add(channel.id)
                    self.channels[channel.id] = channel
                elif self.channels[channel.id] != channel:
                    self._tell(f"is damaged: channel {channel.id} is told twice and differently", record.at)
                if self._in_summary.get(channel.id, channel) != channel:
                    self._tell(f"is damaged: channel {channel.id} differs from the summary's", record.at)
            elif record.opcode == METADATA:
                told = Metadata.read(record.stream())
                if told.name == "rosbag2":
                    document: dict = bounded_yaml(told.metadata.get("serialized_metadata", "")) or {}
                    document = document.get("rosbag2_bagfile_information", document)
                    self.custom = dict(document.get("custom_data") or {})
            elif record.opcode == DATA_END:
                self._data_ended = True
            elif record.opcode == FOOTER:
                self._footer = True
        except Exception as error:  # what the library makes of damage is its own
            self._tell(f"is damaged: a record that describes the bag cannot be read: {error}", record.at)

    def _tell(self, text: str, at: int) -> None:
        if not any(told.startswith(text) for told in self._damage):
            self._damage.append(f"{text} (byte {at})")

    def _judge(self) -> None:
        """Say what is wrong, and how much is lost."""
        found = sum(self.counts.values())
        with open(self.path, "rb") as file:
            head = file.read(len(MAGIC))
        problems = [] if head in (MAGIC, b"") else ["does not begin like an MCAP file"]
        if self._told is not None:
            missing = self._told.message_count - found
            self.lost = max(missing, 0)
            if missing:
                problems.append(f"tells {self._told.message_count} messages at its end, and {found} can be read")
        more = len(self._damage) - 5
        problems += self._damage[:5] + ([f"and {more} more such places"] if more > 0 else [])
        self.problems = problems

    def _block(self, buffer: Buffer, block: _Block, labels: dict[int, tuple[str, str]]) -> Iterator[TimedRaw]:
        """Return the messages of a block in the order of time."""
        found: list[tuple[int, tuple[str, str], Buffer, int, int]] = []
        if block.chunk:
            chunk = Record(CHUNK, buffer, block.start + RECORD_HEADER.size, block.stop, block.start)
            records: Iterator[tuple[Buffer, int, int]] = (
                (r.buffer, r.start - RECORD_HEADER.size, r.stop) for r in self._inside(chunk) if r.opcode == MESSAGE
            )
        else:
            records = _run(buffer, block.start, block.stop)
        ordered, last = True, 0
        for source, at, stop in records:
            _, _, channel, _, time, _ = MESSAGE_START.unpack_from(source, at)
            if channel in labels:
                found.append((time, labels[channel], source, at + MESSAGE_START.size, stop))
                ordered, last = ordered and time >= last, time
        if not ordered:
            found.sort(key=lambda message: message[0])
        for time, (topic, kind), source, start, stop in found:
            yield time, (topic, kind, time, source[start:stop])
        found.clear()
        if isinstance(buffer, mmap.mmap):
            begin = block.start - block.start % mmap.PAGESIZE
            buffer.madvise(mmap.MADV_DONTNEED, begin, block.stop - begin)


def _run(buffer: Buffer, at: int, end: int) -> Iterator[tuple[Buffer, int, int]]:
    """Yield the messages of a row of them that has been gone through before."""
    while at < end:
        stop = at + RECORD_HEADER.size + RECORD_HEADER.unpack_from(buffer, at)[1]
        yield buffer, at, stop
        at = stop
