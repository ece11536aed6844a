"""The hand's safe behaviour policies: what they promise, and that their support is a function of the state alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transforms3d.euler import euler2quat

from ssql_ros.behaviour.policy import make_behaviour
from ssql_ros.contract import find_contract, load_contract
from ssql_ros.model.bundle import load_bundle
from ssql_ros.model.critic import SafetyCritic, logit
from ssql_ros.robots.shadow_hand.cup import CUP, CupHold
from ssql_ros.robots.shadow_hand.motions import MOTIONS, Gait, Nudge
from ssql_ros.robots.shadow_hand.turning import CubeTurning, goal_of, quaternions, turn_left
from ssql_ros.robots.tasks import find_task
from ssql_sim.cube import GOALS, CubeEnv

CONTRACT = load_contract(find_contract("shadow_hand"))
angles = st.floats(-1.5, 1.5)


def test_the_cup_is_the_contracts_safe_action():
    np.testing.assert_array_equal(CUP, CONTRACT.safe_action)


@given(angles, angles, angles, angles, angles, angles)
def test_the_turn_that_is_left_is_the_angle_between_two_orientations(a, b, c, d, e, f):
    one, other = np.array([[a, b, c]]), np.array([[d, e, f]])
    w, x, y, z = euler2quat(a, b, c)
    np.testing.assert_allclose(np.abs(quaternions(one)[0] @ [x, y, z, w]), 1.0, atol=1e-12)
    assert turn_left(one, one)[0] < 1e-6
    assert turn_left(one, other)[0] == pytest.approx(turn_left(other, one)[0])
    roll = turn_left(np.array([[0.0, 0.0, c]]), np.array([[0.0, 0.0, f]]))[0]
    assert roll == pytest.approx(abs(c - f), abs=1e-6)


def test_goals_are_told_by_axis_and_sign():
    turns = np.array([[1.5, 0.0, 0.1], [-1.5, 0.2, 0.0], [0.0, 0.0, 1.5], [0.3, 0.0, -2.2]])
    assert [GOALS[i] for i in goal_of(turns)] == ["x+", "x-", "z+", "z-"]


def test_a_nudge_leads_through_its_places_and_back_to_the_cup():
    places = np.arange(40.0).reshape(2, 20)
    track = Nudge(tuple(map(tuple, places)), (2, 4, 3), 5).track()
    assert track.shape == (14, 20)
    np.testing.assert_allclose(track[[0, 1, 5, 8]], [0.5 * places[0], places[0], places[1], np.zeros(20)], atol=1e-12)
    assert not track[8:].any()


def test_a_gait_swells_from_the_cup_and_goes_round():
    rng = np.random.default_rng(0)
    centre, sine, cosine = rng.normal(size=(3, 20))
    track = Gait(tuple(centre), tuple(sine), tuple(cosine), period=12, steps=60).track()
    assert track.shape == (60, 20)
    np.testing.assert_allclose(track[11:47], track[23:59], atol=1e-12)
    np.testing.assert_allclose(track[11], centre + cosine, atol=1e-12)
    assert np.abs(track[0]).max() <= np.abs(np.stack([centre, sine, cosine])).sum(axis=0).max() / 8


def test_every_goal_has_motions_inside_an_episode():
    assert set(MOTIONS) == set(GOALS)
    for motions in MOTIONS.values():
        assert sum(len(motion.track()) for motion in motions) <= 112


@pytest.mark.parametrize("name", ["cube", "cube_hold"])
def test_a_policy_is_made_again_from_its_description_and_draws_inside_its_support(name):
    policy = find_task(name).behaviour_policy()
    again = make_behaviour(policy.describe())
    assert type(again) is type(policy)
    assert again.describe() == policy.describe()
    rng = np.random.default_rng(0)
    policy.reset(rng)

    @settings(max_examples=30)
    @given(st.integers(0, 2**32 - 1))
    def holds(seed):
        draws = np.random.default_rng(seed)
        observation = draws.uniform(-1.5, 1.5, CONTRACT.observation_size)
        state = np.concatenate([observation, policy.context()])[np.newaxis]
        support = policy.support(state)
        action = policy.act(observation, draws)
        assert support.contains(action[np.newaxis, np.newaxis]).all()
        assert not support.contains(action[np.newaxis, np.newaxis] + 2.5 * policy.bound).any()
        low, high = support.hull()
        assert (low >= -1.0).all()
        assert (high <= 1.0).all()

    holds()


def test_where_the_goal_is_reached_the_cube_is_held_whatever_the_clock_says():
    policy = CubeTurning(bound=0.02)
    states = np.zeros((100, 87))
    states[:, 30], states[:, 27], states[:, -1] = 1.5, 1.4, np.arange(100)
    np.testing.assert_allclose(policy.bare(states), np.tile(CUP, (100, 1)))
    states[:, 27] = 0.0
    assert np.abs(policy.bare(states) - CUP).max() > 0.2


@pytest.mark.parametrize("make", [CupHold, CubeTurning])
def test_bounds_that_are_none_are_refused(make):
    with pytest.raises(ValueError, match="bound"):
        make(bound=0.0)


@pytest.mark.slow
def test_the_noisy_cup_holds_the_cube():
    env, policy, rng = CubeEnv(), find_task("cube_hold").behaviour_policy(), np.random.default_rng(3)
    for seed in range(5):
        observation, info = env.reset(seed=seed)
        policy.reset(rng)
        for _ in range(env.max_steps):
            observation, *_, info = env.step(policy.act(observation, rng))
            assert not info["incident"]
    env.close()


def test_a_cube_that_has_yawed_far_enough_or_too_far_is_held_however_it_is_tilted():
    policy = CubeTurning()
    states = np.zeros((1, 87))
    states[0, 32], states[0, 27], states[0, -1] = 1.5, 0.4, 20.0
    for yaw, held in ((0.0, False), (1.2, False), (1.35, True), (1.8, True), (3.0, True)):
        states[0, 29] = yaw
        assert np.allclose(policy.bare(states), CUP) == held


def test_goals_without_a_safe_motion_are_answered_by_the_cup():
    policy = CubeTurning()
    states = np.zeros((50, 87))
    states[:, -1] = np.arange(50)
    for goal, angle in ((30, -1.5), (32, -1.5)):
        states[:, 30:33] = 0.0
        states[:, goal] = angle
        np.testing.assert_allclose(policy.bare(states), np.tile(CUP, (50, 1)))


@pytest.mark.slow
def test_a_roll_towards_the_wrist_succeeds_and_drops_nothing():
    env, policy, rng = CubeEnv(goals=("x+",)), find_task("cube").behaviour_policy(), np.random.default_rng(3)
    reached = 0
    for seed in range(6):
        observation, info = env.reset(seed=seed)
        policy.reset(rng)
        for _ in range(env.max_steps):
            observation, *_, info = env.step(policy.act(observation, rng))
            assert not info["incident"]
        reached += info["success"]
    assert reached >= 5
    env.close()


def test_the_shipped_critic_is_of_the_cup_which_takes_over_at_once():
    task = find_task("cube")
    critic = load_bundle(task.bundle_path(), task.contract()).safety_critic()
    assert critic.backup == task.backup
    assert (critic.backup.action, critic.backup.most) == (tuple(CONTRACT.safe_action), 0)
    # In the cup it sees no danger, with all fingers straight it does.
    env = task.make()
    observation, _ = env.reset(seed=0)
    straight = np.full(task.contract().action_size, -1.0)
    scores = SafetyCritic(load_bundle(task.bundle_path(), task.contract())).logits(
        observation, np.array([task.backup.action, straight])
    )
    assert scores[0] < logit(critic.epsilon) < scores[1]
    env.close()
