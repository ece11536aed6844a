"""Exploration noise for behaviour policies, in action units."""

from __future__ import annotations

import numpy as np


class OrnsteinUhlenbeck:
    """Correlated Gaussian noise x' = rho x + sqrt(1 - rho^2) sigma z with z ~ N(0, I); stationary std is sigma.

    rho = 0 gives independent noise.

    Args:
        sigma: standard deviation, action units, >= 0.
        rho: correlation of one step with the next, 0 <= rho < 1.
        size: number of action elements.
    """

    def __init__(self, sigma: float, rho: float, size: int) -> None:
        if not (0.0 <= sigma < np.inf and 0.0 <= rho < 1.0):
            raise ValueError(f"noise needs sigma >= 0 and 0 <= rho < 1, got sigma {sigma}, rho {rho}")
        self.sigma, self.rho = sigma, rho
        self._state = np.zeros(size)
        self._fresh = True

    def reset(self) -> None:
        """Begin a new episode: the next sample is drawn from the stationary distribution."""
        self._fresh = True

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """Return the next noise vector (size,)."""
        z = self.sigma * rng.standard_normal(len(self._state))
        self._state = z if self._fresh else self.rho * self._state + np.sqrt(1.0 - self.rho**2) * z
        self._fresh = False
        return self._state
