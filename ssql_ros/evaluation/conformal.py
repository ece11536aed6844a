"""Split conformal calibration of a threshold on margins: a finite-sample promise on states that were never trained on.

Given n initial states, drawn independently from one distribution, what a critic says of each, its score, and whether
an episode of the policy that began there was unsafe. For a threshold d fixed beforehand, of the m states with score < d
let k be unsafe: k is binomial(m, p), p = P(unsafe | score < d). Were p > epsilon, so few unsafe ones would be seen with
probability at most

    tail(k, m, epsilon) = sum over i <= k of C(m, i) epsilon^i (1 - epsilon)^(m - i) = P(Beta(k + 1, m - k) > epsilon)

(Clopper and Pearson 1934; split conformal prediction gives the same Beta law, Vovk 2012). So d is certified where
tail <= beta. The threshold is moved from low to high through a sequence d_1 < d_2 < ... that is fixed before any
episode is run (from scores of other states), and stops before the first that is not certified: testing in a fixed
order spends no confidence (Maurer et al. 1995), so the last certified one holds with confidence 1 - beta as if it had
been the only one:

    P( P(unsafe | score < delta) <= epsilon ) >= 1 - beta,   over the draw of the n states.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

ROUNDING = 1e-6
MOST_STATES = 2**20  # that anybody is told to draw


@dataclass(frozen=True)
class Certificate:
    """What is promised of a threshold.

    Attributes:
        delta: the threshold; -inf: none could be certified.
        epsilon: bound on P(unsafe | score < delta).
        beta: 1 - confidence.
        n: states drawn.
        below, unsafe: how many of them score below delta, and how many of those were unsafe.
        tail: the exact binomial tail at delta, at most beta.
        bound: the least epsilon that these counts certify at this confidence (the upper Clopper-Pearson bound).
    """

    delta: float
    epsilon: float
    beta: float
    n: int
    below: int
    unsafe: int
    tail: float
    bound: float


def binomial_tail(k: int, m: int, p: float) -> float:
    """Return P(K <= k) for K ~ binomial(m, p), summed exactly. Raises ValueError outside 0 <= k <= m, 0 <= p <= 1."""
    if not (0 <= k <= m and 0.0 <= p <= 1.0):
        raise ValueError(f"expected 0 <= k <= m and 0 <= p <= 1, got k {k}, m {m}, p {p}")
    if p == 0.0 or k == m:
        return 1.0
    if p == 1.0:
        return 0.0
    logs = [
        math.lgamma(m + 1) - math.lgamma(i + 1) - math.lgamma(m - i + 1) + i * math.log(p) + (m - i) * math.log1p(-p)
        for i in range(k + 1)
    ]
    return min(1.0, math.fsum(math.exp(value) for value in logs))


def upper_bound(k: int, m: int, beta: float) -> float:
    """Return the p at which `binomial_tail` is beta: the 1 - beta quantile of Beta(k + 1, m - k); 1 where k = m.

    With confidence 1 - beta the probability of which k in m were seen is at most this (Clopper-Pearson, one-sided).
    """
    if not 0.0 < beta < 1.0:
        raise ValueError(f"beta: expected a number between 0 and 1, got {beta!r}")
    if k == m:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(100):  # bisection, down to rounding
        middle = 0.5 * (low + high)
        low, high = (middle, high) if binomial_tail(k, m, middle) > beta else (low, middle)
    return high


def thresholds(scores: np.ndarray, count: int = 40, least: float = 0.5) -> np.ndarray:
    """Return an increasing sequence of thresholds, from scores (N,) of states that take no part in the calibration.

    They are quantiles of the scores below 0, from `least` to all of them, and 0 itself at the end: delta never exceeds
    what Q_c < 0 means.

    Raises:
        ValueError: no score is below 0.
    """
    below = scores[scores < 0.0]
    if not len(below):
        raise ValueError("no score is below 0: there is no state that the critic takes for safe")
    quantiles = np.quantile(below, np.linspace(least, 1.0, count, endpoint=False))
    # A score counts when it is less than the threshold: where many are equal up to the rounding of float32, as of a
    # robot that always begins alike, all of them are to lie below it.
    above = quantiles + ROUNDING * np.maximum(1.0, np.abs(quantiles))
    return np.unique([*np.minimum(above, 0.0), 0.0])


def calibrated(
    scores: np.ndarray, unsafe: np.ndarray, sequence: np.ndarray, epsilon: float, beta: float
) -> Certificate:
    """Return the certificate of the largest threshold of `sequence` that is reached (see the top of this file).

    Args:
        scores: (n,) of independently drawn states.
        unsafe: (n,) bool, whether an episode from there was unsafe.
        sequence: increasing, fixed without looking at `scores` and `unsafe`.

    Raises:
        ValueError: shapes that differ, no states, epsilon or beta outside (0, 1), a sequence that does not increase.
    """
    if scores.shape != unsafe.shape or scores.ndim != 1 or not len(scores):
        raise ValueError(f"expected as many scores as outcomes, at least one; got {scores.shape} and {unsafe.shape}")
    for name, value in (("epsilon", epsilon), ("beta", beta)):
        if not 0.0 < value < 1.0:
            raise ValueError(f"{name}: expected a number between 0 and 1, got {value!r}")
    if not len(sequence) or (np.diff(sequence) <= 0.0).any():
        raise ValueError("sequence: expected increasing thresholds, at least one")
    found = Certificate(-math.inf, epsilon, beta, len(scores), 0, 0, 1.0, 1.0)
    for delta in sequence.tolist():
        # A score that is not a number is below nothing.
        below = scores < delta
        m, k = int(below.sum()), int((below & unsafe.astype(bool)).sum())
        tail = binomial_tail(k, m, epsilon)
        if tail > beta:
            break
        found = Certificate(delta, epsilon, beta, len(scores), m, k, tail, 1.0)
    if not math.isfinite(found.delta):
        return found
    return replace(found, bound=upper_bound(found.unsafe, found.below, beta))


def states_needed(scores: np.ndarray, unsafe: np.ndarray, sequence: np.ndarray, epsilon: float, beta: float) -> int:
    """Return how many states would certify the first threshold, were they like those seen; 0: no reasonable number.

    Of them as large a share would score below it, and as large a share of those be unsafe. See `calibrated`.
    """
    below = scores < sequence[0]
    share, unsafe_below = float(below.mean()), int((below & unsafe.astype(bool)).sum())
    if not share:
        return 0
    risk = unsafe_below / int(below.sum())
    if risk >= epsilon:
        return 0

    def certified(m: int) -> bool:
        return binomial_tail(math.ceil(risk * m), m, epsilon) <= beta

    # Counts are whole, so the tail does not quite fall from m to m + 1: what is found holds, and is nearly the least.
    high = 1
    while not certified(high):
        high *= 2
        if high > MOST_STATES:
            return 0
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if certified(middle) else (middle, high)
    return math.ceil(high / share)


def in_words(certificate: Certificate) -> str:
    """Return the exact statement of a certificate."""
    c = certificate
    if not math.isfinite(c.delta):
        return (
            f"No threshold could be certified: among {c.n} states too many episodes were unsafe, or too few scored "
            f"low, to bound P(unsafe | V_c < delta) by {c.epsilon:g} with confidence {1.0 - c.beta:g}."
        )
    return (
        f"With confidence {1.0 - c.beta:g} over the draw of the {c.n} calibration states, an episode of this policy, "
        f"unshielded, from a state of the same distribution with V_c = Q_c(s, mu(s, 0)) < delta = {c.delta:.6g} is "
        f"unsafe with probability at most {c.epsilon:g}: {c.unsafe} of {c.below} were, and sum over i <= {c.unsafe} of "
        f"C({c.below}, i) {c.epsilon:g}^i (1 - {c.epsilon:g})^({c.below} - i) = {c.tail:.3g} <= {c.beta:g}. "
        f"These counts alone would certify {c.bound:.3g}."
    )
