"""`ssql compare`: every offline learner on the data of one behaviour policy, and SSQL over its temperatures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssql_ros.cli.figures import add_json, report


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
    parser.add_argument("--task", default="minitaur_trots", help="(default: %(default)s)")
    parser.add_argument("--methods", nargs="+", default=["ssql", "sac", "cql", "iql"], help="(default: all)")
    parser.add_argument("--temperatures", nargs="*", type=float, default=[], help="also ssql with each of these lambda")
    parser.add_argument("--updates", type=int, default=5000, help="of each learner (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=6, help="of each learned policy (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="of the first RUN (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=Path("docs/results"), help="(default: %(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    add_json(parser)
    parser.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> int:
    import torch

    from ssql_ros.learning.experiments import add_rows
    from ssql_ros.learning.offline_comparison import METHODS, data_of, learn_and_judge
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
