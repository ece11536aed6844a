"""A run on disk that learns a behaviour policy from a data set: its folder, and the bundle in which it acts.

config.json             data set, task, updates, seed, every setting, command, versions
checkpoint.safetensors  the newest one, replaced whole; the run goes on from there
tensorboard/            the loss
bundle.safetensors      the behaviour policy, which acts itself; the task's shipped safety critic, if there is one
figures.json            likelihoods, the floor of the support, and the share of unseen actions below it
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssql_ros.algorithms.behaviour_density import DensityLearner, DensitySettings
from ssql_ros.data.data_set import DataSet
from ssql_ros.model.bundle import save_bundle, write_whole
from ssql_ros.model.probes import with_probes
from ssql_ros.robots.tasks import find_task
from ssql_ros.training.runs import claim, served
from ssql_ros.training.settings import checked_settings
from ssql_ros.training.stepping import step_through

CHECKPOINT_EVERY = 1000  # updates


@dataclass(frozen=True)
class BehaviourPlan:
    """What a run does.

    Attributes:
        data: folder of the data set.
        settings: by name, that differ from the defaults.
    """

    data: str
    task: str
    steps: int
    seed: int
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what can be checked at once. Raises ValueError."""
        find_task(self.task)
        density_settings(self.settings)
        for name, least in (("steps", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")


def density_settings(changed: dict[str, Any]) -> DensitySettings:
    """Return the settings. Raises ValueError for an unknown one, or a value of another type."""
    return checked_settings("behaviour", DensitySettings(), {}, changed)


def run_behaviour(plan: BehaviourPlan, folder: Path, facts: dict[str, Any], show: bool) -> dict[str, float]:
    """Learn as planned, going on from the folder's checkpoint where there is one; return the figures.

    Raises:
        ValueError: the data set does not fit the task, or has too little data for the floor.
        CheckpointError: the folder holds another run.
    """
    task = find_task(plan.task)
    contract, settings = task.contract(), density_settings(plan.settings)
    data = DataSet(Path(plan.data))
    data.check_contract(contract.id)
    config = {
        "plan": {**dataclasses.asdict(plan), "algorithm": "behaviour"},
        "settings": dataclasses.asdict(settings),
        "data": {name: value for name, value in data.manifest.items() if name != "columns"},
        **facts,
    }

    whole = np.flatnonzero(np.isfinite(data["observation"]).all(axis=1) & np.isfinite(data["action"]).all(axis=1))
    states, actions, episode = (np.asarray(data[name])[whole] for name in ("observation", "action", "episode"))
    spread = (np.array(task.centre), np.array(task.spread)) if task.centre else None
    learner = DensityLearner(states, actions, episode, settings, plan.steps, plan.seed, spread)
    # Only now: what cannot begin leaves no folder behind.
    claim(folder, config)
    step_through(learner, learner.step, plan.steps, folder, CHECKPOINT_EVERY, f"behaviour {plan.task}", show)
    fit = learner.fit()
    bundle, shield = served(contract, settings, {}, fit.policy.describe(), task)
    provenance = {**config, **({"safety_critic": shield} if shield else {}), "task": plan.task, "figures": fit.figures}
    bundle = dataclasses.replace(bundle, provenance=provenance)
    save_bundle(with_probes(bundle, contract), folder / "bundle.safetensors")
    write_whole(folder / "figures.json", json.dumps({"figures": fit.figures, **config}, indent=1).encode())
    return fit.figures
