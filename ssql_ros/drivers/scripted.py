"""A robot without a world: joints follow their commands at the contract's speeds, everything else rests.

It stands in for a driver, so that a contract, a shield and what listens to them are tried before hardware is touched.
What a command does to the rest of the world (a cube in the hand, a heading) is a simulator's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ssql_ros.contract.contract import Contract
from ssql_ros.contract.fields import TWIST, TWIST_STAMPED
from ssql_ros.contract.sensor_readings import Reading, readings_of
from ssql_ros.drivers.resting import resting_values

SPEED = 10.0  # rad/s or m/s, of a joint whose contract does not say how fast it is


class ScriptedRobot:
    """Joints, and what is measured of them.

    Attributes:
        values: what is measured now, SI units, by input, joint and field.
        stopped: the command time-out is over, and the safe action is held.
    """

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.values = resting_values(contract)
        self.stopped = True
        told = contract.commanded
        self._safe = contract.joint_command(contract.safe_action)
        self._command, self._heard, self._time = self._safe, -math.inf, -math.inf
        fastest = np.minimum(np.broadcast_to(told.velocity, len(told.joint_names)), told.max_rate)
        self._speeds = np.where(np.isfinite(fastest), fastest, SPEED)
        follow: dict[str, Callable[[float], None]] = {"position": self._reach, "velocity": self._turn}
        self._follow = follow.get(told.field, self._exert) if told.by_joint else self._drive

    def command(self, joint_command: np.ndarray, now: float) -> None:
        """Take a joint command (n_joint,), SI units; `now`: s on any clock that goes on."""
        self._command, self._heard = joint_command, now

    def step(self, now: float) -> None:
        """Move on until `now`, s on the clock of the commands."""
        elapsed = max(0.0, now - self._time) if self._time > -math.inf else 0.0
        self._time = now
        self.stopped = now - self._heard > self.contract.command_timeout
        if self.stopped:
            self._command = self._safe
        self._follow(elapsed)

    def readings(self) -> dict[str, Reading]:
        """Return what the sensors read now, by the contract's inputs."""
        return readings_of(self.contract, self.values)

    def _set(self, joint: str, field: str, value: float, add: bool = False) -> None:
        for place in self.values:
            if place[1] == joint and place[2] == field:
                self.values[place] = value + self.values[place] * add

    def _get(self, joint: str, field: str) -> float | None:
        return next((value for place, value in self.values.items() if place[1:] == (joint, field)), None)

    def _reach(self, elapsed: float) -> None:
        moved = self.contract.commanded.moved
        for joints, goal, speed in zip(moved, self._command.tolist(), self._speeds.tolist(), strict=True):
            for joint in joints:
                if (at := self._get(joint, "position")) is None:
                    continue
                most = speed / len(joints) * elapsed
                step = min(max(goal / len(joints) - at, -most), most)
                self._set(joint, "position", at + step)
                self._set(joint, "velocity", step / elapsed if elapsed else 0.0)

    def _turn(self, elapsed: float) -> None:
        for joint, velocity in zip(self.contract.commanded.joint_names, self._command.tolist(), strict=True):
            self._set(joint, "velocity", velocity)
            self._set(joint, "position", velocity * elapsed, add=True)

    def _exert(self, _elapsed: float) -> None:
        for joint, effort in zip(self.contract.commanded.joint_names, self._command.tolist(), strict=True):
            self._set(joint, "effort", effort)

    def _drive(self, elapsed: float) -> None:
        """Follow a twist in the plane; other commands move nothing that is measured."""
        told = self.contract.commanded
        if told.type not in (TWIST, TWIST_STAMPED):
            return
        parts = dict(zip(told.joint_names, self._command.tolist(), strict=True))
        for place in self.values:
            vector, _, axis = place[2].rpartition(".")
            part = f"{vector.removesuffix('_velocity')}.{axis}"
            if part in parts:
                self.values[place] = parts[part]
        for name in {place[0] for place in self.values}:
            yaw = self.values.get((name, None, "orientation.yaw"), 0.0)
            forward = parts.get("linear.x", 0.0) * elapsed
            steps = {"position.x": forward * math.cos(yaw), "position.y": forward * math.sin(yaw)}
            steps["orientation.yaw"] = parts.get("angular.z", 0.0) * elapsed
            for field, step in steps.items():
                if (name, None, field) in self.values:
                    self.values[name, None, field] += step
