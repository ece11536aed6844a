"""What a trust region needs of the squashed Gaussian policy: ratios, divergences, and products with its Fisher matrix.

All are functions of the policy's parameters, in float64, and those of u, a = tanh(u): tanh changes neither a ratio of
probabilities nor a divergence.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ssql_ros.model.served_network import LOG_STD_HIGH, LOG_STD_LOW
from ssql_ros.nn.squashed_gaussian import SquashedGaussian

# Below this a squared length is rounding, not a direction.
FLAT = 1e-10


def conjugate_gradient(
    product: Callable[[torch.Tensor], torch.Tensor], right: torch.Tensor, iterations: int
) -> torch.Tensor:
    """Return x with H x = right, from products with H alone; H is symmetric and positive."""
    x, residual = torch.zeros_like(right), right.clone()
    direction, size = residual.clone(), residual.dot(residual)
    for _ in range(iterations):
        if size <= FLAT * right.dot(right):
            break
        along = product(direction)
        step = size / direction.dot(along)
        x += step * direction
        residual -= step * along
        smaller = residual.dot(residual)
        direction = residual + smaller / size * direction
        size = smaller
    return x


class GaussianPolicy:
    """The policy as a function of its parameters, on the states of one batch, in float64.

    Args:
        actor: whose shape it is.
        state: (T, n_observation), standardised.
    """

    def __init__(self, actor: SquashedGaussian, state: torch.Tensor) -> None:
        self._shape, self._state = actor.shape, state

    def distribution(self, flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and log std of u (T, n_action)."""
        weights, biases = self._shape.views(flat)
        x = self._state
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            x = torch.addmm(bias[0], x if i == 0 else x.relu(), weight[0])
        mean, log_std = x.chunk(2, dim=-1)
        return mean, log_std.clamp(LOG_STD_LOW, LOG_STD_HIGH)

    def log_probability(self, flat: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """Return log N(u; mean, std) (T,), but for a constant and the slope of tanh, which ratios lose."""
        mean, log_std = self.distribution(flat)
        return (-0.5 * ((u - mean) / log_std.exp()).square() - log_std).sum(dim=-1)

    def divergence(self, flat: torch.Tensor, before: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Return the mean of KL(pi(.|s) || pi_k(.|s)) over the states, nats; `before`: the distribution of pi_k."""
        (mean, log_std), (mean_k, log_std_k) = self.distribution(flat), before
        apart = (mean - mean_k).square() + (2.0 * log_std).exp()
        return (log_std_k - log_std + 0.5 * apart / (2.0 * log_std_k).exp() - 0.5).sum(dim=-1).mean()

    def fisher(self, flat: torch.Tensor, damping: float) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return v -> (H + damping) v: H = E J^T diag(1 / std^2, 2) J, J the slope of mean and log std.

        That is the Hessian of the divergence at pi_k, where the divergence itself has no slope.
        """
        (_, log_std), backward = torch.func.vjp(self.distribution, flat)[:2]
        variance, count = (2.0 * log_std).exp(), len(self._state)

        def product(v: torch.Tensor) -> torch.Tensor:
            to_mean, to_log_std = torch.func.jvp(self.distribution, (flat,), (v,))[1]
            return backward((to_mean / (variance * count), 2.0 * to_log_std / count))[0] + damping * v

        return product
