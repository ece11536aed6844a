"""Who proposes: the controller, or an operator who has taken the robot over.

As in twist_mux: an operator's commands come first while they come, and a lock keeps the controller out also while none
does. What the operator wants is judged like anything else.
"""

from __future__ import annotations

import math


class Takeover:
    """Tells whose proposals count.

    Args:
        timeout: s, how long an operator's command counts, and how long after the last one the controller is kept out.

    Attributes:
        locked: the operator has the robot until the lock is released, whatever comes.
        overridden: proposals of the controller that did not count.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout, self.locked, self.overridden = timeout, False, 0
        self._heard = self._latest = -math.inf

    def hear(self, time: float) -> None:
        """Take in that the operator has commanded something, at `time` s on the steady clock."""
        self._heard = max(self._heard, time)

    def has(self, now: float) -> bool:
        """Tell whether the operator has the robot at `now`, s; time does not go back."""
        self._latest = max(self._latest, now)
        return self.locked or self._latest - self._heard <= self.timeout

    def lock(self, locked: bool) -> None:
        """Take the robot over, or hand it back at once."""
        self.locked = locked
        if not locked:
            self._heard = -math.inf
