"""Reads a serialised ModelAnnouncement without copying the bundle in it.

The encoding is CDR as ROS 2 sends it (little-endian PLAIN_CDR): values in the order of the definition, each aligned to
its own size, counted from the end of a header of 4 bytes. The bundle comes last, and stays where it is.
"""

from __future__ import annotations

import struct

from ssql_ros.model.announcement import Offer, Refused

MAX_TEXT = 65536
NANOSECONDS = 1_000_000_000


def read_offer(data: bytes) -> Offer:
    """Return what a serialised message announces. Raises Refused: it is no whole message."""
    if data[:2] != b"\x00\x01":
        raise Refused("cannot be read: expected little-endian CDR")
    reader = _Reader(memoryview(data)[4:])
    try:
        sec, nanosec = reader.number("<i"), reader.number("<I")
        reader.text()  # frame_id
        bundle_id, sha256, contract_id = (reader.text() for _ in range(3))
        purpose, key_id, signature = reader.number("<B"), reader.text(), bytes(reader.array(MAX_TEXT))
        path, source, summary = (reader.text() for _ in range(3))
        content = reader.array(None)
    except (struct.error, ValueError) as error:
        raise Refused(f"cannot be read: {error}") from error
    stamp = sec * NANOSECONDS + nanosec
    return Offer(stamp, bundle_id, sha256, contract_id, path, content, source, summary, purpose, key_id, signature)


class _Reader:
    def __init__(self, view: memoryview) -> None:
        self._view, self._at = view, 0

    def number(self, code: str) -> int:
        size = struct.calcsize(code)
        self._at += -self._at % size
        (value,) = struct.unpack_from(code, self._view, self._at)
        self._at += size
        return int(value)

    def array(self, limit: int | None) -> memoryview:
        size = self.number("<I")
        if limit is not None and size > limit:
            raise ValueError(f"a field of {size} bytes, at most {limit} are read")
        if size > len(self._view) - self._at:
            raise ValueError(f"a field of {size} bytes, {len(self._view) - self._at} are left")
        self._at += size
        return self._view[self._at - size : self._at]

    def text(self) -> str:
        return bytes(self.array(MAX_TEXT)[:-1]).decode()
