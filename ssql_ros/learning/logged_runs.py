"""A run of SSQL, CQL or IQL on a log alone: nothing is driven but the final policy, to judge it.

config.json             algorithm, data set, task, steps, seed, every setting, arithmetic, command, versions
checkpoint.safetensors  the newest one, replaced whole
tensorboard/            losses
bundle.safetensors      the policy and its reward critics, when the run has ended
figures.json            what it comes to, when the run has ended
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssql_ros.behaviour.policy import BehaviourPolicy
from ssql_ros.bundle import load_bundle, save_bundle, write_whole
from ssql_ros.dataset import DataSet
from ssql_ros.learning.algorithms import FROM_BEHAVIOUR, settings_of
from ssql_ros.learning.cql import CQL, CQLSettings
from ssql_ros.learning.iql import IQL, IQLSettings
from ssql_ros.learning.logged import LoggedTransitions
from ssql_ros.learning.runs import claim, figures_of, served
from ssql_ros.learning.ssql import SSQL, SSQLSettings
from ssql_ros.learning.stepping import step_through
from ssql_ros.learning.training import evaluate
from ssql_ros.policy import behaviour_of, make_policy
from ssql_ros.probes import with_probes
from ssql_ros.tasks import Task, find_task


@dataclass(frozen=True)
class LoggedPlan:
    """What a run does.

    Attributes:
        data: folder of the data set.
        steps: updates; of SSQL those of stage 1, after which `extraction_updates` follow.
        settings: by name, that differ from the robot's.
        evaluation: episodes of the final policy, in the task's world.
        behaviour: bundle that tells SSQL's b, such as one learned from the same log; empty: the task's own.
    """

    algorithm: str
    task: str
    data: str
    steps: int
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)
    checkpoint_every: int = 2000
    evaluation: int = 100
    behaviour: str = ""

    def __post_init__(self) -> None:
        """Check what can be checked at once. Raises ValueError."""
        if self.algorithm not in FROM_BEHAVIOUR:
            raise ValueError(f"{self.algorithm} does not learn from a log; these do: {', '.join(FROM_BEHAVIOUR)}")
        settings_of(self.algorithm, find_task(self.task).robot, self.settings)
        if self.behaviour and self.algorithm != "ssql":
            raise ValueError(f"behaviour: {self.algorithm} keeps to no behaviour policy")
        for name, least in (("steps", 1), ("checkpoint_every", 1), ("evaluation", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")


def run_logged(plan: LoggedPlan, folder: Path, facts: dict[str, Any], show: bool) -> dict[str, float]:
    """Learn as planned, going on from the folder's checkpoint where there is one; return the figures.

    Raises:
        ValueError: the data set does not fit the task.
        CheckpointError: the folder holds another run, or the checkpoint is damaged, or cannot be written.
    """
    task = find_task(plan.task)
    contract, settings = task.contract(), settings_of(plan.algorithm, task.robot, plan.settings)
    data = DataSet(Path(plan.data))
    data.check_contract(contract.id)
    behaviour = _behaviour(plan, task) if plan.algorithm == "ssql" else None
    log = LoggedTransitions(data, behaviour)
    config = {
        "plan": dataclasses.asdict(plan),
        "settings": dataclasses.asdict(settings),
        "data": {name: value for name, value in data.manifest.items() if name != "columns"},
        **facts,
    }
    spread = (np.array(task.centre), np.array(task.spread)) if task.centre else log.spread()
    learner = LogLearner(plan, settings, log, spread, contract.action_size, behaviour)
    config["arithmetic"] = learner.algorithm.arithmetic.state()
    # Only now: what cannot begin leaves no folder behind.
    claim(folder, config)
    title = f"{plan.algorithm} {plan.task}"
    step_through(learner, learner.step, learner.steps, folder, plan.checkpoint_every, title, show)
    config["arithmetic"] = learner.algorithm.arithmetic.state()
    bundle, shield = served(contract, settings, learner.algorithm.networks(), learner.behaves(), task)
    config |= {"safety_critic": shield} if shield else {}
    env = task.make(**task.world("pretrain"))
    judged = figures_of([], evaluate(make_policy(bundle), env, contract, None, plan.evaluation, plan.seed))
    figures = {
        "steps": float(plan.steps),
        "transitions": float(len(log)),
        "left_out": float(len(data) - len(log)),
        "log_incidents": float(np.count_nonzero(data["incident"])),
        "outside_support": float(log.outside),
        **{name: value for name, value in judged.items() if name.startswith("final_")},
        **({} if plan.algorithm == "ssql" else {"alpha": float(getattr(learner.algorithm, "alpha", 0.0))}),
    }
    bundle = replace(bundle, provenance={**config, "task": plan.task, "figures": figures})
    save_bundle(with_probes(bundle, contract), folder / "bundle.safetensors")
    write_whole(folder / "figures.json", json.dumps({"figures": figures, **config}, indent=1).encode())
    return figures


def _behaviour(plan: LoggedPlan, task: Task) -> BehaviourPolicy:
    return behaviour_of(load_bundle(plan.behaviour, task.contract())) if plan.behaviour else task.behaviour_policy()


class LogLearner:
    """An algorithm, its log, and what is to be done one after the other."""

    def __init__(
        self,
        plan: LoggedPlan,
        settings: Any,
        log: LoggedTransitions,
        spread: tuple[np.ndarray, np.ndarray],
        n_action: int,
        behaviour: BehaviourPolicy | None,
    ) -> None:
        self._log, self._behaviour, self._settings = log, behaviour, settings
        self._draws = torch.Generator().manual_seed(plan.seed)
        self.algorithm: SSQL | CQL | IQL
        self._updates = self.steps = plan.steps
        if isinstance(settings, SSQLSettings):
            assert behaviour is not None
            self.algorithm = SSQL(*spread, n_action, settings, plan.seed, behaviour)
            self.steps += settings.extraction_updates
        elif isinstance(settings, CQLSettings):
            self.algorithm = CQL(*spread, n_action, settings, plan.seed)
        else:
            assert isinstance(settings, IQLSettings)
            self.algorithm = IQL(*spread, n_action, settings, plan.seed)

    def step(self, number: int) -> dict[str, torch.Tensor]:
        """Make one update, of SSQL first those of stage 1, then those of stage 2; return losses."""
        batch = self._log.draw(self._settings.batch, self._draws, self.algorithm.device)
        if number >= self._updates and isinstance(self.algorithm, SSQL):
            return self.algorithm.extract(batch)
        return self.algorithm.update(batch)

    def behaves(self) -> dict[str, Any]:
        """Return b for the bundle, beginning as the induced policy would; empty: the policy keeps to none."""
        if self._behaviour is None or not isinstance(self.algorithm, SSQL):
            return {}
        weights = self.algorithm.start_weights(self._log.starts())
        return self._behaviour.with_start_weights(weights).describe()

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold."""
        return {"algorithm": self.algorithm.state(), "draws": self._draws.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""
        self.algorithm.restore(state["algorithm"])
        self._draws.set_state(state["draws"])
