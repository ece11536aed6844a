"""The algorithms that can learn beside a live robot: from a buffer, with a policy that keeps to b's support."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssql_ros.algorithms.iql import IQLSettings
from ssql_ros.algorithms.ssql import SSQL, SSQLSettings
from ssql_ros.algorithms.supported_iql import SupportedIQL
from ssql_ros.behaviour.policy import BehaviourPolicy
from ssql_ros.live.settings import LIVE_ALGORITHMS
from ssql_ros.training.settings import settings_of

LiveAlgorithm = SSQL | SupportedIQL
# Settings that say what the networks are and what they approximate: of others a checkpoint is of no use.
MEANING = (
    "hidden",
    "critics",
    "extraction",
    "gamma",
    "temperature",
    "pessimism",
    "expectile",
    "sharpness",
    "observation_clip",
)


def live_settings(algorithm: str, robot: str, changed: dict[str, Any]) -> SSQLSettings | IQLSettings:
    """Return an algorithm's settings for a robot, see `settings_of`.

    Raises:
        ValueError: no such algorithm here, or no such setting.
    """
    if algorithm not in LIVE_ALGORITHMS:
        raise ValueError(f"algorithm {algorithm!r} does not learn live; these do: {', '.join(LIVE_ALGORITHMS)}")
    settings = settings_of(algorithm, robot, changed)
    assert isinstance(settings, (SSQLSettings, IQLSettings))
    return settings


def make_live(
    mean: np.ndarray,
    scale: np.ndarray,
    n_action: int,
    settings: SSQLSettings | IQLSettings,
    seed: int,
    behaviour: BehaviourPolicy,
) -> LiveAlgorithm:
    """Return the algorithm of some settings."""
    if isinstance(settings, SSQLSettings):
        return SSQL(mean, scale, n_action, settings, seed, behaviour)
    return SupportedIQL(mean, scale, n_action, settings, seed, behaviour)


def meaning_of(algorithm: str, settings: SSQLSettings | IQLSettings) -> dict[str, Any]:
    """Return what a checkpoint's networks are of, in JSON's types."""
    named = {name: getattr(settings, name) for name in MEANING if hasattr(settings, name)}
    return {"algorithm": algorithm, **{k: list(v) if isinstance(v, tuple) else v for k, v in named.items()}}
