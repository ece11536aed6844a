"""Learns a behaviour policy from data by maximum likelihood: max E log p(a|s) of a mixture density network.

The floor of its support is a split-conformal quantile: of n held-out actions the k-th lowest log density, k the whole
part of quantile * (n + 1). An action of the same behaviour lies below with at most that probability, whatever the fit
is like, as far as steps are exchangeable; steps of one episode are not quite, so episodes are split whole.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ssql_ros.algorithms.base import restore_to, state_of
from ssql_ros.behaviour.learned import LOG_STD_HIGH, LOG_STD_LOW, LearnedDensity, encoded
from ssql_ros.data.random_streams import Stream
from ssql_ros.nn.adam import Adam
from ssql_ros.nn.networks import Ensemble, default_device

# Rows of one episode that stay together where there are too few episodes to split by.
BLOCK, LEAST_GROUPS = 200, 10
# Shares of the data: learned from, chosen by, for the floor, and to report on.
SPLIT = (0.7, 0.1, 0.1, 0.1)


@dataclass(frozen=True)
class DensitySettings:
    """How the density is learned.

    Attributes:
        components: K, Gaussians of the mixture.
        hidden: widths of the hidden layers.
        learning_rate: of Adam.
        batch: transitions of a gradient step.
        quantile: share of held-out actions that may lie below the support's floor.
        check_every: updates between two looks at the likelihood of the data that chooses; the best weights are kept.
        observation_clip: bound on standardised states.
    """

    components: int = 8
    quantile: float = 0.05
    hidden: tuple[int, ...] = (64, 64)
    learning_rate: float = 1e-3
    batch: int = 256
    check_every: int = 250
    observation_clip: float = 10.0


class MixtureDensity:
    """The network, and one gradient step on it.

    Args:
        mean, scale: (n_state,), the standardisation of states.
        seed: of the weights.
    """

    def __init__(
        self,
        mean: np.ndarray,
        scale: np.ndarray,
        n_action: int,
        settings: DensitySettings,
        seed: int,
        device: torch.device | None = None,
    ) -> None:
        self.settings, self.n_action, self.device = settings, n_action, device or default_device()
        self.mean = torch.as_tensor(mean, dtype=torch.float32, device=self.device)
        self.scale = torch.as_tensor(scale, dtype=torch.float32, device=self.device)
        weights, k = torch.Generator().manual_seed(seed), settings.components
        sizes = (len(self.mean), *settings.hidden, k * (1 + 2 * n_action))
        self.network = Ensemble(sizes, 1, weights)
        with torch.no_grad():
            # Components begin apart, and wide.
            self.network.weights[-1].mul_(0.1)
            self.network.biases[-1][0, 0, k : k + k * n_action].uniform_(-1.0, 1.0, generator=weights)
        self.network = self.network.to(self.device)
        self.optimiser = Adam([self.network.flat], settings.learning_rate)

    def log_density(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Return log p(a|s) (batch,) of states (batch, n_state) and actions (batch, n_action)."""
        bound, k, m = self.settings.observation_clip, self.settings.components, self.n_action
        y = self.network(((state - self.mean) / self.scale).clamp(-bound, bound))[0]
        logits, mean, spread = y.split([k, k * m, k * m], dim=1)
        mean = torch.tanh(mean).view(-1, k, m)
        log_std = (LOG_STD_LOW + (LOG_STD_HIGH - LOG_STD_LOW) * torch.sigmoid(spread)).view(-1, k, m)
        inverse = (-log_std).exp()
        z = (action.unsqueeze(1) - mean) * inverse
        edges = (torch.erf(edge * inverse / math.sqrt(2.0)) for edge in (1.0 - mean, -1.0 - mean))
        mass = 0.5 * (next(edges) - next(edges))
        normal = -0.5 * z.square() - log_std - 0.5 * math.log(2.0 * math.pi) - mass.log()
        return torch.logsumexp(torch.log_softmax(logits, dim=1) + normal.sum(dim=2), dim=1)

    def update(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Make one gradient step; return the negative log-likelihood of the batch."""
        loss = -self.log_density(state, action).mean()
        self.optimiser.descend(loss)
        return loss.detach()

    def policy(self, floor: float) -> LearnedDensity:
        """Return the policy with a floor of the log density."""
        layers = [
            encoded(weight[0].detach().cpu().numpy(), bias[0, 0].detach().cpu().numpy())
            for weight, bias in zip(self.network.weights, self.network.biases, strict=True)
        ]
        s = self.settings
        mean, scale = self.mean.double().tolist(), self.scale.double().tolist()
        return LearnedDensity(layers, mean, scale, s.observation_clip, s.components, floor, s.quantile)


@dataclass(frozen=True)
class Fit:
    """What came of it.

    Attributes:
        figures: mean log-likelihoods by part of the data (`log_likelihood_train` ...), `floor`, and of the part that
            is only reported on `below_floor`, the share of its actions below the floor.
    """

    policy: LearnedDensity
    figures: dict[str, float]


def split(episode: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the rows of each part of `SPLIT`: whole episodes, or blocks of rows where there are fewer than ten.

    Raises:
        ValueError: too little data for four parts.
    """
    starts = np.flatnonzero(np.append(True, episode[1:] != episode[:-1]))
    group = np.cumsum(np.append(True, episode[1:] != episode[:-1])) - 1
    if len(starts) < LEAST_GROUPS:
        within = np.arange(len(episode)) - starts[group]
        group = np.unique(np.stack([group, within // BLOCK]), axis=1, return_inverse=True)[1].ravel()
    names = np.unique(group)
    if len(names) < LEAST_GROUPS:
        raise ValueError(
            f"expected at least {LEAST_GROUPS} episodes, or as many blocks of {BLOCK} steps, got {len(names)}"
        )
    order = rng.permutation(names)
    ends = np.maximum(np.round(np.cumsum(SPLIT) * len(names)), np.arange(1, 5)).astype(int)
    parts = np.split(order, ends[:-1])
    return [np.flatnonzero(np.isin(group, part)) for part in parts]


def conformal_floor(log_density: np.ndarray, quantile: float) -> float:
    """Return the k-th lowest of n log densities, k the whole part of quantile * (n + 1).

    Raises:
        ValueError: n is too small for this quantile.
    """
    return float(np.sort(log_density)[_rank(len(log_density), quantile) - 1])


def _rank(n: int, quantile: float) -> int:
    k = math.floor(quantile * (n + 1))
    if k < 1:
        least = math.ceil(1.0 / quantile) - 1
        raise ValueError(f"quantile {quantile:g} needs at least {least} held-out steps, got {n}")
    return k


class DensityLearner:
    """Fits a policy to states (N, n_state), actions (N, n_action) in [-1, 1] and their episodes' numbers (N,).

    Args:
        updates: how many `step`s there will be.
        standardisation: mean and scale of states; None: those of the data.

    Raises:
        ValueError: actions out of range, or too little data.
    """

    def __init__(
        self,
        states: np.ndarray,
        actions: np.ndarray,
        episode: np.ndarray,
        settings: DensitySettings,
        updates: int,
        seed: int,
        standardisation: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        if not (np.abs(actions) <= 1.0 + 1e-6).all():
            raise ValueError(f"actions: expected all in [-1, 1], got up to {np.abs(actions).max():g}")
        parts = split(episode, Stream.DENSITY_SPLIT.generator(seed))
        _rank(len(parts[2]), settings.quantile)
        mean, scale = standardisation or (
            states.mean(axis=0, dtype=float),
            np.maximum(states.std(axis=0, dtype=float), 0.02),
        )
        self._settings, self._updates, self._n = settings, updates, len(states)
        self._network = network = MixtureDensity(mean, scale, actions.shape[1], settings, seed)

        def tensor(array: np.ndarray, rows: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(np.array(array[rows]), dtype=torch.float32, device=network.device)

        self._pairs = [(tensor(states, rows), tensor(actions, rows).clamp(-1.0, 1.0)) for rows in parts]
        self._draws = torch.Generator(network.device).manual_seed(seed)
        self._best, self._kept = -math.inf, copy.deepcopy(network.network.flat.detach())

    def step(self, number: int) -> dict[str, torch.Tensor]:
        """Make one update, given its number from 0; return its loss."""
        s, (states, actions), network = self._settings, self._pairs[0], self._network
        rows = torch.randint(len(states), (s.batch,), generator=self._draws, device=network.device)
        loss = network.update(states[rows], actions[rows])
        if (number + 1) % s.check_every == 0 or number + 1 == self._updates:
            chosen = float(self._found(1).mean())
            if chosen > self._best:
                self._best, self._kept = chosen, copy.deepcopy(network.network.flat.detach())
        return {"negative_log_likelihood": loss}

    @torch.no_grad()
    def _found(self, part: int) -> np.ndarray:
        chunks = zip(*(tensors.split(8192) for tensors in self._pairs[part]), strict=True)
        return torch.cat([self._network.log_density(*chunk) for chunk in chunks]).double().cpu().numpy()

    def fit(self) -> Fit:
        """Return what came of it: the best weights so far, and their floor."""
        with torch.no_grad():
            self._network.network.flat.copy_(self._kept)
        quantile = self._settings.quantile
        floor = conformal_floor(self._found(2), quantile)
        names = ("train", "chosen_by", "for_floor", "reported")
        figures = {f"log_likelihood_{name}": float(self._found(i).mean()) for i, name in enumerate(names)}
        reported = self._found(3)
        figures |= {"floor": floor, "quantile": quantile, "below_floor": float((reported < floor).mean())}
        figures |= {"steps": float(self._n), "steps_reported": float(len(reported))}
        return Fit(self._network.policy(floor), figures)

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold."""
        # JSON has no infinity.
        return {**state_of(self._parts()), "best": self._best if math.isfinite(self._best) else None}

    def _parts(self) -> dict[str, Any]:
        learned = {"weights": self._network.network, "optimiser": self._network.optimiser}
        return {**learned, "draws": self._draws, "kept": self._kept}

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""
        restore_to(self._parts(), state)
        self._best = -math.inf if state["best"] is None else state["best"]
