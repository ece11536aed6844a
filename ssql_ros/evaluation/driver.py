"""Drives one world, an action at a time, through a mask where there is one: training, evaluation and certificates."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

import gymnasium
import numpy as np

from ssql_ros.algorithms.sac import Mask
from ssql_ros.contract import Contract
from ssql_ros.data.random_streams import Stream
from ssql_ros.data.replay import Transition
from ssql_ros.data.rollout import EpisodeRow, Rollout
from ssql_ros.model.proposal import Proposal
from ssql_ros.shield.backup import SafetyFilter
from ssql_ros.shield.decision import Decision, Observation


class Actor(Protocol):
    """What drives a world: a learner, or a policy out of a bundle."""

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""

    def propose(self, observation: np.ndarray, rng: np.random.Generator) -> Proposal:
        """Return a draw from the policy for an observation (n_observation,)."""

    def best(self, observation: np.ndarray) -> np.ndarray:
        """Return the policy's most probable action (n_action,)."""


class Driver:
    """Drives one world, an action at a time, through the mask.

    Args:
        rng: of proposals, of the shield's candidates, and of each episode's seed.
    """

    def __init__(self, env: gymnasium.Env, contract: Contract, rng: np.random.Generator, kind: str) -> None:
        self._rollout, self._kind, self.rng = Rollout(env, rng), kind, rng
        self._filter = SafetyFilter(contract)
        self._intervened = self._least_risk = 0

    @property
    def between_episodes(self) -> bool:
        """Return whether no episode is going on."""
        return self._rollout.ended

    @property
    def info(self) -> dict[str, Any]:
        """Return what the world says of the newest step."""
        return self._rollout.info

    @property
    def cost(self) -> float:
        """Return the cost of the episode so far."""
        return self._rollout.cost

    def reset(self, actor: Actor, start: np.ndarray | None = None) -> None:
        """Begin an episode, at a position `start` where one is given and the world knows positions."""
        actor.reset(self.rng)
        self._filter.reset()
        self._rollout.begin(start=start)
        self._intervened = self._least_risk = 0

    def step(self, propose: Callable[[np.ndarray, np.random.Generator], Proposal], mask: Mask | None) -> Transition:
        """Make one step; return it. `row` tells of the episode once it has ended."""
        observation = self._rollout.observation
        proposal = propose(observation, self.rng)
        action, decision = proposal.action, Decision.PASSED
        if mask is not None:
            seen = Observation(observation, 0.0)
            verdict = self._filter.decide(seen, proposal, mask.critic, mask.settings, 0.0, self.rng)
            action, decision = verdict.action, verdict.decision
        self._intervened += decision > Decision.PASSED
        self._least_risk += decision == Decision.LEAST_RISK
        return self._rollout.step(action)

    def row(self, step: int) -> EpisodeRow:
        """Return the episode that has just ended, for the log."""
        return self._rollout.row(self._kind, step, int(self._intervened), int(self._least_risk))

    def episode(
        self, actor: Actor, mask: Mask | None, step: int, best: bool = False, start: np.ndarray | None = None
    ) -> list[Transition]:
        """Run one whole episode; `best`: of the policy's most probable actions; `start`: see `reset`."""

        def most_probable(observation: np.ndarray, _: np.random.Generator) -> Proposal:
            return Proposal(actor.best(observation), 0.0)

        self.reset(actor, start)
        transitions = []
        while not self.between_episodes:
            transitions.append(self.step(most_probable if best else actor.propose, mask))
        return transitions


def evaluate(
    actor: Actor, env: gymnasium.Env, contract: Contract, mask: Mask | None, episodes: int, seed: int
) -> list[EpisodeRow]:
    """Return the log of `episodes` episodes of the policy's most probable actions, behind the mask if there is one."""
    driver = Driver(env, contract, Stream.EVALUATION.generator(seed), "evaluate")
    rows = []
    for _ in range(episodes):
        driver.episode(actor, mask, 0, best=True)
        rows.append(driver.row(0))
    with contextlib.suppress(AttributeError):
        env.close()
    return rows
