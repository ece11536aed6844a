"""`ssql eval`: what a shield or a policy does in its world, with intervals."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssql_ros.cli.figures import add_json, report


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser("eval", help="judge in simulation", description="Judge in simulation, with intervals.")
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    shield = subjects.add_parser(
        "shield",
        help="an untrusted controller with the shield watching, and with it enforcing, same seeds",
        description="Runs the task's untrusted controller twice over the same seeds: the shield first only monitors, "
        "then enforces. Intervals are 95 %%: Wilson for falls, bootstrap over episodes for means.",
    )
    shield.add_argument("--task", default="minitaur", help="which world (default: %(default)s)")
    shield.add_argument("--bundle", type=Path, help="safety critic (default: the task's in config/bundles)")
    shield.add_argument("--episodes", type=int, default=60, help="of each mode (default: %(default)s)")
    shield.add_argument("--epsilon", type=float, help="threshold on q_safe (default: the bundle's)")
    shield.add_argument("--sigma", type=float, help="noise of the controller (default: the task's)")
    shield.add_argument("--rho", type=float, help="its correlation from step to step (default: the task's)")
    shield.add_argument("--seed", type=int, default=0, help="of the first episode (default: %(default)s)")
    shield.add_argument("--quiet", action="store_true", help="no progress bar")
    add_json(shield)
    shield.set_defaults(run=_shield)


def _shield(options: argparse.Namespace) -> int:
    from ssql_ros.learning.evaluation import evaluate_shield
    from ssql_ros.tasks import find_task

    task = find_task(options.task)
    noise = {name: getattr(options, name) for name in ("sigma", "rho") if getattr(options, name) is not None}
    figures = evaluate_shield(
        task, options.bundle, options.episodes, options.seed, options.epsilon, noise, show=not options.quiet
    )
    falls = (
        f"falls in {figures['episodes']:g} episodes: {figures['falls_monitor']:g} watched, "
        f"{figures['falls_enforce']:g} shielded"
    )
    report(figures, options.seed, options.json, notes=(falls,))
    return 0
