"""`ssql replay`: a recorded shield's decisions, taken again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssql_ros.cli.figures import add_json, report
from ssql_ros.cli.options import add_quiet


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "replay",
        help="take a recorded shield's decisions again, and tell where they differ",
        description="Reads shield_node/decision_records of a bag, which recorder_node records, and takes every "
        "decision again with the bundle that was in force: its kind, its action and its scores, compared to the last "
        "bit. On a processor of another kind the last bits of scores may differ, which is counted apart. Exit status "
        "0: all are the same; 1: some differ, or could not be taken again; 2: wrong use.",
    )
    parser.add_argument("bag", type=Path, help="folder of a bag, or one .mcap or .db3 file")
    parser.add_argument(
        "--bundle",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="bundles that were in force, or folders of them, beside those that are shipped with the robot",
    )
    parser.add_argument(
        "--contract", help="robot name, or path of the contract YAML (default: by the robot's name in the records)"
    )
    parser.add_argument("--namespace", help="of the robot's topics (default: all that were recorded)")
    add_quiet(parser)
    add_json(parser)
    parser.set_defaults(run=_replay)


def _replay(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from ssql_ros.evaluation.replay import replay

    def shown(records: Any, count: int) -> Any:
        return tqdm(records, total=count, unit="decision", disable=options.quiet)

    result = replay(options.bag, options.bundle, options.contract, options.namespace, shown)
    missing = sum(result.missing.values())
    figures = {
        "decisions": sum(result.decisions.values()),
        "different": result.different,
        "different_in_scores_only": result.scores_only,
        "without_bundle": missing,
        "unreadable": result.unreadable,
        **dict(sorted(result.decisions.items())),
    }
    notes = list(result.told)
    for bundle_id, count in sorted(result.missing.items()):
        notes.append(f"bundle {bundle_id} is not here: {count} decisions were not taken again; name it with --bundle")
    if result.problem:
        notes.append(result.problem)
    report(figures, 0, options.json, notes)
    return int(bool(result.different or missing or result.unreadable))
