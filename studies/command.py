"""The verbs of `python -m studies`: experiments, comparisons, and what only the boat's ground truth can say."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ssql_ros.cli.figures import add_json, report
from ssql_ros.cli.options import add_quiet, add_results, add_seed, add_task


def add_parser(verbs: Any) -> None:
    """Add the verbs."""
    _add_experiment(verbs)
    _add_comparisons(verbs)
    _add_boat(verbs)


def _add_experiment(verbs: Any) -> None:
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


def _add_comparisons(verbs: Any) -> None:
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


def _add_boat(verbs: Any) -> None:
    feasible = verbs.add_parser(
        "feasible",
        help="the boat's learned feasible set against the true one",
        description="Holds {V_c < delta} of a SafeFQL bundle against grid reachability: false_safe_share is the share "
        "of the learned set from which no action sequence stays safe.",
    )
    feasible.add_argument("--bundle", type=Path, required=True, help="of the boat")
    feasible.add_argument("--plot", type=Path, metavar="FILE", help="picture of one over the other (.png)")
    add_seed(feasible, "of the starts")
    add_json(feasible)
    feasible.set_defaults(run=_feasible)

    rivals = verbs.add_parser(
        "rivals",
        help="SafeFQL against candidates of a multi-step flow and of a diffusion policy, on the boat",
        description="From the same safe starts, with the critics of one run: SafeFQL's one pass; SafeIFQL, N "
        "candidates of the run's flow teacher; a FISOR-like diffusion policy, trained first on the same data, N "
        "candidates. N = 1 of the flow is behaviour cloning.",
    )
    rivals.add_argument("--run", type=Path, required=True, dest="folder", help="folder of `ssql train safefql`")
    rivals.add_argument("--candidates", type=int, nargs="+", default=[1, 4, 16], help="N (default: 1 4 16)")
    rivals.add_argument("--steps", type=int, default=4000, help="of the diffusion policy (default: %(default)s)")
    rivals.add_argument("--episodes", type=int, default=100, help="of each (default: %(default)s)")
    rivals.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    add_quiet(rivals)
    add_json(rivals)
    rivals.set_defaults(run=_rivals)


def _experiment(options: argparse.Namespace) -> int:
    from studies.experiments import run_trials, trials_of
    from studies.result_tables import collect

    trials = trials_of(options.names, options.methods, options.seeds)
    failed: list[str] = []
    if not options.collect_only:
        jobs = options.jobs or len(os.sched_getaffinity(0))
        failed = run_trials(trials, options.runs, jobs, show=not options.quiet)
    collect(trials, options.runs, options.results)
    figures = {"trials": len(trials), "failed": len(failed)}
    report(figures, 0, options.json, notes=(*failed, f"tables are in {options.results}"))
    return 1 if failed else 0


def _temperatures(options: argparse.Namespace) -> int:
    import numpy as np

    from ssql_sim.grid import GRIDS
    from studies.result_tables import add_rows
    from studies.temperature_study import plot, study

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

    from ssql_ros.robots.tasks import find_task
    from studies.offline_comparison import METHODS, data_of, learn_and_judge
    from studies.result_tables import add_rows

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


def _feasible(options: argparse.Namespace) -> int:
    from ssql_ros.model.bundle import load_bundle
    from ssql_ros.robots.tasks import find_task
    from studies.boat import feasible_set

    bundle = load_bundle(options.bundle, find_task("boat").contract())
    certificate = getattr(bundle.critic, "certificate", {})
    notes = [certificate.get("statement", "not calibrated")]
    report(feasible_set(bundle, options.plot, options.seed), options.seed, options.json, notes=notes)
    return 0


def _rivals(options: argparse.Namespace) -> int:
    import torch

    from ssql_ros.evaluation.baselines import train_diffusion
    from ssql_ros.model.bundle import load_bundle
    from ssql_ros.robots.tasks import find_task
    from ssql_ros.training.log_training import reopened
    from ssql_ros.training.run import CHECKPOINT, restore
    from studies.boat import rivals

    if options.episodes < 1 or options.steps < 1 or min(options.candidates) < 1:
        raise ValueError("--episodes, --steps and --candidates: expected at least 1")
    # Seldom slower at these widths, and far faster where the processors are busy.
    torch.set_num_threads(1)
    bundle = load_bundle(options.folder / "bundle.safetensors", find_task("boat").contract())
    training, show = reopened(options.folder), not options.quiet
    restore(training, options.folder / CHECKPOINT)
    learner = training.learner
    diffusion = train_diffusion(learner, training.rest, options.steps, options.seed, show)
    figures = rivals(
        bundle, learner.exported(learner.teacher), diffusion, options.candidates, options.episodes, options.seed, show
    )
    report(figures, options.seed, options.json)
    return 0
