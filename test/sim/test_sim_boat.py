"""The boat: its motion by hand, its rocks, its rewards, and that its contract says the same of an incident."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

import ssql_sim  # noqa: F401 (registers the environment)
from ssql_ros.contract import find_contract, load_contract
from ssql_sim.boat import CONTROL_PERIOD, GOAL, HIGH, LOW, ROCKS, BoatEnv, margin_of, moved, reward_of

CONTRACT = load_contract(find_contract("boat"))
positions = st.tuples(st.floats(LOW[0], HIGH[0]), st.floats(LOW[1], HIGH[1]))


def placed(position: tuple[float, float], **options) -> BoatEnv:
    env = BoatEnv(**options)
    env.reset(seed=0, options={"position": position})
    return env


@pytest.mark.parametrize(
    ("position", "action", "next_observation"),
    [
        ((0.0, 0.0), (1.0, 0.0), (0.015, 0.0)),  # 1 m/s of its own, 2 m/s of the current's middle
        ((0.0, 0.0), (0.0, 0.5), (0.01, 0.005)),  # the heading's length does not matter
        ((0.0, 0.0), (-0.6, 0.8), (0.007, 0.004)),
        ((0.0, 2.0), (-1.0, 0.0), (-0.005, 2.0)),  # no current at the edge
        ((0.0, 1.0), (0.0, 0.0), (0.0075, 1.0)),  # it drifts
        ((2.0, 0.0), (1.0, 0.0), (2.0, 0.0)),  # kept inside the box
        ((-3.0, -2.0), (-1.0, -1.0), (-3.0, -2.0)),
    ],
)
def test_motion_is_that_of_the_equations(position, action, next_observation):
    env = placed(position)
    observation, reward, terminated, truncated, info = env.step(np.array(action))
    assert observation == pytest.approx(next_observation, abs=1e-12)
    assert reward == pytest.approx(-np.hypot(position[0] - 1.5, position[1]))  # of the state before the step
    assert not terminated
    assert not truncated
    assert info["margin"] == pytest.approx(float(margin_of(np.array(next_observation))))


def test_action_is_clipped_before_its_length_is_taken_off():
    wild = placed((0.0, 0.0)).step(np.array([3.0, 1.0]))[0]
    assert np.array_equal(wild, placed((0.0, 0.0)).step(np.array([1.0, 1.0]))[0])


@given(positions)
def test_margin_is_the_contracts(position):
    margin, words = CONTRACT.margin(np.array(position))
    assert margin == pytest.approx(float(margin_of(np.array(position))), abs=1e-12)
    assert "radius" in words


def test_margin_by_hand():
    assert margin_of(np.array([[-0.5, 0.5], [-1.0, -1.2], [-0.5, 1.0], [2.0, 0.0]])) == pytest.approx(
        [0.4, 0.5, -0.1, 0.4 - np.hypot(2.5, 0.5)]
    )
    assert [(ball.centre, ball.radius) for ball in CONTRACT.balls] == list(ROCKS)


def test_rock_costs_one_a_step_and_does_not_end_the_episode():
    env = placed((-0.5, 0.5))
    _, _, terminated, _, info = env.step(np.array([0.0, 1.0]))
    assert info["incident"]
    assert info["cost"] == 1.0
    assert not terminated


def test_episode_runs_its_400_steps():
    env = placed((0.0, 0.0))
    ends = [env.step(np.array([1.0, 0.0]))[3] for _ in range(400)]
    assert ends == [False] * 399 + [True]
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros(2))


def test_many_boats_move_as_one_does():
    rng = np.random.default_rng(0)
    starts, actions = rng.uniform(LOW, HIGH, (50, 2)), rng.uniform(-1, 1, (50, 2))
    together = moved(starts, actions)
    for start, action, next_observation in zip(starts, actions, together, strict=True):
        assert np.array_equal(placed(tuple(start)).step(action)[0], next_observation)
    assert reward_of(np.array([GOAL])) == 0.0
    assert np.abs(together - starts).max() <= 3.0 * CONTROL_PERIOD + 1e-12


def test_default_start_is_outside_the_rocks_and_seeded():
    env = BoatEnv()
    starts = [env.reset(seed=seed)[0] for seed in range(100)]
    assert margin_of(np.array(starts)).max() <= 0.0
    assert np.array_equal(env.reset(seed=3)[0], starts[3])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"place": (0, 0)}, "'place'"),
        ({"position": (0, 3)}, "a position lies in"),
        ({"position": (0, np.nan)}, "finite"),
        ({"position": 1.0}, "shape"),
    ],
)
def test_bad_start_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        BoatEnv().reset(options=options)


@pytest.mark.parametrize("action", [np.zeros(3), np.array([np.nan, 0.0])])
def test_bad_action_is_refused(action):
    with pytest.raises(ValueError, match="action"):
        placed((0.0, 0.0)).step(action)


def test_passes_gymnasiums_own_check():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(gymnasium.make("ssql/Boat-v0").unwrapped, skip_render_check=True)
