"""Judges a bundle in its world: what its policy does behind its shield, and whether Q_safe is what it says."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ssql_ros.algorithms.sac import NO_CLOCK, Mask
from ssql_ros.behaviour.policy import BehaviourPolicy
from ssql_ros.contract import Contract
from ssql_ros.data.episode import EpisodeJob
from ssql_ros.data.random_streams import Stream
from ssql_ros.evaluation.calibration import Outcomes, calibration, driven_outcomes, masked_outcomes
from ssql_ros.evaluation.driver import Driver
from ssql_ros.evaluation.intervals import bootstrap_interval, wilson_interval
from ssql_ros.evaluation.q_calibration import calibrate_q, has_objective
from ssql_ros.evaluation.rollout import RolloutPool
from ssql_ros.model.bundle import Bundle, load_bundle
from ssql_ros.model.critic import SafetyCritic, logit, shielding_critic, thresholds_of
from ssql_ros.model.policy import ActingBehaviour, make_policy
from ssql_ros.model.probes import with_probes
from ssql_ros.robots.tasks import Task
from ssql_ros.shield.decision import ShieldSettings


def evaluate_policy(
    task: Task,
    bundle: Bundle,
    world: dict[str, Any],
    episodes: int,
    seed: int,
    shielded: bool,
    epsilon: float | None = None,
    drawn: bool = False,
    show: bool = False,
    starts: np.ndarray | None = None,
) -> dict[str, float]:
    """Return figures of a bundle's policy.

    Args:
        world: options of the world.
        shielded: behind the bundle's safety critic.
        epsilon: None: the bundle's own.
        drawn: actions are drawn from the policy; else its most probable ones.
        starts: (episodes, 2) positions to begin at, in a world that knows positions; None: the world's own.

    Returns:
        return_mean, cost_mean, safe_episodes (the share of those without an incident), falls (incidents), success,
        length_mean, velocity_mean [m/s] and 95 % intervals.

    Raises:
        ValueError: no episodes.
        BundleError: no policy, or no safety critic where one is wanted.
    """
    if episodes < 1:
        raise ValueError(f"episodes: expected at least 1, got {episodes}")
    policy, mask = make_policy(bundle), mask_of(bundle, epsilon) if shielded else None
    driver = Driver(task.make(**world), task.contract(), Stream.EVALUATION.generator(seed), "evaluate")
    rows, costs = [], []
    for i in tqdm(range(episodes), unit="episode", disable=not show):
        driver.episode(policy, mask, 0, best=not drawn, start=None if starts is None else starts[i])
        rows.append(driver.row(0))
        costs.append(driver.cost)
    rewards, falls = np.array([row.total_reward for row in rows]), sum(row.incident for row in rows)
    low, high = bootstrap_interval(rewards, np.random.default_rng(seed))
    fall_low, fall_high = wilson_interval(falls, episodes)
    steps = sum(row.length for row in rows)
    figures = {
        "episodes": float(episodes),
        "return_mean": float(rewards.mean()),
        "return_mean_low": low,
        "return_mean_high": high,
        "cost_mean": float(np.mean(costs)),
        "safe_episodes": 1.0 - falls / episodes,
        "falls": float(falls),
        "fall_rate_low": fall_low,
        "fall_rate_high": fall_high,
        "success": float(np.mean([row.success for row in rows])),
        "length_mean": steps / episodes,
        "velocity_mean": float(np.mean([row.velocity for row in rows])),
        "interventions_per_step": sum(row.intervened for row in rows) / steps,
        "least_risk_per_step": sum(row.least_risk for row in rows) / steps,
    }
    return {name: value for name, value in figures.items() if not math.isnan(value)}


def starts_of(task: Task, episodes: int, seed: int) -> np.ndarray | None:
    """Return positions (episodes, n), uniformly drawn from those that can stay safe, where this is known; else None."""
    return task.plug.truth().safe_starts(episodes, seed) if task.plug.truth else None


def read_starts(path: Path, contract: Contract) -> np.ndarray:
    """Return positions (N, n_frame) from a CSV file whose columns are the contract's features.

    Raises:
        ValueError: the file is missing or empty, a column is missing, or a value is not a finite number.
    """
    names = contract.frame_names
    try:
        # With or without a byte order mark, as spreadsheets write one.
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    if not rows:
        raise ValueError(f"{path}: expected a header {','.join(names)} and at least one line, got none")
    columns = _columns([name for name in rows[0] if name is not None], names, path)
    starts = np.zeros((len(rows), len(names)))
    for i, row in enumerate(rows):
        for j, name in enumerate(columns):
            try:
                starts[i, j] = float(row[name])
            except (TypeError, ValueError):
                starts[i, j] = math.nan
            if not math.isfinite(starts[i, j]):
                raise ValueError(f"{path}: line {i + 2}: {name}: expected a finite number, got {row[name]!r}")
    return starts


def _columns(header: list[str], names: Sequence[str], path: Path) -> list[str]:
    """Return which column of a header is which feature: by name, else by name without case and spaces."""
    found = []
    for name in names:
        alike = [name] if name in header else [column for column in header if column.strip().lower() == name.lower()]
        if len(alike) != 1:
            what = f"{' and '.join(alike)} could both be it" if alike else "it is missing"
            raise ValueError(f"{path}: expected a column {name}, but {what}: the header has {', '.join(header)}")
        found += alike
    return found


def evaluate_behaviour(task: Task, episodes: int, seed: int, show: bool = False) -> dict[str, float]:
    """Return figures of a task's safe behaviour policy, by name: return_mean, return_max, incidents.

    Worlds that tell them add success (the share of episodes that end in one) and velocity_mean. A mixture is taken
    apart: each of its parts without noise (the middle of its support), each with it, and all.

    Raises:
        ValueError: no episodes, or the task has no behaviour policy.
    """
    if episodes < 1:
        raise ValueError(f"episodes: expected at least 1, got {episodes}")
    behaviour = task.behaviour_policy()
    cases: list[tuple[str, BehaviourPolicy, bool]] = [("all", behaviour, False)]
    for name, weights in zip(parts := behaviour.start_names(), np.eye(len(parts)), strict=True):
        alone = behaviour.with_start_weights(weights)
        cases += [(f"{name}_bare", alone, True), (f"{name}_noisy", alone, False)]
    figures: dict[str, float] = {}
    bar = tqdm(total=len(cases) * episodes, unit="episode", disable=not show)
    for name, policy, bare in cases:
        actor = ActingBehaviour(policy)
        driver = Driver(
            task.make(**task.world("pretrain")),
            task.contract(),
            Stream.BEHAVIOUR_EVALUATION.generator(seed),
            "evaluate",
        )
        rows = []
        for _ in range(episodes):
            driver.episode(actor, None, 0, best=bare)
            rows.append(driver.row(0))
            bar.update()
        rewards = [row.total_reward for row in rows]
        figures |= {
            f"{name}_return_mean": float(np.mean(rewards)),
            f"{name}_return_max": max(rewards),
            f"{name}_incidents": float(sum(row.incident for row in rows)),
        }
        if "success" in driver.info:
            figures[f"{name}_success"] = float(np.mean([row.success for row in rows]))
        if not math.isnan(rows[0].velocity):
            figures[f"{name}_velocity_mean"] = float(np.mean([row.velocity for row in rows]))
    bar.close()
    return figures


def trajectories(task: Task, bundle: Bundle, world: dict[str, Any], episodes: int, seed: int) -> list[np.ndarray]:
    """Return the observations (T + 1, n_observation) of episodes of a bundle's policy behind its own shield."""
    policy, mask = make_policy(bundle), mask_of(bundle)
    driver = Driver(task.make(**world), task.contract(), Stream.TRAJECTORIES.generator(seed), "trajectory")
    ways = []
    for _ in range(episodes):
        steps = driver.episode(policy, mask, 0)
        ways.append(np.array([*(step.observation for step in steps), steps[-1].next_observation]))
    return ways


def mask_of(bundle: Bundle, epsilon: float | None = None) -> Mask:
    """Return the bundle's shield as a mask."""
    return Mask(shielding_critic(bundle), _shield_of(bundle, epsilon))


def _shield_of(bundle: Bundle, epsilon: float | None = None) -> ShieldSettings:
    thresholds = thresholds_of(bundle, epsilon)
    return ShieldSettings(thresholds["epsilon"], NO_CLOCK, NO_CLOCK, delta=thresholds["delta"])


def calibrate(path: Path, task: Task, world: dict[str, Any], episodes: int, seed: int, show: bool) -> Bundle:
    """Return the bundle with calibration figures in its provenance; it is not saved.

    Where it has a safety critic, `calibration` compares Q_safe(s, a) with gamma_safe^(steps to the incident) on the
    states of the masked policy in service: the bundle's own, or the task's untrusted controller where it has none.
    Where its objective is known, `q_calibration` compares Q with its regularised return (see q_calibration).

    Raises:
        BundleError: the bundle does not fit the task's contract, or has nothing to calibrate.
        ValueError: no episodes.
    """
    if episodes < 1:
        raise ValueError(f"episodes: expected at least 1, got {episodes}")
    bundle = load_bundle(path, task.contract())
    found: dict[str, Any] = {}
    regularised = has_objective(bundle)
    if bundle.critic is not None or not regularised:
        found["calibration"] = _calibrate_q_safe(path, task, bundle, world, episodes, seed, show)
    if regularised:
        figures = calibrate_q(task, bundle, world, episodes, seed, show)
        found["q_calibration"] = {**figures, "episodes": episodes, "seed": seed, "task": task.name}
    # Bundles of before probes get theirs here.
    return with_probes(replace(bundle, provenance={**bundle.provenance, **found}), task.contract())


def _calibrate_q_safe(
    path: Path, task: Task, bundle: Bundle, world: dict[str, Any], episodes: int, seed: int, show: bool
) -> dict[str, Any]:
    critic = SafetyCritic(bundle)
    outcomes = _masked_policy(task, bundle, world, episodes, seed, show) if bundle.policy else None
    if outcomes is None:
        outcomes = _masked_controller(task, bundle, path, episodes, seed, show)
    figures = calibration(_q_safe(critic, outcomes), outcomes.discounted_incident)
    # JSON has no NaN: an AUC without an incident is not a number to report.
    kept: dict[str, Any] = {name: None if value != value else value for name, value in figures.items()}
    return kept | {"episodes": episodes, "seed": seed, "task": task.name}


def _q_safe(critic: SafetyCritic, outcomes: Outcomes) -> np.ndarray:
    pairs = zip(outcomes.observations, outcomes.actions, strict=True)
    logits = np.array([critic.logits(s, a[np.newaxis].astype(np.float32))[0] for s, a in pairs], float)
    return 1.0 / (1.0 + np.exp(-np.clip(logits, logit(1e-12), logit(1.0 - 1e-12))))


def _masked_policy(task: Task, bundle: Bundle, world: dict[str, Any], episodes: int, seed: int, show: bool) -> Outcomes:
    policy, mask = make_policy(bundle), mask_of(bundle)
    driver = Driver(task.make(**world), task.contract(), Stream.CALIBRATION.generator(seed), "calibrate")
    bar = tqdm(range(episodes), unit="episode", disable=not show)
    return driven_outcomes([driver.episode(policy, mask, 0) for _ in bar], bundle.safety_critic().gamma_safe)


def _masked_controller(task: Task, bundle: Bundle, path: Path, episodes: int, seed: int, show: bool) -> Outcomes:
    shield = _shield_of(bundle)
    jobs = [EpisodeJob(task.name, seed + i, task.noisy_controller(), str(path), shield) for i in range(episodes)]
    with RolloutPool() as pool:
        run = list(tqdm(pool.run(jobs), total=episodes, unit="episode", disable=not show))
    return masked_outcomes(run, bundle.safety_critic().gamma_safe)
