"""Drives one world, an action at a time, through a mask where there is one: training, evaluation and certificates."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import gymnasium
import numpy as np

from ssql_ros.algorithms.sac import Mask
from ssql_ros.contract import Contract
from ssql_ros.data.random_streams import Stream
from ssql_ros.data.replay import Transition
from ssql_ros.model.proposal import Proposal
from ssql_ros.shield.decision import Decision, Observation, decide


@dataclass(frozen=True)
class EpisodeRow:
    """One episode in the log.

    Attributes:
        kind: collect, or rollout for one of the safety critic's own.
        step: of training, at its end.
        velocity: m/s, mean over the episode; NaN in a world without one.
        intervened: how many of its steps the mask changed.
        least_risk: how many of those had no safe candidate.
    """

    kind: str
    step: int
    length: int
    total_reward: float
    incident: bool
    success: bool
    velocity: float
    intervened: int
    least_risk: int


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

    Attributes:
        cost: of the episode so far: the world's own, else 1 for each step that ends in an incident.
    """

    def __init__(self, env: gymnasium.Env, contract: Contract, rng: np.random.Generator, kind: str) -> None:
        self._env, self._contract, self._kind, self.rng = env, contract, kind, rng
        self._observation = np.zeros(0)
        self.between_episodes = True
        self.cost, self._incident = 0.0, False

    def reset(self, actor: Actor, start: np.ndarray | None = None) -> None:
        """Begin an episode, at a position `start` where one is given and the world knows positions."""
        actor.reset(self.rng)
        options = None if start is None else {"position": start}
        self._observation, _ = self._env.reset(seed=int(self.rng.integers(2**31)), options=options)
        self.cost, self._incident = 0.0, False
        self._totals = {"length": 0, "total_reward": 0.0, "intervened": 0, "least_risk": 0}
        self._velocities: list[float] = []
        self.between_episodes = False

    def step(self, propose: Callable[[np.ndarray, np.random.Generator], Proposal], mask: Mask | None) -> Transition:
        """Make one step; return it. `row` tells of the episode once it has ended."""
        observation = self._observation
        proposal = propose(observation, self.rng)
        action, decision = proposal.action, Decision.PASSED
        if mask is not None:
            seen = Observation(observation, 0.0)
            verdict = decide(seen, proposal, mask.critic, self._contract, mask.settings, 0.0, self.rng)
            action, decision = verdict.action, verdict.decision
        following, reward, terminated, truncated, info = self._env.step(action)
        self._totals["length"] += 1
        self._totals["total_reward"] += float(reward)
        self._totals["intervened"] += decision > Decision.PASSED
        self._totals["least_risk"] += decision == Decision.LEAST_RISK
        self._velocities.append(info.get("velocity", float("nan")))
        # In some worlds an incident does not end the episode.
        self._incident |= bool(info["incident"])
        self.cost += float(info.get("cost", info["incident"]))
        self._ending = {"incident": self._incident, "success": bool(info.get("success", False))}
        self._observation, self.between_episodes = following, bool(terminated or truncated)
        return Transition(observation, action, float(reward), following, bool(info["incident"]), bool(terminated))

    def row(self, step: int) -> EpisodeRow:
        """Return the episode that has just ended, for the log."""
        velocity = float(np.mean(self._velocities))
        return EpisodeRow(kind=self._kind, step=step, velocity=velocity, **self._totals, **self._ending)  # type: ignore[arg-type]

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
