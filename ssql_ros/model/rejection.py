"""Policies that draw candidates by several passes of a network and keep one: what SafeFQL's one pass is held against.

flow        z ~ N(0, I), x <- x + v(s, x, t) / steps, t = 0, 1 / steps, ...: SafeIFQL's multi-step flow
diffusion   x ~ N(0, I), x <- (x - beta_k / sqrt(1 - abar_k) eps(s, x, k)) / sqrt(1 - beta_k) + sqrt(beta_k) z: FISOR's
rejection   of N candidates the one of the highest Q_r among those with Q_c < 0; where there is none, of the least Q_c

NumPy alone, as the policies that are served.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ssql_ros.model.bundle import Network
from ssql_ros.model.served_network import outputs, q_values

DIFFUSION_STEPS = 5
Sampler = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def betas(steps: int = DIFFUSION_STEPS) -> np.ndarray:
    """Return the variance-preserving schedule of beta (steps,) that few-step diffusion policies use."""
    k = np.arange(1, steps + 1)
    return 1.0 - np.exp(-0.1 / steps - 0.5 * (10.0 - 0.1) * (2 * k - 1) / steps**2)


def standardised(network: Network, observations: np.ndarray) -> np.ndarray:
    """Return observations (..., n_observation) as the network sees them, float32."""
    bound = network.observation_clip
    z = (observations - network.observation_mean) / network.observation_scale
    return np.minimum(np.maximum(z, -bound), bound).astype(np.float32)


def flow_sampler(network: Network, steps: int = 10) -> Sampler:
    """Return a sampler of actions (N, n_action) for observations (N, n_observation): `steps` passes of v."""
    n_action = network.members[0][-1].bias.size

    def sample(observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        state = standardised(network, observations)
        x: np.ndarray = rng.standard_normal((len(state), n_action), np.float32)
        for i in range(steps):
            time = np.full((len(state), 1), i / steps, np.float32)
            x = x + outputs(network, np.concatenate([state, x, time], axis=1))[0] / np.float32(steps)
        return np.clip(x, -1.0, 1.0)

    return sample


def diffusion_sampler(network: Network, steps: int = DIFFUSION_STEPS) -> Sampler:
    """Return a sampler of actions (N, n_action) for observations (N, n_observation): `steps` passes of eps."""
    n_action = network.members[0][-1].bias.size
    beta = betas(steps).astype(np.float32)
    product = np.cumprod(1.0 - beta)

    def sample(observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        state = standardised(network, observations)
        x: np.ndarray = rng.standard_normal((len(state), n_action), np.float32)
        for k in reversed(range(steps)):
            time = np.full((len(state), 1), k / steps, np.float32)
            noise = outputs(network, np.concatenate([state, x, time], axis=1))[0]
            x = (x - beta[k] / np.sqrt(1.0 - product[k]) * noise) / np.sqrt(1.0 - beta[k])
            if k:
                x = x + np.sqrt(beta[k]) * rng.standard_normal(x.shape).astype(np.float32)
            # One wild guess of the noise must not throw it out of what was trained on.
            x = np.clip(x, -4.0, 4.0)
        return np.clip(x, -1.0, 1.0)

    return sample


def by_rejection(
    sampler: Sampler, reward: Network, critic: Network, candidates: int
) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """Return a policy: actions (B, n_action) of observations (B, n_observation), each the best of its candidates."""

    def act(observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        repeated = np.repeat(observations, candidates, axis=0)
        actions = sampler(repeated, rng)
        if candidates == 1:
            return actions
        q_c = q_values(critic, repeated, actions).max(axis=0).reshape(-1, candidates)
        q_r = q_values(reward, repeated, actions).min(axis=0).reshape(-1, candidates)
        feasible = q_c < 0.0
        kept = np.where(feasible, q_r, -np.inf).argmax(axis=1)
        kept = np.where(feasible.any(axis=1), kept, q_c.argmin(axis=1))
        return actions.reshape(len(observations), candidates, -1)[np.arange(len(observations)), kept]

    return act
