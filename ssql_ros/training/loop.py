"""The training loop: one world, one learner, a mask in between where there is one; every algorithm runs through it.

What is counted is what happened to the robot: every episode of collection, and the extra masked episodes of the safety
critic, each with its incident. A run can be stopped at any time and goes on from its last checkpoint, with the same
figures in the end as an unbroken one: checkpoints are made between episodes, and hold networks, optimisers, replay,
generators and the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import gymnasium
import torch

from ssql_ros.algorithms.sac import Mask
from ssql_ros.contract import Contract
from ssql_ros.data.random_streams import Stream
from ssql_ros.data.replay import Transition
from ssql_ros.data.rollout import EpisodeRow
from ssql_ros.evaluation.driver import Driver
from ssql_ros.training.learner import Learner


class Training:
    """A run of one learner in one world.

    Args:
        make_world: makes a world of its own at each call: collection and the extra rollouts have one each.
        steps: of collection.
        rows: of the log so far.
    """

    def __init__(
        self,
        learner: Learner,
        make_world: Callable[[], gymnasium.Env],
        contract: Contract,
        steps: int,
        seed: int,
    ) -> None:
        low, high = contract.commanded.low, contract.commanded.high
        if not ((low == -1.0).all() and (high == 1.0).all()):
            raise ValueError(f"{contract.path}: expected action bounds of -1 and 1, got {low} and {high}")
        self.learner, self.steps, self.step = learner, steps, 0
        self.rows: list[EpisodeRow] = []
        collecting, rolling = (purpose.generator(seed) for purpose in (Stream.COLLECTION, Stream.SAFETY_ROLLOUTS))
        self._driver = Driver(make_world(), contract, collecting, "collect")
        self._make_world, self._contract, self._rolling = make_world, contract, rolling
        self._rollout_driver: Driver | None = None

    def run(self) -> Iterator[dict[str, torch.Tensor]]:
        """Make the remaining steps; yield the losses of each, and the log grows in `rows`."""
        while self.step < self.steps:
            if self._driver.between_episodes:
                self._driver.reset(self.learner)
            transition = self._driver.step(self.learner.propose, self.learner.mask(self.step))
            self.step += 1
            self.learner.observe(transition)
            losses = self.learner.learn()
            if masks := self.learner.rollouts_due(self.step):
                losses |= self.learner.observe_rollouts([self._rollout(mask) for mask in masks])
            if self._driver.between_episodes:
                self.rows.append(self._driver.row(self.step))
            yield losses

    def _rollout(self, mask: Mask | None) -> list[Transition]:
        if self._rollout_driver is None:
            self._rollout_driver = Driver(self._make_world(), self._contract, self._rolling, "rollout")
        episode = self._rollout_driver.episode(self.learner, mask, self.step)
        self.rows.append(self._rollout_driver.row(self.step))
        return episode

    @property
    def can_stop(self) -> bool:
        """Return whether this is a place for a checkpoint: the world's own state is in none."""
        return self._driver.between_episodes

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold; only where `can_stop`."""
        return {
            "step": self.step,
            "learner": self.learner.state(),
            "collecting": self._driver.rng.bit_generator.state,
            "rolling": self._rolling.bit_generator.state,
            "rows": [list(asdict(row).values()) for row in self.rows],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""
        self.step = state["step"]
        self.learner.restore(state["learner"])
        self._driver.rng.bit_generator.state = state["collecting"]
        self._rolling.bit_generator.state = state["rolling"]
        self.rows = [EpisodeRow(*row) for row in state["rows"]]
