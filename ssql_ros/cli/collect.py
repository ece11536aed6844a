"""`ssql collect`: a mixed log of a simulated world, as a data set to learn from offline."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssql_ros.cli.figures import add_json, command_line, report, versions
from ssql_ros.cli.options import add_quiet, add_seed, add_task, check_writable

if TYPE_CHECKING:
    from ssql_ros.robots.tasks import Task


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "collect",
        help="a mixed log of a simulated world, to learn from offline",
        description="Drives a world by policies of several skills and writes a data set: one .npy a column and a "
        "manifest. A robot with a mixed log of its own collects that, e.g. the boat its pilots'. Of others it is the "
        "task's safe behaviour policy that drives, in the world of its pre-training. Where nobody has a controller, it "
        "is everything that three SAC learners do, from their first step on, to whom incidents cost nothing, a little "
        "or much.",
        epilog="examples: ssql collect --task boat --episodes 2500 --out data/boat; "
        "ssql collect --task half_cheetah_velocity --episodes 150 --out data/half_cheetah",
    )
    add_task(parser, required=True, env=True)
    parser.add_argument("--episodes", type=int, help="how many (default: the robot's own number)")
    add_seed(parser, "of everything that is drawn")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where to write")
    parser.add_argument(
        "--bag",
        action="store_true",
        help="drive over ROS 2 by the robot's own controller and let the recorder write a bag, for `ssql bag convert`",
    )
    add_quiet(parser)
    add_json(parser)
    parser.set_defaults(run=_collect, needs=("gymnasium",))


def _collect(options: argparse.Namespace) -> int:
    import numpy as np

    from ssql_ros.data.logged_steps import save_log
    from ssql_ros.processes.missing import need_ros
    from ssql_ros.robots.plug import find_behaviour
    from ssql_ros.robots.tasks import find_task

    task = find_task(options.task)
    count = task.plug.episodes if options.episodes is None else options.episodes
    if count < 1:
        raise ValueError(f"--episodes: expected at least 1, got {count}")
    if options.bag:
        need_ros("ssql collect --bag")
        find_behaviour("", task.contract())
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
    if not task.plug.log and task.behaviour:
        from ssql_ros.training.behaviour_log import log_behaviour

        figures = log_behaviour(task, options.out, count, options.seed, facts, show=not options.quiet)
        report(figures, options.seed, options.json, notes=(f"data set is in {options.out}",))
        return 0
    log = _log(task, count, options.seed, show=not options.quiet)
    save_log(log, options.out, facts)
    begins = np.flatnonzero(np.diff(log.episode, prepend=-1))
    # A state that ended an episode has no row of its own.
    ended_inside = np.asarray(log.terminal, bool) & np.asarray(log.incident, bool)
    costs = np.add.reduceat((log.margin > 0.0).astype(int) + ended_inside, begins)
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


def _log(task: Task, episodes: int, seed: int, show: bool) -> Any:
    if task.plug.log:
        return task.plug.log(episodes, seed, show)
    import torch

    from ssql_ros.training.skilled_log import PRICES, skilled_log

    # Seldom slower at these widths, and far faster where the processors are busy.
    torch.set_num_threads(1)
    if episodes < len(PRICES):
        raise ValueError(f"episodes: expected at least one for each of {len(PRICES)} learners, got {episodes}")
    steps = task.make(**task.world("pretrain")).max_steps
    return skilled_log(task, episodes // len(PRICES) * steps, seed, show=show)


def _record(task: Task, episodes: int, options: argparse.Namespace) -> int:
    """Let the robot's own controller drive it over ROS 2 and record what the graph says."""
    from tqdm import tqdm

    from ssql_ros.contract import find_nodes_file
    from ssql_ros.graph.processes import Graph, isolate
    from ssql_ros.ros.conductor import Conductor

    print(f"ROS_DOMAIN_ID={isolate()}, free and on this machine only", file=sys.stderr)
    contract, config = task.contract(), find_nodes_file(task.robot)
    # Of what the controller publishes, it waits itself until the recorder and the simulator listen.
    recorded = [*(source.topic for source in contract.inputs.values()), "incident", "episode"]
    past_the_shield = dict(zip(contract.commanded.raw_topics, contract.commanded.topics, strict=True))
    with Graph(options.out.parent / f"{options.out.name}_logs") as graph, Conductor(graph.check) as conductor:
        graph.start("recorder_node", config, contract=task.robot, output=str(options.out), use_sim_time=True)
        graph.start("sim_node", config, task=task.name, auto_reset=False, seed=options.seed)
        conductor.wait_for_listener("recorder_node", recorded)
        # Its own commands are heard by itself, the recorder and the simulator.
        driver = {"contract": task.robot, "seed": options.seed, "listeners": 3, "use_sim_time": True}
        graph.start("behaviour_node", config, past_the_shield, **driver)
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
