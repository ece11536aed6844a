"""Logs of a task's own behaviour policy, as a data set of transitions: what a bag of it comes to, without ROS."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ssql_ros.data.data_set import DataSetWriter, transition_columns
from ssql_ros.data.logged_steps import margins
from ssql_ros.data.random_streams import Stream
from ssql_ros.data.rollout import Rollout
from ssql_ros.robots.tasks import Task


def log_behaviour(
    task: Task, out: Path, episodes: int, seed: int, facts: Mapping[str, Any], show: bool = False
) -> dict[str, float]:
    """Write `episodes` episodes of the task's behaviour policy in the world of its pre-training; return figures.

    Raises:
        ValueError: no episodes, the task has no behaviour policy, or `out` is there already (DataSetError).
    """
    if episodes < 1:
        raise ValueError(f"episodes: expected at least 1, got {episodes}")
    behaviour, contract = task.behaviour_policy(), task.contract()
    rng, env = Stream.BEHAVIOUR_LOG.generator(seed), task.make(**task.world("pretrain"))
    columns = transition_columns(contract.observation_size, contract.action_size, behaviour.n_context)
    world = Rollout(env, rng)
    period, incidents, returns = round(1e9 * contract.control_period), [], []
    with DataSetWriter(out, columns) as writer:
        for episode in tqdm(range(episodes), unit="episode", disable=not show):
            world.begin()
            behaviour.reset(rng)
            while not world.ended:
                context = behaviour.context()
                # As float32, which is what the data set holds: what was recorded is what was done.
                step = world.step(behaviour.act(world.observation, rng).astype(np.float32))
                row = {
                    "observation": step.observation,
                    "action": step.action,
                    "reward": step.reward,
                    "next_observation": step.next_observation,
                    "margin": margins(step.observation[np.newaxis], contract)[0],
                    "incident": step.incident,
                    "terminal": step.terminal,
                    "episode": episode,
                    "stamp": writer.rows * period,
                    "context": context,
                    "next_context": behaviour.context(),
                }
                writer.add({name: row[name] for name in columns})
            incidents.append(step.incident)
            returns.append(world.total_reward)
        env.close()
        counts = {"rows": writer.rows, "episodes": episodes, "incidents": int(sum(incidents))}
        told = {"contract_id": contract.id, "control_period": contract.control_period, "reward": "the world's"}
        writer.finish({**told, "counts": counts, "problems": [], **facts})
    return {
        "episodes": float(episodes),
        "transitions": float(counts["rows"]),
        "return_mean": float(np.mean(returns)),
        "cost_mean": float(np.mean(incidents)),
        "safe_episodes": float(1.0 - np.mean(incidents)),
    }
