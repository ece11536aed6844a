"""What the robot was told last, and how fast a command may move where its source changes: from the controller to the
safe action and back, at activation, at a swap."""

from __future__ import annotations

import numpy as np

from ssql_ros.contract.contract import Contract


class CommandSource:
    """Bounds the change of the joint command by the contract's `max_rate` and velocities whenever its source changes.

    From the change on until the command has come to where its source wants it; after that the source has it alone.

    Attributes:
        last: (n_joint,), SI units, what the robot was told last, or measured to be at before that; None: not known.
    """

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._step = contract.commanded.fastest * contract.control_period
        self.last: np.ndarray | None = None
        self._limiting = True
        self._held: np.ndarray | None = None  # where the safe action leads, while it is held

    def start(self) -> None:
        """Begin: the next command is a change of its source."""
        self.last, self._held, self._limiting = None, None, True

    def change(self) -> None:
        """Another source commands from now on."""
        self._limiting = True

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
        if (np.abs(change) <= self._step).all():
            return wanted
        return self.last + np.clip(change, -self._step, self._step)

    def sent(self, joint_command: np.ndarray, arrived: bool) -> None:
        """Note a command (n_joint,) that was sent. `arrived`: it is what its source wanted; it has it alone now."""
        self.last, self._held = joint_command, None
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
        self.last = self.limited(self._held)
        return self.last
