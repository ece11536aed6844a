"""`ssql experiment`: the runs behind docs/results, all methods and seeds, going on where they were left."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ssql_ros.cli.figures import add_json, report
from ssql_ros.cli.options import add_quiet, add_results


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "experiment",
        help="run an experiment of docs/results: all methods, all seeds",
        description="Runs pre-training and fine-tuning of every method and seed, as many at a time as there are "
        "processors, and writes summary.csv and curves.csv. What has ended is not run again; what was stopped goes on "
        "from its checkpoint. `ssql report` makes plots and tables of it.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="experiments, e.g. spider minitaur_velocity")
    parser.add_argument("--methods", nargs="*", default=[], help="only these (default: all)")
    parser.add_argument("--seeds", type=int, help="how many (default: as the experiment states)")
    parser.add_argument("--jobs", type=int, default=0, help="runs at a time; 0: one per processor")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs (default: %(default)s)")
    add_results(parser)
    parser.add_argument(
        "--collect-only", action="store_true", help="run nothing, only write the tables of what is there"
    )
    add_quiet(parser)
    add_json(parser)
    parser.set_defaults(run=_experiment)


def _experiment(options: argparse.Namespace) -> int:
    from ssql_ros.learning.experiments import run_trials, trials_of
    from ssql_ros.learning.result_tables import collect

    trials = trials_of(options.names, options.methods, options.seeds)
    failed: list[str] = []
    if not options.collect_only:
        jobs = options.jobs or len(os.sched_getaffinity(0))
        failed = run_trials(trials, options.runs, jobs, show=not options.quiet)
    collect(trials, options.runs, options.results)
    figures = {"trials": len(trials), "failed": len(failed)}
    report(figures, 0, options.json, notes=(*failed, f"tables are in {options.results}"))
    return 1 if failed else 0
