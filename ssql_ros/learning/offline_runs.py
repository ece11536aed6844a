"""A run of offline learning on disk: from a data set to a bundle, in one folder that `ssql report` reads.

config.json             data set, task, steps, seed, every setting, arithmetic, command, versions
checkpoint.safetensors  the newest one, replaced whole
tensorboard/            losses
bundle.safetensors      policy, reward critics, and of SafeFQL the safety critic, when the run has ended
figures.json            what it comes to, when the run has ended
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssql_ros.bundle import Bundle, MarginCritic, save_bundle, write_whole
from ssql_ros.learning.algorithms import checked_settings
from ssql_ros.learning.iql_lagrangian import IQLLagrangian, IQLLagrangianSettings
from ssql_ros.learning.networks import default_device
from ssql_ros.learning.offline import Log, OfflineData, load_log
from ssql_ros.learning.runs import claim, served
from ssql_ros.learning.safefql import SafeFQL, SafeFQLSettings
from ssql_ros.learning.stepping import CHECKPOINT, restored, step_through
from ssql_ros.probes import with_probes
from ssql_ros.spec import Contract
from ssql_ros.tasks import Task, find_task

_SPEED_LIMITED: dict[str, Any] = {
    # On two processor cores, and a log that is a tenth of the published ones.
    "learning_rate": 1e-3,
    "hidden": (128, 128),
    "actor_hidden": (128, 128),
    "actor_batch": 256,
    "n_step": 4,
    "tau": 0.01,
    # Rewards are about 2 a step.
    "reward_scale": 0.02,
    "alpha": 0.25,
    "safety_weight": 3.0,
    "gate": 0.1,
    "decay_from": 0.5,
}
# What differs from the authors' settings, by robot; a setting counts for every algorithm that has it.
ROBOT_SETTINGS: dict[str, dict[str, Any]] = {
    # A control period is 5 ms: what an action does shows after many of them, and danger lies further ahead than half
    # a second. The pilots hold a heading for longer than these n steps.
    "boat": {
        "learning_rate": 1e-3,
        "hidden": (128, 128),
        "actor_hidden": (128, 128, 128),
        "critic_activation": "gelu",
        "actor_batch": 256,
        "gamma": 0.998,
        "gamma_safe": 0.999,
        "n_step": 40,
        "tau": 0.02,
        "safety_expectile": 0.95,
        "alpha": 0.003,
        "safety_weight": 30.0,
        "gate": 0.03,
        "reward_scale": 0.005,
        "actor_from": 0.4,
        "decay_from": 0.5,
    },
    "half_cheetah": _SPEED_LIMITED,
    # Slower than the half cheetah by an order of magnitude, and so is its limit.
    "swimmer": {**_SPEED_LIMITED, "reward_scale": 0.2, "gate": 0.01},
}
# And by algorithm and robot.
ALGORITHM_SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    # A quarter of the log's episodes spend some fifty steps in the rocks.
    ("iql_lagrangian", "boat"): {"cost_scale": 0.02, "sharpness": 10.0},
}
Settings = SafeFQLSettings | IQLLagrangianSettings
OFFLINE: dict[str, type[Settings]] = {"safefql": SafeFQLSettings, "iql_lagrangian": IQLLagrangianSettings}


@dataclass(frozen=True)
class OfflinePlan:
    """What a run does.

    Attributes:
        data: folder of the data set.
        settings: by name, that differ from the robot's.
        algorithm: safefql or iql_lagrangian.
    """

    data: str
    task: str
    steps: int
    seed: int
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    checkpoint_every: int = 2000
    algorithm: str = "safefql"

    def __post_init__(self) -> None:
        """Check what can be checked at once. Raises ValueError."""
        offline_settings(find_task(self.task).robot, self.settings, self.algorithm)
        for name, least in (("steps", 1), ("checkpoint_every", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")


def offline_settings(robot: str, changed: dict[str, Any], algorithm: str = "safefql") -> Any:
    """Return the settings for a robot.

    Raises:
        ValueError: no such algorithm or setting, or a value of another type.
    """
    if algorithm not in OFFLINE:
        raise ValueError(f"algorithm {algorithm!r} does not learn offline; these do: {', '.join(OFFLINE)}")
    kind = OFFLINE[algorithm]
    known = {field.name for field in dataclasses.fields(kind)}
    own = {name: value for name, value in ROBOT_SETTINGS.get(robot, {}).items() if name in known}
    own |= ALGORITHM_SETTINGS.get((algorithm, robot), {})
    return checked_settings(algorithm, kind(), own, changed)


def learner_of(
    settings: Settings, mean: np.ndarray, scale: np.ndarray, n_action: int, seed: int, device: torch.device
) -> SafeFQL | IQLLagrangian:
    """Return a new learner of the kind that the settings are for."""
    if isinstance(settings, SafeFQLSettings):
        return SafeFQL(mean, scale, n_action, settings, seed, device)
    return IQLLagrangian(mean, scale, n_action, settings, seed, device)


def run_offline(plan: OfflinePlan, folder: Path, facts: dict[str, Any], show: bool) -> dict[str, float]:
    """Learn as planned, going on from the folder's checkpoint where there is one; return the figures.

    Raises:
        ValueError: the data set does not fit the task.
        CheckpointError: the folder holds another run, or the checkpoint is damaged, or cannot be written.
    """
    task = find_task(plan.task)
    contract, settings = task.contract(), offline_settings(task.robot, plan.settings, plan.algorithm)
    log, manifest = load_log(Path(plan.data), contract)
    _check_fits(log, manifest, contract, plan.data)
    config = {
        "plan": dataclasses.asdict(plan),
        "settings": dataclasses.asdict(settings),
        "data": {name: value for name, value in manifest.items() if name != "columns"},
        **facts,
    }
    device = default_device()
    data = OfflineData(log, settings.n_step, settings.gamma, device)
    if plan.algorithm == "iql_lagrangian" and not len(data.starts):
        raise ValueError(f"{plan.data}: every episode begins in the failure set, so no price can keep to a cost budget")
    mean, scale = _standardisation(task, log)
    learner = learner_of(settings, mean, scale, contract.action_size, plan.seed, device)
    config["arithmetic"] = learner.arithmetic.state()
    claim(folder, config, {"algorithm": "safefql"})
    losses = step_through(
        learner,
        lambda step: learner.learn(step, plan.steps, data),
        plan.steps,
        folder,
        plan.checkpoint_every,
        f"{plan.algorithm} {plan.task}",
        show,
    )
    config["arithmetic"] = learner.arithmetic.state()
    figures = {"steps": float(plan.steps), "transitions": float(len(data)), **losses}
    provenance = {**config, "task": plan.task, "figures": figures}
    if isinstance(learner, SafeFQL):
        bundle = bundle_of(learner, contract, provenance)
    else:
        bundle = replace(served(contract, settings, learner.networks(), {}, task)[0], provenance=provenance)
    save_bundle(with_probes(bundle, contract), folder / "bundle.safetensors")
    write_whole(folder / "figures.json", json.dumps({"figures": figures, **config}, indent=1).encode())
    return figures


def reopened(folder: Path) -> tuple[SafeFQL, OfflineData]:
    """Return what a run of SafeFQL has learned, and its data, to go on with something else.

    Raises:
        ValueError: the folder holds no such run, or its data set is gone.
        CheckpointError: its checkpoint is damaged.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
        plan, settings = OfflinePlan(**config["plan"]), dict(config["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is not the configuration of an offline run: {error}") from error
    if plan.algorithm != "safefql":
        raise ValueError(f"{path}: expected a run of safefql, got one of {plan.algorithm}")
    task = find_task(plan.task)
    log, device = load_log(Path(plan.data), task.contract())[0], default_device()
    checked = offline_settings(task.robot, settings)
    learner = SafeFQL(*_standardisation(task, log), task.contract().action_size, checked, plan.seed, device)
    restored(learner, folder / CHECKPOINT)
    return learner, OfflineData(log, checked.n_step, checked.gamma, device)


def bundle_of(learner: SafeFQL, contract: Contract, provenance: dict[str, Any]) -> Bundle:
    """Return what was learned as a bundle: a policy of one pass, and a critic of margins that asks for less than 0."""
    networks = learner.networks()
    return Bundle(
        contract.id,
        critic=MarginCritic.of(networks["critic"], 0.0, learner.settings.gamma_safe),
        provenance=provenance,
        policy=networks["policy"],
        reward=networks["reward"],
        policy_kind="one_step_flow",
    )


def _check_fits(log: Log, manifest: dict[str, Any], contract: Contract, data: str) -> None:
    found = manifest.get("contract_id", contract.id)
    if found != contract.id:
        raise ValueError(f"{data}: recorded for contract {found}, but {contract.path} is {contract.id}")
    for name, size in (("observation", contract.observation_size), ("action", contract.action_size)):
        if getattr(log, name).shape[1:] != (size,):
            raise ValueError(f"{data}: {name}: expected {size} numbers a row, got {getattr(log, name).shape[1:]}")


def _standardisation(task: Task, log: Log) -> tuple[np.ndarray, np.ndarray]:
    if task.centre:
        return np.array(task.centre), np.array(task.spread)
    # A feature that hardly moves in the log must not become huge once it does.
    return log.observation.mean(axis=0, dtype=float), np.maximum(log.observation.std(axis=0, dtype=float), 0.02)
