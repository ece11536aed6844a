"""`ssql collect`: a mixed log of a simulated world, as a data set to learn from offline."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssql_ros.cli.figures import add_json, command_line, report, versions
from ssql_ros.cli.options import add_quiet, add_seed, add_task, check_writable

if TYPE_CHECKING:
    from ssql_ros.data.logged_steps import Log
    from ssql_ros.robots.tasks import Task

EPISODES = {"boat": 2500, "half_cheetah_velocity": 150, "swimmer_velocity": 150}
OF_OTHERS = 400


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "collect",
        help="a mixed log of a simulated world, to learn from offline",
        description="Drives a world by behaviour policies of several skills and writes a data set: one .npy a column "
        "and a manifest. Of the boat: pilots that wander, that steer to the goal and see no rock, that go round "
        "rocks, and that visit random places, with errors of several sizes, from starts all over the box. Of the "
        "half cheetah and the swimmer, who have a speed limit: everything that three SAC learners do, from their first "
        "step on, to whom going too fast costs nothing, a little or much (needs MuJoCo: pip install "
        "'ssql_ros[mujoco]'). Of other tasks: their safe behaviour policy, in the world of their pre-training.",
        epilog="examples: ssql collect --task boat --episodes 2500 --out data/boat; "
        "ssql collect --task half_cheetah_velocity --episodes 150 --out data/half_cheetah",
    )
    add_task(parser, default="boat")
    counts = ", ".join(f"{count} of {task}" for task, count in EPISODES.items()) + f", {OF_OTHERS} of others"
    parser.add_argument("--episodes", type=int, help=f"how many (default: {counts})")
    add_seed(parser, "of everything that is drawn")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where to write")
    parser.add_argument(
        "--bag",
        action="store_true",
        help="drive over ROS 2 and let the recorder write a bag, for `ssql bag convert`; the boat only",
    )
    add_quiet(parser)
    add_json(parser)
    parser.set_defaults(run=_collect)


def _collect(options: argparse.Namespace) -> int:
    import numpy as np

    from ssql_ros.data.logged_steps import save_log
    from ssql_ros.processes.missing import need_ros
    from ssql_ros.robots.tasks import find_task

    task = find_task(options.task)
    count = EPISODES.get(task.name, OF_OTHERS) if options.episodes is None else options.episodes
    if count < 1:
        raise ValueError(f"--episodes: expected at least 1, got {count}")
    if options.bag:
        need_ros("ssql collect --bag")
        if task.robot != "boat":
            raise ValueError(f"--bag: only the boat has pilots that are nodes, not {task.name}")
    check_writable(options.out)
    if options.bag:
        return _record(task, count, options)
    facts = {
        "task": task.name,
        "contract_id": task.contract().id,
        "seed": options.seed,
        "command": command_line(),
        "versions": versions(),
    }
    if task.name not in EPISODES:
        from ssql_ros.training.behaviour_log import log_behaviour

        figures = log_behaviour(task, options.out, count, options.seed, facts, show=not options.quiet)
        report(figures, options.seed, options.json, notes=(f"data set is in {options.out}",))
        return 0
    log = _log(task, count, options.seed, show=not options.quiet)
    save_log(log, options.out, facts)
    begins = np.flatnonzero(np.diff(log.episode, prepend=-1))
    costs = np.add.reduceat(log.margin > 0.0, begins, dtype=int)
    returns = np.add.reduceat(log.reward, begins, dtype=float)
    figures = {
        "episodes": float(len(begins)),
        "transitions": float(len(log.reward)),
        "return_mean": float(returns.mean()),
        "cost_mean": float(costs.mean()),
        "safe_episodes": float(np.mean(costs == 0)),
    }
    report(figures, options.seed, options.json, notes=(f"data set is in {options.out}",))
    return 0


def _log(task: Task, episodes: int, seed: int, show: bool) -> Log:
    if task.robot == "boat":
        from ssql_ros.robots.boat.truth import boat_log

        return boat_log(episodes, seed, show)
    import torch

    from ssql_ros.training.skilled_log import PRICES, skilled_log
    from ssql_sim.velocity import MAX_STEPS

    # Seldom slower at these widths, and far faster where the processors are busy.
    torch.set_num_threads(1)
    if episodes < len(PRICES):
        raise ValueError(f"episodes: expected at least one for each of {len(PRICES)} learners, got {episodes}")
    return skilled_log(task, episodes // len(PRICES) * MAX_STEPS, seed, show=show)


def _record(task: Task, episodes: int, options: argparse.Namespace) -> int:
    """Let pilots drive the boat over ROS 2 and record what the graph says."""
    from tqdm import tqdm

    from ssql_ros.graph.processes import Graph, isolate
    from ssql_ros.ros.conductor import Conductor

    print(f"ROS_DOMAIN_ID={isolate()}, free and on this machine only", file=sys.stderr)
    # Of what the pilot publishes, it waits itself until the recorder and the simulator listen.
    recorded = ["odom", "incident", "episode"]
    with Graph(options.out.parent / f"{options.out.name}_logs") as graph, Conductor(graph.check) as conductor:
        graph.start("recorder_node", contract=task.robot, output=str(options.out), use_sim_time=True)
        graph.start("sim_node", task=task.name, auto_reset=False, seed=options.seed)
        conductor.wait_for_listener("recorder_node", recorded)
        graph.start("pilot_node", seed=options.seed, output_topic="joint_commands", listeners=2, use_sim_time=True)
        bar = tqdm(conductor.unshielded_episodes(episodes), total=episodes, unit="episode", disable=options.quiet)
        ended = list(bar)
        graph.stop_all()
    figures = {
        "episodes": float(len(ended)),
        "transitions": float(sum(episode.steps for episode in ended)),
        "return_mean": sum(episode.return_sum for episode in ended) / len(ended),
        "unsafe_episodes": float(sum(episode.incident for episode in ended)),
    }
    report(figures, options.seed, options.json, notes=(f"bag is in {options.out}",))
    return 0
