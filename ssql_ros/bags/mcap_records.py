"""Reads MCAP files record by record from the front, past what is damaged, without needing index or summary.

Every other reader trusts the index at the end of a file, or the order in it. This one takes nothing for granted but the
records themselves (https://mcap.dev/spec): it goes through a file once to learn what is in it and when, and then gives
the messages in the order of their log time. After a place that makes no sense it looks for the next record that does.
"""

from __future__ import annotations

import io
import mmap
import re
import struct
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from mcap.data_stream import ReadDataStream
from mcap.reader import SeekingReader
from mcap.records import Channel, Metadata, Schema, Statistics

from ssql_ros.bags.ordering import Raw, TimedRaw, in_time

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07
ATTACHMENT, STATISTICS, METADATA, DATA_END = 0x09, 0x0B, 0x0C, 0x0F
RECORD_HEADER = struct.Struct("<BQ")  # opcode, length of the content
MESSAGE_START = struct.Struct("<BQHIQQ")  # the same, and of a message: channel, sequence, log time, publish time
CHUNK_HEADER = struct.Struct("<QQQII")  # first and last time, plain size, checksum, length of the compression's name
# Of each kind of record, how long its content is: at least, and at most where that is fixed.
LENGTHS = {
    **{HEADER: (8, 1 << 20), FOOTER: (20, 20), SCHEMA: (14, 1 << 32), CHANNEL: (16, 1 << 32), MESSAGE: (22, 1 << 40)},
    **{CHUNK: (40, 1 << 40), MESSAGE_INDEX: (6, 1 << 40), 0x08: (64, 1 << 32), ATTACHMENT: (36, 1 << 40)},
    **{0x0A: (48, 1 << 32), STATISTICS: (46, 1 << 32), METADATA: (8, 1 << 40), 0x0D: (20, 1 << 32)},
    **{0x0E: (17, 17), DATA_END: (4, 4)},
}
# Where a record may begin: a known opcode, and a length below 4 GB.
CANDIDATE = re.compile(rb"[\x01-\x0f][\x00-\xff]{4}\x00{4}")
CHAIN = 3  # records in a row that must make sense for reading to go on after a damage
RUN = 4096  # messages outside of chunks that are read at once
# What has been read of a mapped file is given back to the system in pieces of this size, so that a file larger than
# memory can be read.
KEPT_BYTES = 1 << 24

Buffer = mmap.mmap | bytes


@dataclass(frozen=True)
class Record:
    """One record: its content lies in `buffer` from `start` to `stop`; `at`: where it, or its chunk, is in the file."""

    opcode: int
    buffer: Buffer
    start: int
    stop: int
    at: int

    def stream(self) -> ReadDataStream:
        """Return the content for the `read` of a class of mcap.records."""
        return ReadDataStream(io.BytesIO(self.buffer[self.start : self.stop]))


@dataclass
class _Block:
    """A chunk, or a run of messages outside of chunks: what it spans in the file and in time."""

    start: int
    stop: int
    chunk: bool
    begin: int
    end: int
    channels: frozenset[int]


class McapFile:
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
        self.path = path
        self.channels: dict[int, Channel] = {}
        self.schemas: dict[int, Schema] = {}
        self.counts: Counter[int] = Counter()
        self.begin = self.end = 0
        self.problems: list[str] = []
        self.lost: int | None = 0
        self.compression = ""
        self.custom: dict[str, str] = {}
        self._blocks: list[_Block] = []
        self._told: Statistics | None = None
        self._damage: list[str] = []
        self._in_summary: dict[int, Channel] = {}
        self._first: set[int] = set()
        self._footer = False
        self._data_ended = False  # what is broken from here on is no message

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
                    document: dict = yaml.safe_load(told.metadata.get("serialized_metadata", "")) or {}
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

    def _records(self, buffer: Buffer, at: int, end: int, tell: bool = True, origin: int = -1) -> Iterator[Record]:
        """Yield the records from `at` to `end`, past what makes no sense.

        Args:
            tell: of what is damaged.
            origin: of the chunk in the file; negative: it is the file itself.
        """
        held: Record | None = None  # a message, which the record after it has to confirm
        known = self.channels
        while at < end:
            stop = 0
            if end - at >= MESSAGE_START.size:
                opcode, length, channel, _, _, _ = MESSAGE_START.unpack_from(buffer, at)
                if opcode == MESSAGE and channel in known and 22 <= length <= end - at - RECORD_HEADER.size:
                    stop = at + RECORD_HEADER.size + length
            stop = stop or self._end_of(buffer, at, end)
            place = at if origin < 0 else origin
            if stop:
                if held is not None:
                    yield held
                    held = None
                record = Record(buffer[at], buffer, at + RECORD_HEADER.size, stop, place)
                if record.opcode == MESSAGE:
                    held = record
                else:
                    yield record
                at = stop
                continue
            inner = self._cut_chunk(buffer, at, end)
            further, trusted = (inner, True) if inner else self._go_on(buffer, at, end, held)
            if tell:
                self._tell_broken(buffer, at, further, end, place)
            if held is not None and trusted:
                yield held
            elif held is not None and tell:
                self._damage.append(f"a message at byte {held.at} is not trusted: what follows it makes no sense")
                self.lost = None
            held, at = None, further
        if held is not None:
            yield held

    def _tell_broken(self, buffer: Buffer, at: int, further: int, end: int, place: int) -> None:
        opcode, length = RECORD_HEADER.unpack_from(buffer, at) if end - at >= RECORD_HEADER.size else (0, 0)
        self.lost = self.lost if self._data_ended else None
        inside = "" if place == at else f" of the chunk at byte {place}"
        if opcode == CHUNK and further < end and self._cut_chunk(buffer, at, end):
            self._damage.append(f"is cut off at byte {end}: the record at byte {at} has {length} bytes")
        elif further == end and (opcode in LENGTHS or end - at < RECORD_HEADER.size):
            self._damage.append(f"is cut off at byte {end}: the record at byte {at}{inside} has {length} bytes")
        else:
            self._damage.append(f"is damaged at byte {at}{inside}: {further - at} bytes make no sense")

    def _go_on(self, buffer: Buffer, at: int, end: int, held: Record | None) -> tuple[int, bool]:
        """Return where reading goes on after the broken record at `at`, and whether the message before it is whole."""
        if end - at < RECORD_HEADER.size:
            return end, True
        opcode, length = RECORD_HEADER.unpack_from(buffer, at)
        own = at + RECORD_HEADER.size + length
        if own <= end and self._makes_sense(buffer, own, end):
            return own, True
        found = self._next(buffer, held.start if held is not None else at + 1, end)
        if found < at:
            return found, False  # the message before told a length that is too long
        if found == end:
            return found, opcode in LENGTHS
        # One byte of the broken record's own header is wrong, or else the message before told too short a length.
        right = (found - at - RECORD_HEADER.size).to_bytes(8, "little") if found - at > RECORD_HEADER.size else b""
        wrong = sum(a != b for a, b in zip(buffer[at + 1 : at + RECORD_HEADER.size], right, strict=False))
        return found, bool(right) and wrong <= 1

    def _next(self, buffer: Buffer, at: int, end: int) -> int:
        """Return where the next records begin that make sense; `end`: nowhere."""
        while True:
            match = CANDIDATE.search(buffer, at, end)
            if match is None:
                return end
            at = match.start()
            del match  # it holds the mapped file
            if self._makes_sense(buffer, at, end, first=True) or self._cut_chunk(buffer, at, end):
                return at
            at += 1

    def _makes_sense(self, buffer: Buffer, at: int, end: int, first: bool = False) -> bool:
        """Tell whether a few records follow each other from `at` on, or up to the end."""
        for number in range(CHAIN):
            if at == end and not (first and number == 0):
                return True
            stop = self._end_of(buffer, at, end)
            if not stop:
                # The last one may be cut off.
                rest = end - at
                cut = rest < RECORD_HEADER.size or (buffer[at] in LENGTHS and self._length(buffer, at) > rest)
                return number > 0 and cut
            at = stop
        return True

    @staticmethod
    def _length(buffer: Buffer, at: int) -> int:
        return int(RECORD_HEADER.unpack_from(buffer, at)[1])

    def _end_of(self, buffer: Buffer, at: int, end: int) -> int:
        """Return where the record at `at` ends; 0: no record makes sense there."""
        if end - at < RECORD_HEADER.size:
            return 0
        opcode, length = RECORD_HEADER.unpack_from(buffer, at)
        least, most = LENGTHS.get(opcode, (1, 0))
        start, stop = at + RECORD_HEADER.size, at + RECORD_HEADER.size + length
        if not least <= length <= most or stop > end:
            return 0
        if opcode == MESSAGE:
            return stop if int.from_bytes(buffer[start : start + 2], "little") in self.channels else 0
        if opcode == CHUNK:
            return stop if _chunk_data(buffer, start, stop) is not None else 0
        if opcode == MESSAGE_INDEX:
            return stop if int.from_bytes(buffer[start + 2 : start + 6], "little") == length - 6 else 0
        if opcode == HEADER:
            profile = int.from_bytes(buffer[start : start + 4], "little")
            return stop if profile <= length - 8 else 0
        if opcode in (SCHEMA, CHANNEL):
            at_text = start + (2 if opcode == SCHEMA else 4)
            name = int.from_bytes(buffer[at_text : at_text + 4], "little")
            return stop if name <= length - 8 else 0
        return stop

    def _cut_chunk(self, buffer: Buffer, at: int, end: int) -> int:
        """Return where the messages begin of a chunk at `at` that is not compressed and goes beyond `end`; 0: none."""
        if end - at <= RECORD_HEADER.size + CHUNK_HEADER.size + 8 or buffer[at] != CHUNK:
            return 0
        start = at + RECORD_HEADER.size
        stop = start + self._length(buffer, at)
        found = _chunk_data(buffer, start, stop)
        return found[1] if found is not None and stop > end and not found[0] else 0

    def _inside(self, chunk: Record, tell: bool = False) -> Iterator[Record]:
        """Yield the records of a chunk. Raises ValueError where it cannot be decompressed, or its checksum is wrong."""
        _, _, size, checksum, _ = CHUNK_HEADER.unpack_from(chunk.buffer, chunk.start)
        found = _chunk_data(chunk.buffer, chunk.start, chunk.stop)
        assert found is not None
        self.compression, at, stop = found
        buffer: Buffer = chunk.buffer
        if self.compression or checksum:
            from rosbags.rosbag2.storage_mcap import decompress

            try:
                plain = decompress(buffer[at:stop], self.compression, size, checksum)
            except Exception as error:  # what a decompressor raises on damage is its own
                raise ValueError(str(error) or repr(error)) from error
            if self.compression:
                buffer, at, stop = plain, 0, len(plain)
        yield from self._records(buffer, at, stop, tell, chunk.at)

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


def _chunk_data(buffer: Buffer, start: int, stop: int) -> tuple[str, int, int] | None:
    """Return compression, start and end of a chunk's data; None where its header contradicts itself."""
    if stop - start < CHUNK_HEADER.size + 8 or start + CHUNK_HEADER.size + 8 > len(buffer):
        return None
    length = CHUNK_HEADER.unpack_from(buffer, start)[4]
    at = start + CHUNK_HEADER.size + length
    if length > 16 or at + 8 > min(stop, len(buffer)):
        return None
    if int.from_bytes(buffer[at : at + 8], "little") != stop - at - 8:
        return None
    return buffer[start + CHUNK_HEADER.size : at].decode("latin-1"), at + 8, stop


__all__ = ["MAGIC", "McapFile", "Raw", "Record"]
