"""`ssql calibrate`: is Q_safe, the probability of an incident, what it says it is? And Q the return?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssql_ros.cli.figures import add_json, report
from ssql_ros.cli.options import add_quiet, add_robot, task_of

Q_FIGURES = (
    "q_bias",
    "q_rmse",
    "q_rank",
    "q_range",
    "q_steps",
    "q_share",
    "q_return_mean",
    "q_incident_rate",
    "v_bias",
    "kl_mean",
    "alpha",
)


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "calibrate",
        help="hold a bundle's probabilities and values against what happens; store the figures in it",
        description="Runs the bundle's policy behind its own mask (the task's untrusted "
        "controller where it has no policy), and compares Q_safe with gamma_safe^(steps to the incident), per decile: "
        "ece is the mean gap, bias the mean difference (above 0: pessimistic), auc how well it ranks. Where the "
        "objective is known, Q is held against its return too: of SSQL, r - lambda KL(pi* || b) under the induced "
        "policy; of SAC, SQRL, E-SAC and CQL, r - alpha log pi under the policy alone; of IQL, r. Figures: q_bias, "
        "q_rmse (over the returns' range), q_rank (rank correlation), q_share (of the steps, those that see their "
        "discounted rest), v_bias (V at its M draws against 4096). The figures are stored in the bundle. A critic of "
        "margins (SafeFQL) is certified instead: `ssql certify`. With --data nothing is driven: the critic is held "
        "against episodes of a log that the bundle has not learned from (auc with its 95 % interval over episodes; "
        "skill: how much better than the base rate, 1 is perfect), and nothing of that is a certificate.",
        epilog="example: ssql calibrate runs/critic/bundle.safetensors --data data/robot --contract my_robot.yaml",
    )
    parser.add_argument("bundle", type=Path, help="a .safetensors file")
    add_robot(parser, "which world (default: the one that the bundle was made for)")
    parser.add_argument("--data", type=Path, metavar="DATASET", help="judge on a log instead of in a world")
    parser.add_argument(
        "--phase", choices=("pretrain", "finetune"), help="which world (default: that of its training; else finetune)"
    )
    parser.add_argument("--episodes", type=int, default=100, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=10_000, help="of the first episode (default: %(default)s)")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="picture of Q against its return (.png), where it has"
    )
    parser.add_argument("--dry-run", action="store_true", help="leave the bundle as it is")
    add_quiet(parser)
    add_json(parser)
    parser.set_defaults(run=_calibrate)


def _calibrate(options: argparse.Namespace) -> int:
    from ssql_ros.evaluation.bundle_evaluation import calibrate
    from ssql_ros.evaluation.calibration import SHOWN
    from ssql_ros.model.bundle import Rule, load_bundle, read_provenance, save_bundle
    from ssql_ros.report.figures import plot_reliability

    task = task_of(options.bundle, options.contract or options.task)
    if options.data is not None:
        return _calibrate_on_log(options, task)
    if load_bundle(options.bundle, task.contract()).rule is Rule.MARGIN:
        raise ValueError(f"{options.bundle}: its critic is one of margins; `ssql certify` finds its threshold")
    plan = read_provenance(options.bundle).get("plan")
    phase = options.phase or (plan.get("phase", "finetune") if isinstance(plan, dict) else "finetune")
    made = calibrate(options.bundle, task, task.world(phase), options.episodes, options.seed, show=not options.quiet)
    nan, notes, shown = float("nan"), [], dict[str, float]()
    if figures := made.provenance.get("calibration", {}):
        notes += [
            f"  q_safe from {low:.4f}: predicted {predicted:.4f}, observed {observed:.4f} ({size:.0f} steps)"
            for low, predicted, observed, size in figures["deciles"]
        ]
        shown |= {key: nan if figures[key] is None else figures[key] for key in SHOWN}
    if figures := made.provenance.get("q_calibration", {}):
        notes += [
            f"  q {q:.3f}: regularised return {observed:.3f} ({size} steps)"
            for q, observed, size in figures["q_deciles"]
        ]
        notes += [f"  v of {count} draws: bias {bias:+.4g}" for count, bias in figures.get("v_bias_by_samples", [])]
        shown |= {key: figures[key] for key in Q_FIGURES if key in figures}
        if options.plot:
            plot_reliability(figures, options.plot, options.bundle.name)
            notes.append(f"plot is in {options.plot}")
    if not options.dry_run:
        saved = save_bundle(made, options.bundle)
        notes.append(f"stored in {saved.path}, which is bundle {load_bundle(saved.path, task.contract()).id} now")
    report(shown, options.seed, options.json, notes=notes)
    return 0


def _calibrate_on_log(options: argparse.Namespace, task: Any) -> int:
    from dataclasses import replace

    from ssql_ros.data.data_set import DataSet
    from ssql_ros.evaluation.logged_calibration import calibrate_on_log
    from ssql_ros.model.bundle import load_bundle, save_bundle

    contract = task.contract()
    bundle = load_bundle(options.bundle, contract)
    figures = calibrate_on_log(bundle, DataSet(options.data), contract)
    notes = [
        f"  q_safe from {low:.4f}: predicted {predicted:.4f}, observed {observed:.4f} ({size:.0f} steps)"
        for low, predicted, observed, size in figures.get("deciles", [])
    ]
    notes += [f"judged on {figures['judged_on']} of {figures['data']}", figures["statement"]]
    if not options.dry_run:
        made = replace(bundle, provenance={**bundle.provenance, "logged_calibration": figures})
        saved = save_bundle(made, options.bundle)
        notes.append(f"stored in {saved.path}, which is bundle {saved.id} now")
    shown = {name: value for name, value in figures.items() if isinstance(value, float)}
    report(shown, options.seed, options.json, notes=notes)
    return 0
