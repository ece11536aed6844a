"""What a policy would be worth where another one acts now, from what that one has recorded: fitted Q evaluation.

    Q_pi    y = r + gamma (1 - terminal) Qbar_pi(s', a'),   a' ~ pi(.|s'),   on the buffer's transitions
    v_pi    mean of Q_pi(s, a), a ~ pi, over the states that were recorded

There is no model of the robot to try the policy in. What the fit itself gets wrong shows on the policy that acts: the
same fit of it, against its recorded returns. Reference: Le, Voloshin and Yue 2019, 1903.08738.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch

from ssql_ros.data.replay import Batch
from ssql_ros.live.algorithms import LiveAlgorithm, make_live
from ssql_ros.model.bundle import Bundle
from ssql_ros.nn.adam import Adam
from ssql_ros.nn.networks import update_average

# Of the target's average: the fit is short.
TAU = 0.02
# Actions drawn in each recorded state.
DRAWS = 4

# Actions (N, n_action) of a policy in states (N, n_state).
Draw = Callable[[torch.Tensor], torch.Tensor]


def drawn_by_policy(algorithm: LiveAlgorithm) -> Draw:
    """Return draws of pi_theta, kept inside b's support as they are where it is served."""

    def draw(states: torch.Tensor) -> torch.Tensor:
        support = algorithm.behaviour.support(states.double().cpu().numpy())
        low, high = support.hull()
        squashed = algorithm.drawn(algorithm.standardise(states)).double().cpu().numpy()
        actions = support.project((low + 0.5 * (high - low) * (1.0 + squashed))[:, np.newaxis])[:, 0]
        return torch.as_tensor(actions, dtype=torch.float32, device=states.device)

    return draw


def drawn_by_behaviour(algorithm: LiveAlgorithm) -> Draw:
    """Return draws of b(.|s)."""

    def draw(states: torch.Tensor) -> torch.Tensor:
        actions = algorithm.behaviour.support(states.double().cpu().numpy()).sample(1, algorithm.rng)[:, 0]
        return torch.as_tensor(actions, dtype=torch.float32, device=states.device)

    return draw


def taken_from(bundle: Bundle, like: LiveAlgorithm, seed: int) -> LiveAlgorithm:
    """Return an algorithm with the policy and the critics of a bundle, settings and behaviour policy as `like`'s.

    Raises:
        ValueError: they do not fit.
    """
    policy = bundle.need("policy")
    n_action = like.critics.shape.sizes[0] - len(like.mean)
    mean, scale = policy.observation_mean, policy.observation_scale
    made = make_live(mean, scale, n_action, like.settings, seed, like.behaviour)
    made.critics.load(bundle.need("reward"))
    made.actor.load(policy)
    return made


def fitted_value(
    algorithm: LiveAlgorithm, draw: Draw, batches: Callable[[], Batch], updates: int, states: torch.Tensor
) -> float:
    """Return v of a policy in states (N, n_state).

    Args:
        algorithm: its critics are where the fit begins; they are not changed.
        draw: of the policy.
        batches: draws transitions.
        updates: gradient steps.
    """
    critics, settings = copy.deepcopy(algorithm.critics), algorithm.settings
    target = copy.deepcopy(critics).requires_grad_(False)
    optimiser = Adam([critics.flat], settings.learning_rate)
    for _ in range(updates):
        batch = batches()
        with torch.no_grad():
            pair = torch.cat([algorithm.standardise(batch.next_observation), draw(batch.next_observation)], dim=1)
            y = batch.reward + settings.gamma * (1.0 - batch.terminal) * target(pair)[..., 0].mean(dim=0)
        q = critics(torch.cat([algorithm.standardise(batch.observation), batch.action], dim=1))[..., 0]
        loss = 0.5 * (q - y).square().sum() / len(y)
        optimiser.descend(loss)
        update_average(target, critics, TAU)
    with torch.no_grad():
        seen = algorithm.standardise(states)
        found = [critics(torch.cat([seen, draw(states)], dim=1)).mean() for _ in range(DRAWS)]
    return float(torch.stack(found).mean())
