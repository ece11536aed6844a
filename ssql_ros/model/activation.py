"""What stands between the layers of a served network, in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# erf(x) = 1 - poly(t) exp(-x^2), t = 1 / (1 + P x), off by at most 1.5e-7 for x >= 0 (Abramowitz and Stegun 7.1.26).
_P = 0.3275911
_POLY = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
_ROOT_HALF = 0.5**0.5


def relu(x: np.ndarray) -> np.ndarray:
    """Return max(x, 0)."""
    return np.maximum(x, 0.0)


def elu(x: np.ndarray) -> np.ndarray:
    """Return x where it is above 0, else exp(x) - 1."""
    return np.where(x > 0.0, x, np.expm1(np.minimum(x, 0.0)))


def gelu(x: np.ndarray) -> np.ndarray:
    """Return x Phi(x), Phi of the standard normal distribution: max(x, 0) - |x| (1 - Phi(|x|))."""
    size = np.abs(x)
    t = 1.0 / (1.0 + (_P * _ROOT_HALF) * size)
    poly = t * _POLY[0]
    for factor in _POLY[1:]:
        poly += factor
        poly *= t
    return np.maximum(x, 0.0) - size * (0.5 * poly * np.exp(-0.5 * size * size))


ACTIVATION: dict[str, Callable[[np.ndarray], np.ndarray]] = {"relu": relu, "gelu": gelu, "tanh": np.tanh, "elu": elu}
