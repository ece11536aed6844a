"""How much of a bag from elsewhere is taken at once: what it packs, describes and defines may say anything."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any

import yaml
from backports import zstd
from lz4.frame import LZ4FrameDecompressor
from rosbags.interfaces import Nodetype

from ssql_ros.contract.schema import BoundedLoader

MAX_PACKED = 2**27  # bytes of one chunk or message, unpacked; recorders write chunks of some MB
MAX_TEXT = 2**22  # characters of metadata
MAX_UNROLLED = 4096  # elements of an array of texts or messages: code is made for each
MAX_ELEMENTS = 2**24  # of an array of numbers
MAX_PARTS = 2**20  # messages in one, by arrays of arrays
MAX_LEVELS = 32  # of definitions in each other
_TYPE = re.compile(r"[A-Za-z]\w*(/[A-Za-z]\w*){1,2}", re.ASCII)


def bounded_yaml(text: str) -> Any:
    """Return what YAML of a bag says. Raises yaml.YAMLError, also for what is too long, too deep or grows."""
    if len(text) > MAX_TEXT:
        raise yaml.YAMLError(f"has {len(text)} characters, at most {MAX_TEXT} are read")
    return yaml.load(text, Loader=BoundedLoader)


def unpacked(data: bytes, compression: str, size: int, checksum: int = 0) -> bytes:
    """Return a chunk's plain bytes; no more than it says to have are ever made. Raises ValueError."""
    if size > MAX_PACKED:
        raise ValueError(f"{size} bytes unpacked, at most {MAX_PACKED} are read")
    if compression == "zstd":
        plain = zstd.ZstdDecompressor().decompress(data, max_length=size + 1)
    elif compression == "lz4":
        plain = LZ4FrameDecompressor().decompress(data, max_length=size + 1)
    elif compression:
        raise ValueError(f"compression {compression!r} is not known")
    else:
        plain = data
    if len(plain) != size:
        raise ValueError(f"expected {size} bytes, got {'more' if len(plain) > size else len(plain)}")
    if checksum and zlib.crc32(plain) != checksum:
        raise ValueError("its checksum is wrong")
    return plain


def unpacked_message(data: bytes) -> bytes:
    """Return a message that was compressed by itself. Raises zstd.ZstdError, ValueError."""
    plain = zstd.ZstdDecompressor().decompress(data, max_length=MAX_PACKED + 1)
    if len(plain) > MAX_PACKED:
        raise ValueError(f"more than {MAX_PACKED} bytes unpacked")
    return plain


def check_types(types: Mapping[str, Any]) -> None:
    """Refuse definitions that no code can, or should, be made of.

    Args:
        types: parsed, by name, as `rosbags` has them: constants, and fields with their descriptions.

    Raises:
        ValueError: a name that is none, an array that is too long, a type that holds itself, or too many parts.
    """
    sizes: dict[str, int] = {}

    def size_of(name: str, level: int) -> int:
        """Return how many messages a message has in it at least, itself included."""
        if level > MAX_LEVELS:
            raise ValueError(f"{name}: holds itself, or nests more than {MAX_LEVELS} levels deep")
        if name not in sizes:
            parts = 1
            for field, description in types[name][1] if name in types else ():
                parts += _parts(field, description, level, size_of)
                if parts > MAX_PARTS:
                    raise ValueError(f"{name}: has more than {MAX_PARTS} parts")
            sizes[name] = parts
        return sizes[name]

    for name in types:
        if not _TYPE.fullmatch(name):
            raise ValueError(f"{name[:80]!r} is no name of a type (package/msg/Name)")
        size_of(name, 0)


def _parts(field: str, description: Any, level: int, size_of: Any) -> int:
    kind, value = description
    if kind == Nodetype.NAME:
        return int(size_of(value, level + 1))
    if kind not in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        return 0
    (inner, name), count = value
    plain = inner == Nodetype.BASE and name[0] not in ("string", "wstring")
    most = MAX_ELEMENTS if plain else MAX_UNROLLED
    if kind == Nodetype.ARRAY and count > most:
        raise ValueError(f"{field}: an array of {count}, at most {most} are read")
    if inner != Nodetype.NAME:
        return 0
    # A sequence may be empty; what it holds must still have an end.
    return int(size_of(name, level + 1)) * (count if kind == Nodetype.ARRAY else 1)
