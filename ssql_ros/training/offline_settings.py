"""Settings of what learns from a data set alone: by algorithm, and by robot where they differ from the papers'."""

from __future__ import annotations

import dataclasses
from typing import Any

from ssql_ros.algorithms.behaviour_density import DensitySettings
from ssql_ros.algorithms.iql_lagrangian import IQLLagrangianSettings
from ssql_ros.algorithms.safefql import SafeFQLSettings
from ssql_ros.training.registry import checked_settings

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
LOG_ONLY: dict[str, type[Any]] = {
    "safefql": SafeFQLSettings,
    "iql_lagrangian": IQLLagrangianSettings,
    "behaviour": DensitySettings,
}


def offline_settings(algorithm: str, robot: str, changed: dict[str, Any]) -> Any:
    """Return an algorithm's settings for a robot.

    Raises:
        ValueError: no such setting, or a value of another type.
    """
    kind = LOG_ONLY[algorithm]
    known = {field.name for field in dataclasses.fields(kind)}
    own = {name: value for name, value in ROBOT_SETTINGS.get(robot, {}).items() if name in known}
    own |= ALGORITHM_SETTINGS.get((algorithm, robot), {})
    return checked_settings(algorithm, kind(), own, changed)
