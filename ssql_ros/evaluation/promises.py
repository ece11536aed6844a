"""Holds a behaviour policy to its promise over many steps: how many incidents, how many actions out of its support."""

from __future__ import annotations

import numpy as np
from tqdm import tqdm

from ssql_ros.algorithms.tabular import collect
from ssql_ros.behaviour.policy import BehaviourPolicy
from ssql_ros.behaviour.promise import PromiseMonitor
from ssql_ros.robots.tasks import Task
from ssql_sim.grid import GridEnv
from ssql_sim.soft_dp import EpisodicMDP, safe_actions, uniform_over

# What a dishonest one draws from: as much wider than its box, in action units.
DISHONEST = 0.5


def watch_task(
    task: Task,
    steps: int,
    seed: int,
    dishonest: bool,
    show: bool = False,
    behaviour: BehaviourPolicy | None = None,
) -> dict[str, float]:
    """Return the monitor's counts over `steps` steps of a task's behaviour policy.

    Args:
        dishonest: it adds uniform noise that its support does not know of.
        behaviour: another one than the task's.

    Returns:
        training_steps, training_incidents, promise_breaches, episodes, and first_breach_episode (0 is the first
        episode; absent where there was none).

    Raises:
        ValueError: no steps, or the task has no behaviour policy.
    """
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    behaviour, rng = behaviour or task.behaviour_policy(), np.random.default_rng([seed, 10])
    monitor, env = PromiseMonitor(behaviour), task.make(**task.world("pretrain"))
    ended, observation = True, np.zeros(0)
    for _ in tqdm(range(steps), unit="step", disable=not show):
        if ended:
            observation, _ = env.reset(seed=int(rng.integers(2**31)))
            behaviour.reset(rng)
            monitor.reset()
        state = np.concatenate([observation, behaviour.context()])
        action = behaviour.act(observation, rng)
        if dishonest:
            action = np.clip(action + rng.uniform(-DISHONEST, DISHONEST, len(action)), -1.0, 1.0)
        observation, _, terminated, truncated, info = env.step(action)
        monitor.watch(state, action, bool(info["incident"]))
        ended = terminated or truncated
    env.close()
    figures = {
        "training_steps": float(monitor.steps),
        "training_incidents": float(monitor.incidents),
        "promise_breaches": float(monitor.breaches),
        "episodes": float(monitor.episodes + 1),
    }
    return figures if monitor.first is None else {**figures, "first_breach_episode": float(monitor.first.episode)}


def watch_grid(layout: str, steps: int, seed: int, dishonest: bool) -> dict[str, float]:
    """Return the same for a grid world whose behaviour policy is uniform over the actions that are safe for good.

    Args:
        layout: name in ssql_sim.grid.MAPS.
        dishonest: it draws from all actions.
    """
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    env = GridEnv(layout=layout)
    promised = uniform_over(safe_actions(EpisodicMDP(env.transitions, env.reward, env.terminal, env.unsafe)))
    acting = np.full_like(promised, 1.0 / promised.shape[1]) if dishonest else promised
    seen = collect(env, acting, promised, steps, np.random.default_rng([seed, 11]))
    return {
        "training_steps": float(seen.steps),
        "training_incidents": float(seen.incidents),
        "promise_breaches": float(seen.breaches),
        "episodes": float(seen.episodes),
    }
