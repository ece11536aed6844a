"""Judges a shield in simulation: the same controller and seeds, watched and shielded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ssql_ros.data.episode import Episode, EpisodeJob
from ssql_ros.evaluation.intervals import bootstrap_interval, wilson_interval
from ssql_ros.evaluation.rollout import RolloutPool, intervened
from ssql_ros.model.bundle import load_bundle
from ssql_ros.model.critic import thresholds_of
from ssql_ros.robots.tasks import Task
from ssql_ros.shield.decision import Decision, ShieldSettings


def evaluate_shield(
    task: Task,
    bundle: Path | None,
    episodes: int,
    seed: int,
    epsilon: float | None = None,
    noise: dict[str, Any] | None = None,
    show: bool = False,
    nearest: bool = False,
) -> dict[str, float]:
    """Run the task's untrusted controller over the same seeds with the shield in monitor mode and enforcing.

    Args:
        bundle: None: the task's own.
        seed: of the first episode; the others follow it.
        epsilon: None: the bundle's own.
        noise: fields of the controller's noise to change.
        nearest: of the safe candidates the most probable one, instead of the first that was drawn.

    Returns:
        Figures by name; those that end in _low and _high bound a 95 % interval. Steps are control periods,
        velocities m/s, decision times microseconds.

    Raises:
        BundleError: the bundle does not fit the task.
        ValueError: no episodes.
    """
    if episodes < 1:
        raise ValueError(f"episodes: expected at least 1, got {episodes}")
    path = bundle or task.bundle_path()
    own = load_bundle(path, task.contract())
    # Ages do not matter where there is no clock; one period bounds them.
    contract = task.contract()
    period = contract.control_period
    thresholds = thresholds_of(own, epsilon)
    settings = ShieldSettings(thresholds["epsilon"], period, period, delta=thresholds["delta"], nearest=nearest)
    controller = replace(task.noisy_controller(), **(noise or {}))
    runs: dict[str, list[Episode]] = {}
    with RolloutPool() as pool:
        for mode in ("monitor", "enforce"):
            jobs = [
                EpisodeJob(task.name, seed + i, controller, str(path), settings, enforce=mode == "enforce")
                for i in range(episodes)
            ]
            results = pool.run(jobs)
            runs[mode] = list(tqdm(results, total=episodes, desc=mode, unit="episode", disable=not show))
    figures: dict[str, float] = {"episodes": episodes}
    figures |= {name: value for name, value in thresholds.items() if value is not None}
    for mode, run in runs.items():
        figures.update(_figures(mode, run, seed))
    acted = np.concatenate([episode.decisions for episode in runs["enforce"]])
    figures["interventions_per_step"] = float(intervened(acted).mean())
    figures["least_risk_per_step"] = float((acted == int(Decision.LEAST_RISK)).mean())
    figures["backup_per_step"] = float((acted == int(Decision.BACKUP)).mean())
    changes = [
        np.linalg.norm(episode.actions - contract.clip(episode.proposals), axis=1)[intervened(episode.decisions)]
        for episode in runs["enforce"]
    ]
    figures["change_per_intervention"] = float(np.concatenate(changes).mean()) if acted.any() else 0.0
    times = 1e6 * np.concatenate([episode.decision_times for episode in runs["enforce"]])
    for name, quantile in (("p50", 50), ("p99", 99)):
        figures[f"decision_us_{name}"] = float(np.percentile(times, quantile))
    return figures


def _figures(mode: str, episodes: list[Episode], seed: int) -> dict[str, float]:
    falls = sum(episode.incident for episode in episodes)
    lengths = np.array([len(episode) for episode in episodes], float)
    low, high = wilson_interval(falls, len(episodes))
    length_low, length_high = bootstrap_interval(lengths, np.random.default_rng(seed))
    seconds = episodes[0].period * lengths.sum()
    return {
        f"falls_{mode}": falls,
        f"fall_rate_{mode}_low": low,
        f"fall_rate_{mode}_high": high,
        f"length_{mode}": float(lengths.mean()),
        f"length_{mode}_low": length_low,
        f"length_{mode}_high": length_high,
        f"velocity_{mode}": float(sum(episode.distance for episode in episodes) / seconds),
    }
