"""The scripted trot under noise: a behaviour policy when the noise is bounded, an untrusted controller when not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssql_ros.behaviour.noise import OrnsteinUhlenbeck
from ssql_ros.robots.minitaur.trot import GAITS

N_ACTION = 8


@dataclass(frozen=True)
class NoiseSettings:
    """What is added to the trot.

    Attributes:
        gait: name in `trot.GAITS`.
        sigma: standard deviation in action units.
        rho: correlation from step to step; 0: independent.
        bound: largest deviation from the trot in action units; the support promised. inf: none is promised.
        burst, rest: control steps of noise and of the bare trot in turn; rest 0: noise all the time.
    """

    gait: str = "A"
    sigma: float = 0.1
    rho: float = 0.0
    bound: float = np.inf
    burst: int = 0
    rest: int = 0

    def __post_init__(self) -> None:
        """Check every setting. Raises ValueError."""
        if self.gait not in GAITS:
            raise ValueError(f"gait {self.gait!r} is unknown; known: {', '.join(GAITS)}")
        if not self.bound > 0.0:
            raise ValueError(f"bound: expected a number above 0, got {self.bound}")
        if self.burst < 0 or self.rest < 0:
            raise ValueError(f"burst and rest: expected whole steps from 0 on, got {self.burst} and {self.rest}")


class NoisyTrot:
    """Trot plus noise, step by step; seeded, so that an episode's proposals can be repeated exactly.

    The noise does not depend on the observation: two runs with the same seed propose the same actions.
    """

    def __init__(self, settings: NoiseSettings) -> None:
        self.settings = settings
        self.gait = GAITS[settings.gait]
        self._noise = OrnsteinUhlenbeck(settings.sigma, settings.rho, N_ACTION)
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Begin an episode with its own noise sequence."""
        self._rng = np.random.default_rng(seed)
        self._noise.reset()
        self._step = 0
        self.mean = self.gait.action(0)

    def next(self) -> np.ndarray:
        """Return the next action (8,) in [-1, 1]; `mean` is then the bare trot's."""
        settings = self.settings
        self.mean = self.gait.action(self._step)
        noise = np.clip(self._noise.sample(self._rng), -settings.bound, settings.bound)
        if settings.rest and self._step % (settings.burst + settings.rest) >= settings.burst:
            noise = np.zeros(N_ACTION)
        self._step += 1
        return np.clip(self.mean + noise, -1.0, 1.0)
