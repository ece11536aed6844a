"""Training from a data set: transitions for SSQL, CQL and IQL, n steps for SafeFQL and IQL-Lagrangian, pairs for b.

Nothing is driven but the final policy, to judge it; that of a robot without a world is judged on episodes held out.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssql_ros.algorithms.behaviour_density import DensityLearner
from ssql_ros.algorithms.cql import CQL, CQLSettings
from ssql_ros.algorithms.iql import IQL, IQLSettings
from ssql_ros.algorithms.iql_lagrangian import IQLLagrangian
from ssql_ros.algorithms.logged_critic import LoggedCritic
from ssql_ros.algorithms.safefql import SafeFQL
from ssql_ros.algorithms.ssql import SSQL, SSQLSettings
from ssql_ros.behaviour.policy import BehaviourPolicy
from ssql_ros.data.data_set import DataSet
from ssql_ros.data.domain import domain_of
from ssql_ros.data.held_out import parts_of
from ssql_ros.data.logged_steps import OfflineData, load_log
from ssql_ros.data.logged_transitions import LoggedTransitions
from ssql_ros.evaluation.driver import evaluate
from ssql_ros.evaluation.logged_calibration import judge_critic, judge_policy
from ssql_ros.model.bundle import Bundle, MarginCritic, ProbabilityCritic, load_bundle
from ssql_ros.model.policy import behaviour_of, make_policy
from ssql_ros.nn.arithmetic import Arithmetic
from ssql_ros.nn.networks import default_device
from ssql_ros.robots.tasks import find_task
from ssql_ros.training.plan import Plan
from ssql_ros.training.result import Result, figures_of, served
from ssql_ros.training.steps import UpdateTraining


def training_from_log(plan: Plan) -> LogTraining:
    """Return what a plan repeats on its data set. Raises ValueError: the data set does not fit."""
    kinds: dict[str, type[LogTraining]] = {
        "safefql": NStepTraining,
        "iql_lagrangian": NStepTraining,
        "behaviour": DensityTraining,
        "critic": CriticTraining,
    }
    return kinds.get(plan.algorithm, TransitionTraining)(plan)


class LogTraining(UpdateTraining):
    """A training whose data is a data set's; a subclass makes the learner.

    Raises:
        ValueError: the data set is of another contract, or too little.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan, self._task, self._settings = plan, find_task(plan.task), plan.checked_settings()
        self._contract, self.data = self._task.contract(), DataSet(Path(plan.data))
        self.data.check_contract(self._contract.id)
        self.parts = parts_of(self.data, plan.held_out, plan.seed)
        learner, steps = self._begun()
        told = {name: value for name, value in self.data.manifest.items() if name != "columns"}
        super().__init__(learner, steps, {"data": told})

    def _begun(self) -> tuple[Any, int]:
        """Return the learner, and how many steps it makes."""
        raise NotImplementedError

    def result(self) -> Result:
        """Return what came of it."""
        raise NotImplementedError

    @property
    def _spread(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return mean and scale of observations where the task states them."""
        return (np.array(self._task.centre), np.array(self._task.spread)) if self._task.centre else None

    def _judged(self, bundle: Bundle) -> dict[str, float]:
        """Return figures of the final policy in the task's world, and on episodes that are held out."""
        figures = {} if not self._plan.held_out else self._held_out(bundle)
        if not self._plan.evaluation:
            return figures
        env, plan = self._task.make(**self._task.world("pretrain")), self._plan
        rows = evaluate(make_policy(bundle), env, self._contract, None, plan.evaluation, plan.seed)
        return figures | {name: value for name, value in figures_of([], rows).items() if name.startswith("final_")}

    def _held_out(self, bundle: Bundle) -> dict[str, float]:
        segments, figures = self.parts.segments(), dict[str, Any]()
        if bundle.critic is not None:
            figures |= judge_critic(bundle, self.data, segments)
        if make_policy(bundle).context().size == 0:
            figures |= judge_policy(bundle, self.data, segments)
        numbers = {name: value for name, value in figures.items() if isinstance(value, float)}
        return {f"held_out_{name}": value for name, value in numbers.items()}


class TransitionTraining(LogTraining):
    """SSQL, CQL or IQL, from single transitions."""

    learner: LogLearner

    def _begun(self) -> tuple[LogLearner, int]:
        plan, behaviour = self._plan, self._behaviour() if self._plan.algorithm == "ssql" else None
        self.log = LoggedTransitions(self.data, behaviour, self.parts.learned)
        of_log = self.log.spread()
        spread = self._spread or (of_log[0], self._task.bounded_scale(of_log[1]))
        made = LogLearner(plan, self._settings, self.log, spread, self._contract.action_size, behaviour)
        return made, made.steps

    def _behaviour(self) -> BehaviourPolicy:
        told = self._plan.behaviour
        return behaviour_of(load_bundle(told, self._contract)) if told else self._task.behaviour_policy()

    def result(self) -> Result:
        """Return what came of it."""
        algorithm, log = self.learner.algorithm, self.log
        described = self.learner.behaviour_description()
        bundle, facts = served(self._contract, self._settings, algorithm.networks(), described, self._task)
        figures = {
            "steps": float(self._plan.steps),
            "transitions": float(len(log)),
            "left_out": float(len(self.data) - len(log)),
            "log_incidents": float(np.count_nonzero(self.data["incident"])),
            "outside_support": float(log.outside),
            **self._judged(bundle),
            **({} if isinstance(algorithm, SSQL) else {"alpha": float(getattr(algorithm, "alpha", 0.0))}),
        }
        return Result(figures, bundle, facts)


class NStepTraining(LogTraining):
    """SafeFQL or IQL with a Lagrangian, from n steps at a time."""

    learner: SafeFQL | IQLLagrangian

    def _begun(self) -> tuple[SafeFQL | IQLLagrangian, int]:
        plan, settings, device = self._plan, self._settings, default_device()
        log = load_log(self.data.path, self._contract)[0].part(self.parts.learned, self.parts.segment)
        self.rest = OfflineData(log, settings.n_step, settings.gamma, device)
        if plan.algorithm == "iql_lagrangian" and not len(self.rest.starts):
            raise ValueError(
                f"{plan.data}: every episode begins in the failure set: no price can keep to a cost budget"
            )
        # A feature that hardly moves in the log must not become huge once it does.
        scale = self._task.bounded_scale(log.observation.std(axis=0, dtype=float))
        of_log = log.observation.mean(axis=0, dtype=float), scale
        kind = SafeFQL if plan.algorithm == "safefql" else IQLLagrangian
        mean, scale = self._spread or of_log
        return kind(mean, scale, self._contract.action_size, settings, plan.seed, device), plan.steps

    def _update(self) -> dict[str, torch.Tensor]:
        return self.learner.learn(self.step, self.steps, self.rest)

    def result(self) -> Result:
        """Return what came of it."""
        bundle, facts = served(self._contract, self._settings, self.learner.networks(), {}, self._task)
        if isinstance(bundle.critic, MarginCritic):
            bundle = replace(bundle, critic=replace(bundle.critic, domain=domain_of(self.data, self.parts)))
        losses = {name: float(value) for name, value in self.losses.items()}
        counts = {"steps": float(self.steps), "transitions": float(len(self.rest))}
        return Result({**counts, **losses, **self._judged(bundle)}, bundle, facts)


class DensityTraining(LogTraining):
    """A behaviour policy, from pairs of states and actions."""

    learner: DensityLearner

    def _begun(self) -> tuple[DensityLearner, int]:
        data, plan = self.data, self._plan
        finite = np.isfinite(data["observation"]).all(axis=1) & np.isfinite(data["action"]).all(axis=1)
        rows = np.flatnonzero(finite & self.parts.learned)
        states, actions = (np.asarray(data[name])[rows] for name in ("observation", "action"))
        episode = self.parts.segment[rows]
        made = DensityLearner(states, actions, episode, self._settings, plan.steps, plan.seed, self._spread)
        return made, plan.steps

    def result(self) -> Result:
        """Return what came of it: a bundle in which the policy acts itself."""
        fit = self.learner.fit()
        bundle, facts = served(self._contract, self._settings, {}, fit.policy.describe(), self._task)
        figures = dict(fit.figures)
        if self._plan.held_out:
            held = np.flatnonzero(self.parts.held)
            states, actions = (np.asarray(self.data[name], float)[held] for name in ("observation", "action"))
            inside = fit.policy.support(states).contains(actions[:, np.newaxis])
            figures |= {"held_out_steps": float(len(held)), "held_out_outside": float(1.0 - inside.mean())}
        return Result(figures, bundle, facts)


class CriticTraining(LogTraining):
    """A safety critic of whoever drove, with a threshold for the shield."""

    learner: LoggedCritic

    def _begun(self) -> tuple[LoggedCritic, int]:
        plan, segments = self._plan, self.parts.segments(held=False)
        return LoggedCritic(self.data, segments, self._settings, plan.steps, plan.seed), plan.steps

    def result(self) -> Result:
        """Return what came of it: a bundle that shields, and acts not at all."""
        network, epsilon = self.learner.result()
        domain = domain_of(self.data, self.parts)
        critic = ProbabilityCritic.of(network, epsilon, self._settings.gamma_safe, domain=domain)
        bundle = Bundle(self._contract.id, critic)
        told = [int(self.data["incident"][each].any()) for each in self.parts.segments(held=False)]
        figures = {
            "steps": float(self.steps),
            "transitions": float(len(self.learner.targets.observations)),
            "episodes": float(len(told)),
            "incidents": float(sum(told)),
            "epsilon": epsilon,
        }
        if self._plan.held_out:
            judged = judge_critic(bundle, self.data, self.parts.segments())
            figures |= {f"held_out_{name}": value for name, value in judged.items() if isinstance(value, float)}
        return Result(figures, bundle, {}, {"policy": "whoever drove in the log"})


def reopened(folder: Path) -> NStepTraining:
    """Return the training of a run of SafeFQL as it was begun, for whoever goes on with its learner and its data.

    Raises:
        ValueError: the folder holds no such run, or its data set is gone.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
        plan = Plan(**{**Plan.told(config["plan"]), "settings": dict(config["settings"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is not the configuration of a run: {error}") from error
    if plan.algorithm != "safefql":
        raise ValueError(f"{path}: expected a run of safefql, got one of {plan.algorithm}")
    return NStepTraining(plan)


class LogLearner:
    """An algorithm, its log, and what is to be done one after the other."""

    def __init__(
        self,
        plan: Plan,
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

    @property
    def arithmetic(self) -> Arithmetic:
        """Return how its algorithm computes."""
        return self.algorithm.arithmetic

    def step(self, number: int) -> dict[str, torch.Tensor]:
        """Make one update, of SSQL first those of stage 1, then those of stage 2; return losses."""
        batch = self._log.draw(self._settings.batch, self._draws, self.algorithm.device)
        if number >= self._updates and isinstance(self.algorithm, SSQL):
            return self.algorithm.extract(batch)
        return self.algorithm.update(batch)

    def behaviour_description(self) -> dict[str, Any]:
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
