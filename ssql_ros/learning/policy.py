"""The squashed Gaussian policy: a = tanh(u), u ~ N(mean(s), std(s)), actions in [-1, 1] (Haarnoja et al. 2018)."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from ssql_ros.learning.networks import Ensemble
from ssql_ros.served_network import LOG_STD_HIGH, LOG_STD_LOW


class SquashedGaussian(Ensemble):
    """One perceptron that gives mean and log standard deviation of u.

    Args:
        hidden: widths of the hidden layers.
    """

    def __init__(
        self,
        n_observation: int,
        n_action: int,
        hidden: tuple[int, ...],
        generator: torch.Generator,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__((n_observation, *hidden, 2 * n_action), 1, generator, precision)
        with torch.no_grad():
            # Near zero at first, so that tanh starts where it has a slope.
            self.weights[-1].mul_(0.1)

    def distribution(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and log std of u, each (batch, n_action), for standardised observations."""
        mean, log_std = self(observation)[0].chunk(2, dim=-1)
        return mean, log_std.clamp(LOG_STD_LOW, LOG_STD_HIGH)

    def sample(self, observation: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the reparametrised action (batch, n_action) of standard normal z, and its log-probability (batch,)."""
        mean, log_std = self.distribution(observation)
        u = torch.addcmul(mean, log_std.exp(), z)
        return torch.tanh(u), log_probability(u, z, log_std)


def log_probability(u: torch.Tensor, z: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
    """Return log pi(tanh(u)) (batch,) of u = mean + std z: the normal's, less the log-slope of tanh."""
    # log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)), which does not round to log 0.
    slope = 2.0 * (math.log(2.0) - u - functional.softplus(-2.0 * u))
    return (-0.5 * z * z - log_std - 0.5 * math.log(2.0 * math.pi) - slope).sum(dim=-1)
