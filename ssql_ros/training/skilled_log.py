"""A mixed log of a world that nobody has a controller for: what SAC does from its first uniform steps to its last.

One learner for each price of an incident: free of charge it learns to run too fast, at a high price to keep to the
limit, and on the way each passes through every skill between none and its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from ssql_ros.data.logged_steps import Log
from ssql_ros.data.replay import Transition
from ssql_ros.robots.tasks import Task
from ssql_ros.training.learner import Learner
from ssql_ros.training.registry import Start, make_learner
from ssql_ros.training.settings import settings_of
from ssql_ros.training.world_training import WorldTraining, spread_of_uniform

PRICES = (0.0, 1.0, 5.0)  # of one step above the limit, in units of the reward
LEARNER: dict[str, Any] = {"hidden": (128, 128), "initial_steps": 4000}


class _RecordingLearner:
    """A learner that pays a price for incidents, and whose steps are written down at their true reward."""

    def __init__(self, learner: Learner, price: float) -> None:
        self._learner, self._price = learner, price
        self.steps: list[Transition] = []

    def observe(self, transition: Transition) -> None:
        self.steps.append(transition)
        t = transition
        paid = t.reward - self._price * t.incident
        self._learner.observe(Transition(t.observation, t.action, paid, t.next_observation, t.incident, t.terminal))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._learner, name)


def skilled_log(task: Task, steps: int, seed: int, prices: Sequence[float] = PRICES, show: bool = False) -> Log:
    """Return the whole episodes among `steps` steps of each price's learner.

    Raises:
        ValueError: no episode of the world fits into `steps`.
    """
    contract = task.contract()
    mean, spread = spread_of_uniform(task, "pretrain", seed)
    episodes: list[list[Transition]] = []
    for index, price in enumerate(prices):
        own = seed * len(prices) + index
        start = Start(mean, spread, contract.action_size, contract.id, task.robot, "pretrain", steps, own, None)
        learner = _RecordingLearner(
            make_learner("sac", start, settings_of("sac", task.robot, LEARNER, task.name)), price
        )
        training = WorldTraining(learner, lambda: task.make(**task.world("pretrain")), contract, steps, own)
        for _ in tqdm(training.run(), total=steps, unit="step", desc=f"price {price:g}", disable=not show):
            if training.can_stop:
                episodes.append(learner.steps)
                learner.steps = []
    if not episodes:
        raise ValueError(f"steps: expected at least one whole episode of {task.name}, got {steps}")
    made = [step for episode in episodes for step in episode]
    return Log(
        observation=np.array([step.observation for step in made], np.float32),
        action=np.array([step.action for step in made], np.float32),
        reward=np.array([step.reward for step in made], np.float32),
        # These worlds' vector is one frame.
        margin=np.array([contract.margin(step.observation)[0] for step in made], np.float32),
        terminal=np.array([step.terminal for step in made], np.float32),
        ending=np.array([contract.margin(step.next_observation)[0] if step.terminal else 0.0 for step in made]),
        episode=np.repeat(np.arange(len(episodes)), [len(episode) for episode in episodes]),
        next_observation=np.array([step.next_observation for step in made], np.float32),
        incident=np.array([step.incident for step in made]),
        control_period=contract.control_period,
    )
