"""Intervals for figures: falls are counts, lengths and returns are means over episodes."""

from __future__ import annotations

import math

import numpy as np

Z_95 = 1.959963984540054  # two-sided 95 % quantile of the standard normal distribution


def wilson_interval(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Return Wilson's score interval (low, high) for a probability, by default at 95 % (Wilson 1927).

    Raises:
        ValueError: no trials, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"expected 0 <= successes <= trials and at least one trial, got {successes} of {trials}")
    p = successes / trials
    scale = 1.0 + z * z / trials
    centre = (p + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_interval(
    values: np.ndarray, rng: np.random.Generator, resamples: int = 10_000, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the percentile bootstrap interval (low, high) of the mean of `values` (N,).

    Raises:
        ValueError: no values.
    """
    values = np.asarray(values, float)
    if values.size == 0:
        raise ValueError("an interval needs at least one value")
    means = values[rng.integers(values.size, size=(resamples, values.size))].mean(axis=1)
    tail = 100.0 * (1.0 - confidence) / 2.0
    return float(np.percentile(means, tail)), float(np.percentile(means, 100.0 - tail))


def ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks (N,) of values (N,), from 0; equal values share their mean rank."""
    values = np.asarray(values, float)
    order = values.argsort(kind="stable")
    _, inverse, counts = np.unique(values[order], return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    found = np.empty(len(values))
    found[order] = (ends - 0.5 * (counts + 1))[inverse]
    return found


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Spearman's rank correlation of two samples (N,); 0 where one of them is constant or shorter than 2."""
    if len(a) < 2:
        return 0.0
    first, second = ranks(a), ranks(b)
    if first.std() == 0.0 or second.std() == 0.0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
