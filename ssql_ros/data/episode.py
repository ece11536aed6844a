"""One episode of a controller in its world: the job, and everything that happened."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssql_ros.shield.decision import ShieldSettings


@dataclass(frozen=True)
class EpisodeJob:
    """One episode to run.

    Attributes:
        seed: of the world, the controller and the shield.
        bundle: path of the shield's bundle; empty: no shield.
        shield: its settings.
        enforce: False: the shield decides, but the proposal goes to the robot (monitor mode).
        world: options of the world's constructor.
    """

    task: str
    seed: int
    controller: Any
    bundle: str = ""
    shield: ShieldSettings | None = None
    enforce: bool = True
    world: dict[str, Any] = field(default_factory=dict)


@dataclass
class Episode:
    """What happened in T steps of one episode.

    Attributes:
        observations: (T + 1, n_observation) float32, the last one after the last action.
        actions: (T, n_action) float32, executed.
        proposals: (T, n_action) float32, what the controller drew.
        means: (T + 1, n_action) float32, what the controller would do without noise.
        incident: True when the episode ended in one.
        rewards: (T,).
        decisions: (T,) int8, of `Decision`; -1 without a shield.
        q_safe: (T,) float32, Q_safe of the proposal; NaN without a shield.
        decision_times: (T,) s; NaN without a shield.
        distance: m, walked forward.
        period: s, of one step.
    """

    job: EpisodeJob
    observations: np.ndarray
    actions: np.ndarray
    proposals: np.ndarray
    means: np.ndarray
    incident: bool
    rewards: np.ndarray
    decisions: np.ndarray
    q_safe: np.ndarray
    decision_times: np.ndarray
    distance: float
    period: float

    def __len__(self) -> int:
        """Return the number of steps T."""
        return len(self.actions)
