"""`ssql contract init`: drafts a contract from a bag, or from a live graph. `ssql contract schema`: for editors."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any


def add_parsers(kinds: Any) -> None:
    """Add the kinds `init` and `schema`."""
    init = kinds.add_parser(
        "init",
        help="draft one from a bag, or from a live graph",
        description="Finds topics, types, joints, rates and ranges, proposes inputs, frame, action, period and safe "
        "action, and writes a commented YAML that `ssql contract check CONTRACT --bag BAG` accepts. What an incident "
        "is nobody but you can know: say it with --incident, or you are asked where this runs in a terminal. Read what "
        "is drafted before you trust it.",
        epilog="example: ssql contract init bags/monday --robot crawler --incident 'roll beyond 0.5'",
    )
    init.add_argument("bag", type=Path, nargs="?", metavar="BAG", help="folder of a bag, or one .mcap or .db3 file")
    init.add_argument("--live", action="store_true", help="listen to the graph of this ROS domain instead")
    init.add_argument(
        "--env", metavar="ID", help="of a gymnasium world instead, as the commands that take --env have it"
    )
    init.add_argument("--seconds", type=float, default=10.0, help="with --live (default: %(default)s)")
    init.add_argument("--urdf", type=Path, metavar="FILE", help="limits of joints: positions, velocities, efforts")
    init.add_argument("--robot", help="its name (default: that of the bag)")
    init.add_argument(
        "--command", metavar="TOPIC", help="what the driver takes (default: the one that is named like it)"
    )
    init.add_argument("--topic", nargs="+", action="extend", default=[], help="inputs (default: all that can be read)")
    init.add_argument(
        "--incident",
        action="append",
        default=[],
        metavar="RULE",
        help="FEATURE above X, FEATURE below X or FEATURE beyond X (either side of 0); may be given again",
    )
    init.add_argument("--out", type=Path, metavar="FILE", help="contract to write (default: ROBOT.yaml)")
    init.set_defaults(run=_init)
    schema = kinds.add_parser(
        "schema",
        help="the JSON Schema of a contract, for editors",
        description="An editor with YAML support completes and checks contracts by it: put a line "
        "`# yaml-language-server: $schema=contract.schema.json` at the top of the contract.",
    )
    schema.add_argument("--out", type=Path, metavar="FILE", help="(default: standard output)")
    schema.set_defaults(run=_schema)


def _schema(options: argparse.Namespace) -> int:
    from ssql_ros.drafting.json_schema import json_schema
    from ssql_ros.processes.files import write_atomically

    text = json.dumps(json_schema(), indent=1) + "\n"
    if options.out is None:
        print(text, end="")
    else:
        write_atomically(options.out, text.encode())
    return 0


def _of_world(options: argparse.Namespace) -> int:
    from ssql_ros.processes.files import write_atomically
    from ssql_ros.robots.tasks import ENV, find_task

    if options.bag is not None or options.live or options.incident:
        raise ValueError("--env: the world itself says what an incident is; no bag, --live or --incident goes with it")
    task = find_task(f"{ENV}{options.env}")
    out = options.out or Path(f"{task.robot}.yaml")
    if out.exists():
        raise ValueError(f"--out {out}: is there already; name another file")
    write_atomically(out, task.contract_text().encode())
    print(f"{task.contract().id} is in {out}")
    return 0


def _init(options: argparse.Namespace) -> int:
    from ssql_ros.contract import load_contract
    from ssql_ros.drafting.draft import draft
    from ssql_ros.drafting.ranges import feature_ranges, table
    from ssql_ros.drafting.rules import ask_rules, needed, read_rule
    from ssql_ros.drafting.signals import signals_of
    from ssql_ros.drafting.text import contract_text
    from ssql_ros.drafting.urdf import read_urdf
    from ssql_ros.processes.files import write_atomically

    if options.env is not None:
        return _of_world(options)
    if (options.bag is None) != options.live:
        raise ValueError("expected a bag, or --live, and not both")
    name = options.robot or re.sub(r"\W+", "_", options.bag.stem if options.bag is not None else "robot")
    out = options.out or Path(f"{name}.yaml")
    if out.exists():
        raise ValueError(f"--out {out}: is there already, and somebody may have changed it; name another file")
    limits = read_urdf(options.urdf) if options.urdf is not None else {}
    made = draft(signals_of(_messages(options)), name, options.command, limits, options.topic)
    rules = [read_rule(text, made.frame) for text in options.incident]
    if not rules:
        if not sys.stdin.isatty():
            raise needed(made.frame)
        rules = ask_rules(made.frame, input, print)
    source = f"{options.seconds:g} s of a live graph" if options.live else str(options.bag)
    text = contract_text(made, rules, source)
    write_atomically(out, text.encode())
    contract = load_contract(out)
    print(f"{out}: {contract.observation_size} numbers observed every {contract.control_period:g} s, of these topics:")
    for each in made.inputs:
        print(f"  {each.signal.topic} ({each.signal.kind}, {1.0 / each.signal.interval:.1f} Hz)")
    print(f"  {made.command.topic} ({made.command.kind}) is what the driver takes")
    for note in made.notes:
        print(f"note: {note}")
    if not options.live:
        print("\n".join(table(feature_ranges(options.bag, contract))))
    print(
        f"read it before you trust it; then: ssql contract check {out}"
        + ("" if options.live else f" --bag {options.bag}")
    )
    return 0


def _messages(options: argparse.Namespace) -> Any:
    from ssql_ros.contract.fields import MESSAGE_FIELDS

    if options.live:
        from ssql_ros.processes.missing import need_ros

        need_ros("ssql contract init --live")
        from ssql_ros.ros.listening import listen

        return listen(options.seconds, MESSAGE_FIELDS)
    from ssql_ros.bags.definitions import BagError
    from ssql_ros.bags.reader import survey

    seen = survey(options.bag)
    if seen.bag is None or not seen.topics:
        raise BagError(seen.problem or f"{options.bag}: is empty")
    wanted = [name for name, topic in seen.topics.items() if any(topic.has(kind) for kind in MESSAGE_FIELDS)]
    return seen.bag.raw_messages(wanted)
