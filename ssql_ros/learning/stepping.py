"""The loop of a learner that has its data already: steps, their losses as curves, and checkpoints to go on from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from tensorboardX import SummaryWriter
from tqdm import tqdm

from ssql_ros.interrupts import Interrupted, noting
from ssql_ros.learning.checkpoint import CheckpointError, check_resumable, load_checkpoint, save_checkpoint

LOSS_EVERY = 200
CHECKPOINT = "checkpoint.safetensors"


class Kept(Protocol):
    """What a checkpoint can hold."""

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""


def step_through(
    learner: Kept,
    step: Callable[[int], dict[str, torch.Tensor]],
    steps: int,
    folder: Path,
    every: int,
    title: str,
    show: bool,
) -> dict[str, float]:
    """Make the steps that are left, from the folder's checkpoint on; return the losses of the last one.

    Args:
        step: makes one, given its number from 0; returns losses.
        every: steps between checkpoints.
        title: of the progress bar.

    Raises:
        CheckpointError: the checkpoint is damaged, of another version, or cannot be written.
        Interrupted: a signal came; the checkpoint has all steps so far.
    """
    checkpoint = folder / CHECKPOINT
    done = 0
    if checkpoint.exists():
        check_resumable(checkpoint)
        done = restored(learner, checkpoint)
    losses: dict[str, torch.Tensor] = {}
    with (
        noting("this step") as stop,
        SummaryWriter(str(folder / "tensorboard"), purge_step=done or None, write_to_disk=True) as writer,
        tqdm(total=steps, initial=done, unit="step", desc=title, disable=not show, mininterval=0.5) as bar,
    ):
        for number in range(done, steps):
            losses = step(number)
            bar.update()
            if (number + 1) % LOSS_EVERY == 0:
                for name, value in losses.items():
                    writer.add_scalar(f"learning/{name}", float(value), number + 1)
            if (number + 1) % every == 0 or number + 1 == steps or stop:
                save_checkpoint(checkpoint, {"step": number + 1, "learner": learner.state()})
            if stop:
                raise Interrupted(stop.number, f"step {number + 1} of {steps} is in {checkpoint}")
    return {name: float(value) for name, value in losses.items()}


def restored(learner: Kept, checkpoint: Path) -> int:
    """Restore the learner; return how many steps it had made. Raises CheckpointError."""
    state = load_checkpoint(checkpoint)
    try:
        learner.restore(state["learner"])
        return int(state["step"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{checkpoint}: is not a checkpoint of this run: {error}") from error
