"""SSQL in training: b acts, the monitor watches its promise, stage 1 learns on the way, stage 2 when the run ends.

Where pi_theta has a share of the episodes, stage 2 learns on the way too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ssql_ros.behaviour.promise import PromiseMonitor
from ssql_ros.bundle import Network
from ssql_ros.learning.learner import Work
from ssql_ros.learning.replay import Replay, Transition
from ssql_ros.learning.sac import Mask
from ssql_ros.learning.ssql import SSQL
from ssql_ros.shield import Proposal

# First observations of episodes that are kept, to judge how b should begin.
KEPT_STARTS = 64


class SSQLLearner:
    """A `Learner` (see learning/learner.py) whose data comes from its behaviour policy's support alone.

    Args:
        monitor: of b's promise.
        steps: length of the run.
        replay: how many transitions are kept.
    """

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
        self.algorithm, self.behaviour, self.monitor = algorithm, algorithm.behaviour, monitor
        self.replay = Replay(replay, n_observation + self.behaviour.n_context, n_action)
        self._draws = torch.Generator().manual_seed(seed)
        self._context = np.zeros(0)
        self._starts: list[np.ndarray] = []
        self._beginning = self._by_policy = False
        self._first_policy_step = round(algorithm.settings.policy_from * steps)
        self._start_weights = self.behaviour.start_weights()

    def mask(self, step: int) -> Mask | None:
        """Return what masks collection: nothing, b is safe by itself, and watched."""
        return None

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""
        self.behaviour.reset(rng)
        self.monitor.reset()
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
        self._context = self.behaviour.context()
        if self._by_policy:
            action = self.algorithm.act(np.concatenate([observation, self._context]), rng)
            self.behaviour.advance()
            return Proposal(action, 0.0)
        return Proposal(self.behaviour.act(observation, rng), 0.0)

    def best(self, observation: np.ndarray) -> np.ndarray:
        """Return the most probable action: asked of the bundle's policy instead."""
        raise NotImplementedError("the policy that SSQL extracts is served from its bundle")

    def observe(self, transition: Transition) -> None:
        """Keep the transition, its states joined with b's context."""
        state = np.concatenate([transition.observation, self._context])
        self.monitor.watch(state, transition.action, transition.incident)
        following = np.concatenate([transition.following, self.behaviour.context()])
        joined = Transition(
            state, transition.action, transition.reward, following, transition.incident, transition.terminal
        )
        self.replay.add(joined)

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
        batch = self.replay.draw(self.algorithm.settings.batch, self._draws, self.algorithm.device)
        return self.algorithm.update(batch)

    def _stage_2(self) -> dict[str, torch.Tensor]:
        batch = self.replay.draw(self.algorithm.settings.batch, self._draws, self.algorithm.device)
        return self.algorithm.extract(batch)

    def _choose_start(self) -> dict[str, torch.Tensor]:
        if self._starts:
            self._start_weights = self.algorithm.start_weights(np.array(self._starts))
        return {}

    def rollouts_due(self, step: int) -> list[Mask | None]:
        """Return that no extra episodes are wanted."""
        return []

    def observe_rollouts(self, episodes: list[list[Transition]]) -> dict[str, torch.Tensor]:
        """Learn nothing: there are no extra episodes."""
        return {}

    def take(self, networks: dict[str, Network]) -> None:
        """Begin from a bundle: the critics and the policy. Raises ValueError where they do not fit."""
        for name, ensemble in (("reward", self.algorithm.critics), ("policy", self.algorithm.actor)):
            if name not in networks:
                raise ValueError(f"expected a network {name!r}, found {', '.join(networks) or 'none'}")
            ensemble.load(networks[name])
        self.algorithm.target.load(networks["reward"])

    def take_learned(self, learned: dict[str, Any]) -> None:
        """Begin from what a run learned."""
        self.algorithm.restore(learned["algorithm"])

    def learned(self) -> dict[str, Any]:
        """Return what another run can begin from."""
        return {"algorithm": self.algorithm.state()}

    def networks(self) -> dict[str, Network]:
        """Return what a bundle holds."""
        return self.algorithm.networks()

    def behaves(self) -> dict[str, Any]:
        """Return b for the bundle, beginning as the induced policy would."""
        return self.behaviour.with_start_weights(self._start_weights).describe()

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
            "starts": [start.tolist() for start in self._starts],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""
        self.algorithm.restore(state["algorithm"])
        self.replay.restore(state["replay"])
        self._draws.set_state(state["draws"])
        self.monitor.restore(state["monitor"])
        self._starts = [np.array(start) for start in state["starts"]]
