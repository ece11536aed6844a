"""`ssql contract`: what a robot's contract says, whether it can be read, a draft of one, and who may publish what."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssql_ros.cli import contract_init, contract_policy
from ssql_ros.cli.figures import add_json, report

if TYPE_CHECKING:
    from ssql_ros.contract import Contract


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser("contract", help="read a robot's contract and say what it means, or draft one")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    check = kinds.add_parser(
        "check",
        help="is it complete, and what are its topics, its observation and its action?",
        description="Reads a contract strictly: a mistake is told with file, key, what was expected and what came. "
        "With --bag also the range of every feature there; `ssql bag check` says what becomes of every message. Exit "
        "status 0: it can be read.",
    )
    check.add_argument("--bag", type=Path, metavar="BAG", help="hold it against a bag")
    check.add_argument("--namespace", help="of the robot's topics in the bag (default: the only one)")
    check.add_argument("contract", help="a robot's name, or the path of its contract YAML")
    add_json(check)
    check.set_defaults(run=_check)
    contract_init.add_parsers(kinds)
    contract_policy.add_parser(kinds)


def _check(options: argparse.Namespace) -> int:
    from ssql_ros.contract import find_contract, load_contract

    contract = load_contract(find_contract(options.contract))
    figures = {
        "control_period": contract.control_period,
        "command_timeout": contract.command_timeout,
        "observation_size": contract.observation_size,
        "frame_size": contract.frame_size,
        "action_size": contract.action_size,
    }
    notes = [f"{contract.id}, {contract.path}", *_topics(contract), *_action(contract), *_responses(contract)]
    if options.bag is not None:
        from ssql_ros.drafting.ranges import feature_ranges, table

        notes += table(feature_ranges(options.bag, contract, options.namespace))
    report(figures, 0, options.json, notes=notes)
    return 0


def _topics(contract: Contract) -> list[str]:
    """Return a line for every topic that is read."""
    lines = []
    for source in contract.inputs.values():
        use = "begins frames" if source.name == contract.observed.trigger else "in the frame"
        use = use if source.name in contract.observed_inputs else "for learning alone"
        lines.append(f"  {source.topic}: {source.type}, at most {source.max_age:g} s old, by {source.stamps}; {use}")
    return lines


def _responses(contract: Contract) -> list[str]:
    """Return a line on what follows an incident, and one on what follows outside of the critic's training data."""
    latched = "" if contract.on_incident == "continue" else ", until ~/reset_fault"
    return [f"  on_incident: {contract.on_incident}{latched}", f"  on_out_of_domain: {contract.on_out_of_domain}"]


def _action(contract: Contract) -> list[str]:
    """Return a line for every joint that is commanded."""
    (low, high), safe = contract.joint_limits, contract.joint_command(contract.safe_action)
    return [f"  {contract.commanded.topic}:"] + [
        f"    {name}: {least:g} to {most:g}, safe {value:g}"
        for name, least, most, value in zip(contract.commanded.joint_names, low, high, safe, strict=True)
    ]
