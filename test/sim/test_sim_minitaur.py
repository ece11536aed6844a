"""The simulated Minitaur: its gymnasium interface, its physics' repeatability, its incident rule."""

import hashlib
import math
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pybullet
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

import ssql_sim  # noqa: F401 (registers the environment)
from ssql_ros.contract import find_contract, load_contract
from ssql_ros.robots.noise import Noise, blind_actions
from ssql_ros.robots.tasks import find_task
from ssql_sim import leg_model
from ssql_sim.minitaur import INCIDENT_TERMS, MinitaurEnv, incident_margin
from support import legs

FRAME, PAST_FRAMES, PAST_ACTIONS, LEGS = slice(0, 12), slice(12, 72), slice(72, 112), slice(112, 120)
actions_in_bounds = st.lists(st.floats(-1.0, 1.0), min_size=8, max_size=8).map(np.array)


@pytest.fixture
def env():
    env = MinitaurEnv()
    yield env
    env.close()


def run(env: MinitaurEnv, seed: int, steps: int = 60) -> list[tuple]:
    """One seeded episode of wild actions, continued after an incident: (action, observation, reward, info)s."""
    rng = np.random.default_rng(seed)
    observation, info = env.reset(seed=seed)
    record = [(np.zeros(8), observation, 0.0, info)]
    for _ in range(steps):
        action = rng.uniform(-1.0, 1.0, 8)
        observation, reward, _, _, info = env.step(action)
        record.append((action, observation, reward, info))
    return record


def digest(record: list[tuple]) -> str:
    """Of every bit of the observations, rewards and true velocities."""
    bits = b"".join(o.tobytes() + np.array([r, i["velocity"]]).tobytes() for _, o, r, i in record)
    return hashlib.sha256(bits).hexdigest()


def test_gymnasium_checker_has_nothing_to_say():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make("ssql/Minitaur-v0", render_mode="rgb_array")
        check_env(env.unwrapped)
    env.close()


# Repeatability


@pytest.mark.parametrize("randomise", [None, "physics"])
def test_replay_is_bit_identical_in_process(randomise):
    env = MinitaurEnv(randomise=randomise)
    first = digest(run(env, 3))
    assert digest(run(env, 4)) != first
    assert digest(run(env, 3)) == first
    fresh = MinitaurEnv(randomise=randomise)
    assert digest(run(fresh, 3)) == first
    fresh.close()
    env.close()


def test_replay_is_bit_identical_across_processes():
    code = (
        f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]\n"
        "from test_sim_minitaur import *\n"
        "print('digest', digest(run(MinitaurEnv(randomise='physics'), 5)))"
    )
    env = MinitaurEnv(randomise="physics")
    run(env, 1)
    here = digest(run(env, 5))
    env.close()
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert f"digest {here}" in other.stdout


def test_two_environments_do_not_disturb_each_other(env):
    alone = digest(run(env, 6))
    other = MinitaurEnv(foot_friction=0.5)
    other.reset(seed=0)
    rng = np.random.default_rng(6)
    observation, info = env.reset(seed=6)
    record = [(None, observation, 0.0, info)]
    for _ in range(60):
        other.step(np.ones(8))
        observation, reward, _, _, info = env.step(rng.uniform(-1.0, 1.0, 8))
        record.append((None, observation, reward, info))
    other.close()
    assert digest(record) == alone


def test_reset_takes_under_a_millisecond(env):
    run(env, 0, steps=5)
    times = []
    for _ in range(30):
        env.step(np.zeros(8))
        begin = time.perf_counter()
        env.reset()
        times.append(time.perf_counter() - begin)
    assert statistics.median(times) < 1e-3


def test_randomised_physics_differs_by_seed_and_repeats_by_seed():
    env = MinitaurEnv(randomise="physics")
    drawn = {}
    for seed in (0, 1, 2, 0, 1, 2):
        env.reset(seed=seed)
        assert drawn.setdefault(seed, env.physics) == env.physics
    assert len(set(drawn.values())) == 3
    for physics in drawn.values():
        assert 0.8 <= physics.foot_friction <= 1.5
        assert 14.8 <= physics.voltage <= 16.8
        assert 0.0 <= physics.viscous_damping <= 0.01
        assert all(0.8 <= factor <= 1.2 for factor in (physics.base_mass, *physics.leg_masses))
    # A reset without a seed draws on.
    before = env.physics
    env.reset()
    assert env.physics != before
    env.close()


def test_friction_family_changes_the_feet_only():
    env, modelled = MinitaurEnv(randomise="friction"), MinitaurEnv()
    env.reset(seed=1)
    modelled.reset()
    assert 0.5 <= env.physics.foot_friction <= 1.25
    assert env.physics.foot_friction != modelled.physics.foot_friction
    for link in range(-1, pybullet.getNumJoints(env.world.robot, physicsClientId=env.world.client)):
        mass, friction, inertia = pybullet.getDynamicsInfo(env.world.robot, link, physicsClientId=env.world.client)[:3]
        expected = pybullet.getDynamicsInfo(modelled.world.robot, link, physicsClientId=modelled.world.client)[:3]
        assert (mass, inertia) == (expected[0], expected[2])
        assert friction == (env.physics.foot_friction if link in env.world.foot_links else expected[1])
    env.close()
    modelled.close()


def test_masses_and_inertias_are_scaled_together():
    env = MinitaurEnv(randomise="physics")
    modelled = [env.world._model_inertia[link] for link in env.world.leg_links]
    env.reset(seed=0)
    for link, (mass, inertia), factor in zip(env.world.leg_links, modelled, env.physics.leg_masses, strict=True):
        info = pybullet.getDynamicsInfo(env.world.robot, link, physicsClientId=env.world.client)
        assert info[0] == pytest.approx(factor * mass)
        assert info[2] == pytest.approx([factor * i for i in inertia])
    env.close()


# Observation, reward, incidents


def test_observation_holds_the_history_newest_first(env):
    record = run(env, 7, steps=8)
    for t, (_, observation, _, _) in enumerate(record):
        frames = [record[max(t - k, 0)][1][FRAME] for k in range(1, 6)]
        np.testing.assert_array_equal(observation[PAST_FRAMES], np.concatenate(frames))
        # record[t][0] led to record[t]; the first action of the episode is record[1]'s.
        actions = [0.5 * record[max(t - k, 1)][0] if t else np.zeros(8) for k in range(5)]
        np.testing.assert_array_equal(observation[PAST_ACTIONS], np.concatenate(actions))
        np.testing.assert_array_equal(observation[LEGS], leg_model.leg_pose(observation[4:12]))


def test_observation_is_one_control_step_old(env):
    env.reset()
    for _ in range(5):
        true_angles = [d * joint[0] for d, joint in zip(leg_model.MOTOR_DIRECTION, env.world.now.joints, strict=True)]
        observation, *_ = env.step(np.full(8, 0.3))
        np.testing.assert_array_equal(observation[4:12], true_angles)


def test_reward_follows_its_equation(env):
    env.reset()
    actions, positions = [], [env.sensors().base_position[0]]
    for action in np.random.default_rng(0).uniform(-1.0, 1.0, (6, 8)):
        actions.append(0.5 * action)
        _, reward, _, _, info = env.step(action)
        positions.append(env.sensors().base_position[0])
        velocity = (positions[-1] - positions[-2]) / 0.02
        assert info["velocity"] == velocity
        before, before_that = actions[max(len(actions) - 2, 0)], actions[max(len(actions) - 3, 0)]
        jerk = np.mean(np.abs(actions[-1] - 2.0 * before + before_that))
        assert reward == pytest.approx(0.3 - abs(0.3 - np.clip(velocity, -0.8, 0.8)) - 0.01 * jerk, abs=1e-12)


@pytest.mark.parametrize(
    ("state", "margin", "cause"),
    [
        ((0.0, 0.0, 0.0, 0.0), -0.3, ""),
        ((0.3, -0.3, 0.8, 0.8), 0.0, ""),  # on every limit: not yet an incident
        ((0.31, 0.0, 0.0, 0.0), 0.01, "roll"),
        ((-0.4, 0.35, 0.0, 0.0), 0.1, "roll"),
        ((0.0, -0.35, 0.0, 0.0), 0.05, "pitch"),
        ((0.0, 0.0, 0.9, 0.85), 0.1, "front_left_swing"),
        ((0.31, 0.0, -2.0, 1.0), 0.2, "front_right_swing"),
        ((0.0, 0.0, -2.0, -2.0), -0.3, ""),  # backward swing is free
    ],
)
def test_incident_rule(state, margin, cause):
    measured, named = incident_margin(*state)
    assert measured == pytest.approx(margin, abs=1e-12)
    assert named == cause


@pytest.mark.slow
def test_wild_actions_end_in_an_incident_that_the_observation_shows(env):
    contract = load_contract(find_contract("minitaur"))
    causes, steps = set(), 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        env.reset(seed=seed)
        terminated = truncated = False
        while not (terminated or truncated):
            observation, _, terminated, truncated, info = env.step(np.clip(rng.normal(0.0, 1.0, 8), -1.0, 1.0))
            steps += 1
            margin, words = contract.margin(observation[FRAME])
            assert info["margin"] == margin
            assert terminated == info["incident"] == (margin > 0.0)
            assert info["cause"] == (words.split()[0] if terminated else "")
        if terminated:
            causes.add(info["cause"])
    assert causes
    assert causes <= set(INCIDENT_TERMS)
    assert steps < 6 * 500


def test_episode_is_truncated_after_max_steps():
    env = MinitaurEnv(max_steps=3)
    env.reset()
    assert [env.step(np.zeros(8))[3] for _ in range(3)] == [False, False, True]
    env.close()


# Actions


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (np.zeros(7), r"shape \(8,\), but \(7,\) came"),
        (np.zeros((1, 8)), r"shape \(8,\), but \(1, 8\) came"),
        (np.array([0.0] * 7 + [np.nan]), "must be finite"),
        (np.array([np.inf] + [0.0] * 7), "must be finite"),
    ],
)
def test_wrong_action_is_refused_and_changes_nothing(env, action, words):
    env.reset()
    base = env.world.now.base
    for step in (env.step, env.step_joint_positions):
        with pytest.raises(ValueError, match=words):
            step(action)
    assert env.world.now.base == base


def test_step_before_reset_is_refused(env):
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros(8))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"randomise": "all"}, "'all'"),
        ({"render_mode": "human"}, "'human'"),
        ({"max_steps": 0}, "max_steps"),
        ({"foot_friction": -1.0}, "foot_friction"),
        ({"foot_friction": math.nan}, "foot_friction"),
        ({"goal_velocity": math.inf}, "goal_velocity"),
        ({"render_size": (0, 9)}, "0 x 9"),
    ],
)
def test_wrong_constructor_argument_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        MinitaurEnv(**options)


def test_reset_options_are_refused(env):
    with pytest.raises(ValueError, match="friction"):
        env.reset(options={"friction": 1.0})


def test_action_is_clipped_and_left_alone(env):
    action = np.array([2.0, -3.0, 0.5, 0.0, 0.1, 0.2, 0.3, -1.5])
    kept = action.copy()
    env.reset()
    observation, *_ = env.step(action)
    np.testing.assert_array_equal(action, kept)
    np.testing.assert_array_equal(observation[PAST_ACTIONS][:8], 0.5 * np.clip(kept, -1.0, 1.0))


@given(action=actions_in_bounds)
def test_action_map_has_an_inverse_and_agrees_with_the_contract(action):
    positions = legs.action_to_joint_positions(action)
    np.testing.assert_allclose(legs.joint_positions_to_action(positions), action, rtol=0, atol=2e-15)
    contract = load_contract(find_contract("minitaur"))
    assert contract.commanded.joint_names == leg_model.JOINT_NAMES
    np.testing.assert_array_equal(contract.joint_command(action), positions)


def test_action_zero_is_the_standing_pose():
    pose = leg_model.leg_pose(legs.action_to_joint_positions(np.zeros(8)) * leg_model.MOTOR_DIRECTION)
    np.testing.assert_array_equal(pose, [0.0] * 4 + [2.0] * 4)


def test_joint_targets_move_the_robot_as_the_action_does(env):
    other = MinitaurEnv()
    env.reset()
    other.reset()
    for action in np.random.default_rng(1).uniform(-1.0, 1.0, (30, 8)):
        by_action = env.step(action)
        by_targets = other.step_joint_positions(legs.action_to_joint_positions(action))
        assert other.world.now == env.world.now
        np.testing.assert_allclose(by_targets[0], by_action[0], rtol=0, atol=2e-15)
        assert by_targets[1] == pytest.approx(by_action[1], abs=1e-15)
    other.close()


@given(angle=st.floats(-20.0, 20.0))
def test_wrapped_angle_is_the_same_angle_in_range(angle):
    wrapped = leg_model.wrap(angle)
    assert -math.pi <= wrapped < math.pi
    assert math.cos(wrapped - angle) == pytest.approx(1.0, abs=1e-12)
    assert wrapped == angle or not -math.pi <= angle < math.pi


# Walking and looking


@pytest.mark.slow
def test_trot_under_noise_walks_at_its_speed_and_never_falls(env):
    controller = find_task("minitaur").controller(Noise("A", sigma=0.05))
    speeds = []
    for episode in range(5):
        trot = blind_actions(controller, episode)
        env.reset(seed=episode)
        start, truncated = env.sensors().base_position[0], False
        while not truncated:
            _, _, terminated, truncated, info = env.step(next(trot))
            assert not terminated, info
        speeds.append((env.sensors().base_position[0] - start) / 10.0)
    assert 0.25 < min(speeds) <= max(speeds) < 0.35, speeds


def test_frame_shows_the_robot_and_follows_it():
    env = MinitaurEnv(render_mode="rgb_array", render_size=(160, 120))
    env.reset()
    first = env.render()
    assert first.shape == (120, 160, 3)
    assert first.dtype == np.uint8
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 20
    trot = blind_actions(find_task("minitaur").controller(Noise("A", sigma=0.0)), 0)
    for _ in range(250):
        env.step(next(trot))
    later = env.render()
    # The robot's dark body stays in view; the ground moves below it.
    for frame in (first, later):
        assert 0.02 < (frame.max(axis=2) < 90).mean() < 0.3
    assert (first != later).any(axis=2).mean() > 0.2
    env.close()


def test_environment_without_a_render_mode_gives_no_frame(env):
    env.reset()
    assert env.render() is None


def test_environment_can_be_closed_twice_and_forgotten():
    for _ in range(40):
        env = MinitaurEnv()
    client = env.world.client
    assert pybullet.isConnected(physicsClientId=client)
    env.close()
    env.close()
    assert not pybullet.isConnected(physicsClientId=client)
    # Forgotten environments gave their clients back, or there would be about forty.
    assert client < 20
