"""Scripted controllers, and noise on top: bounded, a behaviour policy; unbounded, a controller not to be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ssql_ros.behaviour.noise import OrnsteinUhlenbeck
from ssql_ros.model.policy import ServedPolicy
from ssql_ros.model.proposal import Proposal

# What scripted controllers are: they define `best`, which moves on by one step, and draw nothing.
Scripted = ServedPolicy


@dataclass(frozen=True)
class Noise:
    """What is added to a controller.

    Attributes:
        controller: name of one of the robot's.
        sigma: standard deviation in action units.
        rho: correlation from step to step; 0: independent.
        bound: largest deviation from the controller in action units; the support promised. inf: none is promised.
        burst, rest: control steps of noise and of the bare controller in turn; rest 0: noise all the time.
    """

    controller: str
    sigma: float = 0.1
    rho: float = 0.0
    bound: float = np.inf
    burst: int = 0
    rest: int = 0

    def __post_init__(self) -> None:
        """Check every setting. Raises ValueError."""
        if not self.bound > 0.0:
            raise ValueError(f"bound: expected a number above 0, got {self.bound}")
        if self.burst < 0 or self.rest < 0:
            raise ValueError(f"burst and rest: expected whole steps from 0 on, got {self.burst} and {self.rest}")


class NoisyController(ServedPolicy):
    """A controller plus noise, step by step; the noise depends on the generator alone.

    Args:
        base: what would be done without noise.
        n_action: how many numbers an action has.
    """

    def __init__(self, base: ServedPolicy, noise: Noise, n_action: int) -> None:
        self.base, self.noise, self._step = base, noise, 0
        self._draws = OrnsteinUhlenbeck(noise.sigma, noise.rho, n_action)

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode with its own noise sequence."""
        self.base.reset(rng)
        self._draws.reset()
        self._step = 0

    def context(self) -> np.ndarray:
        """Return what the controller knows beside the observation."""
        return self.base.context()

    def best(self, observation: np.ndarray) -> np.ndarray:
        """Return the bare controller's action (n_action,), and move on by one step."""
        self._step += 1
        return self.base.best(observation)

    def propose(self, observation: np.ndarray, rng: np.random.Generator) -> Proposal:
        """Return the next action in [-1, 1]; `mean` is the bare controller's."""
        noise, settings = np.clip(self._draws.sample(rng), -self.noise.bound, self.noise.bound), self.noise
        if settings.rest and self._step % (settings.burst + settings.rest) >= settings.burst:
            noise = np.zeros_like(noise)
        mean = self.best(observation)
        return Proposal(np.clip(mean + noise, -1.0, 1.0), 0.0, mean, np.full(len(mean), settings.sigma))


def blind_actions(controller: ServedPolicy, seed: int) -> Iterator[np.ndarray]:
    """Yield an episode's actions (n_action,) of a controller that looks at no observation."""
    rng = np.random.default_rng(seed)
    controller.reset(rng)
    while True:
        yield controller.propose(np.zeros(0), rng).action
