"""Settings of algorithms: the papers', then those of a robot or a task in its learning.yaml, then the caller's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ssql_ros.algorithms.behaviour_density import DensitySettings
from ssql_ros.algorithms.cpo import CPOSettings
from ssql_ros.algorithms.cql import CQLSettings
from ssql_ros.algorithms.esac import ESACSettings
from ssql_ros.algorithms.iql import IQLSettings
from ssql_ros.algorithms.iql_lagrangian import IQLLagrangianSettings
from ssql_ros.algorithms.logged_critic import LoggedCriticSettings
from ssql_ros.algorithms.sac import SACSettings
from ssql_ros.algorithms.safefql import SafeFQLSettings
from ssql_ros.algorithms.sqrl import SQRLSettings
from ssql_ros.algorithms.ssql import EXTRACTIONS, SSQLSettings
from ssql_ros.algorithms.wcpg import WCPGSettings
from ssql_ros.contract import ContractError, robot_folder
from ssql_ros.contract.plugs import plugs
from ssql_ros.contract.schema import Section, read_yaml

SETTINGS: dict[str, type[Any]] = {
    "sac": SACSettings,
    "sqrl": SQRLSettings,
    "esac": ESACSettings,
    "wcpg": WCPGSettings,
    # RS shares SQRL's pre-training.
    "rs": SQRLSettings,
    "ssql": SSQLSettings,
    "cql": CQLSettings,
    "iql": IQLSettings,
    "cpo": CPOSettings,
    "safefql": SafeFQLSettings,
    "iql_lagrangian": IQLLagrangianSettings,
    "behaviour": DensitySettings,
    "critic": LoggedCriticSettings,
}


def settings_of(algorithm: str, robot: str, changed: dict[str, Any], task: str = "") -> Any:
    """Return an algorithm's settings for a robot, and for one of its tasks where it is named.

    Args:
        changed: settings by name that differ from the robot's.

    Raises:
        ValueError: no such algorithm or setting, or a value of another type.
    """
    if algorithm not in SETTINGS:
        raise ValueError(f"algorithm {algorithm!r} is unknown; known: {', '.join(SETTINGS)}")
    learning = _learning_of(robot)
    own = learning.get((task, algorithm), learning.get(("", algorithm), {}))
    settings = checked_settings(algorithm, SETTINGS[algorithm](), own, changed)
    if isinstance(settings, SQRLSettings) and not settings.offline_share + settings.near_share < 1.0:
        raise ValueError(
            f"settings offline_share and near_share: expected less than 1 together, got {settings.offline_share:g} "
            f"and {settings.near_share:g}: nothing of a batch is left for the newest episodes"
        )
    return settings


def initial_hold(robot: str) -> int:
    """Return for how many steps each of the first, uniform actions is held at most."""
    return _learning_of(robot).get(("", ""), {}).get("initial_hold", 1)


Learning = dict[tuple[str, str], dict[str, Any]]


def _learning_of(robot: str) -> Learning:
    try:
        path = robot_folder(robot) / "learning.yaml"
    except ContractError:
        return {}  # a robot that is not installed
    tasks = tuple(task.name for task in plugs()[robot].tasks) if robot in plugs() else ()
    return read_learning(path, tasks) if path.is_file() else {}


@lru_cache(maxsize=16)
def read_learning(path: Path, tasks: tuple[str, ...]) -> Learning:
    """Return what a learning.yaml has, by task (empty: whatever the task) and algorithm.

    Args:
        tasks: that it may name.

    Raises:
        ValueError: an unknown key, algorithm or setting, or a value of another type; the text says where.
    """
    top = Section(read_yaml(path), f"{path}: ", (), ("initial_hold", "settings", "tasks"))
    found: Learning = {("", ""): {"initial_hold": top.count("initial_hold") if top.has("initial_hold") else 1}}
    _read_groups(top, "settings", "", found)
    named = Section(top.raw("tasks") or {}, top.place("tasks"), (), tasks)
    of_robot = {name: own for (_, name), own in found.items() if name}
    for task in filter(named.has, tasks):
        found |= {(task, name): dict(own) for name, own in of_robot.items()}
        _read_groups(named, task, task, found)
    return found


def _read_groups(section: Section, key: str, task: str, found: Learning) -> None:
    """Add the groups of settings under a key: each counts for the algorithms that it is `for` and that have it."""
    for i, group in enumerate(section.items(key) if section.has(key) else ()):
        place = f"{section.place(key)}[{i}]"
        if not isinstance(group, Mapping) or not isinstance(group.get("for"), list) or not group["for"]:
            raise ContractError(f"{place}: expected a mapping with `for`, a list of algorithms, got {group!r}")
        if unknown := [name for name in group["for"] if name not in SETTINGS]:
            raise ContractError(f"{place}.for: {unknown[0]!r} is no algorithm; known: {', '.join(SETTINGS)}")
        defaults = {name: SETTINGS[name]() for name in group["for"]}
        for setting, value in group.items():
            having = [name for name, default in defaults.items() if hasattr(default, str(setting))]
            if setting != "for" and not having:
                raise ContractError(f"{place}: {setting!r} is no setting of {', '.join(defaults)}")
            for name in having:
                try:
                    checked = _checked(setting, getattr(defaults[name], setting), value)
                except ValueError as error:
                    raise ContractError(f"{place}: {error}") from error
                found.setdefault((task, name), {})[setting] = checked


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
_FRACTIONS = {"epsilon", "gamma_safe", "prior", "quantile", "alarms"}
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


def expected_of(name: str, default: Any) -> str:
    """Return what a setting must be, in words."""
    return _rule(name, default)[1]


def _rule(name: str, default: Any) -> tuple[Callable[[Any], bool], str]:
    """Return whether a value is fine, and what is expected, in words."""

    def number(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

    if isinstance(default, bool):
        return lambda value: isinstance(value, bool), "true or false"
    if isinstance(default, tuple):
        return _widths, "a list of whole numbers of at least 1"
    if name in _CHOICES:
        return lambda value: value in _CHOICES[name], " or ".join(_CHOICES[name])
    if isinstance(default, int):
        # What is not done by default need not be done.
        least = min(default, 1)
        return lambda value: type(value) is int and value >= least, f"a whole number of at least {least}"
    if name in _FRACTIONS:
        return lambda value: number(value) and 0.0 < value < 1.0, "a number between 0 and 1"
    if name in _SHARES:
        return lambda value: number(value) and 0.0 <= value <= 1.0, "a number from 0 to 1"
    if name in _WEIGHTS:
        return lambda value: number(value) and value >= 0.0, "a number from 0 on"
    if name == "target_entropy":
        return lambda value: number(value) or value is None, "a number or null"
    if name == "growth":
        return lambda value: number(value) and value >= 1.0, "a number of at least 1"
    return lambda value: number(value) and value > 0.0, "a number above 0"


def _widths(value: Any) -> bool:
    whole = isinstance(value, (list, tuple)) and all(type(width) is int and width >= 1 for width in value)
    return whole and len(value) > 0


def _checked(name: str, default: Any, value: Any) -> Any:
    """Return a setting's value as its default's type. Raises ValueError that says what was expected."""
    fine, expected = _rule(name, default)
    if not fine(value):
        raise ValueError(f"setting {name}: expected {expected}, got {value!r}")
    if isinstance(default, tuple):
        return tuple(value)
    return float(value) if isinstance(default, float) else value
