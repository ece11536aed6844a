"""What is checked of an announced bundle before anything is done with it. No ROS: a message comes in as an Offer.

In this order: contract, hash as stated, size, hash as it is, the bundle's format with every shape and number in it.
Whoever serves it then checks its probes (see `ssql_ros.probes`).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from ssql_ros.bundle import Bundle, parse_bundle
from ssql_ros.spec.contract import Contract

ID_DIGITS = 16


class Refused(ValueError):
    """An announced bundle does not verify; the text says what was expected and what came."""


@dataclass(frozen=True)
class Offer:
    """An announcement: the fields of ModelAnnouncement.msg. `stamp`: ns of system time."""

    stamp: int
    bundle_id: str
    sha256: str
    contract_id: str
    path: str = ""
    data: bytes = b""
    source: str = ""
    summary: str = ""

    @classmethod
    def of_file(cls, path: Path, contract_id: str, stamp: int, with_data: bool, **words: str) -> Offer:
        """Return the announcement of a file; `with_data`: the file itself goes along. Raises OSError."""
        data = path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        sent = data if with_data else b""
        return cls(stamp, sha256[:ID_DIGITS], sha256, contract_id, str(path.resolve()), sent, **words)


def bundle_of(offer: Offer, contract: Contract, max_bytes: int) -> Bundle:
    """Return the bundle that is offered, once all of it is what the announcement says.

    Args:
        max_bytes: of a bundle file; a larger one is not read.

    Raises:
        Refused: the announcement contradicts itself, is for another contract, or its content is not what it says.
        BundleError: the content is no bundle that fits the contract.
    """
    if offer.contract_id != contract.id:
        raise Refused(f"is for contract {offer.contract_id!r}, this node serves {contract.id}")
    if not re.fullmatch("[0-9a-f]{64}", offer.sha256):
        raise Refused(f"sha256: expected 64 hex digits, got {offer.sha256[:80]!r}")
    if offer.bundle_id != offer.sha256[:ID_DIGITS]:
        raise Refused(f"bundle_id: expected the first {ID_DIGITS} digits of sha256, got {offer.bundle_id[:80]!r}")
    content = offer.data or _read(offer.path, max_bytes)
    if len(content) > max_bytes:
        raise Refused(f"has {len(content)} bytes, at most {max_bytes} are taken")
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != offer.sha256:
        raise Refused(f"sha256: announced {offer.sha256}, the content ({len(content)} bytes) has {sha256}")
    return parse_bundle(content, contract, "in the announcement" if offer.data else offer.path)


def _read(path: str, max_bytes: int) -> bytes:
    """Return a file's content. Whatever else lies at `path` is not even opened: opening a device can do things."""
    if not path:
        raise Refused("has neither path nor data")
    if "\0" in path or not os.path.isabs(path):
        raise Refused(f"path: expected an absolute path, got {path[:200]!r}")
    try:
        _check_file(path, os.stat(path), max_bytes)
        # O_NONBLOCK: should a pipe have taken its place meanwhile, opening it must not wait for a writer.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            _check_file(path, os.fstat(file.fileno()), max_bytes)
            return file.read(max_bytes + 1)
    except OSError as error:
        raise Refused(f"path: {path}: {error.strerror or error}") from error


def _check_file(path: str, status: os.stat_result, max_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Refused(f"path: {path}: is not a regular file")
    if status.st_size > max_bytes:
        raise Refused(f"path: {path}: has {status.st_size} bytes, at most {max_bytes} are taken")
