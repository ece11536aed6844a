"""The matrix: what a shield makes of many controllers in many worlds, same seeds without it and with it.

Waves, draws held for 10 steps, noise of 1 and, but by a rare chance, the constants are not learned from (see
`adversaries.drawn`); the task's own noisy controller, uniform draws, the bare scripted controllers and some of the
worlds are.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ssql_ros.data.episode import Episode, EpisodeJob
from ssql_ros.evaluation.intervals import wilson_interval
from ssql_ros.evaluation.rollout import RolloutPool, intervened
from ssql_ros.model.bundle import load_bundle
from ssql_ros.model.critic import thresholds_of
from ssql_ros.robots.adversaries import Adversary
from ssql_ros.robots.noise import Noise
from ssql_ros.robots.tasks import Task
from ssql_ros.shield.decision import ShieldSettings


@dataclass(frozen=True)
class Cell:
    """One controller in one world: counts of `episodes`, same seeds without and with the shield.

    Attributes:
        falls_without, falls_with: episodes that ended in an incident.
        changed: share of the steps that the shield changed.
        return_without, return_with: mean over episodes.
    """

    controller: str
    world: str
    episodes: int
    falls_without: int
    falls_with: int
    changed: float
    return_without: float
    return_with: float


def controllers_of(task: Task) -> dict[str, Adversary | Noise]:
    """Return the controllers of the matrix by name: the task's own under its noise, and families left for judging."""
    wild, n = task.noisy_controller(), task.contract().action_size
    first = (1.0,) * (n // 2) + (0.0,) * (n - n // 2)
    return {
        f"{wild.controller} + its noise": Adversary("noise", noise=wild),
        f"{wild.controller} + noise 1, correlation 0.95": Adversary("noise", noise=Noise(wild.controller, 1.0, 0.95)),
        "uniform": Adversary("uniform"),
        "uniform, held 10": Adversary("uniform", hold=10),
        "a corner": Adversary("corner"),
        "all +1": Adversary("constant", action=(1.0,) * n),
        "all -1": Adversary("constant", action=(-1.0,) * n),
        "first half +1": Adversary("constant", action=first),
        "waves": Adversary("waves"),
        **{name: Noise(name, 0.0) for name in task.plug.controllers},
    }


def evaluate_matrix(
    task: Task, bundle: Path | None, episodes: int, seed: int, show: bool, epsilon: float | None = None
) -> list[Cell]:
    """Run every controller in every world of the task, without and with the shield.

    Args:
        bundle: with the safety critic; None: the task's for controllers that nobody knows.
        seed: of the first episode; the others follow.
        epsilon: threshold on Q_safe; None: the bundle's.

    Raises:
        ValueError: the task has no critic or no untrusted controller; BundleError: the bundle cannot be used.
    """
    if episodes < 1:
        raise ValueError(f"expected at least one episode, got {episodes}")
    path, contract = bundle or task.foreign_bundle_path(), task.contract()
    thresholds = thresholds_of(load_bundle(path, contract), epsilon)
    period = contract.control_period
    settings = ShieldSettings(thresholds["epsilon"], period, period, delta=thresholds["delta"])
    cells = [(name, who, world) for world in task.worlds for name, who in controllers_of(task).items()]

    def jobs(shielded: bool) -> Iterator[EpisodeJob]:
        for _, who, world in cells:
            options, bundle = dict(task.worlds[world]), str(path) if shielded else ""
            for i in range(episodes):
                yield EpisodeJob(task.name, seed + i, who, bundle, settings if shielded else None, world=options)

    with RolloutPool() as pool:
        runs = [_grouped(pool, list(jobs(shielded)), episodes, show, shielded) for shielded in (False, True)]
        pairs = zip(cells, *runs, strict=True)
        return [_cell(name, world, *both) for (name, _, world), *both in pairs]


def _grouped(
    pool: RolloutPool, jobs: list[EpisodeJob], episodes: int, show: bool, shielded: bool
) -> list[list[Episode]]:
    what = "with the shield" if shielded else "without"
    ran = list(tqdm(pool.run(jobs), total=len(jobs), desc=what, unit="episode", disable=not show))
    return [ran[i : i + episodes] for i in range(0, len(ran), episodes)]


def _cell(controller: str, world: str, without: list[Episode], shielded: list[Episode]) -> Cell:
    fell, fell_with = (sum(episode.incident for episode in run) for run in (without, shielded))
    earned, earned_with = (float(np.mean([episode.rewards.sum() for episode in run])) for run in (without, shielded))
    changed = float(intervened(np.concatenate([episode.decisions for episode in shielded])).mean())
    return Cell(controller, world, len(without), fell, fell_with, changed, earned, earned_with)


def as_csv(cells: list[Cell]) -> str:
    """Return a line per cell under a line of names."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [column.name for column in fields(Cell)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, cells))
    return text.getvalue()


def matrix_figures(cells: list[Cell], most: int = 2) -> dict[str, Any]:
    """Return what the matrix comes to.

    Returns:
        cells; falls_worst, falls_mean: falls with the shield, of `episodes` a cell; cells_over_{most}; falls_with,
        falls_without: of all episodes, with Wilson's interval; return_kept_min: of controllers that never fell
        without the shield and earned something, the smallest share of their return that they keep.
    """
    falls = np.array([cell.falls_with for cell in cells])
    total = sum(cell.episodes for cell in cells)
    low, high = wilson_interval(int(falls.sum()), total)
    kept = [
        cell.return_with / cell.return_without for cell in cells if not cell.falls_without and cell.return_without > 0.0
    ]
    return {
        "cells": len(cells),
        "episodes": cells[0].episodes,
        "falls_worst": int(falls.max()),
        "falls_mean": float(falls.mean()),
        f"cells_over_{most}": int((falls > most).sum()),
        "falls_without": sum(cell.falls_without for cell in cells),
        "falls_with": int(falls.sum()),
        "fall_rate_with_low": low,
        "fall_rate_with_high": high,
        "return_kept_min": min(kept) if kept else None,
    }
