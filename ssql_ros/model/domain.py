"""The domain of a critic: how far an observation lies from those that it was trained on.

The Mahalanobis distance d(s) = |W (s - m)|, with m the mean of the training observations and W the inverse square root
of their covariance, as out-of-distribution scores use it (Lee et al. 2018, A Simple Unified Framework for Detecting
Out-of-Distribution Samples). Directions in which the training data hardly varies, as features that are sums of others,
count with `FLOOR` of a feature's variance. The limit is a quantile of the distances of observations held out of the
training. A small distance does not promise that the critic is right there; a large one says that nobody taught it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

QUANTILE = 0.999
# Variance of a standardised direction below which it counts no more: 3 % of a standard deviation is noise.
FLOOR = 1e-3
# Feature with less spread than this, in its own unit, is standardised by it.
LEAST_SCALE = 1e-3
# Longer observations are whitened feature by feature: the whole matrix would take too long in each decision.
MOST_FEATURES = 512
_CHUNK = 65536


@dataclass(frozen=True)
class Domain:
    """Where a critic was trained.

    Attributes:
        centre: (n_observation,) float32.
        whitening: (n_observation, n_observation) float32, or (n_observation,) where only variances are known.
        limit: distance beyond which an observation counts as outside, above 0.
        quantile: share of held-out observations within the limit.
        rows, held_out: observations that mean and covariance are of, and that the limit is of.
    """

    centre: np.ndarray
    whitening: np.ndarray
    limit: float
    quantile: float
    rows: int
    held_out: int

    def __post_init__(self) -> None:
        """Check every number. Raises ValueError with the name, what was expected and what came."""
        n = len(self.centre)
        if self.whitening.shape not in ((n, n), (n,)):
            raise ValueError(f"domain.whitening: expected ({n}, {n}) or ({n},) numbers, got {self.whitening.shape}")
        for name in ("centre", "whitening"):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"domain.{name}: has values that are not finite")
        if not 0.0 < self.limit < math.inf:
            raise ValueError(f"domain.limit: expected a number above 0, got {self.limit!r}")
        if not 0.0 < self.quantile < 1.0:
            raise ValueError(f"domain.quantile: expected a number between 0 and 1, got {self.quantile!r}")

    def distance(self, observation: np.ndarray) -> float:
        """Return d(s), dimensionless, of an observation (n_observation,); inf where it is not a number."""
        # In every tick: in place, and by methods, which ask less than operators do.
        apart = observation.astype(np.float32)
        apart -= self.centre
        white = self.whitening.dot(apart) if self.whitening.ndim == 2 else self.whitening * apart
        squared = float(white.dot(white))
        return math.sqrt(squared) if math.isfinite(squared) else math.inf

    def distances(self, observations: np.ndarray) -> np.ndarray:
        """Return d(s) (N,) of observations (N, n_observation)."""
        apart = observations.astype(np.float32) - self.centre
        white = apart @ self.whitening.T if self.whitening.ndim == 2 else apart * self.whitening
        return np.sqrt(np.einsum("ij,ij->i", white, white, dtype=float))

    def words(self) -> str:
        """Return limit and what it is of."""
        return f"limit {self.limit:.3g} ({self.quantile:g} of {self.held_out} observations held out)"

    def header(self) -> dict[str, Any]:
        """Return the numbers that are no arrays, as JSON has them."""
        return {name: getattr(self, name) for name in _NUMBERS}

    @classmethod
    def read(cls, header: Any, centre: np.ndarray, whitening: np.ndarray) -> Domain:
        """Return what a bundle says. Raises ValueError: the name, what was expected and what came."""
        if not isinstance(header, dict) or set(header) != set(_NUMBERS):
            raise ValueError(f"domain: expected {', '.join(_NUMBERS)}, got {header!r}")
        for name, kind in _NUMBERS.items():
            if type(header[name]) is not kind:
                raise ValueError(f"domain.{name}: expected {kind.__name__}, got {header[name]!r}")
        return cls(centre, whitening, **header)


_NUMBERS = {"limit": float, "quantile": float, "rows": int, "held_out": int}


def fitted_domain(observations: np.ndarray, held_out: np.ndarray, quantile: float = QUANTILE) -> Domain:
    """Return the domain of training observations (N, n), with its limit from others (M, n) that were held out.

    Raises:
        ValueError: fewer than two observations, or none held out.
    """
    if len(observations) < 2 or not len(held_out):
        raise ValueError(f"domain: expected observations, got {len(observations)} and {len(held_out)} held out")
    mean = observations.mean(axis=0, dtype=float)
    scale = np.maximum(observations.std(axis=0, dtype=float), LEAST_SCALE)
    if len(mean) > MOST_FEATURES:
        whitening = 1.0 / scale
    else:
        covariance = np.zeros((len(mean), len(mean)))
        for start in range(0, len(observations), _CHUNK):
            standard = (observations[start : start + _CHUNK] - mean) / scale
            covariance += standard.T @ standard
        variances, directions = np.linalg.eigh(covariance / len(observations))
        whitening = (directions / np.sqrt(np.maximum(variances, FLOOR))).T / scale
    arrays = mean.astype(np.float32), whitening.astype(np.float32)
    made = Domain(*arrays, 1.0, quantile, len(observations), len(held_out))
    # Of a log in which nothing moved it is 0.
    return replace(made, limit=max(float(np.quantile(made.distances(held_out), quantile)), 1e-6))
