"""Training in a world: one learner, a mask in between where there is one; every algorithm that drives runs through it.

What is counted is what happened to the robot: every episode of collection, and the extra masked episodes of the safety
critic, each with its incident. A run can be stopped at any time and is resumed from its last checkpoint, with the same
figures in the end as an unbroken one: checkpoints are made between episodes, and hold networks, optimisers, replay,
generators and the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from ssql_ros.algorithms.sac import Mask
from ssql_ros.algorithms.work import Work
from ssql_ros.behaviour.promise import PromiseMonitor
from ssql_ros.contract import Contract
from ssql_ros.data.random_streams import Stream
from ssql_ros.data.replay import Transition
from ssql_ros.data.rollout import EpisodeRow, Rollout
from ssql_ros.evaluation.driver import Actor, Driver, evaluate
from ssql_ros.evaluation.promises import watched_steps
from ssql_ros.model.bundle import Bundle, load_bundle
from ssql_ros.model.policy import make_policy
from ssql_ros.nn.checkpoint import load_checkpoint
from ssql_ros.robots.tasks import Task, find_task
from ssql_ros.training.learner import Learner
from ssql_ros.training.plan import Plan
from ssql_ros.training.registry import FROM_BEHAVIOUR, Start, make_learner
from ssql_ros.training.result import Result, figures_of, served

# Uniform steps that show the spread of observations where the task does not state it.
PROBE_STEPS = 2000
LEARNED = "learned.safetensors"


class WorldTraining:
    """A run of one learner in one world.

    Args:
        make_world: makes a world of its own at each call: collection and the extra rollouts have one each.
        steps: of collection.

    Attributes:
        rows: of the log so far.
    """

    pause = "the end of this episode"

    def __init__(
        self,
        learner: Learner,
        make_world: Callable[[], gymnasium.Env],
        contract: Contract,
        steps: int,
        seed: int,
    ) -> None:
        low, high = contract.commanded.low, contract.commanded.high
        if not ((low == -1.0).all() and (high == 1.0).all()):
            raise ValueError(f"{contract.path}: expected action bounds of -1 and 1, got {low} and {high}")
        self.learner, self.steps, self.step = learner, steps, 0
        self.rows: list[EpisodeRow] = []
        collecting, rolling = (purpose.generator(seed) for purpose in (Stream.COLLECTION, Stream.SAFETY_ROLLOUTS))
        self._driver = Driver(make_world(), contract, collecting, "collect")
        self._make_world, self._contract, self._rolling = make_world, contract, rolling
        self._rollout_driver: Driver | None = None

    def run(self) -> Iterator[dict[str, torch.Tensor]]:
        """Make the remaining steps; yield the losses of each, and the log grows in `rows`."""
        while self.step < self.steps:
            if self._driver.between_episodes:
                self._driver.reset(self.learner)
            transition = self._driver.step(self.learner.propose, self.learner.mask(self.step))
            self.step += 1
            self.learner.observe(transition)
            losses = self.learner.learn()
            if masks := self.learner.rollouts_due(self.step):
                losses |= self.learner.observe_rollouts([self._rollout(mask) for mask in masks])
            if self._driver.between_episodes:
                self.rows.append(self._driver.row(self.step))
            yield losses

    def _rollout(self, mask: Mask | None) -> list[Transition]:
        if self._rollout_driver is None:
            self._rollout_driver = Driver(self._make_world(), self._contract, self._rolling, "rollout")
        episode = self._rollout_driver.episode(self.learner, mask, self.step)
        self.rows.append(self._rollout_driver.row(self.step))
        return episode

    @property
    def can_stop(self) -> bool:
        """Return whether this is a place for a checkpoint: the world's own state is in none."""
        return self._driver.between_episodes

    def arithmetic(self) -> dict[str, Any]:
        """Return how its learner computes."""
        return self.learner.arithmetic()

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold; only where `can_stop`."""
        return {
            "step": self.step,
            "learner": self.learner.state(),
            "collecting": self._driver.rng.bit_generator.state,
            "rolling": self._rolling.bit_generator.state,
            "rows": [list(asdict(row).values()) for row in self.rows],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""
        self.step = state["step"]
        self.learner.restore(state["learner"])
        self._driver.rng.bit_generator.state = state["collecting"]
        self._rolling.bit_generator.state = state["rolling"]
        self.rows = [EpisodeRow(*row) for row in state["rows"]]


class PlannedTraining(WorldTraining):
    """What a plan repeats in a world.

    Raises:
        ValueError: the source does not fit the algorithm.
    """

    def __init__(self, plan: Plan, settings: Any) -> None:
        self._plan, self._settings, self._task = plan, settings, find_task(plan.task)
        task, contract, self.facts = self._task, self._task.contract(), dict[str, Any]()
        source = load_bundle(_bundle_of(plan.source), contract) if plan.source else None
        monitor = PromiseMonitor(task.behaviour_policy()) if plan.algorithm in FROM_BEHAVIOUR else None
        mean, scale = _standardisation(task, plan, source, monitor)
        shape = (mean, scale, contract.action_size, contract.id, task.robot)
        start = Start(*shape, plan.phase, plan.steps, plan.seed, monitor, task.backup)
        learner = make_learner(plan.algorithm, start, settings)
        if source is not None:
            try:
                if Path(plan.source).is_dir():
                    learner.load_pretrained(load_checkpoint(Path(plan.source) / LEARNED))
                else:
                    learner.load_networks(source.networks())
            except ValueError as error:
                raise ValueError(f"{plan.source}: does not fit {plan.algorithm}: {error}") from error
        self._served_alone = monitor is not None
        super().__init__(learner, lambda: task.make(**task.world(plan.phase)), contract, plan.steps, plan.seed)

    def finish(self) -> list[Work]:
        """Return what the learner has left to do."""
        return self.learner.finish()

    def result(self) -> Result:
        """Return what came of it; the final policy is driven for that, as it is served where it keeps to a support."""
        plan, task, learner = self._plan, self._task, self.learner
        bundle, facts = served(
            self._contract, self._settings, learner.networks(), learner.behaviour_description(), task
        )
        actor: Actor = make_policy(bundle) if self._served_alone else learner
        env, mask = task.make(**task.world(plan.phase)), learner.mask(plan.steps)
        rows = evaluate(actor, env, self._contract, mask, plan.evaluation, plan.seed)
        figures = {**figures_of(self.rows, rows), **learner.figures()}
        return Result(figures, bundle, facts, {"episodes": len(self.rows)}, learner.learned())


def _bundle_of(source: str) -> Path:
    path = Path(source)
    return path / "bundle.safetensors" if path.is_dir() else path


def _standardisation(
    task: Task, plan: Plan, source: Bundle | None, monitor: PromiseMonitor | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and scale of states: of the bundle, the task, or a probe of uniform actions or of the behaviour."""
    if source is not None:
        policy = source.need("policy")
        return policy.observation_mean, policy.observation_scale
    if task.centre:
        return np.array(task.centre), np.array(task.spread)
    if monitor is not None:
        return _spread_of(_behaved(task, plan, monitor), task)
    return spread_of_uniform(task, plan.phase, plan.seed)


def spread_of_uniform(task: Task, phase: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and scale (n_observation,) of the states that uniform actions meet."""
    env, rng = task.make(**task.world(phase)), Stream.STANDARDISATION.generator(seed)
    world, seen = Rollout(env, rng), []
    for step in world.steps(lambda _: rng.uniform(-1.0, 1.0, env.action_space.shape)):
        seen += [step.observation, step.next_observation] if world.ended else [step.observation]
        if len(seen) >= PROBE_STEPS:
            break
    env.close()
    return _spread_of(seen[:PROBE_STEPS], task)


def _behaved(task: Task, plan: Plan, monitor: PromiseMonitor) -> list[np.ndarray]:
    """Return states that the behaviour policy meets, watched like all of its steps."""
    env, seen = task.make(**task.world(plan.phase)), list[np.ndarray]()
    for state, ended in watched_steps(monitor, env, Stream.STANDARDISATION.generator(plan.seed)):
        seen.append(state)
        if ended and len(seen) >= PROBE_STEPS:
            break
    env.close()
    return seen


def _spread_of(seen: list[np.ndarray], task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and scale of states."""
    # A feature that hardly moves under uniform actions must not become huge once it does.
    return np.mean(seen, axis=0), task.bounded_scale(np.std(seen, axis=0))
