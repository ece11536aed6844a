"""The experiments of docs/results: which runs each one takes, and how they are run. Tables: see result_tables."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ssql_ros.algorithms.ssql import SSQLSettings
from ssql_ros.model.bundle import read_provenance
from ssql_ros.training.settings import settings_of

JUDGED = 50  # episodes that Q is held against, where there is no fine-tuning


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
        pretrain_steps, finetune_steps: of collection, the same for every method; finetune_steps 0: the first phase is
            all there is, and its bundle's Q is held against its own objective.
        pretrain, finetune: settings of every method that differ from the robot's.
        ways: whether it is of interest which way round the spider's pools a policy goes.
        drawn: whether the final policy is judged by its draws as well, which are what a robot gets: a gait that was
            learned with its noise is another one without.
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
    drawn: bool = False

    @property
    def single(self) -> bool:
        """Return whether there is no fine-tuning."""
        return self.finetune_steps == 0


_BASELINES = {
    "sqrl": Method("sqrl"),
    "sac": Method("sac"),
    "esac": Method("esac"),
    "wcpg": Method("wcpg"),
    "rs": Method("rs", before="sqrl"),
    "cpo": Method("cpo"),
}
# With and without the mask, from the same pre-trained policy: the difference is fine-tuning's alone.
_SAME_START = {"sqrl": Method("sqrl"), "sac": Method("sac", before="sqrl")}


def _spider(task: str, methods: dict[str, Method]) -> Experiment:
    return Experiment(task, task, methods, pretrain_steps=15_000, finetune_steps=10_000, seeds=5)


def _minitaur(task: str, methods: dict[str, Method] = _SAME_START) -> Experiment:
    return Experiment(task, "minitaur", methods, pretrain_steps=150_000, finetune_steps=30_000, seeds=3, drawn=True)


# One pre-training serves both thresholds; its policy has chosen a way already, and only its critics are handed over.
# The safety critic is of a masked policy that knows nothing, which `spider_grid` solves exactly: Q_safe lies between
# the thresholds on the bridge, and below both round the pools.
_THRESHOLD_LEARNER = {
    # A narrow valley between two pools of risk 1.
    "hidden": (128, 128),
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
    pretrain_steps=30_000,
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

# Learned from nothing in as many steps and updates, each method in its own way of collecting.
_SUPPORT_METHODS = {name: Method(name) for name in ("ssql", "sac", "sqrl", "cql", "iql")}


def _spider_support(methods: dict[str, Method]) -> Experiment:
    return Experiment("spider_timeless", "spider_timeless", methods, pretrain_steps=10_000, finetune_steps=0, seeds=5)


def _at(temperature: float) -> Method:
    # The robot's own setting is the same run as without it.
    own = settings_of("ssql", "spider", {})
    assert isinstance(own, SSQLSettings)
    return Method("ssql", pretrain={} if temperature == own.temperature else {"temperature": temperature})


EXPERIMENTS = {
    "spider": _spider("spider", _BASELINES),
    "spider_threshold": _THRESHOLDS,
    "minitaur_velocity": _minitaur("minitaur_velocity", {**_BASELINES, **_SAME_START}),
    "minitaur_ablations": _minitaur(
        "minitaur_velocity",
        # Against "sqrl" of minitaur_velocity, whose pre-training they share.
        {
            "online": Method("sqrl", finetune={"online": True}),
            **{f"epsilon {value}": Method("sqrl", finetune={"epsilon": value}) for value in (0.02, 0.2)},
            "price gone": Method("sqrl", finetune={"dual_rate": 1e-3}),
        },
    ),
    "minitaur_friction": _minitaur("minitaur_friction"),
    "minitaur_physics": _minitaur("minitaur_physics"),
    "critic_online": _spider("spider", {"frozen": Method("sqrl"), "online": Method("sqrl", finetune={"online": True})}),
    "epsilon": _spider(
        "spider", {f"epsilon {value}": Method("sqrl", finetune={"epsilon": value}) for value in (0.02, 0.1, 0.3)}
    ),
    "cube": Experiment("cube", "cube", _SAME_START, pretrain_steps=12_000, finetune_steps=8_000, seeds=3),
    "ssql_spider": _spider_support(_SUPPORT_METHODS),
    "ssql_lambda_spider": _spider_support({f"lambda {t:g}": _at(t) for t in (0.03, 0.3, 1.0, 3.0, 10.0, 30.0)}),
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
        """Return the folders of its pre-training, which trials may share, and of its fine-tuning, if there is one."""
        experiment, method = self._plan
        variant = "".join(f"_{name}{value}" for name, value in method.pretrain.items())
        before = runs / f"pretrain_{experiment.world}_{method.before or method.algorithm}{variant}_{self.seed}"
        return (
            before,
            before if experiment.single else runs / f"{self.experiment}_{self.method.replace(' ', '')}_{self.seed}",
        )

    def ended(self, runs: Path) -> tuple[bool, bool]:
        """Return whether either of its commands has been run."""
        before, after = self.folders(runs)
        done = (before / "figures.json").exists()
        if self._plan[0].single:
            return done, done and "q_calibration" in read_provenance(after / "bundle.safetensors")
        return done, (after / "figures.json").exists()

    def commands(self, runs: Path) -> tuple[list[str], list[str]]:
        """Return the arguments of `ssql` that run it: pre-training, then fine-tuning, or calibration without one."""
        experiment, method = self._plan
        before, after = self.folders(runs)
        common = ["--task", experiment.task, "--seed", str(self.seed), "--threads", "1", "--quiet"]
        first = ["train", method.before or method.algorithm, *common, "--steps", str(experiment.pretrain_steps)]
        first += [*_set({**experiment.pretrain, **method.pretrain}), "--out", str(before)]
        if experiment.single:
            return first, ["calibrate", str(before / "bundle.safetensors"), "--episodes", str(JUDGED), "--quiet"]
        second = ["train", method.algorithm, *common, "--steps", str(experiment.finetune_steps)]
        return (
            first,
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
        stages = zip(trial.folders(runs), trial.commands(runs), trial.ended(runs), (before, after), strict=True)
        for folder, command, ended, plan in stages:
            if not ended:
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
