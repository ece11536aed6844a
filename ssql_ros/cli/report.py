"""`ssql report`: tables and plots from the numbers of `ssql experiment`, and the ways of policies over a map."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssql_ros.cli.figures import add_json, report
from ssql_ros.cli.options import add_results, add_seed, add_task

if TYPE_CHECKING:
    import numpy as np

    from ssql_ros.robots.tasks import Task


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "report",
        help="tables and plots of learning results",
        description="Reads summary.csv and curves.csv of a folder of results, and writes a plot of each experiment "
        "and tables.md beside them. With --trajectories, draws the ways of policies over their robot's map instead.",
    )
    add_results(parser)
    parser.add_argument(
        "--trajectories", nargs="+", metavar="TITLE=BUNDLE", help="draw these policies' ways, behind their shields"
    )
    parser.add_argument(
        "--exact",
        nargs="+",
        type=float,
        metavar="EPSILON",
        help="draw the best ways that these thresholds leave open, solved on a grid: nothing is learned",
    )
    parser.add_argument("--gamma-safe", type=float, default=0.65, help="of the exact Q_safe (default: %(default)s)")
    add_task(parser, "of the trajectories")
    parser.add_argument("--phase", choices=("pretrain", "finetune"), default="finetune", help="of the trajectories")
    parser.add_argument("--episodes", type=int, default=20, help="of the trajectories (default: %(default)s)")
    add_seed(parser, "of the first episode")
    parser.add_argument("--out", type=Path, help="picture of the trajectories (default: RESULTS/trajectories.png)")
    add_json(parser)
    parser.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    if options.trajectories or options.exact:
        return _ways(options)
    from ssql_ros.report.results import write_results

    written = write_results(options.results)
    report({"files": len(written)}, 0, options.json, notes=[str(path) for path in written])
    return 0


def _ways(options: argparse.Namespace) -> int:
    from ssql_ros.report.map import draw_trajectories
    from ssql_ros.robots.tasks import find_task

    if options.task is None:
        raise ValueError("--task: expected the task of the trajectories, got none")
    task = find_task(options.task)
    drawn, world = task.plug.need("map")(), task.world(options.phase)
    groups = _exact(options, task) if options.exact else _trajectories(options, task)
    figures: dict[str, float] = {}
    for title, ways in groups.items():
        judged = [drawn.judged(way) for way in ways]
        figures |= {f"{title}: {name}": sum(each[name] for each in judged) / len(ways) for name in judged[0]}
    out = options.out or options.results / "trajectories.png"
    draw_trajectories(groups, drawn.hazards, drawn.size, world["goal"], task.contract().frame_names, out)
    report(figures, options.seed, options.json, notes=(str(out),))
    return 0


def _trajectories(options: argparse.Namespace, task: Task) -> dict[str, list[np.ndarray]]:
    from ssql_ros.evaluation.bundle_evaluation import trajectories
    from ssql_ros.model.bundle import load_bundle

    groups = {}
    for pair in options.trajectories:
        title, found, path = pair.partition("=")
        if not found:
            raise ValueError(f"--trajectories {pair!r}: expected TITLE=BUNDLE")
        bundle = load_bundle(path, task.contract())
        groups[title] = trajectories(task, bundle, task.world(options.phase), options.episodes, options.seed)
    return groups


def _exact(options: argparse.Namespace, task: Task) -> dict[str, list[np.ndarray]]:
    exact = task.plug.map().best(task, options.phase, options.exact, options.gamma_safe, options.episodes, options.seed)
    return {f"exact, epsilon {epsilon:g}": ways for epsilon, ways in exact.items()}
