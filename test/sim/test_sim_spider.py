"""The drunk spider: its motion, its map, its rewards, and that its contract says the same of an incident."""

import itertools
import math
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

import ssql_sim  # noqa: F401 (registers the environment)
from ssql_ros.contract import ObservationAssembler, find_contract, load_contract
from ssql_sim.spider import BRIDGE, DIAGONAL, LAVA, START, SpiderEnv, is_incident

CONTRACT = load_contract(find_contract("spider"))
UP, DOWN, LEFT, STAY = (np.array(a, np.float32) for a in ((1, 0), (-1, 0), (0, -1), (0, 0)))
seeds = st.integers(0, 2**32 - 1)


def placed(position: tuple[float, float] = START, **options) -> SpiderEnv:
    """A spider without noise, unless `options` say otherwise, at `position`."""
    env = SpiderEnv(**{"action_noise": 0.0, **options})
    env.reset(seed=0)
    env.position = position
    return env


def episode(env: SpiderEnv, seed: int) -> list[tuple]:
    """One seeded episode of random actions, out of bounds too."""
    rng = np.random.default_rng(seed)
    observation, info = env.reset(seed=seed)
    record = [(observation, 0.0, False, False, info)]
    while not (record[-1][2] or record[-1][3]):
        record.append(env.step(rng.uniform(-1.2, 1.5, 2).astype(np.float32)))
    return record


def test_gymnasium_checker_has_nothing_to_say():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make("ssql/Spider-v0", randomise="noise").unwrapped)


# Motion


def test_step_without_noise_moves_by_the_scaled_action():
    env = placed(action_scale=0.5)
    observation, reward, terminated, truncated, info = env.step(np.array([1.0, -0.6]))
    assert observation == pytest.approx([1.0, 3.2], abs=1e-12)
    assert observation.dtype == np.float64
    assert reward == pytest.approx(-math.hypot(6.5, 0.3) / math.hypot(8, 7), abs=1e-12)
    assert (terminated, truncated, info) == (False, False, {"incident": False, "success": False})


def test_noise_is_drawn_once_a_step_for_each_axis_and_is_not_scaled():
    env = placed(action_noise=0.2, action_scale=0.5)
    draws = gymnasium.utils.seeding.np_random(0)[0].random(4) - 0.5
    first, *_ = env.step(np.array([0.2, 0.4]))
    second, *_ = env.step(np.array([0.2, 0.4]))
    assert first == pytest.approx([0.6 + 0.2 * draws[0], 3.7 + 0.2 * draws[1]], abs=1e-12)
    assert second - first == pytest.approx([0.1 + 0.2 * draws[2], 0.2 + 0.2 * draws[3]], abs=1e-12)


def test_noise_fills_its_width():
    env = placed(action_noise=0.4, max_steps=10_000)
    changes = []
    for _ in range(4000):
        env.position = START
        changes.append(env.step(STAY)[0] - START)
    low, high = np.min(changes, axis=0), np.max(changes, axis=0)
    assert (low >= -0.2 - 1e-12).all()
    assert (high <= 0.2 + 1e-12).all()
    assert (low < -0.199).all()
    assert (high > 0.199).all()
    assert abs(np.corrcoef(np.transpose(changes))[0, 1]) < 0.05


def test_rows_move_before_columns():
    # The other way round it would slip past the corner of the lava.
    observation, _, terminated, _, _ = placed((1.95, 2.05)).step(np.array([1.0, -1.0]))
    assert terminated
    assert observation == pytest.approx([2.05, 2.05], abs=1e-12)


def test_action_is_clipped_and_left_alone():
    env, action = placed(), np.array([0.9, -7.0])
    assert env.step(action)[0] == pytest.approx([1.4, 2.5], abs=1e-12)
    assert action.tolist() == [0.9, -7.0]


# Incidents and success


@pytest.mark.parametrize(
    ("position", "action", "end"),
    [
        ((3.5, 3.05), LEFT, (3.5, 2.95)),  # off the bridge
        ((1.95, 4.5), UP, (2.05, 4.5)),
        ((6.05, 2.5), DOWN, (5.95, 2.5)),
        ((0.05, 3.5), DOWN, (-0.05, 3.5)),
        ((7.95, 0.5), UP, (8.05, 0.5)),
        ((0.5, 0.05), LEFT, (0.5, -0.05)),
        ((0.5, 6.95), -LEFT, (0.5, 7.05)),
    ],
)
def test_lava_and_edges_end_the_episode_at_once(position, action, end):
    env = placed(position)
    observation, _, terminated, truncated, info = env.step(action)
    assert (terminated, truncated, info) == (True, False, {"incident": True, "success": False})
    assert observation == pytest.approx(end, abs=1e-12)
    assert CONTRACT.margin(observation)[0] > 0.0
    assert env.observation_space.contains(observation)


@pytest.mark.parametrize("position", [(0.0, 3.5), (0.5, 0.0), (0.5, 7.0), (3.0, 3.0), (3.0, 4.0), (2.0, 2.5)])
def test_edge_itself_is_no_incident(position):
    _, _, terminated, _, info = placed(position).step(STAY)
    assert not terminated
    assert not info["incident"]
    assert CONTRACT.margin(np.array(position))[0] == 0.0


@pytest.mark.parametrize("goal", [(7.5, 3.5), (6.5, 3.5)])
def test_goal_is_reached_within_a_metre(goal):
    env = placed((goal[0] - 1.5, 3.5), goal=goal)
    _, _, terminated, _, info = env.step(0.4 * UP)
    assert (terminated, info["success"]) == (False, False)
    _, _, terminated, truncated, info = env.step(0.2 * UP)
    assert (terminated, truncated, info) == (True, False, {"incident": False, "success": True})


def test_goal_passed_within_a_step_is_not_reached():
    observation, _, terminated, _, info = placed((3.0, 3.5), goal=(4.5, 3.5), action_scale=4.0).step(UP)
    assert observation == pytest.approx([7.0, 3.5], abs=1e-12)
    assert (terminated, info["success"]) == (False, False)


def test_incident_beside_the_goal_is_no_success():
    _, _, _, _, info = placed((7.95, 3.5)).step(UP)
    assert info == {"incident": True, "success": False}


# Rewards


def test_rewards_of_each_ending():
    # After one step of 30, then at the last of 3.
    _, reward, *_ = placed((6.0, 3.5)).step(UP)
    assert reward == pytest.approx(-0.5 / DIAGONAL + 30 + 29, abs=1e-9)
    env = placed((0.05, 3.5))
    observation, reward, *_ = env.step(DOWN)
    assert reward == pytest.approx(-(7.5 - observation[0]) / DIAGONAL - 30, abs=1e-9)

    for position, last, term in (((6.0, 3.5), UP, 30.0), ((0.05, 3.5), DOWN, -1.0), (START, STAY, -3.0)):
        env = placed(max_steps=3)
        plain = [env.step(STAY) for _ in range(2)]
        assert [reward for _, reward, *_ in plain] == [pytest.approx(-7.0 / DIAGONAL, abs=1e-9)] * 2
        assert not any(terminated or truncated for _, _, terminated, truncated, _ in plain)
        env.position = position
        observation, reward, terminated, truncated, info = env.step(last)
        assert reward == pytest.approx(term - math.dist(observation, env.goal) / DIAGONAL, abs=1e-9)
        assert terminated == (info["incident"] or info["success"]) == (last is not STAY)
        assert truncated == (last is STAY)


def test_straight_walk_without_noise_succeeds():
    env, total, terminated = placed(), 0.0, False
    while not terminated:
        observation, reward, terminated, _, info = env.step(np.array([0.99, 0.0]))
        total += reward
    assert info["success"]
    assert observation == pytest.approx([0.5 + 7 * 0.99, 3.5], abs=1e-9)
    distances = [7.0 - 0.99 * n for n in range(1, 8)]
    assert total == pytest.approx(-sum(distances) / DIAGONAL + 30 + 23, abs=1e-9)


# Repeatability and families


@pytest.mark.parametrize("randomise", [None, "noise", "scale"])
def test_seed_decides_everything(randomise):
    env = SpiderEnv(randomise=randomise)
    first, other, again = (episode(env, seed) for seed in (3, 4, 3))
    fresh = episode(SpiderEnv(randomise=randomise), 3)
    as_data = [[(o.tolist(), *rest) for o, *rest in record] for record in (first, other, again, fresh)]
    assert as_data[0] == as_data[2] == as_data[3] != as_data[1]


@pytest.mark.parametrize(("randomise", "low", "high"), [("noise", 0.0, 0.4), ("scale", 0.5, 2.0)])
def test_family_is_drawn_anew_by_every_reset(randomise, low, high):
    env = SpiderEnv(randomise=randomise)
    env.reset(seed=1)
    drawn = []
    for _ in range(500):
        env.reset()
        drawn.append(getattr(env, f"action_{randomise}"))
        assert (env.action_scale if randomise == "noise" else env.action_noise) == (
            1.0 if randomise == "noise" else 0.1
        )
    assert low <= min(drawn) < low + 0.02 * (high - low)
    assert high - 0.02 * (high - low) < max(drawn) <= high
    assert len(set(drawn)) == 500


# Bad input


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (np.zeros(3), r"shape \(2,\), but \(3,\) came"),
        (np.zeros((1, 2)), r"shape \(2,\), but \(1, 2\) came"),
        (np.array([0.0, np.nan]), "must be finite, but .*nan"),
        (np.array([-np.inf, 0.0]), "must be finite, but .*inf"),
    ],
)
def test_wrong_action_is_refused_and_changes_nothing(action, words):
    env, untouched = placed(action_noise=0.3), placed(action_noise=0.3)
    with pytest.raises(ValueError, match=words):
        env.step(action)
    assert env.step(UP)[0].tolist() == untouched.step(UP)[0].tolist()


def test_step_outside_an_episode_is_refused():
    with pytest.raises(RuntimeError, match="reset"):
        SpiderEnv().step(STAY)
    env = placed((0.05, 3.5))
    env.step(DOWN)
    with pytest.raises(RuntimeError, match="reset"):
        env.step(STAY)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"randomise": "all"}, "'all'"),
        ({"max_steps": 0}, "max_steps"),
        ({"action_noise": -0.1}, "action_noise"),
        ({"action_noise": math.nan}, "action_noise"),
        ({"action_scale": 0.0}, "action_scale"),
        ({"action_scale": 10.0}, "leaps over the lava"),
        ({"goal": (8.5, 3.5)}, "goal"),
        ({"goal": (math.nan, 3.5)}, "goal"),
        ({"goal": (1.0, 2.0, 3.0)}, "goal"),
    ],
)
def test_wrong_constructor_argument_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        SpiderEnv(**options)


def test_reset_options_are_refused():
    with pytest.raises(ValueError, match="start"):
        SpiderEnv().reset(options={"start": (1.0, 1.0)})


# The map and the contract


@given(seed=seeds, noise=st.floats(0.0, 0.4), scale=st.floats(0.5, 2.0))
def test_spider_is_on_safe_ground_while_the_episode_goes_on(seed, noise, scale):
    env = SpiderEnv(action_noise=noise, action_scale=scale)
    for observation, _, terminated, truncated, info in episode(env, seed):
        row, column = observation
        on_map = 0.0 <= row <= 8.0 and 0.0 <= column <= 7.0
        in_lava = 2.0 < row < 6.0 and (2.0 < column < 3.0 or 4.0 < column < 5.0)
        assert info["incident"] == (in_lava or not on_map) == (CONTRACT.margin(observation)[0] > 0.0)
        assert terminated == (info["incident"] or info["success"])
        assert not (terminated and truncated)
        assert env.observation_space.contains(observation)


def test_contract_judges_every_edge_as_the_environment_does():
    edges = [0.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    values = [v for edge in edges for v in (np.nextafter(edge, -1.0), edge, np.nextafter(edge, 9.0), edge + 0.5)]
    for position in itertools.product(values, values):
        assert (CONTRACT.margin(np.array(position))[0] > 0.0) == is_incident(*position), position


def test_contract_is_that_of_the_task():
    assert (CONTRACT.frame_names, CONTRACT.observation_size, CONTRACT.action_size) == (("row", "column"), 2, 2)
    assert (CONTRACT.control_period, CONTRACT.command_timeout) == (0.1, 0.2)
    assert (CONTRACT.commanded.joint_names, CONTRACT.commanded.field) == (("row_drive", "column_drive"), "velocity")
    assert CONTRACT.joint_command(np.array([0.5, -1.0])).tolist() == [0.5, -1.0]
    assert CONTRACT.safe_action.tolist() == [0.0, 0.0]
    assert tuple(tuple(zip(box.low, box.high, strict=True)) for box in CONTRACT.boxes) == LAVA
    assembler = ObservationAssembler(CONTRACT)
    assert assembler.read("odometry", 0, 0.0, np.array(START))
    assert assembler.vector().tolist() == list(START)


def test_cause_names_the_pool_or_the_edge():
    assert CONTRACT.margin(np.array([3.0, 2.25])) == (0.25, "row 3.000, column 2.250 m (box row 2 to 6, column 2 to 3)")
    assert CONTRACT.margin(np.array([-0.5, 3.5])) == (0.5, "row -0.500 m (limit 0)")
    assert CONTRACT.margin(np.array([4.0, 3.5]))[0] == -0.5


def test_rewards_that_are_not_timed_are_the_same_at_every_step() -> None:
    def last_reward(timed: bool, wait: int, row_action: float, **options: object) -> float:
        env = SpiderEnv(action_noise=0.0, timed=timed, **options)
        env.reset(seed=0)
        for _ in range(wait):
            env.step(np.zeros(2))
        ended, reward = False, 0.0
        while not ended:
            _, reward, terminated, truncated, _ = env.step(np.array([row_action, 0.0]))
            ended = terminated or truncated
        return reward

    for row_action, expected in ((1.0, 30.0 - 1.0 / DIAGONAL), (-1.0, -30.0 - 8.0 / DIAGONAL)):
        early, late = (last_reward(False, wait, row_action) for wait in (0, 5))
        assert early == late == pytest.approx(expected, abs=0.1)
        assert abs(last_reward(True, 0, row_action) - last_reward(True, 5, row_action)) == pytest.approx(5.0)
    assert last_reward(False, 0, 0.0, max_steps=3) == pytest.approx(-7.0 / DIAGONAL)


def test_practice_begins_anywhere_but_in_the_lava():
    env = SpiderEnv(start_anywhere=True)
    starts = np.array([env.reset(seed=seed)[0] for seed in range(400)])
    assert not any(is_incident(row, column) for row, column in starts)
    (low_row, low_column), (high_row, high_column) = BRIDGE
    on_bridge = ((starts >= (low_row, low_column)) & (starts <= (high_row, high_column))).all(axis=1)
    assert 0.4 < on_bridge.mean() < 0.65
    # All sides of the map: before and behind the pools, left and right of them.
    assert starts.min(axis=0) == pytest.approx([0.0, 0.0], abs=0.5)
    assert starts.max(axis=0) == pytest.approx([8.0, 7.0], abs=0.5)
    np.testing.assert_array_equal(env.reset(seed=7)[0], env.reset(seed=7)[0])
