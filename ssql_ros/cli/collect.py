"""`ssql collect`: a mixed log of a simulated world, as a data set to learn from offline."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssql_ros.cli.figures import add_json, command_line, report, versions


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "collect",
        help="a mixed log of a simulated world, to learn from offline",
        description="Drives a world by behaviour policies of several skills and writes a data set: one .npy a column "
        "and a manifest. Of the boat: pilots that wander, that steer to the goal and see no rock, that go round "
        "rocks, and that visit random places, with errors of several sizes, from starts all over the box.",
        epilog="example: ssql collect --task boat --episodes 2500 --out data/boat",
    )
    parser.add_argument("--task", default="boat", choices=("boat",), help="which world (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=2500, help="of 400 steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where to write")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_json(parser)
    parser.set_defaults(run=_collect)


def _collect(options: argparse.Namespace) -> int:
    import numpy as np

    from ssql_ros.learning.boat_truth import boat_log
    from ssql_ros.learning.offline import save_log
    from ssql_ros.tasks import find_task

    log = boat_log(options.episodes, options.seed, show=not options.quiet)
    facts = {
        "task": options.task,
        "contract_id": find_task(options.task).contract().id,
        "seed": options.seed,
        "command": command_line(),
        "versions": versions(),
    }
    save_log(log, options.out, facts)
    unsafe = (log.margin > 0.0).reshape(options.episodes, -1)
    figures = {
        "episodes": float(options.episodes),
        "transitions": float(len(log.reward)),
        "return_mean": float(log.reward.sum(dtype=float) / options.episodes),
        "cost_mean": float(unsafe.sum(axis=1).mean()),
        "safe_episodes": float(np.mean(~unsafe.any(axis=1))),
    }
    report(figures, options.seed, options.json, notes=(f"data set is in {options.out}",))
    return 0
