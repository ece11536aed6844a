"""Verbs that live beside the package, in a checkout: benchmarks and the studies of docs/results."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# What each folder beside the package adds, for who has no checkout.
VERBS = {
    "bench": {"bench": "measure speed against a peer or a limit in the same run"},
    "studies": {
        "experiment": "run an experiment of docs/results: all methods, all seeds",
        "compare": "offline learners on the same data: return, incidents, calibration of Q",
        "temperatures": "SSQL over lambda on grid worlds, beside exact dynamic programming",
        "feasible": "the boat's learned feasible set against the true one",
        "rivals": "SafeFQL against candidates of a multi-step flow and of a diffusion policy, on the boat",
    },
}


def add_parser(verbs: Any) -> None:
    """Add the verbs of the checkout; without one they say where they are."""
    for folder, names in VERBS.items():
        if (ROOT / folder / "command.py").exists():
            if str(ROOT) not in sys.path:
                sys.path.append(str(ROOT))
            importlib.import_module(f"{folder}.command").add_parser(verbs)
            continue
        for name, help_text in names.items():
            parser = verbs.add_parser(name, help=f"{help_text} (in a checkout)")
            parser.set_defaults(run=_absent(name, folder))


def _absent(name: str, folder: str) -> Any:
    def run(_: Any) -> int:
        raise ValueError(
            f"ssql {name}: {folder}/ is not installed with the package; run it in a checkout of the sources, "
            f"or there: python -m {folder}"
        )

    return run
