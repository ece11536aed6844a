"""`ssql compare`: every offline learner on the data of one behaviour policy, and SSQL over its temperatures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssql_ros.cli.figures import add_json, report
from ssql_ros.cli.options import add_quiet, add_results, add_task


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "compare",
        help="offline learners on the same data: return, incidents, calibration of Q",
        description="Takes what runs of SSQL have seen (their checkpoints), one run for each seed, and lets every "
        "learner learn from it with the same networks and updates. Then each acts in the world, unshielded. Rows go "
        "into summary.csv of the results folder; `ssql report` makes table and plot of them.",
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of runs of ssql, one for each seed")
    add_task(parser, default="minitaur_trots")
    parser.add_argument("--methods", nargs="+", default=["ssql", "sac", "cql", "iql"], help="(default: all)")
    parser.add_argument("--temperatures", nargs="*", type=float, default=[], help="also ssql with each of these lambda")
    parser.add_argument("--updates", type=int, default=5000, help="of each learner (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=6, help="of each learned policy (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="of the first RUN (default: %(default)s)")
    add_results(parser)
    add_quiet(parser)
    add_json(parser)
    parser.set_defaults(run=_compare)

    study = verbs.add_parser(
        "temperatures",
        help="SSQL over lambda on grid worlds, beside exact dynamic programming",
        description="Learns from the steps of the safe behaviour policy, seed by seed. Rows go into summary.csv, the "
        "plot is ssql_temperatures.png of the results folder.",
    )
    study.add_argument("--tasks", nargs="+", default=["gridworld", "spider_grid"], help="(default: both)")
    study.add_argument("--steps", type=int, default=20_000, help="of each seed (default: %(default)s)")
    study.add_argument("--seeds", type=int, default=10, help="(default: %(default)s)")
    add_results(study)
    add_quiet(study)
    add_json(study)
    study.set_defaults(run=_temperatures)


def _temperatures(options: argparse.Namespace) -> int:
    import numpy as np

    from ssql_ros.learning.promises import GRIDS
    from ssql_ros.learning.result_tables import add_rows
    from ssql_ros.learning.temperature_study import plot, study

    if unknown := [task for task in options.tasks if task not in GRIDS]:
        raise ValueError(f"task {unknown[0]!r} is unknown; known: {', '.join(GRIDS)}")
    for name in ("steps", "seeds"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name}: expected at least 1, got {getattr(options, name)}")
    rows = [row for task in options.tasks for row in study(task, options.steps, options.seeds, not options.quiet)]
    add_rows(options.results, rows)
    plot(rows, options.results / "ssql_temperatures.png")
    figures: dict[str, float] = {}
    for task in options.tasks:
        for method in dict.fromkeys(row[1] for row in rows if row[2] == task):
            of = [row for row in rows if row[1:3] == [method, task]]
            returns = [float(row[5]) for row in of if row[4] == "return_mean" and row[3] != "exact"]
            incidents = sum(float(row[5]) for row in of if row[4] == "training_incidents")
            if returns:
                figures |= {
                    f"{task} {method} return_mean": float(np.mean(returns)),
                    f"{task} {method} return_std": float(np.std(returns)),
                    f"{task} {method} training_incidents": incidents,
                }
    report(figures, 0, options.json, notes=(f"plot is {options.results / 'ssql_temperatures.png'}",))
    return 0


def _compare(options: argparse.Namespace) -> int:
    import torch

    from ssql_ros.learning.offline_comparison import METHODS, data_of, learn_and_judge
    from ssql_ros.learning.result_tables import add_rows
    from ssql_ros.tasks import find_task

    if unknown := [name for name in options.methods if name not in METHODS]:
        raise ValueError(f"method {unknown[0]!r} is unknown; known: {', '.join(METHODS)}")
    for name in ("updates", "episodes"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name}: expected at least 1, got {getattr(options, name)}")
    torch.set_num_threads(1)
    task = find_task(options.task)
    cases: list[tuple[str, str, str, dict[str, Any]]] = [("ssql_offline", name, name, {}) for name in options.methods]
    cases += [("ssql_lambda", f"lambda {t:g}", "ssql", {"temperature": t}) for t in options.temperatures]
    shown: dict[str, float] = {}
    for seed, run in enumerate(options.runs, start=options.first_seed):
        data = data_of(run, task)
        for experiment, name, method, changed in cases:
            changed = {"extraction_updates": options.updates // 2, **changed}
            figures = learn_and_judge(
                method, data, task, options.updates, options.episodes, seed, changed, show=not options.quiet
            )
            rows = [[experiment, name, task.name, str(seed), key, f"{value:.6g}"] for key, value in figures.items()]
            # As they come: what is interrupted keeps what it has.
            add_rows(options.results, rows)
            shown |= {f"{name} {seed} {key}": figures[key] for key in ("return_mean", "incident_rate", "q_bias")}
    report(shown, 0, options.json, notes=(f"rows are in {options.results / 'summary.csv'}",))
    return 0
