"""What is checked of an announced bundle before anything is done with it. No ROS: a message comes in as an Offer.

In this order: purpose, who announces (a key, or a folder), turn, contract, hash as stated, size, hash as it is, the
bundle's digest and format with every shape and number in it. Whoever serves it then checks its probes (see
`ssql_ros.model.probes`). A refusal tells nothing of files that the announcer does not know.
"""

from __future__ import annotations

import enum
import hashlib
import os
import re
import stat
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ssql_ros.contract.contract import Contract
from ssql_ros.model.bundle import Bundle, BundleError, parse_bundle, purposes_of
from ssql_ros.model.signing import holds, key_id, read_public_key, statement

ID_DIGITS = 16
AHEAD = 1.0  # s, how far an announcement's stamp may lie ahead of this machine's clock
REMEMBERED = 64


class Refused(ValueError):
    """An announced bundle does not verify; the text says what was expected and what came."""


class TakenBefore(Refused):
    """The very announcement was taken already; it is told again where a connection was lost and came back."""


class Purpose(enum.IntFlag):
    """Whose model an announcement is to replace; the values are those of ModelAnnouncement.msg."""

    CRITIC = 1
    POLICY = 2
    BOTH = 3


@dataclass(frozen=True)
class Offer:
    """An announcement: the fields of ModelAnnouncement.msg. `stamp`: ns of system time."""

    stamp: int
    bundle_id: str
    sha256: str
    contract_id: str
    path: str = ""
    data: bytes | memoryview = b""
    source: str = ""
    summary: str = ""
    purpose: int = 0
    key_id: str = ""
    signature: bytes = b""

    @classmethod
    def of_file(
        cls,
        path: Path,
        contract_id: str,
        stamp: int,
        with_data: bool,
        purpose: Purpose | None = None,
        key: Ed25519PrivateKey | None = None,
        source: str = "",
        summary: str = "",
    ) -> Offer:
        """Return the announcement of a file.

        Args:
            with_data: the file itself goes along.
            purpose: None: a bundle with a policy is for policy nodes, whatever stands behind it; others for shields.
            key: signs it; None: not signed.

        Raises:
            OSError: the file cannot be read.
        """
        data = path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        sent = data if with_data else b""
        meant = _purpose_of(data, path) if purpose is None else purpose
        offer = cls(
            stamp, sha256[:ID_DIGITS], sha256, contract_id, str(path.resolve()), sent, source, summary, int(meant)
        )
        return offer if key is None else offer.signed(key)

    def signed(self, key: Ed25519PrivateKey) -> Offer:
        """Return it with the signature of `key`."""
        return replace(self, key_id=key_id(key.public_key()), signature=key.sign(self.statement()))

    def statement(self) -> bytes:
        """Return what is signed of it."""
        return statement(self.stamp, self.sha256, self.contract_id, self.purpose)


def _purpose_of(data: bytes, path: Path) -> Purpose:
    try:
        return Purpose.POLICY if "policy" in purposes_of(data, path) else Purpose.CRITIC
    except BundleError:
        return Purpose.BOTH  # whoever receives it says what is wrong with it


@dataclass(frozen=True)
class Trust:
    """Whose announcements are taken.

    Attributes:
        folder: files in it, links resolved, may be named by anyone; None: no folder.
        keys: announcements that one of them has signed are taken, by key id.
    """

    folder: Path | None = None
    keys: dict[str, Ed25519PublicKey] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: str, keys: list[str]) -> Trust:
        """Return what the parameters `bundle_folder` and `announcement_keys` say; empty texts count as none.

        Raises:
            ValueError: the folder is none, or a file is no public key.
        """
        found = [read_public_key(Path(path)) for path in keys if path]
        # A learner that starts at the same time may still be about to make it.
        if folder and not (Path(folder).is_dir() or (Path(folder).parent.is_dir() and not Path(folder).exists())):
            raise ValueError(f"parameter bundle_folder: expected a folder, got {folder!r}")
        return cls(Path(folder).resolve() if folder else None, {key_id(key): key for key in found})

    def __bool__(self) -> bool:
        """Tell whether anything is taken at all."""
        return self.folder is not None or bool(self.keys)

    def signer_of(self, offer: Offer) -> str:
        """Return the id of the key that signed an announcement; empty: it names a file in the folder.

        Raises:
            Refused: it is neither.
        """
        if offer.signature or offer.key_id:
            key = self.keys.get(offer.key_id)
            if key is None:
                raise Refused(f"key_id: {offer.key_id[:KEY_SHOWN]!r} is none of this node's announcement_keys")
            if not holds(key, offer.signature, offer.statement()):
                raise Refused("signature: does not fit this announcement's stamp, sha256, contract_id and purpose")
            return offer.key_id
        if self.folder is None:
            raise Refused("signature: this node takes only announcements signed by one of its announcement_keys")
        # Answered alike whether there is such a file or not.
        if not _inside(offer.path, self.folder):
            raise Refused("path: expected a file in this node's bundle_folder, or a signature")
        return ""


KEY_SHOWN = 32


def _inside(path: str, folder: Path) -> bool:
    if "\0" in path or not os.path.isabs(path):
        return False
    try:
        return Path(os.path.realpath(path)).is_relative_to(folder)
    except (OSError, ValueError):
        return False


class Turns:
    """What was taken before, so that nothing is taken twice, nor what is older.

    A stamp counts for no more than the time at which it came: one that lies ahead does not keep later ones out.

    Args:
        newest: by signer, ns, the newest stamp that was taken.
        max_age: s; older announcements are not taken.
    """

    def __init__(self, newest: dict[str, int], max_age: float) -> None:
        self.newest, self._max_age = dict(newest), max_age
        self._early: deque[tuple[int, str]] = deque(maxlen=REMEMBERED)

    def check(self, offer: Offer, signer: str, now: int) -> None:
        """Raise Refused unless it is this announcement's turn. `now`: ns of system time."""
        ahead = (offer.stamp - now) * 1e-9
        if ahead > AHEAD:
            raise Refused(f"stamp: lies {ahead:.1f} s ahead of this machine's clock, at most {AHEAD:g} s are allowed")
        if -ahead > self._max_age:
            raise Refused(f"stamp: is {-ahead:.0f} s old, at most {self._max_age:g} s are allowed; announce it anew")
        newest = self.newest.get(signer, 0)
        if (offer.stamp, offer.sha256) in self._early or offer.stamp == newest:
            raise TakenBefore("this announcement was taken already; what it offers can be announced anew")
        if offer.stamp < newest:
            seconds = (newest - offer.stamp) * 1e-9
            raise Refused(f"stamp: was announced {seconds:.3f} s before one that was taken already")

    def taken(self, offer: Offer, signer: str, now: int) -> None:
        """Note that it was taken."""
        self.newest[signer] = max(min(offer.stamp, now), self.newest.get(signer, 0))
        if offer.stamp > now:
            self._early.append((offer.stamp, offer.sha256))


def bundle_of(offer: Offer, contract: Contract, max_bytes: int, trust: Trust) -> Bundle:
    """Return the bundle that is offered, once all of it is what the announcement says.

    Args:
        max_bytes: of a bundle file; a larger one is neither read nor looked at.

    Raises:
        Refused: the announcement comes from nobody trusted, contradicts itself, is for another contract, or its content
            is not what it says.
        BundleError: the content is no bundle that fits the contract.
    """
    signer = trust.signer_of(offer)
    if offer.contract_id != contract.id:
        raise Refused(f"is for contract {offer.contract_id[:80]!r}, this node serves {contract.id}")
    if not re.fullmatch("[0-9a-f]{64}", offer.sha256):
        raise Refused(f"sha256: expected 64 hex digits, got {offer.sha256[:80]!r}")
    if offer.bundle_id != offer.sha256[:ID_DIGITS]:
        raise Refused(f"bundle_id: expected the first {ID_DIGITS} digits of sha256, got {offer.bundle_id[:80]!r}")
    if len(offer.data) > max_bytes:
        raise Refused(f"has {len(offer.data)} bytes, at most {max_bytes} are taken")
    # Data that nobody has signed is not looked at: the file in the folder is what counts.
    sent = offer.data if signer else b""
    content = bytes(sent) or _read(offer.path, max_bytes, None if signer else trust.folder)
    if hashlib.sha256(content).hexdigest() != offer.sha256:
        # Not which hash it has: that would tell of files that the announcer cannot read.
        raise Refused("sha256: the content is not what was announced")
    return parse_bundle(content, contract, "in the announcement" if len(sent) else offer.path)


def _read(path: str, max_bytes: int, folder: Path | None) -> bytes:
    """Return a file's content. Whatever else lies at `path` is not even opened: opening a device can do things.

    Args:
        folder: the file must lie in it; None: anywhere, for those who know its hash and have signed it. They are told
            no more of other files than that theirs is not there.
    """
    if not path:
        raise Refused("has neither path nor data")
    if "\0" in path or not os.path.isabs(path):
        raise Refused(f"path: expected an absolute path, got {path[:200]!r}")
    try:
        real = os.path.realpath(path)
        _check_file(os.stat(real), max_bytes)
        # O_NONBLOCK: should a pipe have taken its place meanwhile, opening it must not wait for a writer.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
        with open(os.open(real, flags), "rb") as file:
            _check_file(os.fstat(file.fileno()), max_bytes)
            # A folder on the way may have become a link since: what counts is where the opened file lies.
            if folder is not None and not _inside(os.readlink(f"/proc/self/fd/{file.fileno()}"), folder):
                raise Refused("path: expected a file in this node's bundle_folder")
            return file.read(max_bytes + 1)
    except Refused as error:
        raise error if folder is not None else Refused(_NOT_THERE) from None
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or "cannot be read"
        raise Refused(f"path: {path[:200]}: {words}" if folder is not None else _NOT_THERE) from None


_NOT_THERE = "path: there is no such bundle file that this node can read, or it is too large; send it along (--data)"


def _check_file(status: os.stat_result, max_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Refused("path: is not a regular file")
    if status.st_size > max_bytes:
        raise Refused(f"path: has {status.st_size} bytes, at most {max_bytes} are taken")
