"""SSQL in training: b acts, the monitor watches its promise, stage 1 learns on the way, stage 2 when the run ends.

Where pi_theta has a share of the episodes, stage 2 learns on the way too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ssql_ros.algorithms.ssql import SSQL
from ssql_ros.algorithms.work import Work
from ssql_ros.behaviour.promise import PromiseMonitor
from ssql_ros.model.proposal import Proposal
from ssql_ros.training.behaviour_learner import BehaviourLearner

# First observations of episodes that are kept, to judge how b should begin.
KEPT_STARTS = 64


class SSQLLearner(BehaviourLearner):
    """A `Learner` (see training/learner.py) whose data comes from its behaviour policy's support alone.

    Args:
        monitor: of b's promise.
        steps: length of the run.
        replay: how many transitions are kept.
    """

    algorithm: SSQL

    def __init__(
        self,
        algorithm: SSQL,
        monitor: PromiseMonitor,
        n_observation: int,
        n_action: int,
        seed: int,
        steps: int,
        replay: int,
    ) -> None:
        super().__init__(algorithm, monitor, n_observation, n_action, seed, replay)
        self._starts: list[np.ndarray] = []
        self._beginning = self._by_policy = False
        self._first_policy_step = round(algorithm.settings.policy_from * steps)
        self._start_weights = self.behaviour.start_weights()

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""
        super().reset(rng)
        self._beginning = True
        share = self.algorithm.settings.policy_share
        self._by_policy = self._policy_acts and bool(rng.random() < share)

    @property
    def _policy_acts(self) -> bool:
        share = self.algorithm.settings.policy_share
        return share > 0.0 and self.replay.added >= max(self._first_policy_step, self.algorithm.settings.warm_up)

    def propose(self, observation: np.ndarray, rng: np.random.Generator) -> Proposal:
        """Return a draw from b, or in its share of episodes from pi_theta."""
        if self._beginning and len(self._starts) < KEPT_STARTS:
            self._starts.append(observation)
        self._beginning = False
        if not self._by_policy:
            return super().propose(observation, rng)
        self._context = self.behaviour.context()
        action = self.algorithm.act(np.concatenate([observation, self._context]), rng)
        self.behaviour.advance()
        return Proposal(action, 0.0)

    def learn(self) -> dict[str, torch.Tensor]:
        """Make one update of stage 1 where it is due."""
        settings = self.algorithm.settings
        if self.replay.added % settings.update_every or len(self.replay) < max(settings.warm_up, settings.batch):
            return {}
        losses = self._stage_1()
        return losses | self._stage_2() if self._policy_acts else losses

    def finish(self) -> list[Work]:
        """Return what is left to do when the data is complete."""
        settings = self.algorithm.settings
        return [
            Work("stage 1", settings.final_updates, self._stage_1),
            Work("stage 2", settings.extraction_updates, self._stage_2),
            Work("start", 1, self._choose_start),
        ]

    def _stage_1(self) -> dict[str, torch.Tensor]:
        return self.algorithm.update(self._batch())

    def _stage_2(self) -> dict[str, torch.Tensor]:
        return self.algorithm.extract(self._batch())

    def _choose_start(self) -> dict[str, torch.Tensor]:
        if self._starts:
            self._start_weights = self.algorithm.start_weights(np.array(self._starts))
        return {}

    def behaviour_description(self) -> dict[str, Any]:
        """Return b for the bundle, beginning as the induced policy would."""
        return self.behaviour.with_start_weights(self._start_weights).describe()

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold; between episodes."""
        return {**super().state(), "starts": [start.tolist() for start in self._starts]}

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""
        super().restore(state)
        self._starts = [np.array(start) for start in state["starts"]]
