"""The safety critic: Q_safe(s, a), the discounted probability of a future incident, learned by its Bellman equation.

After SQRL (Srinivasan et al. 2020, eq. 2):

    y = I(s') + (1 - I(s')) gamma_safe Qbar_safe(s', a'),   a' ~ pi(.|s')

with a sigmoid output, cross-entropy loss and a target network Qbar that follows by an exponential average. pi is the
policy that takes over after a: here the bare controller, without noise and without mask. Where the recorded episode
itself followed pi for some steps after (s, a), the equation is unrolled along them, up to `lookahead`:

    y = gamma_safe^(k-1) I(s_k) + (1 - I(s_k)) gamma_safe^k Qbar_safe(s_k, pi(s_k)),

which is the same fixed point, reached sooner; k = 1 is eq. 2 to the letter.

Where a shield takes over for pi, it notices danger late: a critic that is learned is wrong for some steps before it is
right. So pi may be made to wait, for `delay` steps in the mean: after each step it takes over with the chance 1/delay,
and until then whoever drove goes on,

    y = I(s') + (1 - I(s')) gamma_safe Qbar_safe(s', a'),   a' = pi(s') with the chance 1/delay, else what came next.

delay = 1 is eq. 2 with pi at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ssql_ros.algorithms.base import averaged, restore_to, state_of
from ssql_ros.data.episode import Episode
from ssql_ros.model.bundle import Network
from ssql_ros.nn.adam import Adam
from ssql_ros.nn.arithmetic import Arithmetic
from ssql_ros.nn.networks import Ensemble, exported, update_average
from ssql_ros.nn.update import Update


@dataclass(frozen=True)
class CriticSettings:
    """How the critic learns.

    Attributes:
        gamma_safe: discount; 0.95 looks some 20 control periods ahead.
        members: networks of the ensemble; their logits are averaged.
        hidden: widths of the hidden layers.
        learning_rate: of Adam, which falls to 0 by a cosine.
        batch: transitions of a gradient step, for each member.
        tau: step of the target network's average.
        lookahead: longest k of the unrolled target.
        delay: steps until pi takes over, in the mean; 1: at once.
        near_fraction, near_steps: share of each batch drawn from the last `near_steps` steps before an incident,
            which are rare otherwise. A draw of (s, a) does not bias the target given (s, a).
        prior: Q_safe that the network says everywhere before it has learned anything.
        observation_clip: bound on standardised observations.
    """

    gamma_safe: float = 0.95
    members: int = 2
    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    batch: int = 256
    tau: float = 0.01
    lookahead: int = 10
    delay: float = 1.0
    near_fraction: float = 0.1
    near_steps: int = 25
    prior: float = 0.02
    observation_clip: float = 10.0


@dataclass
class Transitions:
    """N transitions, ready for targets y = incident_value + bootstrap * Qbar(next_observation, next_action).

    Attributes:
        observations, next_observation: (N, n_observation) float32, s and s_k.
        actions, next_actions: (N, n_action) float32, a and pi(s_k).
        incident_value: (N,) float32, gamma^(k-1) I(s_k).
        bootstrap: (N,) float32, gamma^k (1 - I(s_k)).
        steps_to_incident: (N,) float32, inf where the episode had none.
    """

    observations: np.ndarray
    actions: np.ndarray
    next_observation: np.ndarray
    next_actions: np.ndarray
    incident_value: np.ndarray
    bootstrap: np.ndarray
    steps_to_incident: np.ndarray


def followed(episode: Episode) -> np.ndarray:
    """Return which steps (T,) of an episode executed what pi, the bare controller, would have done."""
    return np.abs(episode.actions - episode.means[:-1]).max(axis=1) < 1e-6


def policy_run(episode: Episode) -> np.ndarray:
    """Return (T,): for how many steps right after each one the episode followed pi."""
    run = np.zeros(len(episode) + 1, int)
    for t, follows in reversed(list(enumerate(followed(episode)))):
        run[t] = run[t + 1] + 1 if follows else 0
    return run[1:]


def transitions_of(
    episodes: Iterable[Episode], gamma_safe: float, lookahead: int, delay: float = 1.0, seed: int = 0
) -> Transitions:
    """Return the transitions of `episodes`, each unrolled along pi up to `lookahead` steps.

    Args:
        delay: steps, at least 1, until pi takes over, in the mean.
        seed: of the draws of who goes on, with a delay.
    """
    rng = np.random.default_rng(seed)
    parts: list[tuple[np.ndarray, ...]] = []
    for episode in episodes:
        steps, length = np.arange(len(episode)), len(episode)
        k = 1 + np.minimum(policy_run(episode), lookahead - 1)
        k = np.minimum(k, length - steps)
        proposals = np.concatenate([episode.proposals, episode.means[-1:]])
        goes_on, known = np.zeros(length, bool), np.ones(length, bool)
        if delay > 1.0:
            # Where pi has the robot, it keeps it. Where the next proposal is pi's, or there is none, nobody can say
            # how whoever drove would have gone on: those would make pi come sooner than it does.
            drives = ~followed(episode)
            own_next = np.abs(proposals - episode.means).max(axis=1)[1:] >= 1e-6
            fell = episode.incident & (steps + 1 == length)
            known = ~drives | own_next | fell
            goes_on = drives & own_next & (rng.random(length) >= 1.0 / delay)
            k = np.where(drives & ~fell, 1, k)
        end = steps + k
        fell = episode.incident & (end == length)
        parts.append(
            (
                episode.observations[:-1],
                episode.actions,
                episode.observations[end],
                np.where(goes_on[:, np.newaxis], proposals[end], episode.means[end]),
                np.where(fell, gamma_safe ** (k - 1.0), 0.0).astype(np.float32),
                np.where(fell, 0.0, gamma_safe**k).astype(np.float32),
                (length - 1.0 - steps if episode.incident else np.full(length, np.inf)).astype(np.float32),
            )
        )
        parts[-1] = tuple(column[known] for column in parts[-1])
    return Transitions(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def bellman_target(incident_value: torch.Tensor, bootstrap: torch.Tensor, q_following: torch.Tensor) -> torch.Tensor:
    """Return y = gamma^(k-1) I(s_k) + (1 - I(s_k)) gamma^k Qbar(s_k, pi(s_k)), elementwise, in [0, 1]."""
    return incident_value + bootstrap * q_following


class SafetyCriticLearner:
    """Learns Q_safe from transitions; knows nothing of worlds and rollouts.

    Args:
        data: fixes the standardisation of observations.
        seed: of the weights and the batches.
    """

    def __init__(self, data: Transitions, settings: CriticSettings, seed: int) -> None:
        self.settings = settings
        self._generator = torch.Generator().manual_seed(seed)
        self._mean, self._scale = data.observations.mean(axis=0), data.observations.std(axis=0) + 1e-3
        width = data.observations.shape[1] + data.actions.shape[1]
        self.online = Ensemble((width, *settings.hidden, 1), settings.members, self._generator)
        with torch.no_grad():
            self.online.weights[-1].mul_(0.1)
            self.online.biases[-1].fill_(math.log(settings.prior / (1.0 - settings.prior)))
        self.target = averaged(self.online)
        self.fitted = 0  # steps of a fit that has begun and not ended
        # A score of safety is not worth rounding.
        self._arithmetic = Arithmetic(torch.device("cpu"), settings.hidden, torch.float32)
        self._optimiser = Adam(self.online.parameters(), settings.learning_rate)
        self._update = Update(self._updated, [self._optimiser], self._arithmetic)

    @property
    def arithmetic(self) -> Arithmetic:
        """Return how it computes."""
        return self._arithmetic

    def _inputs(self, observations: np.ndarray, actions: np.ndarray) -> torch.Tensor:
        bound = self.settings.observation_clip
        standard = np.clip((observations - self._mean) / self._scale, -bound, bound)
        return torch.from_numpy(np.concatenate([standard, actions], axis=1, dtype=np.float32))

    def fit(self, data: Transitions, updates: int) -> Iterator[float]:
        """Make `updates` gradient steps on `data`, the learning rate falling to 0 by a cosine; yield each loss.

        A learner that was restored in the middle of it makes those that are left.
        """
        settings, generator = self.settings, self._generator
        now = self._inputs(data.observations, data.actions)
        next_observation = self._inputs(data.next_observation, data.next_actions)
        incident_value, bootstrap = torch.from_numpy(data.incident_value), torch.from_numpy(data.bootstrap)
        near = torch.from_numpy(np.flatnonzero(data.steps_to_incident < settings.near_steps))
        n_near = round(settings.batch * settings.near_fraction) if len(near) else 0
        if not self.fitted:
            self._optimiser.reset()
        for number in range(self.fitted, updates):
            self._optimiser.set_rate(0.5 * settings.learning_rate * (1.0 + math.cos(math.pi * number / updates)))
            index = torch.randint(len(now), (settings.members, settings.batch), generator=generator)
            if n_near:
                drawn = torch.randint(len(near), (settings.members, n_near), generator=generator)
                index[:, :n_near] = near[drawn]
            losses = self._update(now[index], next_observation[index], incident_value[index], bootstrap[index])
            self.fitted = number + 1
            yield losses["loss"].item()
        self.fitted = 0

    def _updated(
        self, now: torch.Tensor, next_observation: torch.Tensor, incident_value: torch.Tensor, bootstrap: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            target = bellman_target(incident_value, bootstrap, torch.sigmoid(self.target(next_observation)[..., 0]))
        loss = functional.binary_cross_entropy_with_logits(self.online(now)[..., 0], target)
        self._optimiser.descend(loss)
        update_average(self.target, self.online, self.settings.tau)
        return {"loss": loss.detach()}

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold."""
        fit = {"done": self.fitted, "optimiser": self._optimiser.state(), "arithmetic": self._arithmetic.state()}
        return {**state_of(self._parts()), "mean": self._mean, "scale": self._scale, "fit": fit}

    def _parts(self) -> dict[str, Any]:
        return {"online": [self.online], "target": [self.target], "draws": self._generator}

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint. Raises ValueError where it cannot be computed as it was."""
        self._arithmetic.restore(state["fit"]["arithmetic"], (self.online, self.target))
        restore_to(self._parts(), state)
        self._mean, self._scale = state["mean"].numpy(), state["scale"].numpy()
        self.fitted = state["fit"]["done"]
        self._optimiser.restore(state["fit"]["optimiser"])

    @torch.no_grad()
    def q_safe(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return Q_safe (N,) of observations (N, n_observation) and actions (N, n_action)."""
        logits = [self.online(rows)[..., 0].mean(dim=0) for rows in self._inputs(observations, actions).split(4096)]
        return torch.sigmoid(torch.cat(logits)).numpy()

    def network(self) -> Network:
        """Return the critic as plain arrays for a bundle."""
        return exported(self.online, self._mean, self._scale, self.settings.observation_clip)
