"""WCPG, worst-case policy gradient: the return's distribution is taken as normal, and the policy maximises its
conditional value at risk (Tang, Zhang & Salakhutdinov 2019, 1911.03618; baseline of SQRL).

    mean target      y = r + gamma (1 - terminal) (Q(s', a') - alpha log pi(a'|s'))
    variance target  v = (y - Q(s, a))^2 + gamma^2 (1 - terminal) Upsilon(s', a')
    critic loss      the 2-Wasserstein distance of normals, (Q - y)^2 + Upsilon + v - 2 sqrt(Upsilon v)
    actor            max CVaR_c = Q - phi(Phi^-1(c)) / c sqrt(Upsilon)

The level c in (0, 1] is an input of actor and critic: drawn from U(0.1, 1) in training and from U(0.1, 0.3) in
evaluation. The paper's variance target has y^2 - Q^2 for (y - Q)^2: equal in expectation where Q = E[y], but it can be
negative elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from ssql_ros.algorithms.sac import SAC, SACSettings
from ssql_ros.data.replay import Batch
from ssql_ros.model.bundle import Layer, Network

TRAINING_LEVELS, SERVED_LEVEL = (0.1, 1.0), 0.2


@dataclass(frozen=True)
class WCPGSettings(SACSettings):
    """How WCPG learns.

    Attributes:
        critic_rate: learning rate of the critic.
    """

    critics: int = 1
    critic_rate: float = 1e-4


class WCPG(SAC):
    """SAC with a critic of mean and variance, and actor and critic told the level of risk."""

    settings: WCPGSettings

    def _build(self) -> None:
        self._level = torch.ones(1, device=self.device)
        self._episode_level = SERVED_LEVEL
        super()._build()

    def _make_networks(self, n: int, n_out: int = 2) -> None:
        super()._make_networks(n + 1, n_out)

    @property
    def _critic_rate(self) -> float:
        return self.settings.critic_rate

    def standardise(self, observation: torch.Tensor) -> torch.Tensor:
        """Return (batch, n_observation + 1): the observation and the level of risk."""
        level = self._level.expand(len(observation)).unsqueeze(1)
        return torch.cat([super().standardise(observation), level], dim=1)

    def reset(self, rng: np.random.Generator) -> None:
        """Draw the level of an episode."""
        self._episode_level = rng.uniform(*TRAINING_LEVELS)

    def act(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and std (n_action,) of u at the episode's level."""
        self._level = torch.full((1,), self._episode_level, device=self.device)
        return super().act(observation)

    def best(self, observation: np.ndarray) -> np.ndarray:
        """Return the most probable action at the level that the policy is judged at."""
        self._episode_level = SERVED_LEVEL
        return super().best(observation)

    def update(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Make one step, at a level drawn for each transition: the level changes nothing of what the world did."""
        low, high = TRAINING_LEVELS
        drawn = torch.rand(len(batch.reward), generator=self.generator, device=self.device)
        self._level = low + (high - low) * drawn
        return super().update(batch)

    @torch.no_grad()
    def target_value(
        self, next_observation: torch.Tensor, batch: Batch, noise: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Return targets (2, batch): mean, and what the variance adds to (y - Q)^2."""
        action, log_probability = self.actor.sample(next_observation, noise["next_observation"])
        mean, variance = _moments(self.target(torch.cat([next_observation, action], dim=1)))
        discount = self.settings.gamma * (1.0 - batch.terminal)
        y = batch.reward + discount * (mean.amin(dim=0) - self.alpha * log_probability)
        return torch.stack([y, discount.square() * variance.amax(dim=0)])

    def critic_loss(
        self, state: torch.Tensor, batch: Batch, target: torch.Tensor, noise: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Return the Wasserstein distance to the targets."""
        mean, variance = _moments(self.critics(torch.cat([state, batch.action], dim=1)))
        y, added = target
        wanted = (y - mean.detach()).square() + added
        distance = (mean - y).square() + variance + wanted - 2.0 * (variance * wanted + 1e-8).sqrt()
        return distance.sum() / len(y)

    def actor_loss(self, state: torch.Tensor, noise: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return -CVaR with the entropy's term, and log pi (batch,)."""
        action, log_probability = self.actor.sample(state, noise["state"])
        mean, variance = _moments(self.critics.frozen(torch.cat([state, action], dim=1)))
        value = mean.amin(dim=0) - tail(self._level) * variance.amax(dim=0).sqrt()
        return (self.alpha * log_probability - value).mean(), log_probability.detach()

    def load_networks(self, networks: dict[str, Network]) -> None:
        """Refuse: a bundle holds the policy at one level of risk, and no critic of two moments."""
        raise ValueError("fine-tuning begins from the folder of a run of wcpg, a bundle holds too little of it")

    def networks(self) -> dict[str, Network]:
        """Return the policy at the level it is judged at, the level folded into the first layer's biases."""
        policy = self.exported(self.actor)
        (first, *rest), *_ = policy.members
        bias = first.bias + SERVED_LEVEL * first.weight[-1]
        return {"policy": Network(**{**vars(policy), "members": ((Layer(first.weight[:-1], bias), *rest),)})}


def tail(level: torch.Tensor) -> torch.Tensor:
    """Return phi(Phi^-1(c)) / c: how many standard deviations the mean of the worst fraction c lies below the mean."""
    z = torch.special.ndtri(level.clamp(1e-6, 1.0 - 1e-6))
    return torch.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi) / level


def _moments(output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and variance (M, batch) from outputs (M, batch, 2)."""
    return output[..., 0], functional.softplus(output[..., 1]) + 1e-6
