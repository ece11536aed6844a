"""The cup: all fingers bent into a bowl, which holds the cube by itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssql_ros.behaviour.policy import UniformBox
from ssql_ros.contract import Contract
from ssql_ros.robots.noise import Scripted

# In action units, in the contract's order: its safe action.
CUP = np.array(
    [
        -0.2998, -0.2362, 0.0, -0.2998, -0.2362, 0.0, -0.2357, -0.2998, -0.2362, 0.0,
        -0.2998, -0.2362, 0.0, 0.3635, 0.0, 0.0, 0.473, 0.0, 0.1761, 0.5548,
    ]
)  # fmt: skip


class Cup(Scripted):
    """The bare cup as a controller."""

    def __init__(self, contract: Contract) -> None:
        self._action = contract.safe_action

    def best(self, observation: np.ndarray) -> np.ndarray:
        """Return the cup's action (20,), whatever is observed."""
        return self._action.copy()


class CupHold(UniformBox):
    """The cup with bounded noise: uniform in a box about it.

    Args:
        bound: largest deviation, action units: the support.

    Raises:
        ValueError: a bound that is not above 0.
    """

    def __init__(self, bound: float = 0.1) -> None:
        if not 0.0 < bound <= 2.0:
            raise ValueError(f"expected 0 < bound <= 2, got {bound}")
        self.bound = float(bound)
        super().__init__(np.clip(CUP - bound, -1.0, 1.0).tolist(), np.clip(CUP + bound, -1.0, 1.0).tolist())
        # Drops that were seen: 0 of 80 episodes within 0.1, 0 of 30 within 0.3.
        self.promise = f"actions within {bound:g} of the cup; the cube is not dropped"

    def describe(self) -> dict[str, Any]:
        """Return what `make_behaviour` makes the same policy from."""
        return {"kind": "cup_hold", "bound": self.bound, "context": 0}
