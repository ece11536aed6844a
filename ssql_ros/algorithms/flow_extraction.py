"""Stage 2 of SSQL by a one-step flow policy: a = tanh(mu(s, z)) in the hull of b's support, mu(s, z) = z + f(s, z).

    forward KL   weighted flow matching, whose optimum carries N(0, I) to pi*: a_j ~ b, w = softmax(Q / lambda)
                 J(v)  = E sum_j w_j ||v(s, x_t, t) - (u_j - z_j)||^2,   x_t = (1 - t) z + t u,   tanh u: a in the hull
                 J(mu) = E ||mu(s, z) - teacher(s, z)||^2: one pass in the place of the teacher's steps
    reverse KL   E_z [lambda (log N(z) - log det d tanh(mu) / dz - log b) - Q(s, a)]

The reverse KL is defined where z to a is one to one: det dmu/dz > 0 everywhere, as at the start, where f is small. Its
own logarithm is the wall before 0; where a draw is behind it all the same, the wall goes on as a straight line.
Before tanh, because a density that is highest on the support's edge is no easy thing for a flow, and its u is. Unlike a
Gaussian, either has as many modes as Q has in the support.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from ssql_ros.algorithms.extraction import Extraction, Judge, Noise
from ssql_ros.behaviour.support import Support
from ssql_ros.nn.networks import Ensemble

# Where the wall begins to be straight.
LEAST_DETERMINANT = 1e-3
# Of two evaluations each.
FLOW_STEPS = 5


class FlowExtraction(Extraction):
    """Networks, and the loss of one gradient step on them.

    Args:
        hidden: widths of the layers, GELU in between.
        weights: seeds the weights.
        drawing: samples, temperature, reverse, rng and generator of `Extraction`; the teacher is for the forward KL.
    """

    kind = "supported_flow"

    def __init__(
        self, n_state: int, n_action: int, hidden: tuple[int, ...], weights: torch.Generator, *drawing: Any
    ) -> None:
        def network(n_in: int) -> Ensemble:
            made = Ensemble((n_in, *hidden, n_action), 1, weights, activation="gelu")
            with torch.no_grad():
                made.weights[-1].mul_(0.1)
            return made.to(drawing[-1].device)

        actor, self.teacher, self._n_action = network(n_state + n_action), network(n_state + n_action + 1), n_action
        super().__init__([actor, self.teacher], *drawing)
        self.ensembles = self.ensembles[: 1 if self._reverse else 2]

    def noise(self, support: Support) -> Noise:
        """Return what the loss draws."""
        drawn = super().noise(support)
        if self._reverse:
            return drawn
        states, samples = drawn["actions"].shape[:2]
        time = torch.rand((states * samples, 1), generator=self._generator, device=self._generator.device)
        begin, z = self._normal(states * samples, self._n_action), self._normal(states, self._n_action)
        return {**drawn, "from": begin, "time": time, "z": z}

    def u(self, state: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Return mu(s, z) (batch, n_action), before tanh."""
        return z + self.actor(torch.cat([state, z], dim=1))[0]

    def _forward_kl(self, state: torch.Tensor, noise: Noise, q: Judge) -> torch.Tensor:
        drawn, weights = self._weighed(noise, q)
        u, rows = drawn.flatten(0, 1), state.repeat_interleave(len(weights[0]), dim=0)
        z, time = noise["from"], noise["time"]
        velocity = self._velocity(rows, (1.0 - time) * z + time * u, time)
        matching = (weights.flatten() * (velocity - (u - z)).square().sum(dim=1)).sum() / len(state)
        z = noise["z"]
        with torch.no_grad():
            taught = self.teach(state, z)
        return matching + (self.u(state, z) - taught).square().sum(dim=1).mean()

    def teach(self, state: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Return the teacher's u (batch, n_action) for noise z: t from 0 to 1 in steps by the midpoint rule."""
        x, step = z, 1.0 / FLOW_STEPS
        for i in range(FLOW_STEPS):
            time = torch.full_like(x[:, :1], i * step)
            middle = x + 0.5 * step * self._velocity(state, x, time)
            x = x + step * self._velocity(state, middle, time + 0.5 * step)
        return x

    def _velocity(self, state: torch.Tensor, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return self.teacher(torch.cat([state, x, time], dim=1))[0]

    def _reverse_kl(self, state: torch.Tensor, noise: Noise, q: Judge) -> torch.Tensor:
        low, high = noise["low"], noise["high"]
        z = noise["z"].requires_grad_()
        u, log_determinant = self.with_log_determinant(state, z)
        slope = 2.0 * (math.log(2.0) - u - torch.nn.functional.softplus(-2.0 * u))
        log_normal = -0.5 * z.square() - 0.5 * math.log(2.0 * math.pi)
        # b's density over the squashed range is 2^-n.
        log_ratio = (log_normal - slope + math.log(2.0)).sum(dim=1) - log_determinant
        judged = q((low + (high - low) * 0.5 * (1.0 + torch.tanh(u))).unsqueeze(1))[:, 0]
        return (self._temperature * log_ratio - judged).mean()

    def with_log_determinant(self, state: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mu(s, z) (batch, n_action) and log det dmu/dz (batch,), the wall in its place where it is near 0."""
        u = self.u(state, z)
        rows = [torch.autograd.grad(u[:, i].sum(), z, create_graph=True)[0] for i in range(self._n_action)]
        determinant = torch.linalg.det(torch.stack(rows, dim=1))
        least = LEAST_DETERMINANT
        straight = math.log(least) + (determinant - least) / least
        return u, torch.where(determinant > least, determinant.clamp_min(least).log(), straight)

    @torch.no_grad()
    def squashed(self, state: torch.Tensor, z: np.ndarray) -> np.ndarray:
        """Return the action (n_action,), tanh(mu(s, z)), of standard normal z in one state (1, n_state)."""
        noise = self._tensor(z[np.newaxis])
        return torch.tanh(self.u(state, noise))[0].double().cpu().numpy()

    @torch.no_grad()
    def drawn(self, state: torch.Tensor) -> torch.Tensor:
        """Return a draw in each state (batch, n_action), squashed to [-1, 1]."""
        return torch.tanh(self.u(state, self._normal(len(state), self._n_action)))
