"""The algorithms by name: what makes the learner of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssql_ros.algorithms.cpo import CPO, CPOSettings
from ssql_ros.algorithms.cql import CQL
from ssql_ros.algorithms.esac import ESAC
from ssql_ros.algorithms.iql import IQL, IQLSettings
from ssql_ros.algorithms.rs import RS
from ssql_ros.algorithms.sac import SAC, SACSettings
from ssql_ros.algorithms.sqrl import SQRLPretraining
from ssql_ros.algorithms.sqrl_finetuning import SQRLFineTuning
from ssql_ros.algorithms.ssql import SSQL, SSQLSettings
from ssql_ros.algorithms.wcpg import WCPG
from ssql_ros.behaviour.promise import PromiseMonitor
from ssql_ros.model.backup import Backup
from ssql_ros.training.behaviour_learner import OfflineLearner
from ssql_ros.training.learner import Learner, OffPolicyLearner
from ssql_ros.training.settings import initial_hold
from ssql_ros.training.ssql_learner import SSQLLearner

REPLAY = 1_000_000
Settings = SACSettings | SSQLSettings | IQLSettings | CPOSettings
# Those that only a behaviour policy collects for.
FROM_BEHAVIOUR = ("ssql", "cql", "iql")


@dataclass(frozen=True)
class Start:
    """What a learner is made from.

    Attributes:
        mean, scale: (n_observation,), the standardisation of observations.
        steps: length of the phase.
        monitor: of the behaviour policy that acts, where the algorithm has one.
        backup: of the task, where it has one.
    """

    mean: np.ndarray
    scale: np.ndarray
    n_action: int
    contract_id: str
    robot: str
    phase: str
    steps: int
    seed: int
    monitor: PromiseMonitor | None = None
    backup: Backup | None = None


def _off_policy(make: Callable[[Start, Any], SAC]) -> Callable[[Start, Any], Learner]:
    def made(start: Start, settings: Any) -> Learner:
        initial = settings.initial_steps if start.phase == "pretrain" else settings.explore_steps
        algorithm = make(start, settings)
        # Room for D_safe's episodes, where they are kept: beyond as many steps again the oldest go.
        hold, replay = initial_hold(start.robot), min(REPLAY, 2 * start.steps)
        share = settings.explore_share if start.phase == "pretrain" else 0.0
        return OffPolicyLearner(algorithm, start.n_action, start.seed, initial, hold, replay, share)

    return made


def _plain(kind: type[SAC]) -> Callable[[Start, Any], SAC]:
    return lambda start, settings: kind(start.mean, start.scale, start.n_action, settings, start.seed)


def _safe(finetuning: type[SQRLFineTuning]) -> Callable[[Start, Any], SAC]:
    def made(start: Start, settings: Any) -> SAC:
        kind = SQRLPretraining if start.phase == "pretrain" else finetuning
        shape = (start.mean, start.scale, start.n_action, settings, start.seed)
        return kind(*shape, contract_id=start.contract_id, steps=start.steps, backup=start.backup)

    return made


def _safe_support(start: Start, settings: Any) -> Learner:
    if start.monitor is None:
        raise ValueError("ssql needs a task with a behaviour policy")
    algorithm = SSQL(start.mean, start.scale, start.n_action, settings, start.seed, start.monitor.behaviour)
    n_observation = len(start.mean) - start.monitor.behaviour.n_context
    replay = min(REPLAY, start.steps)
    return SSQLLearner(algorithm, start.monitor, n_observation, start.n_action, start.seed, start.steps, replay)


def _offline(kind: type[CQL] | type[IQL]) -> Callable[[Start, Any], Learner]:
    def made(start: Start, settings: Any) -> Learner:
        if start.monitor is None:
            raise ValueError("offline learners need a task with a behaviour policy")
        algorithm = kind(start.mean, start.scale, start.n_action, settings, start.seed)
        replay = min(REPLAY, start.steps)
        return OfflineLearner(algorithm, start.monitor, len(start.mean), start.n_action, start.seed, replay)

    return made


def _on_policy(start: Start, settings: Any) -> Learner:
    return CPO(start.mean, start.scale, start.n_action, settings, start.seed)


ALGORITHMS: dict[str, Callable[[Start, Any], Learner]] = {
    "sac": _off_policy(_plain(SAC)),
    "sqrl": _off_policy(_safe(SQRLFineTuning)),
    "esac": _off_policy(_plain(ESAC)),
    "wcpg": _off_policy(_plain(WCPG)),
    "rs": _off_policy(_safe(RS)),
    "ssql": _safe_support,
    "cql": _offline(CQL),
    "iql": _offline(IQL),
    "cpo": _on_policy,
}


def make_learner(algorithm: str, start: Start, settings: Settings) -> Learner:
    """Return a learner by name (see `settings_of`)."""
    return ALGORITHMS[algorithm](start, settings)
