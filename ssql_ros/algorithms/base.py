"""What algorithms have in common: settings, how they see and compute, and what of them a checkpoint holds."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ssql_ros.algorithms.work import Work
from ssql_ros.behaviour.policy import BehaviourPolicy
from ssql_ros.data.random_streams import Stream
from ssql_ros.data.replay import Transition
from ssql_ros.model.bundle import Network
from ssql_ros.nn.adam import Adam
from ssql_ros.nn.arithmetic import Arithmetic
from ssql_ros.nn.networks import Ensemble, default_device, exported
from ssql_ros.nn.squashed_gaussian import SquashedGaussian

if TYPE_CHECKING:
    from ssql_ros.algorithms.sac import Mask


@dataclass(frozen=True)
class Settings:
    """What every algorithm on batches of transitions is told.

    Attributes:
        learning_rate: of Adam.
        hidden: widths of the hidden layers.
        batch: transitions of a gradient step.
        gamma: discount of the reward.
        tau: of the averages that targets follow.
        observation_clip: bound on standardised observations.
    """

    learning_rate: float = 3e-4
    hidden: tuple[int, ...] = (256, 256)
    batch: int = 256
    gamma: float = 0.99
    tau: float = 0.005
    observation_clip: float = 10.0


class Algorithm:
    """Networks, and gradient steps on them. Knows nothing of worlds and rollouts.

    Args:
        mean, scale: (n_observation,), the standardisation of observations; of states, which are observations joined
            with b's context, where there is a behaviour policy b.
        seed: of the weights, and of what the updates draw.
        device: default: the GPU where there is one.
        precision: of hidden products; default: see `Arithmetic`.
    """

    def __init__(
        self,
        mean: np.ndarray,
        scale: np.ndarray,
        n_action: int,
        settings: Any,
        seed: int,
        device: torch.device | None = None,
        precision: torch.dtype | None = None,
    ) -> None:
        self.settings, self.n_action = settings, n_action
        self.device = device or default_device()
        self.arithmetic = Arithmetic(self.device, self._widths(), precision)
        self.mean, self.scale = self._on_device(mean), self._on_device(scale)
        self._seed = seed
        # Weights are drawn on the CPU, so that a seed means the same network everywhere.
        self._weights = torch.Generator().manual_seed(seed)
        self.generator = torch.Generator(self.device).manual_seed(seed + 1)
        self._build()

    def _build(self) -> None:
        """Make the networks, what they learn by, and the updates; the order in which weights are drawn counts."""
        raise NotImplementedError

    def _widths(self) -> Sequence[int]:
        """Return the widths of all hidden layers."""
        return self.settings.hidden

    def _on_device(self, array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=self.device)

    def _perceptron(self, n_in: int, n_out: int = 1, members: int = 1, **options: Any) -> Ensemble:
        """Return M perceptrons; `options`: hidden, default the settings'; weights, their seed; activation."""
        hidden, weights = options.pop("hidden", self.settings.hidden), options.pop("weights", self._weights)
        made = Ensemble((n_in, *hidden, n_out), members, weights, self.arithmetic.precision, **options)
        return made.to(self.device)

    def _gaussian(self, n_in: int, hidden: Sequence[int] | None = None) -> SquashedGaussian:
        widths = tuple(hidden or self.settings.hidden)
        made = SquashedGaussian(n_in, self.n_action, widths, self._weights, self.arithmetic.precision)
        return made.to(self.device)

    def _adam(self, *learning: Ensemble | torch.Tensor, rate: float | None = None) -> Adam:
        flat = [part.flat if isinstance(part, Ensemble) else part for part in learning]
        return Adam(flat, self.settings.learning_rate if rate is None else rate)

    def standardise(self, observation: torch.Tensor) -> torch.Tensor:
        """Return observations (batch, n_observation) as the networks see them."""
        bound = self.settings.observation_clip
        return ((observation - self.mean) / self.scale).clamp(-bound, bound)

    def _normal(self, count: int) -> torch.Tensor:
        """Return z (count, n_action) of a standard normal."""
        return torch.randn((count, self.n_action), generator=self.generator, device=self.device)

    def _decay(self, step: int, steps: int, *optimisers: Adam) -> None:
        """Let learning rates fall linearly to 0 after a share `decay_from` of the steps."""
        left = (steps - step) / max(steps * (1.0 - self.settings.decay_from), 1.0)
        for optimiser in optimisers:
            optimiser.set_rate(self.settings.learning_rate * min(1.0, left))

    def _served(self) -> dict[str, Ensemble]:
        """Return the ensembles that a bundle holds, by name."""
        raise NotImplementedError

    def networks(self) -> dict[str, Network]:
        """Return what a bundle holds, by name."""
        return {name: self.exported(ensemble) for name, ensemble in self._served().items()}

    def exported(self, ensemble: Ensemble) -> Network:
        """Return an ensemble as plain arrays, which take observations as they are."""
        return exported(ensemble, self.mean.cpu().numpy(), self.scale.cpu().numpy(), self.settings.observation_clip)

    def _parts(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold, as `state_of` takes it."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold."""
        return {**state_of(self._parts()), "arithmetic": self.arithmetic.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint. Raises ValueError where it cannot be computed as it was."""
        parts = self._parts()
        self.arithmetic.restore(state.get("arithmetic"), _ensembles(parts))
        restore_to(parts, state)


class BehaviourAlgorithm(Algorithm):
    """An algorithm on states, whose policy keeps to the support of a behaviour policy b; draws of it are of the seed.

    Args:
        behaviour: b.
    """

    def __init__(
        self,
        mean: np.ndarray,
        scale: np.ndarray,
        n_action: int,
        settings: Any,
        seed: int,
        behaviour: BehaviourPolicy,
        device: torch.device | None = None,
        precision: torch.dtype | None = None,
    ) -> None:
        self.behaviour, self.rng = behaviour, Stream.SUPPORT_DRAWS.generator(seed)
        super().__init__(mean, scale, n_action, settings, seed, device, precision)


class Unmasked:
    """What a learner answers to the training loop that wants no mask, no extra episodes, and nothing when it ends."""

    def mask(self, step: int) -> Mask | None:
        """Return what masks collection at this step: nothing."""
        return None

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""

    def best(self, observation: np.ndarray) -> np.ndarray:
        """Return the most probable u's action (n_action,) for one observation (n_observation,)."""
        return np.tanh(self.act(observation)[0])

    def act(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and std (n_action,) of u for one observation (n_observation,); the action is tanh(u)."""
        raise NotImplementedError

    def rollouts_due(self, step: int) -> list[Mask | None]:
        """Return the masks of the extra on-policy episodes that are wanted after this step: none."""
        return []

    def observe_rollouts(self, episodes: list[list[Transition]]) -> dict[str, torch.Tensor]:
        """Learn from the extra episodes: nothing."""
        return {}

    def finish(self) -> list[Work]:
        """Return what is left to do when collection is complete: nothing."""
        return []


def averaged(online: Ensemble) -> Ensemble:
    """Return the average that will follow an ensemble (see `update_average`)."""
    return copy.deepcopy(online).requires_grad_(False)


def state_of(part: Any) -> Any:
    """Return what a checkpoint must hold of a part: a tree of ensembles, tensors, generators, and what has `state`."""
    if isinstance(part, Mapping):
        return {name: state_of(value) for name, value in part.items()}
    if isinstance(part, (list, tuple)):
        return [state_of(value) for value in part]
    if isinstance(part, Ensemble):
        return part.flat
    if isinstance(part, torch.Generator):
        return part.get_state()
    if isinstance(part, np.random.Generator):
        return part.bit_generator.state
    return part if isinstance(part, torch.Tensor) else part.state()


@torch.no_grad()
def restore_to(part: Any, state: Any) -> None:
    """Put the state of a checkpoint into the part that it is of (see `state_of`)."""
    if isinstance(part, Mapping):
        for name, value in part.items():
            restore_to(value, state[name])
    elif isinstance(part, (list, tuple)):
        for value, found in zip(part, state, strict=True):
            restore_to(value, found)
    elif isinstance(part, Ensemble):
        part.flat.copy_(state)
    elif isinstance(part, torch.Tensor):
        part.copy_(state)
    elif isinstance(part, torch.Generator):
        part.set_state(state)
    elif isinstance(part, np.random.Generator):
        part.bit_generator.state = state
    else:
        part.restore(state)


def _ensembles(part: Any) -> Iterator[Ensemble]:
    if isinstance(part, Ensemble):
        yield part
    elif isinstance(part, (Mapping, list, tuple)):
        for value in part.values() if isinstance(part, Mapping) else part:
            yield from _ensembles(value)


def check_found(names: Iterable[str], found: Mapping[str, Any]) -> None:
    """Make sure that networks are there. Raises ValueError that names the first one missing, and what was found."""
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"expected a network {missing[0]!r}, found {', '.join(found) or 'none'}")


@torch.no_grad()
def take(named: Mapping[str, Sequence[Ensemble]], found: Mapping[str, Sequence[torch.Tensor]]) -> None:
    """Put the parameters of a run into ensembles. Raises ValueError: one is missing or of another shape."""
    check_found(named, found)
    for name, ensembles in named.items():
        for ensemble, flat in zip(ensembles, found[name], strict=True):
            if flat.shape != ensemble.flat.shape:
                raise ValueError(f"{name}: expected {len(ensemble.flat)} parameters, got {len(flat)}")
            ensemble.flat.copy_(flat)
