"""Comparison partners of SafeFQL, through the same critics, networks and data: what its one pass is worth.

SafeIFQL             candidates of the multi-step flow, the teacher of the same run, by rejection
FISOR-like           candidates of a diffusion policy, trained here by weighted regression, by rejection
behaviour cloning    one draw of the teacher

FISOR's weights: exp(a (Q_r - V_r)) where s and a are feasible, 0 where s is and a is not, exp(-b (Q_c - V_c)) where
s is not.
"""

from __future__ import annotations

import numpy as np
import torch
from tqdm import tqdm

from ssql_ros.algorithms.safefql import SafeFQL
from ssql_ros.data.logged_steps import OfflineData
from ssql_ros.model.bundle import Network
from ssql_ros.model.rejection import betas
from ssql_ros.nn.adam import Adam
from ssql_ros.nn.networks import Ensemble

REWARD_TEMPERATURE, SAFETY_TEMPERATURE, MOST = 30.0, 30.0, 100.0


@torch.no_grad()
def feasible_weights(learner: SafeFQL, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """Return FISOR's weights (batch,) of logged actions (see the top of this file)."""
    pair = torch.cat([state, action], dim=1)
    q_r, q_c = learner.q_r(pair)[..., 0].amin(dim=0), learner.q_c(pair)[..., 0].amax(dim=0)
    v_r, v_c = learner.v_r(state)[0, :, 0], learner.v_c(state)[0, :, 0]
    better = (REWARD_TEMPERATURE * (q_r - v_r)).exp() * (q_c < 0.0)
    safer = (-SAFETY_TEMPERATURE * (q_c - v_c)).exp()
    return torch.where(v_c < 0.0, better, safer).clamp(max=MOST)


def train_diffusion(learner: SafeFQL, data: OfflineData, steps: int, seed: int, show: bool) -> Network:
    """Return a noise predictor eps(s, x_k, k), of the teacher's shape: J = E w ||eps(s, x_k, k) - z||^2."""
    settings, n, m = learner.settings, len(learner.mean), learner.n_action
    weights = torch.Generator().manual_seed(seed)
    sizes = (n + m + 1, *settings.actor_hidden, m)
    network = Ensemble(sizes, 1, weights, activation=settings.activation).to(learner.device)
    optimiser = Adam([network.flat], settings.learning_rate)
    generator = torch.Generator(learner.device).manual_seed(seed + 1)
    product = torch.as_tensor(np.cumprod(1.0 - betas()), dtype=torch.float32, device=learner.device)
    for step in tqdm(range(steps), unit="step", disable=not show, desc="diffusion"):
        optimiser.set_rate(settings.learning_rate * min(1.0, 2.0 * (1.0 - step / steps)))
        batch = data.draw(settings.actor_batch, generator)
        state = learner.standardise(batch.observation)
        weight = feasible_weights(learner, state, batch.action)
        k = torch.randint(len(product), (len(state), 1), generator=generator, device=learner.device)
        noise = torch.randn(batch.action.shape, generator=generator, device=learner.device)
        kept = product[k]
        x = kept.sqrt() * batch.action + (1.0 - kept).sqrt() * noise
        guess = network(torch.cat([state, x, k / len(product)], dim=1))[0]
        loss = (weight[:, None] * (guess - noise).square()).sum() / weight.sum().clamp(min=1e-6)
        optimiser.descend(loss)
    return learner.exported(network)
