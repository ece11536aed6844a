"""The small tables that are kept of experiments: what docs/results is made from.

summary.csv   experiment, method, task, seed, figure, value
curves.csv    experiment, method, task, seed, step, and means over twenty stretches of the last phase's collection
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from ssql_ros.model.bundle import load_bundle, read_provenance
from ssql_ros.processes.files import write_atomically
from ssql_ros.robots.tasks import find_task
from studies.experiments import EXPERIMENTS, Trial

STRETCHES = 20
WAYS = 100  # episodes that show which way a policy goes
DRAWN = 50  # episodes of a final policy's draws
SUMMARY = ("experiment", "method", "task", "seed", "figure", "value")
CURVES = ("experiment", "method", "task", "seed", "step", "reward", "success", "velocity", "incidents", "episodes")
# What `ssql calibrate` stores in a bundle: of Q_safe, and of Q.
CALIBRATION = ("ece", "auc", "bias")
Q_CALIBRATION = (
    "q_bias",
    "q_rmse",
    "q_rank",
    "q_range",
    "q_share",
    "q_return_mean",
    "q_incident_rate",
    "kl_mean",
    "v_bias",
)


def collect(trials: Sequence[Trial], runs: Path, results: Path) -> None:
    """Write the tables of trials that have ended into `results`; rows of other experiments stay."""
    summary, curves = [], []
    for trial in trials:
        before, after = trial.folders(runs)
        if not all(trial.ended(runs)):
            continue
        experiment = EXPERIMENTS[trial.experiment]
        names = [trial.experiment, trial.method, experiment.task, str(trial.seed)]
        for prefix, folder in (("", after),) if experiment.single else (("pretrain_", before), ("", after)):
            figures = json.loads((folder / "figures.json").read_text())["figures"]
            summary += [[*names, f"{prefix}{name}", f"{value:.6g}"] for name, value in figures.items()]
        if experiment.ways:
            summary += [[*names, "goes_round", f"{_goes_round(trial, after):.6g}"]]
        if experiment.drawn:
            summary += [[*names, name, f"{value:.6g}"] for name, value in _drawn(trial, after).items()]
        summary += [[*names, name, f"{value:.6g}"] for name, value in _calibration(after).items()]
        curves += [[*names, *row] for row in _curve(after / "episodes.csv")]
    _merge(results / "summary.csv", SUMMARY, summary)
    _merge(results / "curves.csv", CURVES, curves)


def _calibration(folder: Path) -> dict[str, float]:
    """Return what `ssql calibrate` has stored in the bundle, where it has."""
    found = read_provenance(folder / "bundle.safetensors")
    safety, rewards = found.get("calibration", {}), found.get("q_calibration", {})
    numbers = {f"calibration_{name}": safety.get(name) for name in CALIBRATION}
    numbers |= {name: rewards.get(name) for name in Q_CALIBRATION}
    return {name: value for name, value in numbers.items() if value is not None}


def _drawn(trial: Trial, folder: Path) -> dict[str, float]:
    """Return what the final policy comes to by its draws, as it was while it learned: behind the mask or not."""
    from ssql_ros.evaluation.bundle_evaluation import evaluate_policy

    experiment = EXPERIMENTS[trial.experiment]
    task = find_task(experiment.task)
    bundle = load_bundle(folder / "bundle.safetensors", task.contract())
    masked = experiment.methods[trial.method].algorithm == "sqrl"
    found = evaluate_policy(task, bundle, task.world("finetune"), DRAWN, trial.seed, masked, drawn=True)
    names = {"return_mean": "reward", "velocity_mean": "velocity", "length_mean": "length"}
    figures = {f"drawn_{to}": found[name] for name, to in names.items() if name in found}
    return figures | {"drawn_incident_rate": found["falls"] / DRAWN}


def _goes_round(trial: Trial, folder: Path) -> float:
    """Return the share of episodes in which the policy, drawn from behind its shield, passes the pools outside."""
    from ssql_ros.evaluation.bundle_evaluation import trajectories
    from ssql_sim.spider import goes_round

    task = find_task(EXPERIMENTS[trial.experiment].task)
    bundle = load_bundle(folder / "bundle.safetensors", task.contract())
    ways = trajectories(task, bundle, task.world("finetune"), WAYS, trial.seed)
    return sum(goes_round(way) for way in ways) / len(ways)


def _curve(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "collect"]
    if not rows:
        return []
    end = int(rows[-1]["step"])
    stretches: list[list[dict[str, str]]] = [[] for _ in range(STRETCHES)]
    for row in rows:
        stretches[min(STRETCHES * int(row["step"]) // (end + 1), STRETCHES - 1)].append(row)
    lines = []
    for i, part in enumerate(stretches):
        if part:
            means = [
                sum(float(row[name]) for row in part) / len(part) for name in ("total_reward", "success", "velocity")
            ]
            incidents = sum(int(row["incident"]) for row in part)
            lines.append(
                [str((i + 1) * end // STRETCHES), *(f"{m:.4g}" for m in means), str(incidents), str(len(part))]
            )
    return lines


def add_rows(results: Path, rows: list[list[str]]) -> None:
    """Put rows (experiment, method, task, seed, figure, value) into summary.csv, in the place of the same before."""
    _merge(results / "summary.csv", SUMMARY, rows)


def _merge(path: Path, header: Sequence[str], rows: list[list[str]]) -> None:
    """Replace the lines that new ones stand for: the same experiment, method, task and seed."""
    new = {tuple(row[:4]) for row in rows}
    kept: list[list[str]] = []
    if path.exists():
        with path.open(newline="") as file:
            kept = [row for row in list(csv.reader(file))[1:] if tuple(row[:4]) not in new]
    lines = [",".join(row) for row in [list(header), *sorted([*kept, *rows], key=lambda row: row[:4])]]
    write_atomically(path, ("\n".join(lines) + "\n").encode())
