"""Behaviour policies: the trot by its formula, noise with the statistics that it states, a bound that holds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssql_ros.behaviour.noise import OrnsteinUhlenbeck
from ssql_ros.robots.minitaur.trot import GAITS
from ssql_ros.robots.noise import Noise, NoisyController
from ssql_ros.robots.tasks import find_task

# f [Hz], swing and extension amplitude, phase lag, swing and extension offset [rad]
PARAMETERS = {
    "A": (2.821, 0.192, 0.217, -0.271, 0.069, -0.157),
    "G4": (3.5345, 0.1781, 0.1901, -0.7784, 0.088, -0.1326),
    "G5": (2.4548, 0.2703, 0.1497, -0.8456, 0.0845, -0.1963),
}
STEPS = 400


def trot(gait: str, step: int) -> list[float]:
    """Front left, back left, front right, back right: swings, then extensions; in action units."""
    f, a_s, a_e, d, s0, e0 = PARAMETERS[gait]
    t, ramp = step * 0.02, min(1.0, step / 25)
    phases = (0.0, math.pi, math.pi, 0.0)
    swing = [s0 + ramp * a_s * math.sin(2 * math.pi * f * t + phase) for phase in phases]
    extension = [e0 + ramp * a_e * math.cos(2 * math.pi * f * t + phase + d) for phase in phases]
    return [max(-1.0, min(1.0, value / 0.5)) for value in swing + extension]


def episode(
    settings: Noise, seed: int, steps: int = STEPS, controller: NoisyController | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Actions and means (steps, 8)."""
    controller, rng = controller or find_task("minitaur").controller(settings), np.random.default_rng(seed)
    controller.reset(rng)
    drawn = [controller.propose(np.zeros(0), rng) for _ in range(steps)]
    return np.array([each.action for each in drawn]), np.array([each.mean for each in drawn])


# The trot


@pytest.mark.parametrize("gait", PARAMETERS)
def test_trot_follows_its_formula(gait):
    for step in [*range(60), 499, 10_000]:
        np.testing.assert_allclose(GAITS[gait].action(step), trot(gait, step), rtol=0, atol=1e-9)


def test_all_gaits_are_tested():
    assert list(GAITS) == list(PARAMETERS)


@pytest.mark.parametrize("gait", PARAMETERS)
def test_trot_starts_still_and_moves_its_diagonals_together(gait):
    actions = np.array([GAITS[gait].action(step) for step in range(STEPS)])
    offsets = np.repeat(np.array(PARAMETERS[gait][4:]) / 0.5, 4)
    np.testing.assert_allclose(actions[0], offsets, atol=1e-12)
    np.testing.assert_allclose(actions[:, [0, 1, 4, 5]], actions[:, [3, 2, 7, 6]], atol=1e-12)
    assert (np.abs(actions) <= 1.0).all()


# Noise


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.85, 0.99])
@pytest.mark.parametrize("sigma", [0.1, 0.3])
def test_noise_has_its_stationary_std_and_correlation(sigma, rho):
    # 4000 elements are 4000 independent paths: standard errors are 1 / sqrt(paths), whatever the correlation in time.
    paths, rng = 4000, np.random.default_rng(5)
    noise = OrnsteinUhlenbeck(sigma, rho, paths)
    samples = np.array([noise.sample(rng).copy() for _ in range(20)])
    error = 4.0 / math.sqrt(paths)
    np.testing.assert_allclose(samples.mean(axis=1), 0.0, atol=sigma * error)
    np.testing.assert_allclose(samples.std(axis=1), sigma, rtol=error / math.sqrt(2))  # from the first step on
    for lag in (1, 2, 5):
        correlation = (samples[lag:] * samples[:-lag]).mean(axis=1) / sigma**2
        np.testing.assert_allclose(correlation, rho**lag, atol=error * math.sqrt(2))


def test_noise_of_one_path_over_time_has_the_same_statistics():
    sigma, rho, steps = 0.3, 0.85, 40_000
    noise, rng = OrnsteinUhlenbeck(sigma, rho, 8), np.random.default_rng(6)
    samples = np.array([noise.sample(rng).copy() for _ in range(steps)])
    # Of so many correlated steps, this many are as good as independent.
    independent = steps * 8 * (1 - rho) / (1 + rho)
    assert samples.std() == pytest.approx(sigma, rel=4 / math.sqrt(independent))
    lag_1 = (samples[1:] * samples[:-1]).mean() / (samples**2).mean()
    assert lag_1 == pytest.approx(rho, abs=4 * math.sqrt((1 - rho**2) / (steps * 8)))
    # Elements are independent of each other.
    off_diagonal = np.corrcoef(samples.T)[np.triu_indices(8, 1)]
    assert np.abs(off_diagonal).max() < 4 / math.sqrt(independent / 8)


def test_noise_after_reset_does_not_remember():
    # One path each: correlated across the reset they would have to be, with rho 0.99.
    rng = np.random.default_rng(7)
    noise = OrnsteinUhlenbeck(1.0, 0.99, 4000)
    before = noise.sample(rng).copy()
    noise.reset()
    after = noise.sample(rng).copy()
    assert abs((before * after).mean()) < 4 / math.sqrt(4000)
    assert after.std() == pytest.approx(1.0, rel=4 / math.sqrt(8000))


@pytest.mark.parametrize(
    ("sigma", "rho"), [(-0.1, 0.0), (math.nan, 0.0), (math.inf, 0.0), (0.1, 1.0), (0.1, -0.1), (0.1, math.nan)]
)
def test_noise_out_of_range_is_refused(sigma, rho):
    with pytest.raises(ValueError, match="noise needs sigma >= 0 and 0 <= rho < 1"):
        OrnsteinUhlenbeck(sigma, rho, 8)
    with pytest.raises(ValueError, match="noise needs"):
        find_task("minitaur").controller(Noise("A", sigma, rho))


# Noisy trot

settings_drawn = st.builds(
    Noise,
    controller=st.sampled_from(list(PARAMETERS)),
    sigma=st.floats(0.0, 2.0),
    rho=st.floats(0.0, 0.99),
    bound=st.floats(1e-3, 0.5),
)


@given(settings_drawn, st.integers(0, 2**31 - 1))
def test_action_stays_within_the_bound_of_the_trot_and_of_the_action(settings, seed):
    actions, means = episode(settings, seed, steps=50)
    np.testing.assert_array_equal(means, [GAITS[settings.controller].action(step) for step in range(50)])
    assert (np.abs(actions - means) <= settings.bound + 1e-15).all()
    assert (np.abs(actions) <= 1.0).all()


def test_unbounded_noise_leaves_the_trot_by_its_sigma():
    actions, means = episode(Noise("A", sigma=0.1, rho=0.0), seed=0, steps=4000)
    inside = np.abs(means) < 0.5  # far enough from the action bounds not to be clipped
    deviations = (actions - means)[inside]
    assert deviations.std() == pytest.approx(0.1, rel=4 / math.sqrt(2 * len(deviations)))
    assert np.abs(deviations).max() > 0.3


def test_no_noise_is_the_bare_trot():
    actions, means = episode(Noise("A", sigma=0.0), seed=0)
    np.testing.assert_array_equal(actions, means)


def test_seed_repeats_an_episode_exactly_whatever_came_before():
    settings = Noise("A", sigma=0.3, rho=0.85)
    controller = find_task("minitaur").controller(settings)
    first, _ = episode(settings, seed=11)
    for seed in (3, 11):
        again, _ = episode(settings, seed, controller=controller)
    np.testing.assert_array_equal(again, first)
    other, _ = episode(settings, seed=12)
    assert np.abs(other - first).max() > 0.1


def test_bursts_of_noise_alternate_with_the_bare_trot():
    actions, means = episode(Noise("A", sigma=0.3, burst=5, rest=3), seed=0, steps=80)
    noisy = np.abs(actions - means).max(axis=1) > 0
    assert noisy.tolist() == ([True] * 5 + [False] * 3) * 10


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"bound": 0.0}, "bound: expected a number above 0, got 0.0"),
        ({"bound": math.nan}, "bound: expected a number above 0, got nan"),
        ({"burst": -1}, "burst and rest: expected whole steps from 0 on, got -1 and 0"),
        ({"rest": -1}, "burst and rest: expected whole steps from 0 on, got 0 and -1"),
    ],
)
def test_setting_out_of_range_is_refused(changes, text):
    with pytest.raises(ValueError, match=text):
        Noise("A", **changes)


def test_unknown_controller_is_named_with_those_that_are_there():
    with pytest.raises(ValueError, match="controller 'gallop' is none of minitaur; known: A, G4, G5"):
        find_task("minitaur").controller(Noise("gallop"))
    with pytest.raises(ValueError, match="robot swimmer has no scripted controllers; these have: boat, minitaur"):
        find_task("swimmer_velocity").controller(Noise("A"))
