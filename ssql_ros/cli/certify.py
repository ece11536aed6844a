"""`ssql certify`: below which margin does a policy keep its promise?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssql_ros.cli.figures import add_json, report
from ssql_ros.cli.options import add_quiet, add_task, task_of


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "certify",
        help="find the threshold below which a policy keeps its promise; store delta and certificate in the bundle",
        description="Split conformal calibration of a critic of margins (SafeFQL). The policy alone runs from held-out "
        "initial states, and delta becomes the largest threshold below which at most epsilon_s of its episodes are "
        "unsafe, with confidence 1 - beta_s, by an exact binomial test. A critic of probabilities is calibrated "
        "instead: `ssql calibrate`.",
    )
    parser.add_argument("bundle", type=Path, help="a .safetensors file")
    add_task(parser, "which world (default: the one that the bundle was made for)", env=True)
    parser.add_argument("--states", type=int, default=20_000, help="held-out states (default: %(default)s)")
    parser.add_argument(
        "--epsilon-s", type=float, default=0.001, help="bound on unsafe episodes (default: %(default)s)"
    )
    parser.add_argument("--beta-s", type=float, default=0.01, help="1 - confidence (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=10_000, help="of the first episode (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="leave the bundle as it is")
    add_quiet(parser)
    add_json(parser)
    parser.set_defaults(run=_certify)


def _certify(options: argparse.Namespace) -> int:
    from ssql_ros.evaluation.certificates import certify
    from ssql_ros.model.bundle import Rule, load_bundle, save_bundle

    task = task_of(options.bundle, options.task)
    bundle = load_bundle(options.bundle, task.contract())
    if bundle.rule is not Rule.MARGIN:
        raise ValueError(f"{options.bundle}: its critic is none of margins; `ssql calibrate` is for probabilities")
    made, certificate = certify(
        bundle, task, options.states, options.epsilon_s, options.beta_s, options.seed, show=not options.quiet
    )
    notes = [made.margin_critic().certificate["statement"]]
    if not options.dry_run:
        saved = save_bundle(made, options.bundle)
        notes.append(f"stored in {saved.path}, which is bundle {saved.id} now")
    figures = {
        "delta": certificate.delta,
        "epsilon_s": certificate.epsilon,
        "beta_s": certificate.beta,
        "n": float(certificate.n),
        "below_delta": float(certificate.below),
        "unsafe_below_delta": float(certificate.unsafe),
        "tail": certificate.tail,
        "bound": certificate.bound,
    }
    report(figures, options.seed, options.json, notes=notes)
    return 0
