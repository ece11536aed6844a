"""SAC: soft actor-critic with twin critics and a learned temperature (Haarnoja et al. 2018, 1812.05905).

    y = r + gamma (1 - terminal) (min_i Qbar_i(s', a') - alpha log pi(a'|s')),   a' ~ pi(.|s')
    J(Q_i)   = E 1/2 (Q_i(s, a) - y)^2
    J(pi)    = E [alpha log pi(a|s) - min_i Q_i(s, a)],   a ~ pi(.|s)
    J(alpha) = -alpha E [log pi(a|s) + H],   H: target entropy

The other off-policy algorithms here change one of these lines each.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ssql_ros.algorithms.dual_ascent import Multiplier
from ssql_ros.algorithms.work import Work
from ssql_ros.data.replay import Batch, Replay, Transition
from ssql_ros.model.bundle import Network
from ssql_ros.nn.adam import Adam
from ssql_ros.nn.arithmetic import Arithmetic
from ssql_ros.nn.networks import Ensemble, default_device, exported, update_average
from ssql_ros.nn.squashed_gaussian import SquashedGaussian
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
class SACSettings:
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
        critics: how many Q-functions.
        observation_clip: bound on standardised observations.
    """

    learning_rate: float = 3e-4
    hidden: tuple[int, ...] = (256, 256)
    batch: int = 256
    gamma: float = 0.99
    tau: float = 0.005
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
    observation_clip: float = 10.0


class SAC:
    """The learner: networks, and one gradient step on each for a batch. Knows nothing of worlds and rollouts.

    Args:
        mean, scale: (n_observation,), the standardisation of observations.
        seed: of the weights and of what the updates draw.
        device: default: the GPU where there is one.
        precision: of hidden products; default: see `Arithmetic`.

    Attributes:
        replay: D_offline, what collection has seen; whoever collects fills it.
    """

    def __init__(
        self,
        mean: np.ndarray,
        scale: np.ndarray,
        n_action: int,
        settings: SACSettings,
        seed: int,
        device: torch.device | None = None,
        precision: torch.dtype | None = None,
    ) -> None:
        self.settings = settings
        self.replay = Replay(1, len(mean), n_action)
        self.device = device or default_device()
        self.arithmetic = Arithmetic(self.device, settings.hidden, precision)
        self.n_action = n_action
        self.mean = torch.as_tensor(mean, dtype=torch.float32, device=self.device)
        self.scale = torch.as_tensor(scale, dtype=torch.float32, device=self.device)
        self.target_entropy = -float(n_action) if settings.target_entropy is None else settings.target_entropy
        # Weights are drawn on the CPU, so that a seed means the same network everywhere.
        weights = torch.Generator().manual_seed(seed)
        self.generator = torch.Generator(self.device).manual_seed(seed + 1)
        n, hidden = len(self.mean), settings.hidden
        self.actor = SquashedGaussian(n, n_action, hidden, weights, self.arithmetic.precision).to(self.device)
        self.critics = self._critics((n + n_action, *hidden, 1), weights)
        self.target = copy.deepcopy(self.critics).requires_grad_(False)
        self.temperature = Multiplier(settings.initial_temperature, self.device)
        self.actor_optimiser = self._adam([*self.actor.parameters(), self.temperature.log])
        self.critic_optimiser = self._adam(list(self.critics.parameters()))
        self._update = Update(self._updated, [self.critic_optimiser, self.actor_optimiser], self.arithmetic)

    def _critics(self, sizes: tuple[int, ...], weights: torch.Generator) -> Ensemble:
        return Ensemble(sizes, self.settings.critics, weights, self.arithmetic.precision).to(self.device)

    def _adam(self, parameters: list[torch.nn.Parameter] | list[torch.Tensor]) -> Adam:
        return Adam(parameters, self.settings.learning_rate)

    def standardise(self, observation: torch.Tensor) -> torch.Tensor:
        """Return observations (batch, n_observation) as the networks see them."""
        bound = self.settings.observation_clip
        return ((observation - self.mean) / self.scale).clamp(-bound, bound)

    def update(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Make one gradient step on critics, actor and temperature; return their losses."""
        return self._update(batch, self.noise(len(batch.reward)))

    def noise(self, count: int) -> dict[str, torch.Tensor]:
        """Return what an update of `count` transitions draws at random: z (count, n_action) of a' and of a."""
        return {"next_observation": self._normal(count), "state": self._normal(count)}

    def _normal(self, count: int) -> torch.Tensor:
        return torch.randn((count, self.n_action), generator=self.generator, device=self.device)

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

    def best(self, observation: np.ndarray) -> np.ndarray:
        """Return the most probable u's action (n_action,) for one observation (n_observation,)."""
        return np.tanh(self.act(observation)[0])

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""

    def observe(self, transition: Transition) -> None:
        """See one step of collection."""

    def mask(self, step: int) -> Mask | None:
        """Return what masks collection at this step: nothing."""
        return None

    def rollouts_due(self, step: int) -> list[Mask | None]:
        """Return the masks of the extra on-policy episodes that are wanted after this step: none."""
        return []

    def learn_safety(self, episodes: list[list[Transition]]) -> dict[str, torch.Tensor]:
        """Learn from the extra episodes."""
        return {}

    def finish(self) -> list[Work]:
        """Return what is left to do when collection is complete: nothing."""
        return []

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

    @torch.no_grad()
    def load_pretrained(self, learned: dict[str, Any]) -> None:
        """Begin from what a run learned (see `learned`), which is more than its bundle holds.

        Raises:
            ValueError: a network is missing or of another shape.
        """
        if missing := {"networks", "log_alpha"} - learned.keys():
            raise ValueError(f"expected {sorted(missing)[0]!r} among what a run learned, found {', '.join(learned)}")
        for name, ensembles in self._taken(learned["networks"]).items():
            for ensemble, flat in zip(ensembles, learned["networks"][name], strict=True):
                if flat.shape != ensemble.flat.shape:
                    raise ValueError(f"{name}: expected {len(ensemble.flat)} parameters, got {len(flat)}")
                ensemble.flat.copy_(flat)
        if self.settings.keep_policy:
            self.temperature.log.copy_(learned["log_alpha"])

    def _taken(self, found: dict[str, Any]) -> dict[str, tuple[Ensemble, ...]]:
        """Return the ensembles that fine-tuning begins with; every one must have been found."""
        named = self._named()
        if not self.settings.keep_critics:
            del named["reward"]
        if not self.settings.keep_policy:
            del named["policy"]
        if missing := [name for name in named if name not in found]:
            raise ValueError(f"expected a network {missing[0]!r}, found {', '.join(found) or 'none'}")
        return named

    def learned(self) -> dict[str, Any]:
        """Return what fine-tuning can begin from."""
        networks = {name: [e.flat for e in ensembles] for name, ensembles in self._named().items()}
        return {"networks": networks, "log_alpha": self.temperature.log}

    def _named(self) -> dict[str, tuple[Ensemble, ...]]:
        """Return the ensembles by their names in a bundle, each with the average that follows it."""
        return {"policy": (self.actor,), "reward": (self.critics, self.target)}

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold."""
        return {
            **self.learned(),
            "optimisers": [optimiser.state() for optimiser in self._optimisers()],
            "generator": self.generator.get_state(),
            "arithmetic": self.arithmetic.state(),
        }

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint. Raises ValueError where it cannot be computed as it was."""
        self.arithmetic.restore(state.get("arithmetic"), (e for ensembles in self._named().values() for e in ensembles))
        for name, ensembles in self._named().items():
            for ensemble, flat in zip(ensembles, state["networks"][name], strict=True):
                ensemble.flat.copy_(flat)
        self.temperature.log.copy_(state["log_alpha"])
        for optimiser, values in zip(self._optimisers(), state["optimisers"], strict=True):
            optimiser.restore(values)
        self.generator.set_state(state["generator"])

    def _optimisers(self) -> list[Adam]:
        return [self.actor_optimiser, self.critic_optimiser]

    def networks(self) -> dict[str, Network]:
        """Return what a bundle holds, by name: the policy and the reward critics."""
        return {name: self._exported(ensembles[0]) for name, ensembles in self._named().items()}

    def _exported(self, ensemble: Ensemble) -> Network:
        return exported(ensemble, self.mean.cpu().numpy(), self.scale.cpu().numpy(), self.settings.observation_clip)
