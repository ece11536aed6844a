"""What every algorithm here is to the training loop: proposes actions, sees what happened, learns."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch

from ssql_ros.algorithms.sac import SAC, Mask
from ssql_ros.algorithms.work import Work
from ssql_ros.data.replay import Replay, Transition
from ssql_ros.model.bundle import Network
from ssql_ros.model.proposal import Proposal


class Learner(Protocol):
    """One algorithm in training. Actions are in [-1, 1]."""

    def mask(self, step: int) -> Mask | None:
        """Return what masks collection at this step; None: nothing does."""

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""

    def propose(self, observation: np.ndarray, rng: np.random.Generator) -> Proposal:
        """Return a draw from the policy for an observation (n_observation,)."""

    def best(self, observation: np.ndarray) -> np.ndarray:
        """Return the policy's most probable action (n_action,)."""

    def observe(self, transition: Transition) -> None:
        """Take in one step of training."""

    def learn(self) -> dict[str, torch.Tensor]:
        """Learn from what was observed, where it is time to; return losses, empty where it was not."""

    def rollouts_due(self, step: int) -> list[Mask | None]:
        """Return the masks of the extra on-policy episodes that are wanted after this step."""

    def observe_rollouts(self, episodes: list[list[Transition]]) -> dict[str, torch.Tensor]:
        """Take in the extra episodes and learn from them; return losses."""

    def finish(self) -> list[Work]:
        """Return what is left to do when collection is complete."""

    def figures(self) -> dict[str, float]:
        """Return what it has counted itself."""

    def arithmetic(self) -> dict[str, Any]:
        """Return how it computes, for the record of a run."""

    def behaviour_description(self) -> dict[str, Any]:
        """Return the behaviour policy that its policy keeps to, for the bundle; empty: none."""

    def load_networks(self, networks: dict[str, Network]) -> None:
        """Begin from the networks of a bundle. Raises ValueError where they do not fit."""

    def load_pretrained(self, learned: dict[str, Any]) -> None:
        """Begin from what a run learned. Raises ValueError where it does not fit."""

    def learned(self) -> dict[str, Any]:
        """Return what fine-tuning can begin from, more than a bundle holds."""

    def networks(self) -> dict[str, Network]:
        """Return what a bundle holds, by name."""

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""


class OffPolicyLearner:
    """SAC or one of its kind with a replay: one update a step.

    Args:
        initial_steps: uniform actions before the policy acts and learns.
        hold: longest time, in steps, that such an action is held: what is held goes further than what trembles.
        replay: how many transitions are kept.
        explore_share: fraction of later episodes that are of such actions too.
    """

    def __init__(
        self,
        algorithm: SAC,
        n_action: int,
        seed: int,
        initial_steps: int,
        hold: int,
        replay: int,
        explore_share: float = 0.0,
    ) -> None:
        self.algorithm, self._n_action = algorithm, n_action
        self._explore_share, self._exploring = explore_share, False
        self._initial_steps, self._hold = initial_steps, hold
        self._held, self._left = np.zeros(n_action), 0
        self._replay = algorithm.replay = Replay(replay, len(algorithm.mean), n_action)
        self._draws = torch.Generator().manual_seed(seed)

    def mask(self, step: int) -> Mask | None:
        """Return what masks collection."""
        return self.algorithm.mask(step)

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""
        self._left = 0
        # Nothing is drawn where nothing depends on it.
        self._exploring = self._explore_share > 0.0 and rng.random() < self._explore_share
        self.algorithm.reset(rng)

    def propose(self, observation: np.ndarray, rng: np.random.Generator) -> Proposal:
        """Return a draw from the policy, uniform in the first steps."""
        if self._exploring or self._replay.added < self._initial_steps:
            if not self._left:
                self._held, self._left = rng.uniform(-1.0, 1.0, self._n_action), int(rng.integers(self._hold)) + 1
            self._left -= 1
            return Proposal(self._held, 0.0)
        mean, std = self.algorithm.act(observation)
        u = mean + std * rng.standard_normal(self._n_action)
        return Proposal(np.tanh(u), 0.0, mean, std, squashed=True)

    def best(self, observation: np.ndarray) -> np.ndarray:
        """Return the policy's most probable action before the mask."""
        return self.algorithm.best(observation)

    def observe(self, transition: Transition) -> None:
        """Keep the transition."""
        self._replay.add(transition)
        self.algorithm.observe(transition)

    def learn(self) -> dict[str, torch.Tensor]:
        """Make one update where it is due, once there is a batch of what the policy did."""
        settings = self.algorithm.settings
        waits = self._replay.added % settings.update_every
        first = self._initial_steps or settings.warm_up
        if waits or len(self._replay) < max(first, settings.batch):
            return {}
        batch = self._replay.draw(settings.batch, self._draws, self.algorithm.device)
        return self.algorithm.update(batch)

    def rollouts_due(self, step: int) -> list[Mask | None]:
        """Return the masks of the extra episodes that are wanted."""
        return self.algorithm.rollouts_due(step)

    def observe_rollouts(self, episodes: list[list[Transition]]) -> dict[str, torch.Tensor]:
        """Let the safety critic learn."""
        return self.algorithm.observe_rollouts(episodes)

    def finish(self) -> list[Work]:
        """Return what its algorithm still has to do."""
        return self.algorithm.finish()

    def figures(self) -> dict[str, float]:
        """Return alpha of the objective r - alpha log pi, as it is now: what Q is held against."""
        return {"alpha": float(self.algorithm.alpha)}

    def arithmetic(self) -> dict[str, Any]:
        """Return how its algorithm computes."""
        return self.algorithm.arithmetic.state()

    def behaviour_description(self) -> dict[str, Any]:
        """Return that its policy keeps to no behaviour policy."""
        return {}

    def load_networks(self, networks: dict[str, Network]) -> None:
        """Begin from the networks of a bundle."""
        self.algorithm.load_networks(networks)

    def load_pretrained(self, learned: dict[str, Any]) -> None:
        """Begin from what a run learned."""
        self.algorithm.load_pretrained(learned)

    def learned(self) -> dict[str, Any]:
        """Return what fine-tuning can begin from."""
        return self.algorithm.learned()

    def networks(self) -> dict[str, Network]:
        """Return what a bundle holds."""
        return self.algorithm.networks()

    def state(self) -> dict[str, Any]:
        """Return networks, optimisers, replay and generators."""
        return {
            "algorithm": self.algorithm.state(),
            "replay": self._replay.state(),
            "draws": self._draws.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""
        self.algorithm.restore(state["algorithm"])
        self._replay.restore(state["replay"])
        self._draws.set_state(state["draws"])
