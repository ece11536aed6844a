"""The live learner's checkpoints, the newest and the one before: each is checked before anything is taken from it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssql_ros.live.buffer import differences
from ssql_ros.nn.checkpoint import CheckpointError, load_checkpoint, save_checkpoint


class LiveCheckpoints:
    """Two files in a folder. What cannot be used is set aside under another name, and told.

    Args:
        source: what the learner learns from and by; a checkpoint of anything else is not used.
        tell: what becomes of problems, in words.
    """

    def __init__(self, folder: Path, source: dict[str, Any], tell: Callable[[str], None]) -> None:
        self.newest, self._before = folder / "checkpoint.safetensors", folder / "checkpoint_before.safetensors"
        self._source, self._tell = source, tell

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint; the newest until now is kept as the one before.

        Raises:
            CheckpointError: it cannot be written, or holds numbers that are not finite; what is there stays.
        """
        if not _finite(state):
            raise CheckpointError(f"{self.newest}: not written: what was learned is not finite")
        tree = {"source": self._source, "state": state}
        if self.newest.exists():
            with contextlib.suppress(OSError):  # a file system without links has no checkpoint before
                self._before.unlink(missing_ok=True)
                os.link(self.newest, self._before)
        save_checkpoint(self.newest, {**tree, "sha256": _digest(tree)})

    def load(self, restore: Callable[[dict[str, Any]], None]) -> bool:
        """Give the newest usable state to `restore`; return whether there was one.

        Args:
            restore: takes a state; whatever it raises says that the state does not fit.
        """
        unusable = 0
        for path in (self.newest, self._before):
            if not path.exists():
                continue
            try:
                restore(self._read(path))
            except Exception as error:  # a damaged file may give anything at all
                unusable += 1
                self._set_aside(path, str(error) or type(error).__name__)
                continue
            if unusable:
                self._tell(f"goes on from {path.name}")
            return True
        if unusable:
            self._tell("no checkpoint can be used: begins to learn from scratch, from all that the buffer holds")
        return False

    def _read(self, path: Path) -> dict[str, Any]:
        tree = load_checkpoint(path)
        digest = tree.pop("sha256", None)
        if digest is None or "state" not in tree:
            raise CheckpointError("is not a live learner's, or of an earlier version")
        if digest != _digest(tree):
            raise CheckpointError("is damaged: its content is not what was written")
        if found := differences(tree["source"], self._source):
            raise CheckpointError(f"is of other settings: {'; '.join(found)}")
        if not _finite(tree):
            raise CheckpointError("holds numbers that are not finite")
        state: dict[str, Any] = tree["state"]
        return state

    def _set_aside(self, path: Path, why: str) -> None:
        number = 1
        while (aside := path.with_name(f"unusable_{number}_{path.name}")).exists():
            number += 1
        try:
            path.rename(aside)
        except OSError as error:
            self._tell(f"{path}: cannot be used: {why}; and cannot be set aside: {error.strerror}")
            return
        self._tell(f"{path}: cannot be used: {why}; it is set aside as {aside.name}")


def _parts(value: Any) -> Iterator[Any]:
    """Yield keys and leaves of a tree in one order, the same before it is written and after it is read."""
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            yield str(key)
            yield from _parts(value[key])
    elif isinstance(value, (list, tuple)):
        yield len(value)
        for part in value:
            yield from _parts(part)
    else:
        yield torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _digest(tree: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for part in _parts(tree):
        if isinstance(part, torch.Tensor):
            digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
            digest.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(json.dumps(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _finite(tree: dict[str, Any]) -> bool:
    tensors = (part for part in _parts(tree) if isinstance(part, torch.Tensor))
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
