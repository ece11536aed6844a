"""The records of an MCAP file from the front, past what is damaged: what makes no sense is told and passed over."""

from __future__ import annotations

import io
import mmap
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from mcap.data_stream import ReadDataStream
from mcap.records import Channel

from ssql_ros.bags.bounds import unpacked

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


class Scanner:
    """Goes from record to record, and where one is broken, on to the next that makes sense.

    Attributes:
        channels: by id, those that are known: a message of another is none.
        lost: messages that are known to be lost; None: something is, and nobody knows how many.
        compression: of the last chunk.
    """

    def __init__(self) -> None:
        self.channels: dict[int, Channel] = {}
        self.lost: int | None = 0
        self.compression = ""
        self._damage: list[str] = []
        self._data_ended = False  # what is broken from here on is no message

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
            try:
                plain = unpacked(buffer[at:stop], self.compression, size, checksum)
            except Exception as error:  # what a decompressor raises on damage is its own
                raise ValueError(str(error) or repr(error)) from error
            if self.compression:
                buffer, at, stop = plain, 0, len(plain)
        yield from self._records(buffer, at, stop, tell, chunk.at)


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
