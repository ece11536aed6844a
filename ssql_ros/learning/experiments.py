"""The experiments of docs/results: which runs each one takes, and the small tables that are kept of them.

summary.csv   experiment, method, task, seed, figure, value
curves.csv    experiment, method, task, seed, step, and means over twenty stretches of fine-tuning
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ssql_ros.bundle import load_bundle, read_provenance, write_whole
from ssql_ros.tasks import find_task

STRETCHES = 20
WAYS = 100  # episodes that show which way a policy goes
SUMMARY = ("experiment", "method", "task", "seed", "figure", "value")
CURVES = ("experiment", "method", "task", "seed", "step", "reward", "success", "velocity", "incidents", "episodes")


@dataclass(frozen=True)
class Method:
    """One line of an experiment's table.

    Attributes:
        algorithm: that fine-tunes.
        before: that pre-trains; empty: the same. RS begins from SQRL's pre-training.
        pretrain, finetune: settings that differ from the robot's.
    """

    algorithm: str
    before: str = ""
    pretrain: dict[str, Any] = field(default_factory=dict)
    finetune: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """Methods on one task.

    Attributes:
        world: names the pre-training, which tasks of one robot share.
        pretrain_steps, finetune_steps: of collection, the same for every method.
        pretrain, finetune: settings of every method that differ from the robot's.
        ways: whether it is of interest which way round the spider's pools a policy goes.
    """

    task: str
    world: str
    methods: dict[str, Method]
    pretrain_steps: int
    finetune_steps: int
    seeds: int
    pretrain: dict[str, Any] = field(default_factory=dict)
    finetune: dict[str, Any] = field(default_factory=dict)
    ways: bool = False


_BASELINES = {
    "sqrl": Method("sqrl"),
    "sac": Method("sac"),
    "esac": Method("esac"),
    "wcpg": Method("wcpg"),
    "rs": Method("rs", before="sqrl"),
    "cpo": Method("cpo"),
}
# With and without the mask, from the same pre-trained policy: the difference is the mask's alone.
_SAME_START = {"sqrl": Method("sqrl"), "sac": Method("sac", before="sqrl")}


def _spider(task: str, methods: dict[str, Method]) -> Experiment:
    return Experiment(task, task, methods, pretrain_steps=15_000, finetune_steps=10_000, seeds=5)


def _minitaur(task: str) -> Experiment:
    return Experiment(task, "minitaur", _SAME_START, pretrain_steps=150_000, finetune_steps=40_000, seeds=3)


# One pre-training serves both thresholds; its policy has chosen a way already, and only its critics are handed over.
# The safety critic is of a masked policy that knows nothing, which `spider_grid` solves exactly: Q_safe lies between
# the thresholds on the bridge, and below both round the pools.
_THRESHOLD_LEARNER = {
    "gamma": 0.9,
    "gamma_safe": 0.65,
    "initial_temperature": 0.2,
    "target_entropy": -2.5,
    "target_candidates": 24,
}
_THRESHOLDS = Experiment(
    "spider_threshold",
    "spider_threshold",
    {f"epsilon {value}": Method("sqrl", finetune={"epsilon": value}) for value in (0.05, 0.2)},
    pretrain_steps=26_000,
    finetune_steps=10_000,
    seeds=3,
    pretrain={
        **_THRESHOLD_LEARNER,
        "epsilon": 0.2,
        "target_uniform": True,
        "near_share": 0.0,
        "offline_share": 0.9,
        "initial_steps": 5000,
        "explore_masked": True,
        "explore_share": 0.4,
        "mask_from": 0.5,
    },
    finetune={**_THRESHOLD_LEARNER, "masked_value": True, "keep_policy": False, "explore_steps": 3000},
    ways=True,
)

EXPERIMENTS = {
    "spider": _spider("spider", _BASELINES),
    "spider_threshold": _THRESHOLDS,
    "minitaur_velocity": _minitaur("minitaur_velocity"),
    "minitaur_friction": _minitaur("minitaur_friction"),
    "minitaur_physics": _minitaur("minitaur_physics"),
    "critic_online": _spider("spider", {"frozen": Method("sqrl"), "online": Method("sqrl", finetune={"online": True})}),
    "epsilon": _spider(
        "spider", {f"epsilon {value}": Method("sqrl", finetune={"epsilon": value}) for value in (0.02, 0.1, 0.3)}
    ),
}


@dataclass(frozen=True)
class Trial:
    """One seed of one method of one experiment."""

    experiment: str
    method: str
    seed: int

    @property
    def _plan(self) -> tuple[Experiment, Method]:
        experiment = EXPERIMENTS[self.experiment]
        return experiment, experiment.methods[self.method]

    def folders(self, runs: Path) -> tuple[Path, Path]:
        """Return the folders of its pre-training, which trials may share, and of its fine-tuning."""
        experiment, method = self._plan
        variant = "".join(f"_{name}{value}" for name, value in method.pretrain.items())
        before = runs / f"pretrain_{experiment.world}_{method.before or method.algorithm}{variant}_{self.seed}"
        return before, runs / f"{self.experiment}_{self.method.replace(' ', '')}_{self.seed}"

    def commands(self, runs: Path) -> tuple[list[str], list[str]]:
        """Return the arguments of `ssql` that run it: pre-training, then fine-tuning."""
        experiment, method = self._plan
        before, after = self.folders(runs)
        common = ["--task", experiment.task, "--seed", str(self.seed), "--threads", "1", "--quiet"]
        first = ["train", method.before or method.algorithm, *common, "--steps", str(experiment.pretrain_steps)]
        second = ["train", method.algorithm, *common, "--steps", str(experiment.finetune_steps)]
        return (
            [*first, *_set({**experiment.pretrain, **method.pretrain}), "--out", str(before)],
            [
                *second,
                *_set({**experiment.finetune, **method.finetune}),
                "--phase",
                "finetune",
                "--from",
                str(before),
                "--out",
                str(after),
            ],
        )


def _set(settings: dict[str, Any]) -> list[str]:
    return ["--set", *(f"{name}={json.dumps(value)}" for name, value in settings.items())] if settings else []


def trials_of(names: Iterable[str], methods: Sequence[str], seeds: int | None) -> list[Trial]:
    """Return the trials of some experiments, seed by seed.

    Args:
        methods: empty: all.
        seeds: None: as many as the experiment states.

    Raises:
        ValueError: no such experiment or method.
    """
    trials = []
    for name in names:
        if name not in EXPERIMENTS:
            raise ValueError(f"experiment {name!r} is unknown; known: {', '.join(EXPERIMENTS)}")
        known = EXPERIMENTS[name].methods
        if unknown := [method for method in methods if method not in known]:
            raise ValueError(f"experiment {name!r} has no method {unknown[0]!r}; it has: {', '.join(known)}")
        wanted = [method for method in known if not methods or method in methods]
        for seed in range(EXPERIMENTS[name].seeds if seeds is None else seeds):
            trials += [Trial(name, method, seed) for method in wanted]
    return trials


def run_trials(trials: Sequence[Trial], runs: Path, jobs: int, show: bool) -> list[str]:
    """Run what is not there yet, `jobs` at a time, each in a process of its own; return what failed, in words."""
    failed = []
    before: dict[Path, list[str]] = {}
    after: dict[Path, list[str]] = {}
    for trial in trials:
        for folder, command, plan in zip(trial.folders(runs), trial.commands(runs), (before, after), strict=True):
            if not (folder / "figures.json").exists():
                plan[folder] = command
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(before) + len(after), unit="run", disable=not show) as bar:
        # Fine-tuning begins from bundles that trials share, so all of them are made first.
        for plan in (before, after):
            for command, error in zip(plan.values(), pool.map(_run, plan.values()), strict=True):
                bar.update()
                if error:
                    failed.append(f"ssql {' '.join(command)}: {error}")
    return failed


def _run(arguments: list[str]) -> str:
    """Run one command; return its last words where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "ssql_ros.cli.main", *arguments], capture_output=True, text=True, check=False
    )
    return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1] if done.returncode else ""


def collect(trials: Sequence[Trial], runs: Path, results: Path) -> None:
    """Write the tables of trials that have ended into `results`; rows of other experiments stay."""
    summary, curves = [], []
    for trial in trials:
        before, after = trial.folders(runs)
        if not (after / "figures.json").exists():
            continue
        names = [trial.experiment, trial.method, EXPERIMENTS[trial.experiment].task, str(trial.seed)]
        for prefix, folder in (("pretrain_", before), ("", after)):
            figures = json.loads((folder / "figures.json").read_text())["figures"]
            summary += [[*names, f"{prefix}{name}", f"{value:.6g}"] for name, value in figures.items()]
        if EXPERIMENTS[trial.experiment].ways:
            summary += [[*names, "goes_round", f"{_goes_round(trial, after):.6g}"]]
        # What `ssql calibrate` has stored in the bundle, where it has.
        calibration = read_provenance(after / "bundle.safetensors").get("calibration", {})
        numbers = {name: calibration.get(name) for name in ("ece", "auc", "bias")}
        summary += [[*names, f"calibration_{name}", f"{v:.6g}"] for name, v in numbers.items() if v is not None]
        curves += [[*names, *row] for row in _curve(after / "episodes.csv")]
    experiments = {trial.experiment for trial in trials}
    _merge(results / "summary.csv", SUMMARY, summary, experiments)
    _merge(results / "curves.csv", CURVES, curves, experiments)


def _goes_round(trial: Trial, folder: Path) -> float:
    """Return the share of episodes in which the policy, drawn from behind its shield, passes the pools outside."""
    from ssql_ros.learning.judging import trajectories
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
    _merge(results / "summary.csv", SUMMARY, rows, {row[0] for row in rows})


def _merge(path: Path, header: Sequence[str], rows: list[list[str]], experiments: set[str]) -> None:
    """Replace the lines that new ones stand for: the same experiment, method and seed."""
    new = {(row[0], row[1], row[3]) for row in rows}
    kept: list[list[str]] = []
    if path.exists():
        with path.open(newline="") as file:
            kept = [row for row in list(csv.reader(file))[1:] if (row[0], row[1], row[3]) not in new]
    lines = [",".join(row) for row in [list(header), *sorted([*kept, *rows], key=lambda row: row[:4])]]
    write_whole(path, ("\n".join(lines) + "\n").encode())
