"""Calibration against closed forms, and by simulation: certificates hold as often as they say."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssql_ros.evaluation.conformal import binomial_tail, calibrated, in_words, states_needed, thresholds, upper_bound

REPEATS = 1000


@given(st.integers(1, 60), st.integers(0, 60), st.floats(0.0, 1.0))
def test_tail_is_the_sum_of_binomial_terms(m, k, p):
    k = min(k, m)
    exact = math.fsum(math.comb(m, i) * p**i * (1.0 - p) ** (m - i) for i in range(k + 1))
    assert binomial_tail(k, m, p) == pytest.approx(exact, abs=1e-9)


def test_tail_is_a_beta_probability():
    """P(Beta(k + 1, m - k) > p), by numerical integration of the density."""
    k, m, p = 3, 50, 0.12
    x = np.linspace(p, 1.0, 200_001)
    density = x**k * (1.0 - x) ** (m - k - 1) * math.exp(math.lgamma(m + 1) - math.lgamma(k + 1) - math.lgamma(m - k))
    assert binomial_tail(k, m, p) == pytest.approx(np.trapezoid(density, x), abs=1e-8)


@given(st.integers(1, 5000), st.floats(1e-6, 0.5))
def test_bound_without_unsafe_ones_is_the_closed_form(m, beta):
    assert upper_bound(0, m, beta) == pytest.approx(1.0 - beta ** (1.0 / m), rel=1e-9)


def test_bound_inverts_the_tail():
    for k, m, beta in ((0, 10, 0.05), (4, 500, 0.01), (70, 20_000, 0.001)):
        assert binomial_tail(k, m, upper_bound(k, m, beta)) == pytest.approx(beta, rel=1e-6)
    assert upper_bound(5, 5, 0.1) == 1.0


def world(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores U(-1, 1); unsafe with probability 0.2 (1 + score)^2 below 0: the risk below d is known exactly."""
    scores = rng.uniform(-1.0, 1.0, n)
    return scores, rng.random(n) < 0.2 * np.square(1.0 + np.minimum(scores, 0.0))


def risk(delta: float) -> float:
    """P(unsafe | score < delta) of `world`: the mean of 0.2 x^2 over x in (0, 1 + delta)."""
    return 0.2 * (1.0 + delta) ** 2 / 3.0


@pytest.mark.slow
def test_certificate_holds_as_often_as_it_says_at_one_threshold():
    """Where the sequence is one threshold whose risk is exactly epsilon, it is certified with probability just <= beta.

    The probability is known: the largest tail(k) <= beta, weighted by the binomial law of k.
    """
    rng, n, delta, beta = np.random.default_rng(0), 400, -0.1, 0.1
    epsilon = risk(delta)
    wrong = 0
    for _ in range(REPEATS):
        scores, unsafe = world(rng, n)
        wrong += math.isfinite(calibrated(scores, unsafe, np.array([delta]), epsilon, beta).delta)
    m = round(n * (1.0 + delta) / 2.0)
    expected = max(binomial_tail(k, m, epsilon) for k in range(m) if k == 0 or binomial_tail(k, m, epsilon) <= beta)
    spread = 4.0 * math.sqrt(beta * (1.0 - beta) / REPEATS)
    assert wrong / REPEATS <= beta + spread
    # Discreteness makes it somewhat rarer than beta, never much: the test has power.
    assert wrong / REPEATS >= 0.3 * min(expected, beta)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.05, 0.2])
def test_certificate_holds_as_often_as_it_says_over_a_sequence(beta):
    """1,000 calibrations: the share of those whose delta has a risk above epsilon is at most beta."""
    rng, epsilon = np.random.default_rng(1), 0.05
    sequence = thresholds(world(rng, 2000)[0])
    found = [calibrated(*world(rng, 1500), sequence, epsilon, beta) for _ in range(REPEATS)]
    wrong = np.mean([math.isfinite(c.delta) and risk(c.delta) > epsilon for c in found])
    assert wrong <= beta + 4.0 * math.sqrt(beta * (1.0 - beta) / REPEATS)
    # And it is not bought by never certifying anything: the largest delta with risk epsilon is -0.13.
    assert np.mean([math.isfinite(c.delta) for c in found]) > 0.95
    assert np.median([c.delta for c in found]) > -0.35
    assert all(c.tail <= beta and c.bound <= epsilon + 1e-12 for c in found if math.isfinite(c.delta))


@pytest.mark.slow
def test_upper_bound_covers_as_often_as_it_says():
    """Of a fixed probability: coverage by simulation equals the exact sum over k."""
    rng, m, p, beta = np.random.default_rng(2), 200, 0.02, 0.1
    exact = sum(math.comb(m, k) * p**k * (1.0 - p) ** (m - k) for k in range(m + 1) if upper_bound(k, m, beta) >= p)
    assert exact >= 1.0 - beta
    seen = np.mean([upper_bound(int(k), m, beta) >= p for k in rng.binomial(m, p, REPEATS)])
    assert seen == pytest.approx(exact, abs=4.0 * math.sqrt(exact * (1.0 - exact) / REPEATS))


def test_nothing_is_certified_from_few_or_from_unsafe_states():
    scores = np.linspace(-1.0, -0.1, 20)
    few = calibrated(scores, np.zeros(20, bool), np.array([-0.5, 0.0]), 0.01, 0.01)
    assert few.delta == -math.inf
    assert "No threshold" in in_words(few)
    bad = calibrated(np.full(5000, -1.0), np.ones(5000, bool), np.array([0.0]), 0.01, 0.01)
    assert bad.delta == -math.inf


def test_score_that_is_not_a_number_is_below_nothing():
    scores = np.array([np.nan] * 100 + [-1.0] * 1000)
    unsafe = np.array([True] * 100 + [False] * 1000)
    certificate = calibrated(scores, unsafe, np.array([0.0]), 0.01, 0.01)
    assert (certificate.below, certificate.unsafe) == (1000, 0)
    assert "0 of 1000" in in_words(certificate)


def test_thresholds_rise_to_zero_and_need_a_safe_state():
    sequence = thresholds(np.random.default_rng(0).normal(size=500))
    assert sequence[-1] == 0.0
    assert (np.diff(sequence) > 0.0).all()
    with pytest.raises(ValueError, match="no score"):
        thresholds(np.array([0.1, 2.0]))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"epsilon": 0.0}, "epsilon"),
        ({"beta": 1.0}, "beta"),
        ({"unsafe": np.zeros(3, bool)}, "as many scores"),
        ({"sequence": np.array([0.0, -1.0])}, "increasing"),
        ({"scores": np.zeros(0), "unsafe": np.zeros(0, bool)}, "at least one"),
    ],
)
def test_bad_input_is_named(changed, said):
    fine = {
        "scores": np.zeros(5),
        "unsafe": np.zeros(5, bool),
        "sequence": np.array([0.0]),
        "epsilon": 0.1,
        "beta": 0.1,
    }
    with pytest.raises(ValueError, match=said):
        calibrated(**{**fine, **changed})
    for k, m, p in ((-1, 5, 0.1), (6, 5, 0.1), (1, 5, 1.5)):
        with pytest.raises(ValueError, match="expected 0 <= k"):
            binomial_tail(k, m, p)


def test_states_of_equal_scores_lie_below_the_thresholds_that_are_their_quantiles():
    sequence = thresholds(np.full(200, -0.25))
    scores = np.full(200, np.nextafter(np.float32(-0.25), np.float32(0.0)), float)
    assert (scores < sequence[0]).all()
    # A robot that always begins alike, and never fails, is certified.
    found = calibrated(scores, np.zeros(200, bool), sequence, 0.05, 0.01)
    assert (found.below, found.unsafe, found.delta) == (200, 0, 0.0)


@settings(max_examples=60, deadline=None)
@given(
    epsilon=st.floats(0.005, 0.3),
    beta=st.floats(0.001, 0.2),
    share=st.floats(0.1, 1.0),
    risk=st.floats(0.0, 0.4),
    seed=st.integers(0, 1000),
)
def test_number_of_states_that_would_do_does(epsilon, beta, share, risk, seed):
    rng, sequence = np.random.default_rng(seed), np.array([-0.5, 0.0])
    scores = np.where(rng.random(200) < share, -1.0, 1.0)
    unsafe = rng.random(200) < risk
    needed = states_needed(scores, unsafe, sequence, epsilon, beta)
    low = scores < -0.5
    if not low.any() or unsafe[low].mean() >= epsilon:
        assert needed == 0
    elif needed:
        # As many, alike: the same shares, up to the rounding of counts.
        m = round(needed * low.mean())
        assert binomial_tail(math.ceil(unsafe[low].mean() * m), m, epsilon) <= 2.0 * beta
    # And with none unsafe it is the textbook's number.
    none = states_needed(np.full(200, -1.0), np.zeros(200, bool), sequence, epsilon, beta)
    assert none == math.ceil(math.log(beta) / math.log1p(-epsilon))
