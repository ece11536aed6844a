"""The backup of a safety critic: what the shield goes on with where it does not trust the controller.

Q_safe(s, a) is then the probability of an incident when a is executed now and the backup takes over (eq. 2 of SQRL
with the backup as the policy that follows), so that a proposal that passes leaves a way out that was judged with it:
a safety filter with a best-effort fallback policy and a learned monitor (Hsu, Hu and Fisac 2024, The Safety Filter: A
Unified View of Safety-Critical Control in Autonomous Systems).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Backup:
    """A pose to go to, and when.

    Attributes:
        action: (n_action,), contract's units, what is executed.
        window: decisions that are looked back on.
        most: of those, how many unsafe proposals are replaced by others near them; with more the backup takes over.
        dwell: proposals in a row that must be safe before the backup lets go.
        history: decisions over which a controller's unsafe proposals are remembered: each `most` of them lengthen the
            dwell by itself once more, up to `history`. Every time that a robot is handed back is one more chance for
            what the critic does not know; 0: the dwell stays as it is.
    """

    action: tuple[float, ...]
    window: int = 25
    most: int = 5
    dwell: int = 25
    history: int = 0

    def __post_init__(self) -> None:
        """Check every number. Raises ValueError with the name, what was expected and what came."""
        if not self.action or not np.isfinite(np.array(self.action, float)).all():
            raise ValueError(f"backup.action: expected finite numbers, got {list(self.action)}")
        for name, least in (("window", 1), ("most", 0), ("dwell", 1), ("history", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"backup.{name}: expected a whole number of at least {least}, got {value!r}")

    @classmethod
    def read(cls, header: Any, n_action: int) -> Backup:
        """Return what a bundle's header says. Raises ValueError: the name, what was expected and what came."""
        known = set(cls.__dataclass_fields__)
        # Bundles of before `history` do without.
        if not isinstance(header, dict) or set(header) | {"history"} != known:
            raise ValueError(f"backup: expected {', '.join(cls.__dataclass_fields__)}, got {header!r}")
        action = header["action"]
        numbers = isinstance(action, list) and all(type(value) in (int, float) for value in action)
        if not numbers or len(action) != n_action:
            raise ValueError(f"backup.action: expected {n_action} numbers, got {action!r}")
        return cls(**{**header, "action": tuple(map(float, action))})

    def header(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**asdict(self), "action": list(self.action)}
