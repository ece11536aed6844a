"""The simulated Minitaur as its driver: joint states and an IMU as old as the control latency, odometry of now."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssql_ros.contract import Contract
from ssql_ros.contract.sensor_readings import Reading
from ssql_ros.robots.body import StepResult


class MinitaurBody:
    """Commands are joint positions."""

    def __init__(self, world: Any, contract: Contract) -> None:
        self._world = world

    def reset(self, seed: int) -> dict[str, Any]:
        """Begin an episode; return its info."""
        return self._world.reset(seed=seed)[1]

    def step(self, command: np.ndarray) -> StepResult:
        """Follow joint positions (8,), rad, for one control period."""
        return self._world.step_joint_positions(command)

    def readings(self) -> dict[str, Reading]:
        """Return what the sensors read now, by the contract's inputs."""
        now = self._world.sensors()
        return {
            "odometry": {
                "position": now.base_position,
                "orientation": now.base_orientation,
                "linear_velocity": now.base_velocity_body,
                "angular_velocity": now.angular_velocity,
            },
            "imu": {
                "orientation": now.orientation,
                "angular_velocity": now.angular_velocity,
                "linear_acceleration": now.linear_acceleration,
            },
            "joint_states": {
                "name": now.joint_names,
                "position": now.joint_position,
                "velocity": now.joint_velocity,
                "effort": now.joint_effort,
            },
        }

    def close(self) -> None:
        """Close the world."""
        self._world.close()
