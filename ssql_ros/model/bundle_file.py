"""The file of a bundle: a safetensors file whose metadata carries one JSON document, sealed by a digest of it all.

Reading one runs no code. Sizes and nesting are bounded before anything is parsed. The digest is the SHA-256 of the
whole file with the digest's own 64 digits as zeros, so that no bit of the file can change unseen.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as deserialise
from safetensors.numpy import save as serialise

from ssql_ros.model.bundle_content import BundleError

FORMAT = 4
READABLE = (1, 2, 3, 4)  # format 1 has a safety critic only; 2 knows one kind of policy and of critic; 4 has a digest
MAX_BYTES = 2**30
MAX_HEADER = 2**20  # bytes; those of the shipped bundles have 3 to 7 thousand
MAX_DEPTH = 32  # of brackets in the JSON, of the header and of the document in it
_KEY = "ssql_ros"
_NO_DIGEST = "0" * 64
# As JSON writes it inside of a JSON text.
_DIGEST = re.compile(rb'\\"digest\\": \\"([0-9a-f]{64})\\"')


def sealed(document: dict[str, Any], arrays: dict[str, np.ndarray]) -> bytes:
    """Return the content of a file with these arrays and this document, the digest included.

    Raises:
        BundleError: the document is larger than what is read.
    """
    text = json.dumps({**document, "format": FORMAT, "digest": _NO_DIGEST}, sort_keys=True)
    data = serialise(arrays, metadata={_KEY: text})
    if (length := int.from_bytes(data[:8], "little")) > MAX_HEADER:
        raise BundleError(
            f"bundle: its header has {length} bytes, at most {MAX_HEADER} are read; shorten the provenance"
        )
    place = _place_of_digest(data)
    assert place is not None
    return data[:place] + hashlib.sha256(data).hexdigest().encode() + data[place + 64 :]


def opened(data: bytes, path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return document and arrays of a file's content, once its digest holds. Formats before 4 have none.

    Raises:
        BundleError: it is truncated, not safetensors, no bundle, too large, of another format, or not what was saved.
    """
    header = _header(data, path)
    document = _document(header.get("__metadata__"), path)
    try:
        arrays = deserialise(data)
    except SafetensorError as error:
        raise BundleError(f"{path}: is not a whole safetensors file: {error}") from error
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        # What safetensors itself raises for a type of number that NumPy does not have.
        raise BundleError(f"{path}: has an array of a type that is not read here: {error}") from error
    if document["format"] >= 4:
        _check_digest(data, document, path)
    return document, arrays


def format_of(path: Path) -> int:
    """Return the format of a bundle file. Raises BundleError."""
    return int(opened(read_file(path), path)[0]["format"])


def read_file(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Return a file's content.

    Raises:
        BundleError: it cannot be read, is not a regular file, or has more than `max_bytes`.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path}: cannot be read: is not a regular file")
        if status.st_size > max_bytes:
            raise BundleError(f"{path}: has {status.st_size} bytes, at most {max_bytes} are read")
        # Read once: id, metadata and arrays are of one file, also when another is put in its place meanwhile.
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error


def bundle_id(data: bytes) -> str:
    """Return the id of a bundle file's content."""
    return hashlib.sha256(data).hexdigest()[:16]


def _header(data: bytes, path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file: 8 bytes with its length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 10 or length > len(data) - 8:
        raise BundleError(f"{path}: is not a whole safetensors file: {len(data)} bytes, a header of {length}")
    if length > MAX_HEADER:
        raise BundleError(f"{path}: its header has {length} bytes, at most {MAX_HEADER} are read")
    try:
        header = _parsed(data[8 : 8 + length].decode())
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: is not a whole safetensors file: header: {error}") from error
    if not isinstance(header, dict):
        raise BundleError(f"{path}: is not a whole safetensors file: its header is no JSON object")
    return header


def _document(metadata: Any, path: Path) -> dict[str, Any]:
    if not isinstance(metadata, dict) or not isinstance(metadata.get(_KEY), str):
        raise BundleError(f"{path}: is a safetensors file, but not a bundle of ssql_ros (no metadata {_KEY!r})")
    try:
        document = _parsed(metadata[_KEY])
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: the metadata {_KEY!r} is not JSON: {error}") from error
    found = document.get("format") if isinstance(document, dict) else document
    if not isinstance(document, dict) or type(found) is not int or found not in READABLE:
        readable = ", ".join(map(str, READABLE))
        raise BundleError(f"{path}: bundle format {str(found)[:80]}, this version reads formats {readable}")
    return document


def _parsed(text: str) -> Any:
    """Return what a JSON text says; one that nests too deep is not parsed."""
    depth = deepest = 0
    # Brackets inside of texts count too, which only makes this stricter where they do not match.
    for bracket in re.findall(r"[\[\]{}]", _TEXTS.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise ValueError(f"nests {deepest} levels deep, at most {MAX_DEPTH} are read")
    return json.loads(text)


_TEXTS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def _place_of_digest(data: bytes) -> int | None:
    """Return where the digits of the digest begin; None: there is not exactly one digest in the header."""
    end = 8 + int.from_bytes(data[:8], "little")
    found = list(_DIGEST.finditer(data, 8, end))
    return found[0].start(1) if len(found) == 1 else None


def _check_digest(data: bytes, document: dict[str, Any], path: Path) -> None:
    place = _place_of_digest(data)
    if place is not None:
        digest = hashlib.sha256(data[:place])
        digest.update(_NO_DIGEST.encode())
        digest.update(memoryview(data)[place + 64 :])
        if digest.hexdigest() == document.get("digest"):
            return
    raise BundleError(
        f"{path}: digest: what is in the file is not what was saved in it: it was damaged or edited; "
        "copy it anew from where it came from, and save edits with ssql_ros.model.bundle.save_bundle"
    )
