"""Ed25519 keys for announcements: whoever holds the private key may change the model of a running robot.

Keys are PEM files as OpenSSL writes them (PKCS #8, SubjectPublicKeyInfo). What is signed begins with a text that no
other protocol signs, so that a signature is worth nothing elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

DOMAIN = b"ssql_ros model announcement, version 1\0"
KEY_DIGITS = 16
MAX_KEY_BYTES = 10_000
# The last: what OpenSSL itself says of a key of another algorithm that is too short for it.
UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, InternalError)


def statement(stamp: int, sha256: str, contract_id: str, purpose: int) -> bytes:
    """Return the SHA-256 that is signed: what is announced, for which robot and node, when (ns).

    Every part has a fixed size or is preceded by its length, so that no two announcements give the same bytes.
    """
    parts = [part.encode() for part in (sha256, contract_id)]
    fields = b"".join(struct.pack("<I", len(part)) + part for part in parts)
    return hashlib.sha256(DOMAIN + struct.pack("<qB", stamp, purpose) + fields).digest()


def key_id(key: Ed25519PublicKey) -> str:
    """Return the first 16 hex digits of the SHA-256 of a public key's 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:KEY_DIGITS]


def holds(key: Ed25519PublicKey, signature: bytes, signed: bytes) -> bool:
    """Tell whether a signature is this key's for these bytes."""
    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def write_keys(path: Path) -> Ed25519PublicKey:
    """Make a pair: the private key at `path`, for its owner's eyes only, the public one beside it as `path`.pub.

    Raises:
        ValueError: one of the files is there already.
        OSError: they cannot be written.
    """
    private, public = Ed25519PrivateKey.generate(), path.with_name(path.name + ".pub")
    for file in (path, public):
        if file.exists():
            raise ValueError(f"{file} is there already; a key is never replaced: remove it, or choose another name")
    encoding, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    secret = private.private_bytes(encoding, serialization.PrivateFormat.PKCS8, no_password)
    shown = private.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    path.parent.mkdir(parents=True, exist_ok=True)
    for file, content, mode in ((path, secret, 0o600), (public, shown, 0o644)):
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as opened:
            opened.write(content)
    return private.public_key()


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Return a private key. Raises ValueError: the file cannot be read, or is no Ed25519 private key in PEM."""
    try:
        key = serialization.load_pem_private_key(_content(path), password=None)
    except UNREADABLE as error:
        raise ValueError(f"{path}: expected an Ed25519 private key in PEM without a password ({error})") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path}: expected an Ed25519 private key, got {type(key).__name__}")
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Return a public key. Raises ValueError: the file cannot be read, or is no Ed25519 public key in PEM."""
    try:
        key = serialization.load_pem_public_key(_content(path))
    except UNREADABLE as error:
        raise ValueError(f"{path}: expected an Ed25519 public key in PEM ({error})") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"{path}: expected an Ed25519 public key, got {type(key).__name__}")
    return key


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_KEY_BYTES)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
