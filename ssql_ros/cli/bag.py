"""`ssql bag`: what is in a rosbag, whether it serves a contract, and the transitions that it holds."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ssql_ros.cli.figures import command_line, versions
from ssql_ros.cli.options import add_quiet

DAMAGED = 3
_STATUS = (
    "Exit status: 0, everything could be read; 1, no transition comes of it; 2, wrong use, or nothing to read; "
    "3, done, but something could not be read, and the text says what."
)


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "bag",
        help="look into rosbags, and make data sets of them",
        description="Reads rosbag2 bags (SQLite or MCAP, compressed or not, split over files), recorded by "
        "recorder_node, by `ros2 bag record`, or by anyone whose topics a contract names.",
    )
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    info = subjects.add_parser(
        "info",
        help="topics, types, counts, duration",
        description=f"A damaged bag is read through, and what can be read of it is counted. {_STATUS}",
    )
    info.add_argument("bag", type=Path, help="folder of a bag, or one .mcap or .db3 file")
    info.set_defaults(run=_info)
    check = subjects.add_parser(
        "check",
        help="whether a bag serves a contract, and what a conversion would leave out",
        description=f"Goes through the whole bag as `convert` does, and writes nothing. {_STATUS}",
    )
    check.set_defaults(run=_check)
    convert = subjects.add_parser(
        "convert",
        help="transitions as a memory-mapped data set",
        description="Aligns topics by stamp to the control period, cuts episodes at incidents, resets, gaps and clock "
        "jumps, computes margin, incident and reward, and writes a folder of one .npy a column with a manifest. "
        f"{_STATUS}",
    )
    convert.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="data set to make")
    convert.set_defaults(run=_convert)
    for subject in (check, convert):
        subject.add_argument("bags", type=Path, nargs="+", metavar="BAG", help="in this order")
        subject.add_argument("--contract", required=True, help="robot name, or path of its contract YAML")
        subject.add_argument(
            "--namespace", help="of the robot's topics (default: the only one that has all the contract needs)"
        )
        subject.add_argument(
            "--recovery",
            type=float,
            default=0.5,
            metavar="SECONDS",
            help="after an incident, how long the state must be safe again before an episode begins, where no reset or "
            "pause lies between (default: %(default)s)",
        )
        rewards = subject.add_mutually_exclusive_group()
        rewards.add_argument("--goal", type=float, help="m/s, in place of the contract's, of robots that walk")
        rewards.add_argument("--no-reward", action="store_true", help="rewards are 0; nothing is needed for them")
        add_quiet(subject)
    recover = subjects.add_parser(
        "recover",
        help="make a whole bag of one that is damaged, or that its recorder could not close",
        description="Copies everything that can be read, of any encoding, to a new bag with index and metadata.yaml. "
        "The original stays as it is; a bag that is whole is left alone, one that is still being written is refused. "
        "Exit status: 0, nothing was lost; 2, wrong use, or nothing to recover with; 3, done, but messages were lost.",
    )
    recover.add_argument("bag", type=Path, help="folder of a bag, or one .mcap or .db3 file")
    recover.add_argument(
        "--out", type=Path, metavar="FOLDER", help="bag to make (default: beside the other, NAME_recovered)"
    )
    recover.set_defaults(run=_recover)
    for subject in (info, check, convert, recover):
        subject.add_argument("--json", action="store_true", help="one JSON object on standard output")


def _info(options: argparse.Namespace) -> int:
    from ssql_ros.bags import survey
    from ssql_ros.bags.data_set import files_of

    bag = survey(options.bag)
    size = sum(file.stat().st_size for file in files_of(options.bag))
    seconds = (bag.end - bag.begin) / 1e9
    if options.json:
        listed = {
            name: {"type": topic.type, "messages": topic.count, **({"types": topic.types} if topic.types else {})}
            for name, topic in bag.topics.items()
        }
        told = {"topics": listed, "bytes": size, "begin": bag.begin, "seconds": seconds, "custom": bag.custom}
        print(json.dumps({**told, "problem": bag.problem}))
        return DAMAGED if bag.problem else 0
    print(f"{options.bag}: {size / 1e6:.1f} MB in {len(files_of(options.bag))} files")
    if bag.end:
        begin = datetime.fromtimestamp(bag.begin / 1e9, UTC)
        print(f"  {seconds:.1f} s from {begin:%Y-%m-%d %H:%M:%S} UTC, by the recorder's clock")
    for name, topic in sorted(bag.topics.items()):
        for kind, count in (topic.types or {topic.type: topic.count}).items():
            rate = f"{count / seconds:7.1f} Hz" if seconds > 0.0 else ""
            print(f"  {count:9d} {rate}  {name:<40} {kind}")
    for name, text in bag.custom.items():
        print(f"  {name}: {text[:100]}")
    if bag.problem:
        print(f"problem: {bag.problem}")
        print("counted above is what can be read")
    return DAMAGED if bag.problem else 0


def _source(options: argparse.Namespace) -> Any:
    from ssql_ros.bags.data_set import Source
    from ssql_ros.contract import find_contract, load_contract
    from ssql_ros.data.rewards import reward_of

    contract = load_contract(find_contract(options.contract))
    without = options.no_reward or (contract.reward is None and options.goal is None)
    reward = None if without else reward_of(contract, options.goal)
    return Source(tuple(options.bags), contract, reward, options.namespace, options.recovery)


def _account(outcome: Any, options: argparse.Namespace, **more: Any) -> None:
    from ssql_ros.data.transitions import LEFT_OUT, UNUSED, account

    counts = outcome.counts
    if options.json:
        told = {"first_reset": outcome.first_reset} if outcome.first_reset else {}
        none = dict.fromkeys(("rows", "episodes", "incidents", "periods", "resets"), 0)
        print(json.dumps({**none, **dict(counts), "problems": outcome.problems, **told, **more}))
        return
    print(f"{counts['rows']} transitions in {counts['episodes']} episodes, {counts['incidents']} ended by an incident")
    print(f"of {counts['periods']} periods no transition begins in {counts['periods'] - counts['rows']}:")
    for name, count in account(counts, LEFT_OUT).items():
        print(f"  {count:9d} {name}: {LEFT_OUT[name]}")
    for name, count in account(counts, UNUSED).items():
        print(f"  {count:9d} {name}: {UNUSED[name]}")
    if counts["clock_jumps"]:
        print(f"  {counts['clock_jumps']:9d} times a clock went back, and time began anew")
    if counts["resets"]:
        print(f"  {counts['resets']:9d} times the robot was put elsewhere, which ends an episode; the first:")
        print(f"            {outcome.first_reset}")
    for problem in outcome.problems:
        print(f"problem: {problem}")


def _status(outcome: Any) -> int:
    if not outcome.counts["rows"]:
        return 1
    return DAMAGED if outcome.problems else 0


def _check(options: argparse.Namespace) -> int:
    from ssql_ros.bags.data_set import read_bags

    outcome = read_bags(_source(options), lambda *_: lambda row: None, show=not options.quiet)
    _account(outcome, options)
    return _status(outcome)


def _convert(options: argparse.Namespace) -> int:
    from ssql_ros.bags.data_set import make_data_set

    facts = {"command": command_line(), "versions": versions()}
    outcome = make_data_set(_source(options), options.out, facts, show=not options.quiet)
    made = bool(outcome.counts["rows"])
    _account(outcome, options, **({"out": str(options.out)} if made else {}))
    if made and not options.json:
        print(f"data set is in {options.out}")
    return _status(outcome)


def _recover(options: argparse.Namespace) -> int:
    from ssql_ros.bags import recover_bag

    recovery = recover_bag(options.bag, options.out)
    if options.json:
        told = {"out": str(recovery.out) if recovery.out else None, "messages": recovery.messages}
        print(json.dumps({**told, "lost": recovery.lost, "problems": recovery.problems}))
    elif recovery.out is None:
        print(f"{options.bag}: is whole, with {recovery.messages} messages: nothing to recover, nothing was written")
    else:
        for problem in recovery.problems:
            print(f"problem: {problem}")
        lost = "an unknown number" if recovery.lost is None else recovery.lost or "none"
        print(f"{recovery.messages} messages kept, {lost} lost; the bag as it was is {options.bag}")
        print(f"recovered bag is in {recovery.out}")
    return 0 if recovery.lost == 0 else DAMAGED
