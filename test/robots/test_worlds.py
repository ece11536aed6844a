"""Every world keeps the gymnasium API, and a seed is an episode, whatever was before it."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from ssql_ros.robots.tasks import Task, tasks
from ssql_sim.grid import GridEnv

PHASES = ("pretrain", "finetune")
SEEDS = st.integers(0, 2**31 - 1)


def world_of(task: Task, phase: str) -> gymnasium.Env:
    if task.name.endswith("_velocity") and task.robot != "minitaur":
        pytest.importorskip("mujoco")
    return task.make(**task.world(phase))


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("task", tasks().values(), ids=tasks())
def test_world_keeps_the_api(task, phase):
    env = world_of(task, phase)
    with warnings.catch_warnings():
        # Of unbounded observations, which are the authors'.
        warnings.simplefilter("ignore")
        check_env(env)


def test_grid_keeps_the_api():
    check_env(GridEnv(), skip_render_check=True)


def episode(env: gymnasium.Env, seed: int, steps: int) -> list[np.ndarray]:
    observation, _ = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    seen, ended = [np.asarray(observation)], False
    while len(seen) <= steps and not ended:
        action = rng.uniform(-1.0, 1.0, env.action_space.shape).astype(env.action_space.dtype)
        observation, reward, terminated, truncated, info = env.step(action)
        seen.append(np.array([*observation, reward, info["incident"]]))
        ended = terminated or truncated
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("task", tasks().values(), ids=tasks())
def test_a_seed_is_an_episode_whatever_was_before(task, phase):
    used = world_of(task, phase)

    @settings(max_examples=4, deadline=None)
    @given(before=st.lists(st.tuples(SEEDS, st.integers(0, 40)), min_size=1, max_size=3), seed=SEEDS)
    def holds(before, seed):
        fresh = world_of(task, phase)
        expected = episode(fresh, seed, 30)
        fresh.close()
        for other, steps in before:
            episode(used, other, steps)
        found = episode(used, seed, 30)
        assert len(found) == len(expected)
        assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))

    holds()
    used.close()
