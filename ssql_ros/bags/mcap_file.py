"""MCAP files that survive: written so that a kill or a full disk costs little, and read without their index.

An MCAP file is a row of records; the index at its end only speeds reading up. A file whose writer was killed has no
index, but everything before the cut can be read from the front (https://mcap.dev/spec).
"""

from __future__ import annotations

import io
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAGIC = b"\x89MCAP0\r\n"
FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, DATA_END = 0x02, 0x03, 0x04, 0x05, 0x06, 0x0F
RECORD_HEADER = struct.Struct("<BQ")  # opcode, length of the content
MESSAGE_HEADER = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
CHUNK_HEADER = struct.Struct("<QQQII")  # first and last time, plain size, checksum, length of the compression's name
# What has been read of a mapped file is given back to the system in pieces of this size, so that a file larger than
# memory can be read.
KEPT_BYTES = 1 << 24


class CommittedFile(io.RawIOBase):
    """A file to write whose bytes reach the disk in commits: all of one or, where it fails, none of it.

    After a failed commit (disk full) the file ends where the last good one ended, and what was written since is still
    held, so that a later commit can succeed.
    """

    def __init__(self, path: Path) -> None:
        self._raw = open(path, "xb", buffering=0)  # noqa: SIM115 (closed by `close`)
        self._committed = 0
        self._pending = bytearray()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """Take `data`; it is on the disk after the next commit."""
        self._pending += data
        return len(data)

    def tell(self) -> int:
        """Return the position after everything that was written, committed or not."""
        return self._committed + len(self._pending)

    @property
    def held_bytes(self) -> int:
        """Return how many bytes are not committed."""
        return len(self._pending)

    def commit(self) -> None:
        """Bring everything written so far to the disk.

        Raises:
            OSError: it could not be; the file is as after the last commit.
        """
        if not self._pending:
            return
        try:
            with memoryview(self._pending) as view:
                done = 0
                while done < len(view):
                    done += self._raw.write(view[done:]) or 0
            # A robot's power can go at any time: only what is synced is recorded.
            os.fsync(self._raw.fileno())
        except OSError:
            self._raw.truncate(self._committed)
            self._raw.seek(self._committed)
            raise
        self._committed += len(self._pending)
        self._pending.clear()

    def close(self) -> None:
        """Commit and close. Raises OSError where the commit fails; the file is closed all the same."""
        if self.closed:
            return
        try:
            self.commit()
        finally:
            self._raw.close()
            super().close()


@dataclass(frozen=True)
class Channel:
    """One topic of a file: its ROS type, the type's definition in the MCAP's `encoding`, and offered QoS as YAML."""

    topic: str
    type: str
    encoding: str
    definition: str
    qos: str


@dataclass(frozen=True)
class _Schema:
    name: str
    encoding: str
    data: str


class LinearReader:
    """Reads an MCAP file from front to end, as far as it goes, without needing its index.

    Iterating yields (channel, log time in ns, CDR bytes) in the order of writing.

    Attributes:
        channels: by id, those met so far.
        problem: after iterating, why the file ends early, in words; empty: it is whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.channels: dict[int, Channel] = {}
        self.problem = ""
        self._schemas: dict[int, _Schema] = {}
        self._ended = False
        self._lost_chunks = 0

    def __iter__(self) -> Iterator[tuple[Channel, int, bytes]]:
        """Yield the messages. Raises OSError where the file cannot be read."""
        with open(self.path, "rb") as file:
            head = file.read(len(MAGIC))
            if head != MAGIC:
                self.problem = "is empty" if not head else "does not begin like an MCAP file"
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
                try:
                    yield from self._scan(buffer, len(MAGIC), len(buffer))
                except (struct.error, KeyError, ValueError) as error:
                    self.problem = f"is damaged: {error}"
        if not self._ended and not self.problem:
            self.problem = "has no end: its writer did not close it"
        if self._lost_chunks:
            lost = f"{self._lost_chunks} chunks of messages cannot be read: {self._fault}"
            self.problem = f"{self.problem}; {lost}" if self.problem else f"is damaged: {lost}"

    def _scan(self, buffer: mmap.mmap | bytes, at: int, end: int) -> Iterator[tuple[Channel, int, bytes]]:
        """Yield the messages of the records from `at` to `end`; a record that is cut off ends the scan."""
        freed = 0
        while at < end:
            if at - freed > KEPT_BYTES and isinstance(buffer, mmap.mmap):
                freed = at - at % mmap.PAGESIZE
                buffer.madvise(mmap.MADV_DONTNEED, 0, freed)
            if end - at < RECORD_HEADER.size:
                self.problem = f"is cut off at byte {at}"
                return
            opcode, length = RECORD_HEADER.unpack_from(buffer, at)
            start, stop = at + RECORD_HEADER.size, at + RECORD_HEADER.size + length
            # Zeros are what a file system leaves where it had extended a file when the power went.
            if opcode == 0:
                self.problem = f"is damaged at byte {at}"
                return
            whole = stop <= end
            if opcode == CHUNK:
                try:
                    yield from self._chunk(buffer, start, min(stop, end), whole)
                except Exception as error:  # what a decompressor raises on damage is its own
                    self._lost_chunks += 1
                    self._fault = str(error)
            if not whole:
                self.problem = f"is cut off at byte {end}: the record at byte {at} has {length} bytes"
                return
            if opcode in (DATA_END, FOOTER):
                self._ended = True
                return
            if opcode == SCHEMA:
                self._read_schema(buffer, start)
            elif opcode == CHANNEL:
                self._read_channel(buffer, start)
            elif opcode == MESSAGE:
                channel, _, log_time, _ = MESSAGE_HEADER.unpack_from(buffer, start)
                yield self.channels[channel], log_time, buffer[start + MESSAGE_HEADER.size : stop]
            at = stop

    def _chunk(self, buffer: mmap.mmap | bytes, start: int, stop: int, whole: bool) -> Iterator:
        header = CHUNK_HEADER
        if stop - start < header.size:
            return
        _, _, size, checksum, name_length = header.unpack_from(buffer, start)
        at = start + header.size
        compression = buffer[at : at + name_length].decode()
        at += name_length + 8
        if not compression:
            if whole and checksum and zlib.crc32(buffer[at:stop]) != checksum:
                raise ValueError(f"the checksum of the one at byte {start} is wrong")
            # Messages of a chunk that is cut off are as good as any up to the cut.
            yield from self._scan(buffer, at, stop)
        elif whole:  # compressed, by another recorder than ours
            from rosbags.rosbag2.storage_mcap import decompress

            records = decompress(buffer[at:stop], compression, size, checksum)
            yield from self._scan(records, 0, len(records))

    def _read_schema(self, buffer: mmap.mmap | bytes, at: int) -> None:
        (number,) = struct.unpack_from("<H", buffer, at)
        name, at = _text(buffer, at + 2)
        encoding, at = _text(buffer, at)
        data, at = _text(buffer, at)
        self._schemas[number] = _Schema(name, encoding, data)

    def _read_channel(self, buffer: mmap.mmap | bytes, at: int) -> None:
        number, schema_number = struct.unpack_from("<HH", buffer, at)
        topic, at = _text(buffer, at + 4)
        _, at = _text(buffer, at)
        (length,) = struct.unpack_from("<I", buffer, at)
        at += 4
        end, metadata = at + length, {}
        while at < end:
            key, at = _text(buffer, at)
            metadata[key], at = _text(buffer, at)
        schema = self._schemas.get(schema_number, _Schema("", "", ""))
        qos = metadata.get("offered_qos_profiles", "")
        self.channels[number] = Channel(topic, schema.name, schema.encoding, schema.data, qos)


def _text(buffer: mmap.mmap | bytes, at: int) -> tuple[str, int]:
    """Return the length-prefixed text at `at` and where it ends."""
    (length,) = struct.unpack_from("<I", buffer, at)
    at += 4
    return buffer[at : at + length].decode(), at + length
