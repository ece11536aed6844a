"""Checkpoints: a tree of dicts, lists, tensors and plain values in one safetensors file, without pickle.

Tensors are stored as such; everything else goes into one JSON document that says where each tensor belongs.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

_KEY, _TENSOR = "ssql_ros_checkpoint", "__tensor__"
# How updates are computed, to the bit: another number where a run of before would go on otherwise.
_ROUNDING_KEY, _ROUNDING = "ssql_ros_rounding", "2"


class CheckpointError(ValueError):
    """A checkpoint cannot be written, read or used; the text names the file, what was expected and what came."""


def save_checkpoint(path: Path, tree: dict[str, Any]) -> None:
    """Write `tree` whole or not at all; the checkpoint that was there before stays until the new one is complete.

    Raises:
        CheckpointError: the folder cannot be written, or the disk is full.
    """
    tensors: dict[str, torch.Tensor] = {}
    document = json.dumps(_taken_apart(tree, "", tensors))
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
        save_file(tensors, temporary, metadata={_KEY: document, _ROUNDING_KEY: _ROUNDING})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        # safetensors reports a full disk as an error of its own.
        raise CheckpointError(f"{path}: cannot be written: {error}; the checkpoint before it is whole") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return the tree of a checkpoint.

    Raises:
        CheckpointError: the file is missing, truncated, or not a checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: is not a whole checkpoint: {error}") from error
    if _KEY not in metadata:
        raise CheckpointError(f"{path}: is a safetensors file, but not a checkpoint (no metadata {_KEY!r})")
    try:
        return _put_together(json.loads(metadata[_KEY]), tensors)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: is damaged: {error}") from error


def check_resumable(path: Path) -> None:
    """Check that a run can go on from a checkpoint bit for bit; what was learned in it can be taken all the same.

    Raises:
        CheckpointError: it is of a version that computed otherwise, or not a checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: is not a whole checkpoint: {error}") from error
    if _KEY in metadata and metadata.get(_ROUNDING_KEY) != _ROUNDING:
        raise CheckpointError(
            f"{path}: is of another version of ssql_ros, which rounds otherwise, so the run would not go on as it "
            "began; begin it anew in another folder"
        )


def _taken_apart(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {_TENSOR: name}
    if isinstance(value, dict):
        # JSON has text keys only; an optimiser's are numbers.
        return {str(key): _taken_apart(part, f"{name}/{key}", tensors) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_taken_apart(part, f"{name}/{i}", tensors) for i, part in enumerate(value)]
    return value


def _put_together(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {key: _put_together(part, tensors) for key, part in value.items()}
    if isinstance(value, list):
        return [_put_together(part, tensors) for part in value]
    return value
