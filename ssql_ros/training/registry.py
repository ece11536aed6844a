"""The algorithms by name, with each robot's settings where they differ from the papers'."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ssql_ros.algorithms.cpo import CPO, CPOSettings
from ssql_ros.algorithms.cql import CQL, CQLSettings
from ssql_ros.algorithms.esac import ESAC, ESACSettings
from ssql_ros.algorithms.iql import IQL, IQLSettings
from ssql_ros.algorithms.rs import RS
from ssql_ros.algorithms.sac import SAC, SACSettings
from ssql_ros.algorithms.sqrl import SQRLPretraining, SQRLSettings
from ssql_ros.algorithms.sqrl_finetuning import SQRLFineTuning
from ssql_ros.algorithms.ssql import EXTRACTIONS, SSQL, SSQLSettings
from ssql_ros.algorithms.wcpg import WCPG, WCPGSettings
from ssql_ros.behaviour.promise import PromiseMonitor
from ssql_ros.training.behaviour_learner import OfflineLearner
from ssql_ros.training.learner import Learner, OffPolicyLearner
from ssql_ros.training.ssql_learner import SSQLLearner

REPLAY = 1_000_000
# How long each of the first, uniform actions is held at most; trembling, the spider never leaves its corner.
INITIAL_HOLD = {"spider": 8}
# What differs from the defaults, by algorithm and robot, where the two below do not serve.
ALGORITHM_SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    ("ssql", "minitaur"): {
        "hidden": (128, 128),
        "samples": 8,
        "extraction_samples": 16,
        # What an action does to the velocity shows within a few steps; further ahead it is lost in the noise.
        "gamma": 0.8,
        "temperature": 0.02,
        "policy_share": 0.5,
        "update_every": 4,
        "final_updates": 6000,
        "extraction_updates": 4000,
    },
    # Rewards are below 0.4 a step, so Q is of the order of 20 to 40. A fall adds 20 to the sum of Q_safe over steps, so
    # the mean is below epsilon with one in 400 steps. Below it nu falls, by e every 1,000 updates at 1e-3.
    ("sqrl", "minitaur"): {"initial_nu": 100.0, "dual_rate": 1e-4},
    # Rewards are about -0.5 a step and 30 at the goal.
    ("ssql", "spider"): {"temperature": 0.3, "final_updates": 5000, "extraction_updates": 3000},
    ("cql", "spider"): {"final_updates": 10_000},
    # Expectile 0.9 runs away: nothing presses V down again where 30 at the goal is the best of many targets.
    ("iql", "spider"): {"expectile": 0.7, "final_updates": 10_000},
}
# What differs from table 1, by robot; a setting counts for every algorithm that has it.
ROBOT_SETTINGS: dict[str, dict[str, Any]] = {
    "spider": {
        "hidden": (64, 64),
        "learning_rate": 1e-3,
        "batch": 128,
        "tau": 0.01,
        "gamma_safe": 0.65,
        "epsilon": 0.05,
        "initial_temperature": 1.0,
        "off_policy_steps": 500,
        "safety_updates": 300,
        "near_share": 0.25,
        "mask_from": 0.6,
        # The budget of the others has four batches of the default.
        "batch_steps": 500,
        "cost_limit": 0.05,
    },
    "minitaur": {
        "initial_steps": 500,
        "update_every": 2,
        # Falls are decided some twenty steps ahead. Along what was executed the critic finds that out.
        "gamma_safe": 0.95,
        "safety_lookahead": 10,
        "safety_members": 2,
        "epsilon": 0.05,
        # Collection is not masked, so that the policy cannot lean on it. The safety critic's own episodes are, and show
        # critic and policy what follows where the mask steps in.
        "rollouts": 3,
        "mask_from": 1.0,
        "rollouts_masked_from": 0.3,
        "keep_rollouts": True,
        "safety_updates": 150,
        "final_safety_updates": 20_000,
    },
}

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


def _off_policy(make: Callable[[Start, Any], SAC]) -> Callable[[Start, Any], Learner]:
    def made(start: Start, settings: Any) -> Learner:
        initial = settings.initial_steps if start.phase == "pretrain" else settings.explore_steps
        algorithm = make(start, settings)
        # Room for D_safe's episodes, where they are kept: beyond as many steps again the oldest go.
        hold, replay = INITIAL_HOLD.get(start.robot, 1), min(REPLAY, 2 * start.steps)
        share = settings.explore_share if start.phase == "pretrain" else 0.0
        return OffPolicyLearner(algorithm, start.n_action, start.seed, initial, hold, replay, share)

    return made


def _plain(kind: type[SAC]) -> Callable[[Start, Any], SAC]:
    return lambda start, settings: kind(start.mean, start.scale, start.n_action, settings, start.seed)


def _safe(finetuning: type[SQRLFineTuning]) -> Callable[[Start, Any], SAC]:
    def made(start: Start, settings: Any) -> SAC:
        kind = SQRLPretraining if start.phase == "pretrain" else finetuning
        shape = (start.mean, start.scale, start.n_action, settings, start.seed)
        return kind(*shape, contract_id=start.contract_id, steps=start.steps)

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


ALGORITHMS: dict[str, tuple[type[Any], Callable[[Start, Any], Learner]]] = {
    "sac": (SACSettings, _off_policy(_plain(SAC))),
    "sqrl": (SQRLSettings, _off_policy(_safe(SQRLFineTuning))),
    "esac": (ESACSettings, _off_policy(_plain(ESAC))),
    "wcpg": (WCPGSettings, _off_policy(_plain(WCPG))),
    # RS shares SQRL's pre-training.
    "rs": (SQRLSettings, _off_policy(_safe(RS))),
    "ssql": (SSQLSettings, _safe_support),
    "cql": (CQLSettings, _offline(CQL)),
    "iql": (IQLSettings, _offline(IQL)),
    "cpo": (CPOSettings, _on_policy),
}


def settings_of(algorithm: str, robot: str, changed: dict[str, Any]) -> Settings:
    """Return an algorithm's settings for a robot.

    Args:
        changed: settings by name that differ from the robot's.

    Raises:
        ValueError: no such algorithm or setting, or a value of another type.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm {algorithm!r} is unknown; known: {', '.join(ALGORITHMS)}")
    kind = ALGORITHMS[algorithm][0]
    known = {field.name for field in fields(kind)}
    own = {name: value for name, value in ROBOT_SETTINGS.get(robot, {}).items() if name in known}
    own |= ALGORITHM_SETTINGS.get((algorithm, robot), {})
    settings = checked_settings(algorithm, kind(), own, changed)
    if isinstance(settings, SQRLSettings) and not settings.offline_share + settings.near_share < 1.0:
        raise ValueError(
            f"settings offline_share and near_share: expected less than 1 together, got {settings.offline_share:g} "
            f"and {settings.near_share:g}: nothing of a batch is left for the newest episodes"
        )
    return settings


def checked_settings(algorithm: str, default: Any, own: dict[str, Any], changed: dict[str, Any]) -> Any:
    """Return a dataclass of settings: `default`, a robot's `own` and then what was `changed`, by name.

    Raises:
        ValueError: no such setting, or a value of another type.
    """
    known = {field.name for field in fields(default)}
    if unknown := sorted(set(changed) - known):
        raise ValueError(f"{algorithm} has no setting {unknown[0]!r}; it has: {', '.join(sorted(known))}")
    checked = {name: _checked(name, getattr(default, name), value) for name, value in {**own, **changed}.items()}
    return replace(default, **checked)


# Settings between 0 and 1: without the bounds, and with them.
_FRACTIONS = {"epsilon", "gamma_safe", "prior", "quantile"}
_SHARES = {
    "gamma",
    "tau",
    "safety_tau",
    "percentile",
    "offline_share",
    "near_share",
    "risky_share",
    "mask_from",
    "rollouts_masked_from",
    "pessimism",
    "policy_share",
    "policy_from",
    "explore_share",
    "explore_from",
    "explore_to",
    "gae_decay",
    "cost_gae_decay",
    "expectile",
    "safety_expectile",
    "actor_from",
    "decay_from",
}
_CHOICES = {
    "extraction": EXTRACTIONS,
    "activation": ("relu", "gelu"),
    "critic_activation": ("relu", "gelu"),
}
# Numbers from 0 on.
_WEIGHTS = {"alpha", "gate", "conservative_weight", "cost_budget"}


def _checked(name: str, default: Any, value: Any) -> Any:
    """Return a setting's value as its default's type. Raises ValueError that says what was expected."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if isinstance(default, bool):
        fine, expected = isinstance(value, bool), "true or false"
    elif isinstance(default, tuple):
        fine = isinstance(value, (list, tuple)) and all(type(width) is int and width >= 1 for width in value)
        fine, expected = fine and len(value) > 0, "a list of whole numbers of at least 1"
    elif name in _CHOICES:
        fine, expected = value in _CHOICES[name], " or ".join(_CHOICES[name])
    elif isinstance(default, int):
        # What is not done by default need not be done.
        least = min(default, 1)
        fine, expected = type(value) is int and value >= least, f"a whole number of at least {least}"
    elif name in _FRACTIONS:
        fine, expected = number and 0.0 < value < 1.0, "a number between 0 and 1"
    elif name in _SHARES:
        fine, expected = number and 0.0 <= value <= 1.0, "a number from 0 to 1"
    elif name in _WEIGHTS:
        fine, expected = number and value >= 0.0, "a number from 0 on"
    elif name == "target_entropy":
        fine, expected = number or value is None, "a number or null"
    elif name == "growth":
        fine, expected = number and value >= 1.0, "a number of at least 1"
    else:
        fine, expected = number and value > 0.0, "a number above 0"
    if not fine:
        raise ValueError(f"setting {name}: expected {expected}, got {value!r}")
    if isinstance(default, tuple):
        return tuple(value)
    return float(value) if isinstance(default, float) else value


def make_learner(algorithm: str, start: Start, settings: Settings) -> Learner:
    """Return a learner by name (see `settings_of`)."""
    return ALGORITHMS[algorithm][1](start, settings)
