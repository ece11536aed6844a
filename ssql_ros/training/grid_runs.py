"""A run of SSQL or DQN on a grid world, in one folder; judged against exact dynamic programming.

config.json             algorithm, task, steps, seed, every setting, command, versions
checkpoint.safetensors  the newest one, replaced whole; the run goes on from there
episodes.csv            one line per episode of collection
tensorboard/            losses
policy.csv              the learned policy: one line per cell, one probability per action
figures.json            what it comes to
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
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
from ssql_ros.evaluation.driver import EpisodeRow
from ssql_ros.model.bundle import write_whole
from ssql_ros.training.runs import as_csv, claim, figures_of
from ssql_ros.training.settings import checked_settings
from ssql_ros.training.stepping import step_through
from ssql_sim.grid import GRIDS, GridEnv
from ssql_sim.soft_dp import (
    EpisodicMDP,
    expected_return,
    induced_policy,
    safe_actions,
    soft_optimum,
    uniform_over,
)

ALGORITHMS: dict[str, type[DiscreteSettings]] = {"ssql": DiscreteSSQLSettings, "dqn": DQNSettings}


@dataclass(frozen=True)
class GridPlan:
    """What a run does.

    Attributes:
        steps: of collection.
        settings: by name, that differ from the defaults.
        evaluation: episodes of the learned policy.
    """

    algorithm: str
    task: str
    steps: int
    seed: int
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    checkpoint_every: int = 25_000
    evaluation: int = 100

    def __post_init__(self) -> None:
        """Check what can be checked at once. Raises ValueError."""
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"{self.algorithm} does not learn on a grid; these do: {', '.join(ALGORITHMS)}")
        if self.task not in GRIDS:
            raise ValueError(f"task {self.task!r} is no grid; these are: {', '.join(GRIDS)}")
        grid_settings(self.algorithm, self.settings)
        for name, least in (("steps", 1), ("checkpoint_every", 1), ("evaluation", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")


def grid_settings(algorithm: str, changed: dict[str, Any]) -> Any:
    """Return the settings. Raises ValueError for an unknown one, or a value of another type."""
    return checked_settings(algorithm, ALGORITHMS[algorithm](), {}, changed)


def run_grid(plan: GridPlan, folder: Path, facts: dict[str, Any], show: bool) -> dict[str, float]:
    """Learn as planned, going on from the folder's checkpoint where there is one; return the figures.

    Returns:
        those of `runs.figures_of`, training_steps, training_incidents, promise_breaches; return_mean: of the learned
        policy, discounted, from the start, computed exactly; return_exact: of the exact solution of the same objective;
        q_error: the mean of |Q - the exact Q| over pairs of b's support that were seen.

    Raises:
        CheckpointError: the folder holds another run, or the checkpoint is damaged, or cannot be written.
    """
    settings = grid_settings(plan.algorithm, plan.settings)
    config = {"plan": dataclasses.asdict(plan), "settings": dataclasses.asdict(settings), **facts}
    learner = GridLearner(plan, settings)
    claim(folder, config)
    count, title = plan.steps + settings.final_updates, f"{plan.algorithm} {plan.task}"
    step_through(learner, learner.step, count, folder, plan.checkpoint_every, title, show)
    figures = {**figures_of(learner.rows, learner.judge(plan.evaluation, plan.seed)), **learner.figures()}
    write_whole(folder / "episodes.csv", as_csv(learner.rows).encode())
    lines = [",".join(f"{p:.6g}" for p in row) for row in learner.learning.policy()]
    write_whole(folder / "policy.csv", ("\n".join(["up,down,left,right,stay", *lines]) + "\n").encode())
    write_whole(folder / "figures.json", json.dumps({"figures": figures, **config}, indent=1).encode())
    return figures


class GridLearner:
    """One learner and its world: step by step, all of it in a checkpoint.

    Attributes:
        rows: of the log so far.
        incidents, breaches: while learning; a breach is an action outside of b's support, or an incident.
    """

    def __init__(self, plan: GridPlan, settings: DiscreteSettings) -> None:
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
        self._rng = np.random.default_rng([plan.seed, 17])
        self.rows: list[EpisodeRow] = []
        self.incidents = self.breaches = 0
        self._cell, self._ended, self._length, self._total = 0, True, 0, 0.0

    def step(self, number: int) -> dict[str, torch.Tensor]:
        """Make one step of collection and an update where it is due, or one of the final updates; return losses."""
        if number < self._steps:
            self._collect(number)
            if self._replay.added < self._settings.warm_up:
                return {}
        return self.learning.update(*self._replay.draw(self._settings.batch, self._draws))

    def _collect(self, number: int) -> None:
        env, rng = self._env, self._rng
        if self._ended:
            self._cell, _ = env.reset(seed=int(rng.integers(2**31)))
            self._length, self._total = 0, 0.0
        action = self._chosen(number)
        following, reward, terminated, truncated, info = env.step(action)
        self._replay.add(self._cell, action, reward, following, terminated)
        self.incidents += bool(info["incident"])
        self.breaches += bool(info["incident"]) + bool(self._supported and not self.behaviour[self._cell, action])
        self._cell, self._ended = following, terminated or truncated
        self._length, self._total = self._length + 1, self._total + reward
        if self._ended:
            ending = (bool(info["incident"]), bool(info["success"]))
            self.rows.append(EpisodeRow("collect", number + 1, self._length, self._total, *ending, math.nan, 0, 0))

    def _chosen(self, number: int) -> int:
        rng, s = self._rng, self._settings
        if isinstance(s, DQNSettings):
            done = min(number / max(s.explore_share * self._steps, 1.0), 1.0)
            if rng.random() >= s.explore_from + done * (s.explore_to - s.explore_from):
                return int(self.learning.table()[self._cell].argmax())
        return int(rng.choice(self.behaviour.shape[1], p=self.behaviour[self._cell]))

    def judge(self, episodes: int, seed: int) -> list[EpisodeRow]:
        """Return the log of `episodes` episodes of the learned policy."""
        policy, rng, rows = self.learning.policy(), np.random.default_rng([seed, 18]), []
        env = GridEnv(layout=self._layout)
        for _ in range(episodes):
            cell, _ = env.reset(seed=int(rng.integers(2**31)))
            total, length, ended = 0.0, 0, False
            info: dict[str, bool] = {}
            while not ended:
                cell, reward, terminated, truncated, info = env.step(int(rng.choice(policy.shape[1], p=policy[cell])))
                total, length, ended = total + reward, length + 1, terminated or truncated
            rows.append(EpisodeRow("evaluate", 0, length, total, info["incident"], info["success"], math.nan, 0, 0))
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
        return {
            "learning": self.learning.state(),
            "rows": self._replay.rows[: self._replay.added],
            "draws": self._draws.get_state(),
            "rng": self._rng.bit_generator.state,
            "world": self._env.state(),
            "log": [list(dataclasses.astuple(row)) for row in self.rows],
            "counts": [self.incidents, self.breaches, self._cell, int(self._ended), self._length],
            "total": self._total,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""
        self.learning.restore(state["learning"])
        self._replay.added = len(state["rows"])
        self._replay.rows[: self._replay.added] = state["rows"]
        self._draws.set_state(state["draws"])
        self._rng.bit_generator.state = state["rng"]
        self._env.restore(state["world"])
        self.rows = [EpisodeRow(*row) for row in state["log"]]
        self.incidents, self.breaches, self._cell, ended, self._length = state["counts"]
        self._ended, self._total = bool(ended), state["total"]
