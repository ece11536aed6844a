"""What is given wrong inputs: each target makes one of random numbers, and reads it as the package does."""

from __future__ import annotations

import json
import os
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from bench.fuzz_base import ROBOT, Target, everything
from bench.fuzz_mutations import FLOATS, TEXTS, mutated_bytes, mutated_tree, mutated_yaml
from ssql_ros.bags.definitions import BagError
from ssql_ros.contract import Contract, ObservationAssembler, find_contract
from ssql_ros.contract.contract_file import read_contract
from ssql_ros.contract.schema import parse_yaml, read_yaml
from ssql_ros.model.bundle import BundleError

_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


def _documents() -> list[dict[str, Any]]:
    # Read by PyYAML itself: what is mutated is the document, not the contract.
    return [everything(), *(read_yaml(find_contract(name)) for name in (ROBOT, "minitaur", "spider"))]


class Documents(Target):
    """Contracts as plain values, and the assembler of observations that follows from what is accepted."""

    def __init__(self) -> None:
        self._documents = _documents()

    def make(self, rng: Random) -> Any:
        return mutated_tree(rng, rng.choice(self._documents))

    def run(self, given: Any) -> bool:
        if not isinstance(given, dict):
            return False
        contract = read_contract(given, "fuzz.yaml")
        assert len(contract.id) > 8
        ObservationAssembler(contract)
        return True


class Contracts(Documents):
    """Contracts as the text of their file."""

    def __init__(self) -> None:
        self._documents = [everything(), read_yaml(find_contract(ROBOT))]

    def make(self, rng: Random) -> Any:
        return mutated_yaml(rng, rng.choice(self._documents))

    def run(self, given: bytes) -> bool:
        return super().run(parse_yaml(given, Path("fuzz.yaml")))


class Bundles(Target):
    """Bundle files: as bytes, and sealed anew with a document or arrays that are wrong."""

    errors = (BundleError,)

    def __init__(self) -> None:
        from ssql_ros.model.bundle_file import opened
        from ssql_ros.robots.tasks import find_task

        task = find_task(ROBOT)
        self._contract: Contract = task.contract()
        self._data = task.bundle_path().read_bytes()
        self._document, self._arrays = opened(self._data, Path("fuzz"))

    def make(self, rng: Random) -> bytes:
        from ssql_ros.model.bundle_file import sealed

        kind = rng.randrange(4)
        if kind == 0:
            return mutated_bytes(rng, self._data)
        if kind == 1:
            return self._with_header(rng)
        document = mutated_tree(rng, self._document) if kind == 2 else self._document
        arrays = dict(self._arrays) if kind == 2 else _mutated_arrays(rng, self._arrays)
        try:
            return sealed(document if isinstance(document, dict) else {}, arrays)
        except (BundleError, UnicodeEncodeError, TypeError):  # no such document can be saved
            return mutated_bytes(rng, self._data)

    def _with_header(self, rng: Random) -> bytes:
        """Return the file with another header of safetensors: shapes, types and offsets that are wrong."""
        length = int.from_bytes(self._data[:8], "little")
        header = mutated_tree(rng, json.loads(self._data[8 : 8 + length]))
        text = json.dumps(header).encode("utf-8", "surrogatepass")
        if rng.random() < 0.2:
            text = rng.choice((b"[" * 100_000, b'{"a":' * 5000, text + b" " * 2**20, b'{"a": 1, "a": 2}', text[:-1]))
        return len(text).to_bytes(8, "little") + text + self._data[8 + length :]

    def run(self, given: bytes) -> bool:
        from ssql_ros.model.bundle import parse_bundle

        return self._served(parse_bundle(given, self._contract, "fuzz"))

    @staticmethod
    def _served(bundle: Any) -> bool:
        from ssql_ros.model.critic import shielding_critic
        from ssql_ros.model.policy import make_policy
        from ssql_ros.model.probes import check_critic, check_policy

        # As the inspector does: what is wrong with what is served is a ValueError.
        try:
            if "critic" in bundle.serves():
                check_critic(shielding_critic(bundle))
            if "policy" in bundle.serves():
                check_policy(make_policy(bundle), bundle)
        except ValueError:
            return False
        return True


def _mutated_arrays(rng: Random, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    changed, name = dict(arrays), rng.choice(list(arrays))
    array = changed.pop(name)
    kind = rng.randrange(7)
    if kind == 0:
        return changed
    if kind == 1:
        changed[rng.choice(("x", name + ".0", "critic.99.0.weight"))] = array
    elif kind == 2:
        changed[name] = array.reshape(-1) if rng.random() < 0.5 else array[..., None]
    elif kind == 3:
        changed[name] = array.astype(rng.choice((np.float64, np.int8, np.float16, np.bool_)))
    elif kind == 4:
        changed[name] = array[: rng.randrange(len(array) + 1)]
    else:
        spoilt = array.copy().reshape(-1)
        spoilt[rng.randrange(spoilt.size)] = rng.choice(FLOATS)
        changed[name] = spoilt.reshape(array.shape)
    return changed


class Announcements(Bundles):
    """Serialised ModelAnnouncements, from the message to the bundle in it, as the inspector takes them."""

    errors = (ValueError,)  # Refused and BundleError are; what is no message is told by Refused

    def __init__(self) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        from ssql_ros.model.announcement import Trust, Turns
        from ssql_ros.model.signing import key_id

        super().__init__()
        # Any 32 bytes are a key: the same in every run.
        self._key = Ed25519PrivateKey.from_private_bytes(bytes(32))
        self._folder = Path(tempfile.mkdtemp(prefix="ssql_fuzz_", dir=_MEMORY))
        shutil.copy(self._path(), self._folder / "there.safetensors")
        self._trust = Trust(self._folder, {key_id(self._key.public_key()): self._key.public_key()})
        self._turns = Turns({}, 1e9)

    @staticmethod
    def _path() -> Path:
        from ssql_ros.robots.tasks import find_task

        return find_task(ROBOT).bundle_path()

    def make(self, rng: Random) -> bytes:
        from dataclasses import replace

        from ssql_ros.model.announcement import Offer

        inside, path = super().make(rng), self._folder / "there.safetensors"
        offer = Offer.of_file(path, self._contract.id, 10**18, rng.random() < 0.5)
        kind = rng.randrange(4)
        if kind == 0:  # signed by somebody who is trusted: what is in it has to be looked at
            from hashlib import sha256

            digest = sha256(inside).hexdigest()
            offer = replace(offer, sha256=digest, bundle_id=digest[:16], data=inside).signed(self._key)
        elif kind == 1:
            field = rng.choice(("bundle_id", "sha256", "contract_id", "path", "source", "summary", "key_id"))
            text = rng.choice((*TEXTS, "/dev/stdin", str(self._folder), str(self._folder / "../x"), "0" * 64))
            offer = replace(offer, **{field: text.encode("utf-8", "replace").decode()})
        elif kind == 2:
            offer = replace(offer, stamp=rng.choice((0, -(2**40), 2**60)), purpose=rng.randrange(256)).signed(self._key)
        data = _announced(offer)
        return mutated_bytes(rng, data) if rng.random() < 0.5 else data

    def run(self, given: bytes) -> bool:
        from ssql_ros.model.announcement import bundle_of
        from ssql_ros.model.announcement_message import read_offer

        offer = read_offer(given)
        self._turns.check(offer, self._trust.signer_of(offer), 10**18)
        return self._served(bundle_of(offer, self._contract, 2**22, self._trust))

    def close(self) -> None:
        shutil.rmtree(self._folder)


def _announced(offer: Any) -> bytes:
    """Return the message of an announcement in CDR."""
    seconds, rest = divmod(offer.stamp, 10**9)
    data = bytearray(b"\0\1\0\0" + struct.pack("<iI", max(-(2**31), min(seconds, 2**31 - 1)), rest))

    def put(content: bytes) -> None:
        data.extend(bytes(-len(data) % 4) + len(content).to_bytes(4, "little") + content)

    for text in ("", offer.bundle_id, offer.sha256, offer.contract_id):
        put(text.encode() + b"\0")
    data.append(offer.purpose % 256)
    put(offer.key_id.encode() + b"\0")
    put(offer.signature)
    for text in (offer.path, offer.source, offer.summary):
        put(text.encode() + b"\0")
    put(bytes(offer.data))
    return bytes(data)


class Bags(Target):
    """Bags of MCAP, plain and by chunks of zstd and lz4, and of SQLite: the file, its metadata, its definitions."""

    errors = (BagError,)

    def __init__(self) -> None:
        from bench.fuzz_bags import valid_bags

        self._folder = Path(tempfile.mkdtemp(prefix="ssql_fuzz_", dir=_MEMORY))
        self._bags = valid_bags(self._folder / "valid")
        self._bag = self._folder / "bag"
        self._bag.mkdir()

    def make(self, rng: Random) -> Any:
        from bench.fuzz_bags import with_definition

        name, data, metadata = rng.choice(self._bags)
        kind = rng.randrange(5)
        if kind == 0 and name.endswith(".mcap"):
            return name, with_definition(rng), b""
        if kind == 1 and metadata:
            return name, data, mutated_bytes(rng, metadata) if rng.random() < 0.7 else mutated_yaml(rng, {"a": 1})
        return name, mutated_bytes(rng, data), metadata

    def run(self, given: Any) -> bool:
        from ssql_ros.bags.reader import open_bag, read_messages

        name, data, metadata = given
        for file in self._bag.iterdir():
            file.unlink()
        (self._bag / name).write_bytes(data)
        if metadata:
            (self._bag / "metadata.yaml").write_bytes(metadata)
        for _ in read_messages(self._bag):
            pass
        open_bag(self._bag)
        return True

    def close(self) -> None:
        shutil.rmtree(self._folder)


class Keys(Target):
    """Key files in PEM."""

    errors = (ValueError,)  # that is what they raise

    def __init__(self) -> None:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self._path = Path(tempfile.mkdtemp(prefix="ssql_fuzz_", dir=_MEMORY)) / "key"
        # Any 32 bytes are a key: the same in every run.
        key, pem = Ed25519PrivateKey.from_private_bytes(bytes(range(32))), serialization.Encoding.PEM
        self._valid = (
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
            key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo),
        )

    def make(self, rng: Random) -> bytes:
        return mutated_bytes(rng, rng.choice(self._valid))

    def run(self, given: bytes) -> bool:
        from ssql_ros.model.signing import read_private_key, read_public_key

        self._path.write_bytes(given)
        (read_private_key if b"PRIVATE" in given else read_public_key)(self._path)
        return True

    def close(self) -> None:
        shutil.rmtree(self._path.parent)


class Checkpoints(Target):
    """Checkpoints of learners."""

    def __init__(self) -> None:
        import torch

        from ssql_ros.nn.checkpoint import CheckpointError, save_checkpoint

        self.errors = (CheckpointError,)
        self._path = Path(tempfile.mkdtemp(prefix="ssql_fuzz_", dir=_MEMORY)) / "checkpoint.safetensors"
        state = {"step": 3, "networks": [{"weight": torch.ones(3, 2), "bias": torch.zeros(2)}], "rng": [1, 2, 3]}
        save_checkpoint(self._path, {"state": state, "moments": {"0": torch.ones(2, dtype=torch.float64)}})
        self._data = self._path.read_bytes()

    def make(self, rng: Random) -> bytes:
        if rng.random() < 0.5:
            return mutated_bytes(rng, self._data)
        length = int.from_bytes(self._data[:8], "little")
        header = json.loads(self._data[8 : 8 + length])
        inner = header["__metadata__"]
        if rng.random() < 0.5:
            inner["ssql_ros_checkpoint"] = json.dumps(mutated_tree(rng, json.loads(inner["ssql_ros_checkpoint"])))
        else:
            header = mutated_tree(rng, header)
        text = json.dumps(header).encode("utf-8", "surrogatepass")
        return len(text).to_bytes(8, "little") + text + self._data[8 + length :]

    def run(self, given: bytes) -> bool:
        from ssql_ros.nn.checkpoint import load_checkpoint

        self._path.write_bytes(given)
        load_checkpoint(self._path)
        return True

    def close(self) -> None:
        shutil.rmtree(self._path.parent)


def _of_ros(name: str) -> Callable[[], Target]:
    """Return what makes a target that needs ROS, which is not loaded before."""

    def make() -> Target:
        from bench import fuzz_ros

        return getattr(fuzz_ros, name)()

    return make


TARGETS: dict[str, Callable[[], Target]] = {
    "contract": Documents,
    "contract_text": Contracts,
    "message": _of_ros("Messages"),
    "bundle": Bundles,
    "announcement": Announcements,
    "bag": Bags,
    "key": Keys,
    "checkpoint": Checkpoints,
    "request": _of_ros("Requests"),
}
