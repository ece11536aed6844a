"""`ssql bundle announce`: offer a bundle to the running nodes, and hear what each made of it."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from ssql_ros.cli.figures import add_json, report
from ssql_ros.cli.options import contract_of

SETTLE = 2.0  # s, after a receiver is found, for others to be found: the offer is there for them meanwhile


def add_parser(kinds: Any) -> None:
    """Add what `ssql bundle` does by it."""
    parser = kinds.add_parser(
        "announce",
        help="offer a bundle to the running shield and policy nodes, and print what each made of it",
        description="Publishes one announcement in the caller's ROS domain and waits for the answers. Each node "
        "takes it between two commands where it is told to (parameters bundle_folder, announcement_keys) and all of it "
        "verifies (hash, contract, format, probes), or says why not. "
        "Exit status 0: somebody took it and nobody refused it; 1: refused, or no answer.",
    )
    parser.add_argument("bundle", type=Path, help="a .safetensors file")
    parser.add_argument(
        "--for",
        dest="purpose",
        choices=("critic", "policy", "both"),
        help="whose model it is to replace (default: the policy where the bundle has one, else the critic)",
    )
    parser.add_argument("--key", type=Path, help="private key that signs it (`ssql bundle keygen` makes one)")
    parser.add_argument(
        "--data", action="store_true", help="send the file along, for nodes on other machines; taken only with --key"
    )
    parser.add_argument("--contract", default="", help="robot or contract YAML (default: the bundle's task)")
    parser.add_argument("--summary", default="", help="in words: how it was trained and on what")
    parser.add_argument("--wait", type=float, default=20.0, metavar="S", help="for answers (default: %(default)s)")
    parser.add_argument("--stay", action="store_true", help="keep it on offer for nodes that come later, until Ctrl-C")
    add_json(parser)
    parser.set_defaults(run=_announce)


def _announce(options: argparse.Namespace) -> int:
    from ssql_ros.model.bundle import load_bundle
    from ssql_ros.ros.announcer import AnnouncerNode

    contract = contract_of(options.bundle, options.contract)
    load_bundle(options.bundle, contract)  # what does not load here need not be sent
    with AnnouncerNode("ssql bundle announce", options.key) as node:
        answers = _ask(node, options, contract.id)
        counts = {"answers": len(answers), "accepted": 0, "refused": 0, "ignored": 0}
        notes = []
        for name, answer in sorted(answers.items()):
            said = ("accepted", "refused", "ignored")[answer.status]
            counts[said] += 1
            notes.append(f"  {name}: {said} {answer.bundle_id} in {1e3 * answer.seconds:.0f} ms: {answer.reason}")
        report(counts, 0, options.json, notes or [f"  nobody answered within {options.wait:g} s"])
        while options.stay:
            node.spin(1.0)
    return 0 if counts["accepted"] and not counts["refused"] else 1


def _ask(node: Any, options: argparse.Namespace, contract_id: str) -> dict[str, Any]:
    """Announce, and return the answers by node once all that are found have answered and no other has turned up."""
    from ssql_ros.model.announcement import Purpose

    announcer, end = node.announcer, time.monotonic() + options.wait
    purpose = Purpose[options.purpose.upper()] if options.purpose else None
    offer = announcer.announce(options.bundle, contract_id, options.data, options.summary, purpose)
    found, since = set[str](), time.monotonic()
    while (now := time.monotonic()) < end:
        receivers = set(announcer.receivers())
        if receivers != found:
            found, since = receivers, now
        if found and found <= set(announcer.answers(offer)) and now - since > SETTLE:
            break
        node.spin(0.1)
    return announcer.answers(offer)
