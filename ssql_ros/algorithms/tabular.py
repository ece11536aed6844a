"""Learning on finite state spaces from what a behaviour policy has seen: SSQL with the exact sum, and Q-learning.

Tables, not networks: with the exact sum and enough data the result is the exact one, which tests hold it against.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import gymnasium
import numpy as np
import torch

from ssql_ros.algorithms.ssql import induced_log_policy, soft_value
from ssql_ros.data.rollout import Rollout


@dataclass
class Counts:
    """What was seen of an MDP: how often each transition, and the rewards that came of it.

    Attributes:
        transitions: (S, A, S), how often.
        rewards: (S, A), their sum.
        terminal: (S,) bool, states that were seen to end an episode.
        incidents: how many steps ended in an incident.
        breaches: how many took an action outside of the behaviour policy's support.
        episodes: how many were begun.
    """

    transitions: np.ndarray
    rewards: np.ndarray
    terminal: np.ndarray
    incidents: int = 0
    breaches: int = 0
    episodes: int = 0

    @property
    def steps(self) -> int:
        """Return how many steps were seen."""
        return int(self.transitions.sum())


def collect(
    env: gymnasium.Env, acting: np.ndarray, promised: np.ndarray, steps: int, rng: np.random.Generator
) -> Counts:
    """Return what `steps` steps of a policy show.

    Args:
        acting: (S, A), the policy that acts.
        promised: (S, A), the behaviour policy whose support is promised; the same where it is honest.
    """
    n, m = acting.shape
    seen = Counts(np.zeros((n, m, n)), np.zeros((n, m)), np.zeros(n, bool))
    world = Rollout(env, rng)
    for step in islice(world.steps(lambda state: int(rng.choice(m, p=acting[state]))), steps):
        pair = step.observation, step.action
        seen.transitions[(*pair, step.next_observation)] += 1
        seen.rewards[pair] += step.reward
        seen.terminal[step.next_observation] |= step.terminal
        seen.incidents += step.incident
        seen.breaches += step.incident + (promised[pair] == 0.0)
        # The first step of an episode begins it.
        seen.episodes += world.length == 1
    return seen


def fitted_ssql(
    seen: Counts, behaviour: np.ndarray, temperature: float, gamma: float, tolerance: float = 1e-12
) -> tuple[np.ndarray, np.ndarray]:
    """Return Q (S, A) and the induced policy (S, A) that stage 1 comes to on the data, by sweeps of the target.

    Pairs that were never seen keep Q = 0: with all of b's support seen, none of them counts.

    Args:
        behaviour: b (S, A).
        temperature: lambda.
    """
    visits = seen.transitions.sum(axis=2)
    often = np.maximum(visits, 1.0)
    reward = torch.as_tensor(seen.rewards / often)
    onward = torch.as_tensor(seen.transitions / often[..., np.newaxis] * ~seen.terminal)
    log_b = torch.as_tensor(behaviour).log()
    q = torch.zeros(behaviour.shape, dtype=torch.float64)
    while True:
        target = reward + gamma * onward @ soft_value(q, log_b, temperature)
        change = float((target - q).abs().max())
        q = target
        if change < tolerance:
            return q.numpy(), induced_log_policy(q, log_b, temperature).exp().numpy()


@dataclass(frozen=True)
class Learned:
    """What online learning came to, and what it cost: `q` (S, A), `incidents` and `episodes` while learning."""

    q: np.ndarray
    incidents: int
    episodes: int


def q_learning(
    env: gymnasium.Env, steps: int, gamma: float, rng: np.random.Generator, explore: float = 0.2, rate: float = 0.1
) -> Learned:
    """Return what epsilon-greedy Q-learning learns: the table that DQN approximates, free to visit unsafe cells."""
    q = np.zeros((env.observation_space.n, env.action_space.n))
    incidents = episodes = 0
    world = Rollout(env, rng)

    def act(state: int) -> int:
        best = rng.choice(np.flatnonzero(q[state] == q[state].max()))
        return int(rng.integers(q.shape[1])) if rng.random() < explore else int(best)

    for step in islice(world.steps(act), steps):
        pair = step.observation, step.action
        target = step.reward + gamma * (0.0 if step.terminal else q[step.next_observation].max())
        q[pair] += rate * (target - q[pair])
        incidents += step.incident
        episodes += world.length == 1
    return Learned(q, incidents, episodes)
