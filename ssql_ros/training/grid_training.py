"""SSQL and DQN on a grid world, judged against exact dynamic programming; policy.csv has a line for each cell."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from ssql_ros.algorithms.discrete import (
    CellReplay,
    DiscreteQ,
    DiscreteSettings,
    DiscreteSSQLSettings,
    DQNSettings,
)
from ssql_ros.data.random_streams import Stream
from ssql_ros.data.rollout import EpisodeRow, Rollout
from ssql_ros.training.plan import Plan
from ssql_ros.training.result import Result, figures_of
from ssql_ros.training.steps import UpdateTraining
from ssql_sim.grid import GRIDS, GridEnv
from ssql_sim.soft_dp import (
    EpisodicMDP,
    expected_return,
    induced_policy,
    safe_actions,
    soft_optimum,
    uniform_over,
)


class GridTraining(UpdateTraining):
    """What a plan repeats on a grid: steps of collection, then the final updates."""

    learner: GridLearner

    def __init__(self, plan: Plan, settings: DiscreteSettings) -> None:
        super().__init__(GridLearner(plan, settings), plan.steps + settings.final_updates)
        self._plan = plan

    @property
    def rows(self) -> list[EpisodeRow]:
        """Return the log of collection so far."""
        return self.learner.rows

    def result(self) -> Result:
        """Return what came of it.

        Its figures: those of `figures_of`, training_steps, training_incidents, promise_breaches; return_mean: of the
        learned policy, discounted, from the start, computed exactly; return_exact: of the exact solution of the same
        objective; q_error: the mean of |Q - the exact Q| over pairs of b's support that were seen.
        """
        plan, learner = self._plan, self.learner
        figures = {**figures_of(learner.rows, learner.judge(plan.evaluation, plan.seed)), **learner.figures()}
        lines = ["up,down,left,right,stay"]
        lines += [",".join(f"{p:.6g}" for p in row) for row in learner.learning.policy()]
        return Result(figures, files={"policy.csv": ("\n".join(lines) + "\n").encode()})


class GridLearner:
    """One learner and its world: step by step, all of it in a checkpoint.

    Attributes:
        rows: of the log so far.
        incidents, breaches: while learning; a breach is an action outside of b's support, or an incident.
    """

    def __init__(self, plan: Plan, settings: DiscreteSettings) -> None:
        self._steps, self._settings, self._layout = plan.steps, settings, GRIDS[plan.task]
        self._env = GridEnv(layout=self._layout)
        self.mdp = EpisodicMDP(
            self._env.transitions, self._env.reward, self._env.terminal, self._env.unsafe, settings.gamma
        )
        self._supported = isinstance(settings, DiscreteSSQLSettings)
        everything = np.ones(self._env.reward.shape, bool)
        self.behaviour = uniform_over(safe_actions(self.mdp) if self._supported else everything)
        self.temperature = settings.temperature if isinstance(settings, DiscreteSSQLSettings) else 0.0
        with np.errstate(divide="ignore"):
            self.learning = DiscreteQ(np.log(self.behaviour), self.temperature, settings, plan.seed)
        self._replay, self._draws = CellReplay(plan.steps), torch.Generator().manual_seed(plan.seed)
        self._rng = Stream.GRID_COLLECTION.generator(plan.seed)
        self.rows: list[EpisodeRow] = []
        self._world = Rollout(self._env, self._rng)
        self._world.observation = 0
        self.incidents = self.breaches = 0

    def step(self, number: int) -> dict[str, torch.Tensor]:
        """Make one step of collection and an update where it is due, or one of the final updates; return losses."""
        if number < self._steps:
            self._collect(number)
            if self._replay.added < self._settings.warm_up:
                return {}
        return self.learning.update(*self._replay.draw(self._settings.batch, self._draws))

    def _collect(self, number: int) -> None:
        step = next(self._world.steps(lambda cell: self._chosen(cell, number)))
        cell, action, next_cell = int(step.observation), int(step.action), int(step.next_observation)
        self._replay.add(cell, action, step.reward, next_cell, step.terminal)
        self.incidents += step.incident
        self.breaches += step.incident
        self.breaches += bool(self._supported and not self.behaviour[cell, action])
        if self._world.ended:
            self.rows.append(self._world.row("collect", number + 1))

    def _chosen(self, cell: int, number: int) -> int:
        rng, s = self._rng, self._settings
        if isinstance(s, DQNSettings):
            done = min(number / max(s.explore_share * self._steps, 1.0), 1.0)
            if rng.random() >= s.explore_from + done * (s.explore_to - s.explore_from):
                return int(self.learning.table()[cell].argmax())
        return int(rng.choice(self.behaviour.shape[1], p=self.behaviour[cell]))

    def judge(self, episodes: int, seed: int) -> list[EpisodeRow]:
        """Return the log of `episodes` episodes of the learned policy."""
        policy, rng = self.learning.policy(), Stream.GRID_EVALUATION.generator(seed)
        rows: list[EpisodeRow] = []
        world = Rollout(GridEnv(layout=self._layout), rng)
        while len(rows) < episodes:
            world.begin()
            for _ in world.episode(lambda cell: int(rng.choice(policy.shape[1], p=policy[cell]))):
                pass
            rows.append(world.row("evaluate"))
        return rows

    def figures(self) -> dict[str, float]:
        """Return what was counted, and how far it is from the exact solution."""
        exact, _ = soft_optimum(self.mdp, self.behaviour, self.temperature)
        best, start = induced_policy(exact, self.behaviour, self.temperature), self._env.start
        seen = self._replay.pairs(*self.behaviour.shape) & (self.behaviour > 0.0)
        return {
            "training_steps": float(self._replay.added),
            "training_incidents": float(self.incidents),
            "promise_breaches": float(self.breaches),
            "return_mean": float(expected_return(self.mdp, self.learning.policy())[start]),
            "return_exact": float(expected_return(self.mdp, best)[start]),
            "q_error": float(np.abs(self.learning.table() - exact)[seen].mean()),
        }

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold."""
        world = self._world
        return {
            "learning": self.learning.state(),
            "rows": self._replay.rows[: self._replay.added],
            "draws": self._draws.get_state(),
            "rng": self._rng.bit_generator.state,
            "world": self._env.state(),
            "log": [list(dataclasses.astuple(row)) for row in self.rows],
            "counts": [self.incidents, self.breaches, int(world.observation), int(world.ended), world.length],
            "total": world.total_reward,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""
        world = self._world
        self.learning.restore(state["learning"])
        self._replay.added = len(state["rows"])
        self._replay.rows[: self._replay.added] = state["rows"]
        self._draws.set_state(state["draws"])
        self._rng.bit_generator.state = state["rng"]
        self._env.restore(state["world"])
        self.rows = [EpisodeRow(*row) for row in state["log"]]
        self.incidents, self.breaches, world.observation, ended, world.length = state["counts"]
        world.ended, world.total_reward = bool(ended), state["total"]
