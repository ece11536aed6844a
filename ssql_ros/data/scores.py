"""Scores of risk against what came: the scale that makes probabilities of them, and a threshold on them."""

from __future__ import annotations

import numpy as np

# Bounds of a threshold that is chosen from data.
LEAST_EPSILON, MOST_EPSILON = 0.005, 0.5
# Bounds of the factor on the logit.
SLOPES = (0.1, 2.0)


def chosen_epsilon(q_safe: np.ndarray, steps_to_incident: np.ndarray, alarms: float) -> float:
    """Return the least threshold that alarms at no more than a share of the steps that no incident followed.

    It is kept between `LEAST_EPSILON` and `MOST_EPSILON`.

    Args:
        q_safe, steps_to_incident: (N,), of steps that were not fitted to; inf: no incident followed.
        alarms: the share, 0 to 1.
    """
    harmless = q_safe[~np.isfinite(steps_to_incident)]
    least = float(np.quantile(harmless, 1.0 - alarms)) if len(harmless) else LEAST_EPSILON
    return float(np.clip(least, LEAST_EPSILON, MOST_EPSILON))


def cross_entropy(logits: np.ndarray, observed: np.ndarray) -> float:
    """Return the mean cross-entropy of logits (N,) against observed probabilities (N,)."""
    return float(np.mean(np.logaddexp(0.0, logits) - observed * logits))


def platt(logits: np.ndarray, observed: np.ndarray) -> tuple[float, float]:
    """Return slope and offset of the logit that fit observed probabilities (N,) best (Platt 1999, by Newton's method).

    The slope is kept within `SLOPES`: ranks stay as they are.
    """
    slope, offset = 1.0, 0.0
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-np.clip(slope * logits + offset, -30.0, 30.0)))
        error, curve = p - observed, np.maximum(p * (1.0 - p), 1e-9)
        gradient = np.array([(error * logits).mean(), error.mean()])
        mixed = (curve * logits).mean()
        hessian = np.array([[(curve * logits**2).mean(), mixed], [mixed, curve.mean()]]) + 1e-9 * np.eye(2)
        move = np.linalg.solve(hessian, gradient)
        move *= min(1.0, 1.0 / max(np.abs(move).max(), 1e-12))
        slope, offset = float(np.clip(slope - move[0], *SLOPES)), float(np.clip(offset - move[1], -10.0, 10.0))
        if np.abs(move).max() < 1e-7:
            break
    if not cross_entropy(slope * logits + offset, observed) <= cross_entropy(logits, observed):
        return 1.0, 0.0
    return slope, offset
