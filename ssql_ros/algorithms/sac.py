"""SAC: soft actor-critic with twin critics and a learned temperature (Haarnoja et al. 2018, 1812.05905).

    y = r + gamma (1 - terminal) (min_i Qbar_i(s', a') - alpha log pi(a'|s')),   a' ~ pi(.|s')
    J(Q_i)   = E 1/2 (Q_i(s, a) - y)^2
    J(pi)    = E [alpha log pi(a|s) - min_i Q_i(s, a)],   a ~ pi(.|s)
    J(alpha) = -alpha E [log pi(a|s) + H],   H: target entropy

The other off-policy algorithms here change one of these lines each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ssql_ros.algorithms.base import Algorithm, Settings, Unmasked, averaged, check_found, state_of, take
from ssql_ros.algorithms.dual_ascent import Multiplier
from ssql_ros.data.replay import Batch, Replay, Transition
from ssql_ros.model.bundle import Network
from ssql_ros.nn.adam import Adam
from ssql_ros.nn.networks import Ensemble, update_average
from ssql_ros.nn.update import Update
from ssql_ros.shield.decision import Critic, ShieldSettings

TAKEN_TEMPERATURE = 0.1
# s; where there is no clock, observations and proposals have no age, and the shield's bounds on it only must be there.
NO_CLOCK = 1.0


@dataclass(frozen=True)
class Mask:
    """What stands between a policy and the world: a safety critic, and how the shield draws with it."""

    critic: Critic
    settings: ShieldSettings


@dataclass(frozen=True)
class SACSettings(Settings):
    """How SAC learns; the defaults are SQRL's table 1.

    Attributes:
        initial_steps: of pre-training, uniform actions before the policy acts and learns.
        explore_share: fraction of later episodes of pre-training that are of uniform actions too.
        explore_steps: the same of fine-tuning; behind the mask, where there is one.
        warm_up: steps of fine-tuning before the first update: what learns from a handful of its own steps forgets.
        update_every: steps of collection between two updates.
        keep_policy: fine-tuning begins with the policy of pre-training; else the policy begins anew.
        keep_critics: fine-tuning begins with the reward critics of pre-training too; else with the policy alone, as
            algorithm 2 of SQRL is written.
        target_entropy: H in nats; None: -n_action.
        initial_temperature: alpha, from which dual ascent begins.
        critics: how many Q-functions.
    """

    critics: int = 2
    target_entropy: float | None = None
    initial_temperature: float = 0.1
    initial_steps: int = 1000
    explore_share: float = 0.0
    explore_steps: int = 0
    warm_up: int = 1000
    update_every: int = 1
    keep_policy: bool = True
    keep_critics: bool = True


class SAC(Unmasked, Algorithm):
    """The learner: networks, and one gradient step on each for a batch.

    Attributes:
        replay: D_offline, what collection has seen; whoever collects fills it.
    """

    settings: SACSettings

    def _build(self) -> None:
        self._make_networks(len(self.mean))
        s = self.settings
        self.replay = Replay(1, len(self.mean), self.n_action)
        self.target_entropy = -float(self.n_action) if s.target_entropy is None else s.target_entropy
        self.target = averaged(self.critics)
        self.temperature = Multiplier(s.initial_temperature, self.device)
        self.actor_optimiser = self._adam(self.actor, self.temperature.log)
        self.critic_optimiser = self._adam(self.critics, rate=self._critic_rate)
        self._update = Update(self._updated, [self.critic_optimiser, self.actor_optimiser], self.arithmetic)

    @property
    def _critic_rate(self) -> float:
        return self.settings.learning_rate

    def _make_networks(self, n: int, n_out: int = 1) -> None:
        self.actor = self._gaussian(n)
        self.critics = self._perceptron(n + self.n_action, n_out, self.settings.critics)

    def update(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Make one gradient step on critics, actor and temperature; return their losses."""
        return self._update(batch, self.noise(len(batch.reward)))

    def noise(self, count: int) -> dict[str, torch.Tensor]:
        """Return what an update of `count` transitions draws at random: z (count, n_action) of a' and of a."""
        return {"next_observation": self._normal(count), "state": self._normal(count)}

    def _updated(self, batch: Batch, noise: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        state, next_observation = self.standardise(batch.observation), self.standardise(batch.next_observation)
        critic_loss = self.critic_loss(state, batch, self.target_value(next_observation, batch, noise), noise)
        self.critic_optimiser.descend(critic_loss)
        actor_loss, log_probability = self.actor_loss(state, noise)
        # Neither loss has a gradient for the other's parameters: one step serves both.
        self.actor_optimiser.descend(actor_loss + self.temperature_loss(log_probability))
        update_average(self.target, self.critics, self.settings.tau)
        return {"critic_loss": critic_loss.detach(), "actor_loss": actor_loss.detach(), "alpha": self.alpha}

    @property
    def alpha(self) -> torch.Tensor:
        """Return the temperature (1,)."""
        return self.temperature.value

    @torch.no_grad()
    def target_value(
        self, next_observation: torch.Tensor, batch: Batch, noise: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Return y (batch,)."""
        action, log_probability = self.actor.sample(next_observation, noise["next_observation"])
        q = self.target(torch.cat([next_observation, action], dim=1))[..., 0]
        soft = self.pessimistic(q) - self.alpha * log_probability
        return batch.reward + self.settings.gamma * (1.0 - batch.terminal) * soft

    def pessimistic(self, q: torch.Tensor) -> torch.Tensor:
        """Return one value (batch,) of the critics' (M, batch): the least."""
        return q.amin(dim=0)

    def critic_loss(
        self, state: torch.Tensor, batch: Batch, target: torch.Tensor, noise: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Return J(Q), summed over critics."""
        q = self.critics(torch.cat([state, batch.action], dim=1))[..., 0]
        return 0.5 * (q - target).square().sum() / len(target)

    def actor_loss(self, state: torch.Tensor, noise: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return J(pi) and log pi of the actions drawn (batch,)."""
        action, log_probability = self.actor.sample(state, noise["state"])
        q = self.critics.frozen(torch.cat([state, action], dim=1))[..., 0]
        loss = (self.alpha * log_probability - self.pessimistic(q)).mean()
        return loss, log_probability.detach()

    def temperature_loss(self, log_probability: torch.Tensor) -> torch.Tensor:
        """Return J(alpha), as a function of log alpha."""
        return self.temperature.loss(-(log_probability + self.target_entropy))

    @torch.no_grad()
    def act(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and std (n_action,) of u for one observation (n_observation,); the action is tanh(u)."""
        rows = torch.as_tensor(observation, dtype=torch.float32, device=self.device).unsqueeze(0)
        mean, log_std = self.actor.distribution(self.standardise(rows))
        return mean[0].double().cpu().numpy(), log_std[0].exp().double().cpu().numpy()

    def observe(self, transition: Transition) -> None:
        """See one step of collection."""

    def load_networks(self, networks: dict[str, Network]) -> None:
        """Begin from the networks of a bundle: fine-tuning.

        Raises:
            ValueError: one is missing or of another shape.
        """
        for name, ensembles in self._taken(networks).items():
            for ensemble in ensembles:
                ensemble.load(networks[name])
        if not self.settings.keep_policy:
            return
        # A policy that knows something must not be shaken; what temperature it had, a bundle does not say.
        with torch.no_grad():
            self.temperature.log.clamp_(max=math.log(TAKEN_TEMPERATURE))

    def load_pretrained(self, learned: dict[str, Any]) -> None:
        """Begin from what a run learned (see `learned`), which is more than its bundle holds.

        Raises:
            ValueError: a network is missing or of another shape.
        """
        if missing := {"networks", "log_alpha"} - learned.keys():
            raise ValueError(f"expected {sorted(missing)[0]!r} among what a run learned, found {', '.join(learned)}")
        take(self._taken(learned["networks"]), learned["networks"])
        if self.settings.keep_policy:
            with torch.no_grad():
                self.temperature.log.copy_(learned["log_alpha"])

    def _taken(self, found: dict[str, Any]) -> dict[str, tuple[Ensemble, ...]]:
        """Return the ensembles that fine-tuning begins with; every one must have been found."""
        named = self._named()
        if not self.settings.keep_critics:
            del named["reward"]
        if not self.settings.keep_policy:
            del named["policy"]
        check_found(named, found)
        return named

    def learned(self) -> dict[str, Any]:
        """Return what fine-tuning can begin from."""
        return state_of({"networks": self._named(), "log_alpha": self.temperature.log})

    def _named(self) -> dict[str, tuple[Ensemble, ...]]:
        """Return the ensembles by their names in a bundle, each with the average that follows it."""
        return {"policy": (self.actor,), "reward": (self.critics, self.target)}

    def _parts(self) -> dict[str, Any]:
        of_all = {"networks": self._named(), "log_alpha": self.temperature.log, "optimisers": self._optimisers()}
        return {**of_all, "generator": self.generator}

    def _optimisers(self) -> list[Adam]:
        return [self.actor_optimiser, self.critic_optimiser]

    def _served(self) -> dict[str, Ensemble]:
        return {name: ensembles[0] for name, ensembles in self._named().items()}
