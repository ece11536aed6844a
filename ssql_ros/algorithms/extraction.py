"""Stage 2 of SSQL by a squashed Gaussian: pi_theta is fitted to pi*(a|s) ~ b(a|s) exp(Q(s,a) / lambda).

    forward KL: max over theta of E_s E_{a~pi*} log pi_theta(a|s), a ~ b reweighted by softmax(Q / lambda)
    reverse KL: min over theta of E_s E_{a~pi_theta} [log pi_theta(a|s) - log b(a|s) - Q(s,a) / lambda]

Actions are squashed into the hull of b's support, [-1, 1] there, and projected into the support where they are served.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from ssql_ros.behaviour.support import Support
from ssql_ros.nn.networks import Ensemble
from ssql_ros.nn.squashed_gaussian import SquashedGaussian, log_probability

# Where an action of b lies on the edge of its box, its u would be infinite.
EDGE = 0.99

# What a loss draws at random, by name.
Noise = dict[str, torch.Tensor]
# Q (batch, count) of actions (batch, count, n_action) in the states of a batch, with gradients for actions alone.
Judge = Callable[[torch.Tensor], torch.Tensor]


class Extraction:
    """A policy network, and the loss of one gradient step on it, by either KL.

    Args:
        ensembles: all that learn, the actor first, which is what is served.
        samples: draws of b for each state.
        temperature: lambda.
        reverse: which KL.

    Attributes:
        kind: of the policy in a bundle.
    """

    kind: str

    def __init__(
        self,
        ensembles: Sequence[Ensemble],
        samples: int,
        temperature: float,
        reverse: bool,
        rng: np.random.Generator,
        generator: torch.Generator,
    ) -> None:
        self.actor, self.ensembles = ensembles[0], list(ensembles)
        self._samples, self._temperature, self._reverse = samples, temperature, reverse
        self._rng, self._generator = rng, generator

    def noise(self, support: Support) -> Noise:
        """Return what the loss draws where b has this support; everything that is not torch's is done here.

        Low and high are the hull of it, (batch, n_action); forward there are draws of b (batch, samples, n_action) too.

        Raises:
            ValueError: the reverse KL, and b is not uniform in one box: log b must be a constant, so that both
                densities are of the same measure.
        """
        low, high = (self._tensor(edge) for edge in support.hull())
        if not self._reverse:
            return {"actions": self._tensor(support.sample(self._samples, self._rng)), "low": low, "high": high}
        if support.weight.shape[1] != 1 or not np.isinf(support.std).all():
            raise ValueError("the reverse KL is implemented for behaviour policies that are uniform in one box")
        return {"low": low, "high": high, "z": self._normal(*low.shape)}

    def loss(self, state: torch.Tensor, noise: Noise, q: Judge) -> torch.Tensor:
        """Return the loss in standardised states (batch, n_state)."""
        return self._reverse_kl(state, noise, q) if self._reverse else self._forward_kl(state, noise, q)

    def _forward_kl(self, state: torch.Tensor, noise: Noise, q: Judge) -> torch.Tensor:
        raise NotImplementedError

    def _reverse_kl(self, state: torch.Tensor, noise: Noise, q: Judge) -> torch.Tensor:
        raise NotImplementedError

    def _weighed(self, noise: Noise, q: Judge) -> tuple[torch.Tensor, torch.Tensor]:
        """Return u of b's draws (batch, samples, n_action), of which tanh is the place in the hull, and their weights
        under pi* (batch, samples)."""
        from ssql_ros.algorithms.ssql import induced_log_policy

        actions, low, high = noise["actions"], noise["low"].unsqueeze(1), noise["high"].unsqueeze(1)
        with torch.no_grad():
            judged = q(actions)
            weights = induced_log_policy(judged, torch.zeros_like(judged), self._temperature).exp()
        squashed = 2.0 * (actions - low) / (high - low).clamp_min(1e-6) - 1.0
        return torch.atanh(squashed.clamp(-EDGE, EDGE)), weights

    def _normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self._generator, device=self._generator.device)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=self._generator.device)


class GaussianExtraction(Extraction):
    """A Gaussian squashed into the support."""

    kind = "supported_gaussian"
    actor: SquashedGaussian

    def _forward_kl(self, state: torch.Tensor, noise: Noise, q: Judge) -> torch.Tensor:
        """Return -E_{a~pi*} log pi_theta(a|s): weighted maximum likelihood on draws of b."""
        u, weights = self._weighed(noise, q)
        mean, log_std = (part.unsqueeze(1) for part in self.actor.distribution(state))
        z = (u - mean) * (-log_std).exp()
        return -(weights * log_probability(u, z, log_std)).sum(dim=1).mean()

    def _reverse_kl(self, state: torch.Tensor, noise: Noise, q: Judge) -> torch.Tensor:
        """Return lambda E_{a~pi_theta} [log pi_theta(a|s) - log b(a|s)] - Q(s,a): the same minimum for lambda > 0."""
        low, high = noise["low"], noise["high"]
        squashed, log_pi = self.actor.sample(state, noise["z"])
        judged = q((low + (high - low) * 0.5 * (1.0 + squashed)).unsqueeze(1))[:, 0]
        # Density over the squashed range [-1, 1]: b's is 2^-n there.
        log_ratio = log_pi + squashed.shape[1] * math.log(2.0)
        return (self._temperature * log_ratio - judged).mean()

    def squashed(self, state: torch.Tensor, z: np.ndarray) -> np.ndarray:
        """Return the action (n_action,), tanh(mean + std z), of standard normal z in one state (1, n_state)."""
        mean, log_std = (part[0].double().cpu().numpy() for part in self.actor.distribution(state))
        return np.tanh(mean + np.exp(log_std) * z)

    @torch.no_grad()
    def drawn(self, state: torch.Tensor) -> torch.Tensor:
        """Return a draw in each state (batch, n_action), squashed to [-1, 1]."""
        n_action = self.actor.shape.sizes[-1] // 2
        return self.actor.sample(state, self._normal(len(state), n_action))[0]
