"""What the robot was told last, and how fast a command may move where its source changes: from the controller to the
safe action and back, at activation, at a swap."""

from __future__ import annotations

import numpy as np

from ssql_ros.contract.contract import Contract


class CommandSource:
    """Bounds the change of the joint command by the contract's limits whenever its source changes.

    Its speed is bounded by `max_rate` and velocities, and how fast that changes by accelerations where they are stated.
    From the change on until the command has come to where its source wants it; after that the source has it alone.

    Attributes:
        last: (n_joint,), SI units, what the robot was told last, or measured to be at before that; None: not known.
    """

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        told, period = contract.commanded, contract.control_period
        self._step = told.fastest * period
        # How far a step may differ from the one before; a number for those that are not bounded, to reckon with.
        self._jolt = np.minimum(np.broadcast_to(told.acceleration, len(told.joint_names)) * period**2, 1e9)
        self._accelerates = bool(np.isfinite(told.acceleration).any())
        self._moved = np.zeros(len(told.joint_names))  # the last step
        self._aim: np.ndarray | None = None  # what the controller wants, and its last step
        self._speed = np.zeros(len(told.joint_names))
        self.last: np.ndarray | None = None
        self._limiting = True
        self._held: np.ndarray | None = None  # where the safe action leads, while it is held

    def start(self) -> None:
        """Begin: the next command is a change of its source."""
        self.last, self._held, self._limiting, self._aim = None, None, True, None
        self._moved, self._speed = np.zeros_like(self._moved), np.zeros_like(self._moved)

    def change(self) -> None:
        """Another source commands from now on."""
        self._limiting = True

    def aim(self, wanted: np.ndarray) -> None:
        """Note what the controller wants (n_joint,): who follows it must know how fast that moves."""
        if self._accelerates:
            self._speed = wanted - self._aim if self._aim is not None else np.zeros(len(wanted))
            self._aim = wanted

    def measured(self, frame: np.ndarray) -> None:
        """Note where the robot is, in a frame (n_frame,), as long as nothing was commanded."""
        if self.last is None:
            near = self._contract.joint_command(self._contract.safe_action)
            self.last = self._contract.measured_command(frame, near)

    def limited(self, wanted: np.ndarray) -> np.ndarray:
        """Return a joint command (n_joint,) no further from the last than it may be, or `wanted` itself."""
        if not self._limiting or self.last is None or not np.isfinite(self._step).any():
            return wanted
        change = wanted - self.last
        if self._accelerates:
            return self._accelerated(wanted, change)
        if (np.abs(change) <= self._step).all():
            return wanted
        return self.last + np.clip(change, -self._step, self._step)

    def _accelerated(self, wanted: np.ndarray, change: np.ndarray) -> np.ndarray:
        """Return the next command on a way that takes up speed, and loses it before it arrives, as it may.

        With j the most that a step may differ from the one before, the n + 1 steps s, s - j, ... down to 0 reach as far
        as d = (n + 1) s - j n (n + 1) / 2, n = s / j rounded down. Beside what moves, s is the difference of speeds.
        """
        assert self.last is not None
        speed = np.clip(self._speed, -self._step, self._step) if wanted is self._aim else 0.0 * change
        way, jolt = np.abs(change - speed), self._jolt
        n = np.floor(np.sqrt(0.25 + 2.0 * way / jolt) - 0.5)
        closing = np.minimum(way, (way + 0.5 * jolt * n * (n + 1.0)) / (n + 1.0))
        step = speed + np.sign(change - speed) * closing
        # A controller that had it alone may have jumped: that is no speed of the robot's.
        before = np.clip(self._moved, -self._step, self._step)
        step = np.clip(np.clip(step, before - jolt, before + jolt), -self._step, self._step)
        if (np.abs(step - change) <= 1e-12).all():
            return wanted
        low, high = self._contract.joint_limits
        return np.clip(self.last + step, np.minimum(low, self.last), np.maximum(high, self.last))

    def towards(self, wanted: np.ndarray) -> np.ndarray:
        """Return the next command (n_joint,) on the way to what this source wants, as sent."""
        limited = self.limited(wanted)
        self.sent(limited, arrived=limited is wanted)
        return limited

    def sent(self, joint_command: np.ndarray, arrived: bool) -> None:
        """Note a command (n_joint,) that was sent. `arrived`: it is what its source wanted; it has it alone now."""
        self._note(joint_command)
        self._held = None
        self._limiting = self._limiting and not arrived

    @property
    def arrived(self) -> bool:
        """Tell whether the last command was where the safe action leads."""
        return self.last is not None and self.last is self._held

    def held(self, frame: np.ndarray | None) -> np.ndarray | None:
        """Return the joint command (n_joint,) of the safe action now; None: the pose to hold is not known.

        Args:
            frame: (n_frame,), the newest; None before the first.
        """
        contract = self._contract
        if self._held is None:
            wanted: np.ndarray | None = contract.joint_command(contract.safe_action)
            assert wanted is not None
            if contract.holds_pose:
                measured = contract.measured_command(frame, wanted) if frame is not None else None
                wanted = measured if measured is not None else self.last
            if wanted is None:
                return None
            # The way back is a change of source too.
            self._held, self._limiting = wanted, True
        self._note(self.limited(self._held))
        return self.last

    def _note(self, joint_command: np.ndarray) -> None:
        if self._accelerates and self.last is not None:
            self._moved = joint_command - self.last
        self.last = joint_command
