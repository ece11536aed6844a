"""What the run driver repeats, whatever is learned: steps with losses, and places for a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch

from ssql_ros.algorithms.work import Work
from ssql_ros.data.rollout import EpisodeRow
from ssql_ros.training.result import Result


class Checkpointable(Protocol):
    """What a checkpoint can hold."""

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""


class Training(Checkpointable, Protocol):
    """One learner and all that it learns from.

    Attributes:
        steps, step: how many there are, and how many have been made.
        pause: the next place for a checkpoint, in words.
        facts: what else the configuration says, such as the data set's manifest.
    """

    steps: int
    step: int
    pause: str
    facts: dict[str, Any]

    @property
    def rows(self) -> list[EpisodeRow] | None:
        """Return the log of episodes so far; None: nothing is driven."""

    @property
    def can_stop(self) -> bool:
        """Return whether this is a place for a checkpoint."""

    def arithmetic(self) -> dict[str, Any]:
        """Return how it computes, for the record of the run."""

    def run(self) -> Iterator[dict[str, torch.Tensor]]:
        """Make the steps that are left; yield the losses of each."""

    def finish(self) -> list[Work]:
        """Return what is left to do when all steps are made."""

    def result(self) -> Result:
        """Return what came of it."""


class UpdateTraining:
    """A `Training` that can stop after every step: the learner has its data already, or collects it within its steps.

    Attributes:
        losses: of the newest step.
    """

    pause = "this step"
    can_stop = True
    learner: Any

    def __init__(self, learner: Checkpointable, steps: int, facts: dict[str, Any] | None = None) -> None:
        self.learner, self.steps, self.step, self.facts = learner, steps, 0, facts or {}
        self.losses: dict[str, torch.Tensor] = {}

    @property
    def rows(self) -> list[EpisodeRow] | None:
        """Return None: nothing is driven."""
        return None

    def run(self) -> Iterator[dict[str, torch.Tensor]]:
        """Make the steps that are left; yield the losses of each."""
        while self.step < self.steps:
            self.losses = self._update()
            self.step += 1
            yield self.losses

    def arithmetic(self) -> dict[str, Any]:
        """Return how its learner computes; empty: plain float32."""
        found = getattr(self.learner, "arithmetic", None)
        return {} if found is None else found.state()

    def _update(self) -> dict[str, torch.Tensor]:
        return self.learner.step(self.step)

    def finish(self) -> list[Work]:
        """Return that nothing is left to do."""
        return []

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold."""
        losses = {name: float(value) for name, value in self.losses.items()}
        return {"step": self.step, "learner": self.learner.state(), "losses": losses}

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""
        self.step = int(state["step"])
        self.learner.restore(state["learner"])
        # Checkpoints of before do not have them: figures of a run that had ended then lack its last losses.
        self.losses = {name: torch.tensor(value) for name, value in state.get("losses", {}).items()}
