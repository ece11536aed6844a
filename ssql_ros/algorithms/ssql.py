"""Safe-Support Q-Learning: learn from a safe behaviour policy b alone, and never leave its support.

    max over pi of E sum gamma^t [r_t - lambda KL(pi(.|s_t) || b(.|s_t))]
    stage 1    V(s) = lambda log E_{a~b(.|s)} exp(Q(s,a) / lambda)
               y    = r + gamma (1 - terminal) V(s')
               pi*(a|s) = b(a|s) exp((Q(s,a) - V(s)) / lambda)
    stage 2    forward KL: max over theta of E_s E_{a~pi*} log pi_theta(a|s), a ~ b reweighted by softmax(Q / lambda)
               reverse KL: min over theta of E_s E_{a~pi_theta} [log pi_theta(a|s) - log b(a|s) - Q(s,a) / lambda]

The stages are trained apart: nothing of pi_theta enters Q. supp pi* is inside supp b for every lambda; pi_theta is a
squashed Gaussian (extraction.py) or a one-step flow (flow_extraction.py) that is projected into it. lambda -> 0 is the
greedy policy of the support, infinity is b itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ssql_ros.algorithms.base import BehaviourAlgorithm, Settings, averaged, check_found
from ssql_ros.algorithms.extraction import GaussianExtraction, Noise
from ssql_ros.algorithms.flow_extraction import FlowExtraction
from ssql_ros.behaviour.support import Support
from ssql_ros.data.replay import Batch
from ssql_ros.model.bundle import Network
from ssql_ros.nn.networks import Ensemble, update_average
from ssql_ros.nn.update import Update

# Stage 2 by a Gaussian or by a one-step flow, by the forward or by the reverse KL.
EXTRACTIONS = ("forward", "reverse", "flow", "flow_reverse")


def soft_value(q: torch.Tensor, log_b: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return V (...) = lambda log sum_a b(a) exp(Q(a) / lambda) of Q (..., A) and log b (..., A).

    Args:
        log_b: -inf where b is 0; for M draws of b it is -log M of each.
        temperature: lambda; 0: the maximum over b's support; inf: the mean under b.
    """
    supported = log_b > -math.inf
    q = torch.where(supported, q, -math.inf)
    if temperature == 0.0:
        return q.amax(dim=-1)
    if math.isinf(temperature):
        return torch.where(supported, log_b.exp() * q, 0.0).sum(dim=-1)
    return temperature * torch.logsumexp(torch.where(supported, q / temperature + log_b, -math.inf), dim=-1)


def induced_log_policy(q: torch.Tensor, log_b: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return log pi* (..., A) of Q (..., A) and log b (..., A): -inf wherever b is 0, exactly.

    Args:
        temperature: lambda; 0: b restricted to the best actions of its support; inf: b itself.
    """
    supported = log_b > -math.inf
    if math.isinf(temperature):
        return log_b
    if temperature == 0.0:
        best = supported & (q == torch.where(supported, q, -math.inf).amax(dim=-1, keepdim=True))
        return torch.log_softmax(torch.where(best, log_b, -math.inf), dim=-1)
    return torch.log_softmax(torch.where(supported, q / temperature + log_b, -math.inf), dim=-1)


@dataclass(frozen=True)
class SSQLSettings(Settings):
    """How SSQL learns.

    Attributes:
        temperature: lambda, in units of reward.
        samples: M, draws of b for each V.
        extraction: "forward" or "reverse" KL of stage 2 by a Gaussian, "flow" or "flow_reverse" by a one-step flow.
        extraction_updates, extraction_samples: gradient steps of stage 2, and the draws of b for each state in it.
        critics: how many Q-functions; targets take the mean or the least of their V, see `pessimism`.
        pessimism: weight of the least V among the critics against their mean, 0 to 1.
        warm_up: steps of b before the first update.
        update_every: steps of b between two updates of stage 1.
        policy_share, policy_from: fraction of episodes that pi_theta drives, after this fraction of the run; it keeps
            to b's support, and what it does is watched like b. 0 is the paper's: b alone.
        final_updates: of stage 1 after the last step of b.
    """

    temperature: float = 0.05
    samples: int = 16
    extraction: str = "forward"
    extraction_updates: int = 5000
    extraction_samples: int = 32
    critics: int = 2
    pessimism: float = 1.0
    warm_up: int = 1000
    update_every: int = 2
    policy_share: float = 0.0
    policy_from: float = 0.3
    final_updates: int = 10_000


def policy_kind(settings: SSQLSettings) -> str:
    """Return what kind of policy in a bundle stage 2 makes."""
    return (FlowExtraction if settings.extraction.startswith("flow") else GaussianExtraction).kind


class SSQL(BehaviourAlgorithm):
    """Both stages: networks, and one gradient step on each for a batch."""

    settings: SSQLSettings

    def _build(self) -> None:
        self.critics = self._perceptron(len(self.mean) + self.n_action, members=self.settings.critics)
        self.target = averaged(self.critics)
        self.extraction = self._extraction(len(self.mean))
        self.critic_optimiser = self._adam(self.critics)
        self.actor_optimiser = self._adam(*self.extraction.ensembles)
        self._update = Update(self._updated, [self.critic_optimiser], self.arithmetic)
        self._extract = Update(self._extracted, [self.actor_optimiser], self.arithmetic)

    def _extraction(self, n_state: int) -> GaussianExtraction | FlowExtraction:
        s = self.settings
        drawing = s.extraction_samples, s.temperature, "reverse" in s.extraction, self.rng, self.generator
        if s.extraction.startswith("flow"):
            return FlowExtraction(n_state, self.n_action, s.hidden, self._weights, *drawing)
        return GaussianExtraction([self._gaussian(n_state)], *drawing)

    @property
    def kind(self) -> str:
        """Return what kind of policy in a bundle stage 2 makes."""
        return self.extraction.kind

    @property
    def actor(self) -> Ensemble:
        """Return the network of pi_theta."""
        return self.extraction.actor

    # Stage 1.

    def update(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Make one gradient step on the critics; return their loss."""
        return self._update(batch, self._sampled(batch.next_observation, self.settings.samples))

    def _updated(self, batch: Batch, sampled: torch.Tensor) -> dict[str, torch.Tensor]:
        target = self._target_value(batch, sampled)
        q = self._q(self.critics, self.standardise(batch.observation), batch.action.unsqueeze(1))[..., 0]
        loss = 0.5 * (q - target).square().sum() / len(target)
        self.critic_optimiser.descend(loss)
        update_average(self.target, self.critics, self.settings.tau)
        return {"critic_loss": loss.detach(), "q_mean": q.detach().mean()}

    def target_value(self, batch: Batch) -> torch.Tensor:
        """Return y (batch,)."""
        return self._target_value(batch, self._sampled(batch.next_observation, self.settings.samples))

    @torch.no_grad()
    def _target_value(self, batch: Batch, sampled: torch.Tensor) -> torch.Tensor:
        s = self.settings
        value = self._value(batch.next_observation, sampled, self.target)
        pessimistic = s.pessimism * value.amin(dim=0) + (1.0 - s.pessimism) * value.mean(dim=0)
        return batch.reward + s.gamma * (1.0 - batch.terminal) * pessimistic

    def value(self, states: torch.Tensor, samples: int) -> torch.Tensor:
        """Return V (critics, batch) of states (batch, n_state) from `samples` draws of b: biased low where few."""
        return self._value(states, self._sampled(states, samples), self.critics)

    def _value(self, states: torch.Tensor, sampled: torch.Tensor, critics: Ensemble) -> torch.Tensor:
        q = self._q(critics, self.standardise(states), sampled)
        return soft_value(q, torch.full_like(q, -math.log(sampled.shape[1])), self.settings.temperature)

    def _sampled(self, states: torch.Tensor, samples: int) -> torch.Tensor:
        """Return draws of b (batch, samples, n_action)."""
        return self._on_device(self._support(states).sample(samples, self.rng))

    @torch.no_grad()
    def q(self, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Return Q (critics, batch) of states (batch, n_state) and actions (batch, n_action)."""
        return self._q(self.critics, self.standardise(states), actions.unsqueeze(1))[..., 0]

    def _q(self, critics: Ensemble, standardised: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Return Q (critics, batch, count) of actions (batch, count, n_action)."""
        count = actions.shape[1]
        rows = standardised.repeat_interleave(count, dim=0)
        q = critics(torch.cat([rows, actions.flatten(0, 1)], dim=1))[..., 0]
        return q.view(len(q), -1, count)

    def _support(self, states: torch.Tensor) -> Support:
        return self.behaviour.support(states.double().cpu().numpy())

    # Stage 2.

    def extract(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Make one gradient step of pi_theta towards pi*; return its loss."""
        return self._extract(batch.observation, self.extraction.noise(self._support(batch.observation)))

    def _extracted(self, observation: torch.Tensor, noise: Noise) -> dict[str, torch.Tensor]:
        state = self.standardise(observation)

        def q(actions: torch.Tensor) -> torch.Tensor:
            rows = state.repeat_interleave(actions.shape[1], dim=0)
            judged = self.critics.frozen(torch.cat([rows, actions.flatten(0, 1)], dim=1))[..., 0]
            return judged.mean(dim=0).view(len(state), -1)

        loss = self.extraction.loss(state, noise, q)
        self.actor_optimiser.descend(loss)
        return {"extraction_loss": loss.detach()}

    def drawn(self, state: torch.Tensor) -> torch.Tensor:
        """Return a draw of pi_theta in each standardised state (batch, n_action), squashed to [-1, 1]."""
        return self.extraction.drawn(state)

    @torch.no_grad()
    def start_weights(self, observations: np.ndarray) -> np.ndarray:
        """Return the induced probabilities (M,) of how an episode begins, for first observations (N, n_observation).

        How b begins is a choice of b's too: pi*(m) ~ w_m exp(V(s_0, m) / lambda).
        """
        starts = self.behaviour.starts()
        pairs = np.concatenate(
            [np.repeat(observations, len(starts), axis=0), np.tile(starts, (len(observations), 1))], axis=1
        )
        value = self.value(self._on_device(pairs), 256).mean(dim=0).view(len(observations), len(starts)).mean(dim=0)
        log_b = torch.as_tensor(self.behaviour.start_weights(), device=self.device).log()
        return induced_log_policy(value.double(), log_b, self.settings.temperature).exp().cpu().numpy()

    @torch.no_grad()
    def act(self, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a draw from pi_theta (n_action,) in a state (n_state,)."""
        support = self.behaviour.support(state[np.newaxis])
        low, high = (edge[0] for edge in support.hull())
        squashed = self.extraction.squashed(
            self.standardise(self._on_device(state[np.newaxis])), rng.standard_normal(len(low))
        )
        action = low + 0.5 * (high - low) * (1.0 + squashed)
        return support.project(action[np.newaxis, np.newaxis])[0, 0]

    # What is kept.

    def load_networks(self, networks: dict[str, Network]) -> None:
        """Begin from a bundle: the critics and the policy. Raises ValueError where they do not fit."""
        for name, ensemble in (("reward", self.critics), ("policy", self.actor)):
            check_found([name], networks)
            ensemble.load(networks[name])
        self.target.load(networks["reward"])

    def _served(self) -> dict[str, Ensemble]:
        return {"policy": self.actor, "reward": self.critics}

    def _parts(self) -> dict[str, Any]:
        return {
            "networks": [self.critics, self.target, *self.extraction.ensembles],
            "optimisers": [self.critic_optimiser, self.actor_optimiser],
            "generator": self.generator,
            "rng": self.rng,
        }
