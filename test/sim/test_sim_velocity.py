"""The velocity-limited worlds: gymnasium's own motion and reward, and an incident where the limit is exceeded."""

import gymnasium
import numpy as np
import pytest

from ssql_ros.data.logged_steps import load_log, save_log
from ssql_ros.robots.tasks import find_task
from ssql_ros.training.skilled_log import skilled_log
from ssql_sim import VelocityEnv
from ssql_sim.velocity import ROBOTS

pytest.importorskip("mujoco", reason="needs the extra mujoco")
pytestmark = pytest.mark.mujoco
ROBOT = pytest.mark.parametrize("robot", ROBOTS)


def smooth(env, steps, rng):
    """Return actions (steps, n_action) that are held for a while, so that the robot gets somewhere."""
    n = env.action_space.shape[0]
    return np.repeat(rng.uniform(-1.0, 1.0, (steps // 10 + 1, n)), 10, axis=0)[:steps]


@ROBOT
def test_moves_and_pays_as_gymnasium_does(robot):
    env, bare = VelocityEnv(robot=robot, max_steps=200), gymnasium.make(ROBOTS[robot].environment)
    observation, _ = env.reset(seed=3)
    expected, _ = bare.reset(seed=3)
    np.testing.assert_array_equal(observation, [*expected, 0.0])
    for action in smooth(env, 200, np.random.default_rng(0)):
        observation, reward, terminated, truncated, info = env.step(action)
        expected, paid, _, _, found = bare.step(action)
        np.testing.assert_array_equal(observation, [*expected, found["x_velocity"]])
        assert reward == paid
        assert not terminated
        assert info["cost"] == info["incident"] == (found["x_velocity"] > ROBOTS[robot].limit)
    assert truncated
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(action)


@ROBOT
def test_contract_says_what_the_world_says(robot):
    contract = find_task(f"{robot}_velocity").contract()
    env = find_task(f"{robot}_velocity").make(robot=robot, max_steps=300)
    assert contract.observation_size == env.observation_space.shape[0]
    assert contract.action_size == env.action_space.shape[0]
    assert contract.control_period == env.control_period
    env.reset(seed=0)
    seen = set()
    for action in smooth(env, 300, np.random.default_rng(1)):
        observation, _, _, _, info = env.step(action)
        margin, _ = contract.margin(observation)
        assert margin == pytest.approx(info["margin"])
        seen.add(info["incident"])
    assert robot != "swimmer" or seen == {True, False}


@ROBOT
def test_same_seed_same_episode(robot):
    def episode(seed):
        env = VelocityEnv(robot=robot, max_steps=50)
        env.reset(seed=seed)
        return [env.step(a)[0] for a in smooth(env, 50, np.random.default_rng(0))]

    np.testing.assert_array_equal(episode(5), episode(5))
    assert not np.array_equal(episode(5), episode(6))


@pytest.mark.parametrize(
    ("action", "message"), [(np.zeros(7), "expected shape"), (np.full(2, np.nan), "expected finite")]
)
def test_bad_action_is_refused(action, message):
    env = VelocityEnv(robot="swimmer")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(action)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="robot 'ant' is unknown; known: half_cheetah, swimmer"):
        VelocityEnv(robot="ant")
    with pytest.raises(ValueError, match="max_steps is at least 1"):
        VelocityEnv(robot="swimmer", max_steps=0)
    with pytest.raises(ValueError, match="expected none, got 'position'"):
        VelocityEnv(robot="swimmer").reset(options={"position": 0})


def test_log_of_learners_holds_whole_episodes_at_their_true_reward(tmp_path):
    task = find_task("swimmer_velocity")
    log = skilled_log(task, 2000, seed=0, prices=(0.0, 5.0))
    assert log.episode.tolist() == np.repeat(np.arange(4), 1000).tolist()
    # Not one step is priced: gymnasium's reward is speed minus a small cost of control.
    speed = log.margin[1:] + ROBOTS["swimmer"].limit
    same = log.episode[1:] == log.episode[:-1]
    control = 1e-4 * np.square(log.action[:-1]).sum(axis=1)
    np.testing.assert_allclose(log.reward[:-1][same], (speed - control)[same], atol=1e-4)
    assert 0 < (log.margin > 0).sum() < len(log.margin)
    save_log(log, tmp_path / "data", {"contract_id": task.contract().id})
    again, _ = load_log(tmp_path / "data", task.contract())
    np.testing.assert_array_equal(again.observation, log.observation)


def test_steps_without_a_whole_episode_are_refused():
    with pytest.raises(ValueError, match="at least one whole episode of swimmer_velocity, got 10"):
        skilled_log(find_task("swimmer_velocity"), 10, seed=0, prices=(0.0,))
