"""What every learner has in common whose data comes from a behaviour policy: b acts, and its promise is watched."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch

from ssql_ros.algorithms.sac import Mask
from ssql_ros.algorithms.work import Work
from ssql_ros.behaviour.promise import PromiseMonitor
from ssql_ros.data.replay import Batch, Replay, Transition
from ssql_ros.model.bundle import Network
from ssql_ros.model.proposal import Proposal
from ssql_ros.nn.arithmetic import Arithmetic


class Algorithm(Protocol):
    """Networks, and gradient steps on them."""

    settings: Any

    @property
    def device(self) -> torch.device:
        """Return where its batches are wanted."""

    @property
    def arithmetic(self) -> Arithmetic:
        """Return how it computes."""

    def update(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Make one gradient step; return losses."""

    def load_networks(self, networks: dict[str, Network]) -> None:
        """Begin from the networks of a bundle. Raises ValueError where they do not fit."""

    def networks(self) -> dict[str, Network]:
        """Return what a bundle holds."""

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""


class BehaviourLearner:
    """A `Learner` (see training/learner.py) that collects by b alone; what it learns when is its subclasses' matter.

    Args:
        monitor: of b's promise.
        replay: how many transitions are kept.
    """

    def __init__(
        self, algorithm: Algorithm, monitor: PromiseMonitor, n_observation: int, n_action: int, seed: int, replay: int
    ) -> None:
        self.algorithm = algorithm
        self.behaviour, self.monitor = monitor.behaviour, monitor
        self.replay = Replay(replay, n_observation + self.behaviour.n_context, n_action)
        self._draws = torch.Generator().manual_seed(seed)
        self._context = np.zeros(0)

    def mask(self, step: int) -> Mask | None:
        """Return what masks collection: nothing, b is safe by itself, and watched."""
        return None

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""
        self.behaviour.reset(rng)
        self.monitor.reset()

    def propose(self, observation: np.ndarray, rng: np.random.Generator) -> Proposal:
        """Return a draw from b."""
        self._context = self.behaviour.context()
        return Proposal(self.behaviour.act(observation, rng), 0.0)

    def best(self, observation: np.ndarray) -> np.ndarray:
        """Return the most probable action: asked of the bundle's policy instead."""
        raise NotImplementedError("what is learned from a behaviour policy is served from its bundle")

    def observe(self, transition: Transition) -> None:
        """Keep the transition, its states joined with b's context."""
        state = np.concatenate([transition.observation, self._context])
        self.monitor.watch(state, transition.action, transition.incident)
        next_observation = np.concatenate([transition.next_observation, self.behaviour.context()])
        joined = Transition(
            state, transition.action, transition.reward, next_observation, transition.incident, transition.terminal
        )
        self.replay.add(joined)

    def _batch(self) -> Batch:
        return self.replay.draw(self.algorithm.settings.batch, self._draws, self.algorithm.device)

    def rollouts_due(self, step: int) -> list[Mask | None]:
        """Return that no extra episodes are wanted."""
        return []

    def observe_rollouts(self, episodes: list[list[Transition]]) -> dict[str, torch.Tensor]:
        """Learn nothing: there are no extra episodes."""
        return {}

    def load_networks(self, networks: dict[str, Network]) -> None:
        """Begin from the networks of a bundle."""
        self.algorithm.load_networks(networks)

    def load_pretrained(self, learned: dict[str, Any]) -> None:
        """Begin from what a run learned."""
        # Not how that run computed.
        self.algorithm.restore({**learned["algorithm"], "arithmetic": None})

    def learned(self) -> dict[str, Any]:
        """Return what another run can begin from."""
        return {"algorithm": self.algorithm.state()}

    def networks(self) -> dict[str, Network]:
        """Return what a bundle holds."""
        return self.algorithm.networks()

    def arithmetic(self) -> dict[str, Any]:
        """Return how its algorithm computes."""
        return self.algorithm.arithmetic.state()

    def figures(self) -> dict[str, float]:
        """Return what the monitor has counted."""
        return {
            "training_steps": self.monitor.steps,
            "training_incidents": self.monitor.incidents,
            "promise_breaches": self.monitor.breaches,
        }

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold; between episodes."""
        return {
            "algorithm": self.algorithm.state(),
            "replay": self.replay.state(),
            "draws": self._draws.get_state(),
            "monitor": self.monitor.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""
        self.algorithm.restore(state["algorithm"])
        self.replay.restore(state["replay"])
        self._draws.set_state(state["draws"])
        self.monitor.restore(state["monitor"])


class OfflineLearner(BehaviourLearner):
    """Collects by b, and learns when the data is complete: CQL, IQL. Its policy keeps to no support.

    Raises:
        ValueError: b has a context, which such a policy would not see when it is served.
    """

    def __init__(
        self, algorithm: Algorithm, monitor: PromiseMonitor, n_observation: int, n_action: int, seed: int, replay: int
    ) -> None:
        if monitor.behaviour.n_context:
            raise ValueError(
                f"expected a behaviour policy without a context, but this one has {monitor.behaviour.n_context} "
                "numbers: on such data `ssql compare` judges offline learners"
            )
        super().__init__(algorithm, monitor, n_observation, n_action, seed, replay)

    def learn(self) -> dict[str, torch.Tensor]:
        """Learn nothing yet."""
        return {}

    def finish(self) -> list[Work]:
        """Return what is left to do when the data is complete."""
        return [Work("learning", self.algorithm.settings.final_updates, self._update)]

    def _update(self) -> dict[str, torch.Tensor]:
        return self.algorithm.update(self._batch())

    def behaviour_description(self) -> dict[str, Any]:
        """Return that its policy keeps to no behaviour policy."""
        return {}

    def figures(self) -> dict[str, float]:
        """Return what the monitor has counted, and alpha of the objective r - alpha log pi."""
        return {**super().figures(), "alpha": float(getattr(self.algorithm, "alpha", 0.0))}
