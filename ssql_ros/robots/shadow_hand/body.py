"""The simulated hand as its driver and as the tracker of its cube: all readings are of now."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ssql_ros.contract import Contract
from ssql_ros.contract.sensor_readings import Reading
from ssql_ros.robots.body import StepResult


class ShadowHandBody:
    """Commands are joint positions, by the contract's names; a coupled one is a sum of two."""

    def __init__(self, world: Any, contract: Contract) -> None:
        self._world = world
        self._frames = {name: {"frame_id": source.frame_id} for name, source in contract.inputs.items()}

    def reset(self, seed: int) -> dict[str, Any]:
        """Begin an episode; return its info."""
        return {"velocity": math.nan, **self._world.reset(seed=seed)[1]}

    def step(self, command: np.ndarray) -> StepResult:
        """Follow joint positions (20,), rad, for one control period."""
        *result, info = self._world.step_joint_positions(command)
        return (*result, {"velocity": math.nan, **info})

    def readings(self) -> dict[str, Reading]:
        """Return what the sensors read now, by the contract's inputs."""
        now = self._world.sensors()
        poses = {name: {**self._frames[name], **now[name]} for name in ("cube", "goal")}
        return {"joint_states": now["joint_states"], **poses}

    def close(self) -> None:
        """Close the world."""
        self._world.close()
