"""A simulated robot as its driver: it follows joint commands and says what its sensors read, in numbers and names."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from ssql_ros.contract import Contract
from ssql_ros.contract.sensor_readings import Reading, place_of, readings_of

StepResult = tuple[np.ndarray, float, bool, bool, dict[str, Any]]


class Body(Protocol):
    """One robot in its world. `info` has incident, margin, cause (in words) and velocity (m/s, NaN: it has none)."""

    def reset(self, seed: int) -> dict[str, Any]:
        """Begin an episode; return its info."""

    def step(self, command: np.ndarray) -> StepResult:
        """Follow a joint command (n_joint,) for one control period."""

    def readings(self) -> dict[str, Reading]:
        """Return what the sensors read now, by the contract's inputs."""

    def close(self) -> None:
        """Close the world."""


class ObservedBody:
    """A robot whose sensors read what its world's observation has, as the contract says which input that is from.

    Raises:
        ValueError: the observation does not begin with the frame, or an angle of an orientation is in it.
    """

    def __init__(self, world: Any, contract: Contract) -> None:
        fields = [feature.field for feature in contract.observed.frame]
        if contract.observed.blocks[0].kind != "frame" or any(name.startswith("orientation") for name in fields):
            raise ValueError(f"{contract.path}: sensors cannot be told from its observation; its robot needs a body")
        self._world, self._contract = world, contract
        self._frame = np.zeros(contract.frame_size)

    def reset(self, seed: int) -> dict[str, Any]:
        """Begin an episode; return its info."""
        observation, info = self._world.reset(seed=seed)
        return self._seen(observation, info)

    def step(self, command: np.ndarray) -> StepResult:
        """Follow a joint command (n_joint,) for one control period."""
        observation, reward, ended, truncated, info = self._world.step(self._contract.nearest_action(command))
        return observation, float(reward), ended, truncated, self._seen(observation, info)

    def _seen(self, observation: np.ndarray, info: dict[str, Any]) -> dict[str, Any]:
        self._frame = observation[: self._contract.frame_size]
        margin, cause = self._contract.margin(self._frame)
        return {"margin": margin, "cause": cause if info["incident"] else "", "velocity": math.nan, **info}

    def readings(self) -> dict[str, Reading]:
        """Return what the sensors read now, by the contract's inputs; what the frame lacks is 0."""
        features = self._contract.observed.frame
        measured = (self._frame / [feature.factor for feature in features]).tolist()
        return readings_of(self._contract, dict(zip(map(place_of, features), measured, strict=True)))

    def close(self) -> None:
        """Close the world."""
        self._world.close()
