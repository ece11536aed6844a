"""What a command learns from that drives nothing: a data set, or bags, of which it makes one beside them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ssql_ros.cli.figures import command_line, versions


def add_log(parser: argparse.ArgumentParser, required: bool, data: str) -> None:
    """Add --data and --bag, of which one is given, and how bags are read.

    Args:
        required: None of the two is an error.
        data: help of --data.
    """
    either = parser.add_mutually_exclusive_group(required=required)
    either.add_argument("--data", type=Path, metavar="DATASET", help=data)
    either.add_argument(
        "--bag",
        type=Path,
        nargs="+",
        metavar="BAG",
        help="rosbags of the task's robot: they become a data set beside the first one (BAG_transitions), as `ssql bag "
        "convert` makes it; the next run takes the same one",
    )
    parser.add_argument("--transitions", type=Path, metavar="FOLDER", help="the data set of --bag, elsewhere")
    parser.add_argument("--namespace", help="with --bag: of the robot's topics (default: the only one)")
    parser.add_argument("--goal", type=float, help="with --bag: m/s, of robots that walk (default: the task's)")


def log_folder(options: argparse.Namespace, task: Any, with_reward: bool = True) -> Path | None:
    """Return the data set to learn from, made of the bags where there is none yet; None: neither was given.

    Args:
        with_reward: a contract of a task in a world must name one; one that stands alone need not.

    Raises:
        ValueError: nothing comes of the bags (BagError), another data set is there (DataSetError), or the robot's
            contract names no reward.
    """
    with_bag = [name for name in ("transitions", "namespace", "goal") if getattr(options, name) is not None]
    if not options.bag:
        if with_bag:
            raise ValueError(f"--{with_bag[0]}: is for --bag")
        return options.data
    from ssql_ros.bags.data_set import Source, data_set_of
    from ssql_ros.contract.reward import ForwardVelocityRule
    from ssql_ros.data.rewards import reward_of

    contract, goal = task.contract(), options.goal
    if goal is None and isinstance(contract.reward, ForwardVelocityRule):
        goal = task.world("pretrain").get("goal_velocity")
    without = goal is None and contract.reward is None and (task.contract_file or not with_reward)
    reward = None if without else reward_of(contract, goal)
    source = Source(tuple(options.bag), contract, reward, options.namespace)
    first = options.bag[0].resolve()
    name = first.name if first.is_dir() else first.name.split(".")[0]
    out = options.transitions or first.with_name(f"{name}_transitions")
    data = data_set_of(source, out, {"command": command_line(), "versions": versions()}, show=not options.quiet)
    counts = data.manifest["counts"]
    print(
        f"{len(data)} transitions in {counts['episodes']} episodes, {counts.get('incidents', 0)} ended by an incident, "
        f"are in {out}",
        file=sys.stderr,
    )
    for problem in data.manifest["problems"]:
        print(f"problem: {problem}", file=sys.stderr)
    return out
