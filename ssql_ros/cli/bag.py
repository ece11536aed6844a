"""`ssql bag`: what is in a rosbag, whether it serves a contract, and the transitions that it holds."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from ssql_ros.cli.figures import command_line, versions

DROPPED = ("duplicates", "late", "unreadable", "unanswered", "unobserved", "after_incident", "clock_jumps")


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "bag",
        help="look into rosbags, and make data sets of them",
        description="Reads rosbag2 bags (SQLite or MCAP, compressed or not, split over files), recorded by "
        "recorder_node, by `ros2 bag record`, or by anyone whose topics a contract names.",
    )
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    info = subjects.add_parser("info", help="topics, types, counts")
    info.add_argument("bag", type=Path, help="folder of a bag, or one .mcap file")
    info.set_defaults(run=_info)
    check = subjects.add_parser(
        "check",
        help="whether a bag serves a contract, and what a conversion would drop",
        description="Goes through the whole bag as `convert` does, and writes nothing. Exit status 1: it holds no "
        "transition.",
    )
    check.set_defaults(run=_check)
    convert = subjects.add_parser(
        "convert",
        help="transitions as a memory-mapped data set",
        description="Aligns topics by stamp to the control period, cuts episodes at incidents, resets, gaps and clock "
        "jumps, computes margin, incident and reward, and writes a folder of one .npy a column with a manifest.",
    )
    convert.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="data set to make")
    convert.set_defaults(run=_convert)
    for subject in (check, convert):
        subject.add_argument("bags", type=Path, nargs="+", metavar="BAG", help="in this order")
        subject.add_argument("--contract", required=True, help="robot name, or path of its contract YAML")
        subject.add_argument("--goal", type=float, help="m/s, of the reward of robots that walk (default: no reward)")
        subject.add_argument("--quiet", action="store_true", help="no progress bar")
    recover = subjects.add_parser("recover", help="finish a bag that its recorder could not close")
    recover.add_argument("bag", type=Path, help="folder of a bag with one .mcap file")
    recover.set_defaults(run=_recover)
    for subject in (info, check, convert, recover):
        subject.add_argument("--json", action="store_true", help="one JSON object on standard output")


def _info(options: argparse.Namespace) -> int:
    from ssql_ros.bags import BagError, open_bag, topics_of

    topics = topics_of(options.bag)
    try:
        with open_bag(options.bag) as bag:
            custom, state = bag.custom, "finished"
    except BagError as error:
        custom, state = {}, str(error)
    size = sum(file.stat().st_size for file in _files(options.bag))
    if options.json:
        listed = {name: {"type": topic.type, "messages": topic.count} for name, topic in topics.items()}
        print(json.dumps({"topics": listed, "bytes": size, "state": state, "custom": custom}))
        return 0
    print(f"{options.bag}: {size / 1e6:.1f} MB, {state}")
    for name, topic in sorted(topics.items()):
        print(f"  {topic.count:9d}  {name:<40} {topic.type}")
    for name, text in custom.items():
        print(f"  {name}: {text[:100]}")
    return 0


def _files(bag: Path) -> list[Path]:
    return [bag] if bag.is_file() else sorted(path for path in bag.iterdir() if path.is_file())


def _reward(options: argparse.Namespace, contract: Any) -> Any:
    from ssql_ros.rewards import reward_of

    return None if options.goal is None else reward_of(contract, options.goal)


def _read(options: argparse.Namespace, contract: Any, sink: Any) -> tuple[Any, list[str]]:
    from tqdm import tqdm

    from ssql_ros.bags import topics_of
    from ssql_ros.bags.conversion import convert, match_topics

    reward = _reward(options, contract)
    total = 0
    for bag in options.bags:
        topics = topics_of(bag)
        total += sum(topics[name].count for name in match_topics(contract, topics, reward))
    with tqdm(total=total, unit="message", unit_scale=True, disable=options.quiet) as bar:
        return convert(options.bags, contract, reward, sink, bar.update)


def _account(counts: Any, problems: list[str], options: argparse.Namespace, **more: Any) -> None:
    if options.json:
        print(json.dumps({**dict(counts), "problems": problems, **more}))
        return
    print(f"{counts['rows']} transitions in {counts['episodes']} episodes, {counts['incidents']} ended by an incident")
    left_out = [f"{counts[name]} {name.replace('_', ' ')}" for name in DROPPED if counts[name]]
    print(f"left out of {counts['periods']} periods: {', '.join(left_out) or 'nothing'}")
    for problem in problems:
        print(f"problem: {problem}")


def _check(options: argparse.Namespace) -> int:
    from ssql_ros.spec import find_contract, load_contract

    contract = load_contract(find_contract(options.contract))
    counts, problems = _read(options, contract, lambda _row: None)
    _account(counts, problems, options)
    return 0 if counts["rows"] else 1


def _convert(options: argparse.Namespace) -> int:
    from ssql_ros.dataset import DataSetWriter, transition_columns
    from ssql_ros.spec import find_contract, load_contract

    contract = load_contract(find_contract(options.contract))
    with DataSetWriter(options.out, transition_columns(contract.observation_size, contract.action_size)) as writer:
        counts, problems = _read(options, contract, writer.add)
        if not counts["rows"]:
            raise ValueError("; ".join(["nothing comes of these bags", *problems]))
        facts = {
            "contract_id": contract.id,
            "control_period": contract.control_period,
            "reward": "none: the column is 0"
            if options.goal is None
            else f"forward velocity, goal {options.goal:g} m/s",
            "sources": [{"path": str(file), **_digest(file)} for bag in options.bags for file in _files(bag)],
            "counts": dict(counts),
            "problems": problems,
            "command": command_line(),
            "versions": versions(),
        }
        writer.finish(facts)
    _account(counts, problems, options, out=str(options.out))
    if not options.json:
        print(f"data set is in {options.out}")
    return 0


def _digest(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


def _recover(options: argparse.Namespace) -> int:
    from ssql_ros.bags import recover_bag

    recovery = recover_bag(options.bag)
    if options.json:
        print(json.dumps({"messages": recovery.messages, "problem": recovery.problem}))
    else:
        print(f"{options.bag}: {recovery.messages} messages kept; {recovery.problem or 'its end was missing'}")
    return 0
