"""The contract of plain vectors: a world, or a data set, of which only the sizes of its vectors are known.

The margin stands behind the observation, since what the rule judges must be seen; a driver would publish both in one
Float64MultiArray, and take its command in another, in the world's own units.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import yaml

from ssql_ros.contract.contract import Contract
from ssql_ros.contract.fields import FLOATS

MARGIN = "margin"


def vectors_document(robot: str, n: int, low: np.ndarray, high: np.ndarray, control_period: float) -> dict[str, Any]:
    """Return such a contract as its YAML has it.

    Args:
        n: numbers of the observation, without the margin.
        low, high: (n_action,), bounds of the action in the world's own units; -1 and 1 mean them.
        control_period: s.
    """
    middle, half = 0.5 * (high + low), 0.5 * (high - low)
    # The action that commands nothing, or as little as the bounds allow; not -0.
    safe = np.clip(-middle / half, -1.0, 1.0) + 0.0
    names = [*(f"o{i}" for i in range(n)), MARGIN]
    return {
        "robot": robot,
        "control_period": round(control_period, 6),
        "inputs": {"observation": {"topic": "observation", "type": FLOATS}},
        "observation": {
            "trigger": "observation",
            "frame": [
                {"name": name, "input": "observation", "field": f"data[{i}]", "unit": "1"}
                for i, name in enumerate(names)
            ],
            "vector": [{"block": "frame"}],
        },
        "action": {
            "elements": [{"name": f"a{i}", "low": -1.0, "high": 1.0} for i in range(len(half))],
            "command": {"topic": "command", "type": FLOATS},
            "parts": [
                {"name": f"c{i}", "offset": float(offset), "sum": {f"a{i}": float(weight)}}
                for i, (offset, weight) in enumerate(zip(middle, half, strict=True))
            ],
        },
        "incident": [{"feature": MARGIN, "above": 0.0, "unit": "1"}],
        "safe_action": safe.tolist(),
    }


def vectors_text(document: dict[str, Any], source: str) -> str:
    """Return it as YAML; `source`: where it is from, in words."""
    head = (
        f"# The contract that {source} gives: its vectors, as a driver would publish them.\n"
        "# observation: the numbers as they came, and behind them the margin: above 0 is inside the failure set.\n"
    )
    return head + yaml.safe_dump(document, sort_keys=False, default_flow_style=None)


def has_margin_behind(contract: Contract) -> bool:
    """Tell whether a contract is one of plain vectors."""
    return contract.frame_names[-1] == MARGIN and len(contract.observed.blocks) == 1
