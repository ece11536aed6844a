"""`ssql demo`: an untrusted controller drives the simulated robot, first watched by the shield, then shielded."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np

from ssql_ros.cli.figures import command_line, versions
from ssql_ros.cli.options import add_seed, add_task
from ssql_ros.robots import DEFAULT

ACCOUNT = "shield_node/shielded_action"


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "demo",
        help="over a real ROS 2 graph: an untrusted controller and the shield; or a robot that learns on the job",
        description="shield: simulator, controller, shield and recorder as processes of their own. The same episodes "
        "run twice: the shield first only monitors, then enforces. learn: a robot walks with its safe gaits while a "
        "learner beside it learns a better policy, which takes over behind the shield once it has passed every gate. "
        "Either ends with a table, a bag and an HTML report.",
    )
    parser.add_argument(
        "story", nargs="?", choices=("shield", "learn"), default="shield", help="(default: %(default)s)"
    )
    which = parser.add_mutually_exclusive_group()
    add_task(which, f"which robot (default: {DEFAULT}, or its first task that a live learner can begin with)")
    which.add_argument("--robot", help="the same by the robot's name: its first task")
    parser.add_argument("--episodes", type=int, default=20, help="shield: of each mode (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=4.0, help="learn: for how long (default: %(default)s)")
    add_seed(parser, "of the first episode")
    parser.add_argument("--out", type=Path, help="folder to make (default: runs/demo_TIME)")
    parser.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    from ssql_ros.processes.missing import need, need_ros

    # What its nodes and its report would miss, after half a minute.
    need("gymnasium", "matplotlib")
    if options.robot:
        options.task = _first_task(options.robot)
    if options.story == "learn":
        need("torch")
        from ssql_ros.cli.demo_learn import learn

        return learn(options.task, options.minutes, options.seed, options.out)
    from ssql_ros.contract import find_nodes_file
    from ssql_ros.graph.processes import Graph, isolate
    from ssql_ros.robots.tasks import find_task

    need_ros("ssql demo")
    if options.episodes < 1:
        raise ValueError(f"--episodes: expected at least 1, got {options.episodes}")
    task = find_task(options.task or DEFAULT)
    noise = task.noisy_controller()
    folder = new_folder(options.out, "demo")
    print(f"ROS_DOMAIN_ID={isolate()}, free and on this machine only; logs in {folder / 'logs'}", flush=True)
    with Graph(folder / "logs") as graph:
        config = find_nodes_file(task.robot)
        graph.start("recorder_node", config, contract=task.robot, output=str(folder / "bag"), use_sim_time=True)
        graph.start("sim_node", config, task=task.name, auto_reset=False)
        robot = {"contract": task.robot, "use_sim_time": True}
        wild = {"behaviour": noise.controller, "sigma": noise.sigma, "rho": noise.rho, "bound": 2.0}
        graph.start("behaviour_node", config, **wild, **robot)
        graph.start("shield_node", config, autostart=False, **robot)
        _run(graph, task.contract(), options)
        graph.stop_all()
    _report(task, folder, options)
    return 0


def _first_task(robot: str) -> str:
    from ssql_ros.robots.tasks import tasks

    own = [task.name for task in tasks().values() if task.robot == robot]
    if not own:
        robots = ", ".join(dict.fromkeys(task.robot for task in tasks().values()))
        raise ValueError(f"--robot {robot}: expected a robot with a simulated world: {robots}")
    return own[0]


def new_folder(out: Path | None, name: str) -> Path:
    """Make the folder of a demonstration: `out`, else runs/NAME_TIME, with a number where there is one already.

    Raises:
        ValueError: `out` is there already, or cannot be made.
    """
    try:
        if out is not None:
            out.mkdir(parents=True)
            return out
        stem = Path("runs") / time.strftime(f"{name}_%Y%m%dT%H%M%SZ", time.gmtime())
        for folder in (stem, *(stem.with_name(f"{stem.name}_{i}") for i in itertools.count(2))):
            with contextlib.suppress(FileExistsError):
                folder.mkdir(parents=True)
                return folder
    except FileExistsError as error:
        raise ValueError(f"--out {out}: is there already, and what is in it stays; name a folder to be made") from error
    except OSError as error:
        raise ValueError(f"--out {out or 'runs'}: cannot be made: {error.strerror}; name another folder") from error
    raise AssertionError("numbers never end")


def _run(graph: Any, contract: Any, options: argparse.Namespace) -> None:
    """Lead the graph through the episodes, with one line each."""
    from ssql_ros.ros.conductor import Conductor

    with Conductor(graph.check) as conductor:
        conductor.configure_shield()
        topics = [source.topic for source in contract.inputs.values()]
        told = [*contract.commanded.raw_topics, *contract.commanded.topics, "episode", "incident", ACCOUNT]
        conductor.wait_for_listener("recorder_node", [*topics, *told])
        for mode in ("monitor", "enforce"):
            falls = 0
            title = "watched: the shield decides, but the proposal goes to the robot"
            print(title if mode == "monitor" else "shielded: what the shield decides goes to the robot")
            for i, heard in enumerate(conductor.episodes(mode, options.seed, options.episodes), start=1):
                falls += heard.incident
                changed = np.count_nonzero(heard.decisions)
                latency = 1e6 * np.percentile(heard.decision_times, [50, 99])
                end = f"fell ({heard.cause})" if heard.incident else "ok"
                print(
                    f"  {mode} {i:3d}/{options.episodes}  seed {heard.seed:<4d} {heard.steps:4d} steps  {end:<24} "
                    f"falls {falls:3d}  interventions {changed:4d}  "
                    f"decision p50 {latency[0]:5.0f} us, p99 {latency[1]:5.0f} us",
                    flush=True,
                )


def _report(task: Any, folder: Path, options: argparse.Namespace) -> None:
    """Read the bag back, print the table, and write the report."""
    from ssql_ros.report import Summary, fall_frames, records_from_bag, write_report

    contract, bag = task.contract(), folder / "bag"
    runs = records_from_bag(bag, contract)
    print("                falls   (95 % interval)   mean episode   interventions   decision p50, p99")
    for run in runs:
        figures = Summary.of(run)
        low, high = figures.fall_interval
        p50, p99 = 1e6 * np.percentile(figures.decision_times, [50, 99])
        falls = f"{figures.falls:5d} of {figures.episodes:<4d} ({low:.0%} to {high:.0%})"
        print(
            f"  {run.mode:<10} {falls:<33}{figures.mean_steps:7.0f} steps   "
            f"{figures.interventions_per_step:6.1%} of steps   {p50:.0f}, {p99:.0f} us"
        )
    frames, world = [], task.make(**task.world("finetune"))
    if "rgb_array" in world.metadata["render_modes"]:
        world = task.make(**task.world("finetune"), render_mode="rgb_array")
        frames = fall_frames(bag, contract, world, task.plug.body(world, contract), runs)
    world.close()
    facts = {
        "command": command_line(),
        "seed": options.seed,
        "contract": contract.id,
        "versions": versions(),
    }
    report = write_report(
        folder / "report.html",
        runs,
        frames,
        facts,
        title=f"{task.robot.capitalize()}: an untrusted controller, watched and shielded",
        control_period=contract.control_period,
        margin_unit=(*contract.limits, *contract.boxes, *contract.balls)[0].unit,
    )
    print(f"bag:    {bag}\nreport: {report}")
