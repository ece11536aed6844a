"""Policies that are judged: of each step their Q, the reward, and what their objective charges."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from ssql_ros.behaviour.policy import BehaviourPolicy
from ssql_ros.data.random_streams import Stream
from ssql_ros.data.rollout import Rollout
from ssql_ros.model.bundle import Network
from ssql_ros.model.policy import InducedPolicy
from ssql_ros.model.served_network import mean_and_std, q_values


class Judged(Protocol):
    """A policy that tells of each step what its Q is, and what its objective charges."""

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""

    def step(self, observation: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
        """Return a draw from the policy (n_action,), its Q, and its cost."""


class JudgedInduced:
    """The induced policy of SSQL.

    Attributes:
        behaviour: b.
        states: (n_state,) each, all that were met.
    """

    def __init__(self, policy: InducedPolicy) -> None:
        self._policy, self.behaviour = policy, policy.behaviour
        self.states: list[np.ndarray] = []

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""
        self._policy.reset(rng)

    def step(self, observation: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
        """Return a draw from pi*, its Q, and the KL of the step's weights."""
        self.states.append(np.concatenate([observation, self._policy.context()]))
        actions, values, weights = self._policy.weigh(observation, rng)
        chosen = int(rng.choice(len(actions), p=weights))
        self.behaviour.advance()
        positive = weights[weights > 0.0]
        return actions[chosen], float(values[chosen]), float((positive * np.log(len(weights) * positive)).sum())


class JudgedGaussian:
    """A squashed Gaussian over the whole range of actions.

    Args:
        policy, critics: its networks.
        behaviour: whose context the networks see beside the observation; None: none.
    """

    def __init__(self, policy: Network, critics: Network, behaviour: BehaviourPolicy | None = None) -> None:
        self._policy, self._critics, self._behaviour = policy, critics, behaviour

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""
        if self._behaviour is not None:
            self._behaviour.reset(rng)

    def step(self, observation: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
        """Return a draw from pi, its Q, and log pi(a|s)."""
        state = observation
        if self._behaviour is not None:
            state = np.concatenate([observation, self._behaviour.context()])
            self._behaviour.advance()
        mean, std = mean_and_std(self._policy, state)
        z = rng.standard_normal(mean.shape)
        u = mean + std * z
        # log of tanh's slope, which must not be 0 far out.
        slope = 2.0 * (math.log(2.0) - u - np.logaddexp(0.0, -2.0 * u))
        log_pi = (-0.5 * z * z - np.log(std) - 0.5 * math.log(2.0 * math.pi) - slope).sum()
        action = np.tanh(u)
        q = q_values(self._critics, state[np.newaxis], action[np.newaxis]).mean()
        return action, float(q), float(log_pi)


@dataclass(frozen=True)
class JudgedEpisode:
    """One episode, step by step: q (T,) of what was done, reward (T,), cost (T,).

    Attributes:
        ended: by the task, not by time.
        velocity: m/s, in the mean; NaN in a world without one.
    """

    q: np.ndarray
    reward: np.ndarray
    cost: np.ndarray
    ended: bool
    incident: bool = False
    velocity: float = math.nan


def roll_out(
    policy: Judged, env: Any, episodes: int, seed: int, show: bool, purpose: Stream = Stream.Q_CALIBRATION
) -> tuple[list[JudgedEpisode], list[float]]:
    """Return episodes of a policy, and their undiscounted returns."""
    rng = purpose.generator(seed)
    world, judged = Rollout(env, rng), []
    for _ in tqdm(range(episodes), unit="episode", disable=not show):
        world.begin()
        policy.reset(rng)
        told: list[tuple[float, float]] = []

        def act(observation: np.ndarray, told: list[tuple[float, float]] = told) -> np.ndarray:
            action, *q_and_cost = policy.step(observation, rng)
            told.append((q_and_cost[0], q_and_cost[1]))
            return action

        steps = list(world.episode(act))
        (q, cost), reward = np.array(told).T, np.array([step.reward for step in steps])
        velocity, last = world.row("evaluate").velocity, steps[-1]
        judged.append(JudgedEpisode(q, reward, cost, last.terminal, last.incident, velocity))
    return judged, [float(np.sum(episode.reward)) for episode in judged]
