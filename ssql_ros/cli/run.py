"""`ssql run`: the graph of nodes with one command, for machines without `ros2 launch`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from ssql_ros.cli.options import add_seed


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "run",
        help="start simulator, controller and shield until Ctrl-C, without ros2 launch",
        description="Starts the nodes of launch/minitaur.launch.py as processes, in the caller's ROS domain. "
        "Leave out the simulator to drive a robot, the controller to bring your own.",
    )
    parser.add_argument("--task", default="minitaur", help="which robot (default: %(default)s)")
    parser.add_argument("--mode", choices=("enforce", "monitor"), default="enforce", help="(default: %(default)s)")
    parser.add_argument("--epsilon", type=float, help="threshold on q_safe (default: the bundle's)")
    parser.add_argument("--bundle", default="", help="safety critic (default: the one shipped)")
    parser.add_argument(
        "--policy", default="", metavar="BUNDLE", help="a bundle's policy is the controller, not the trot"
    )
    parser.add_argument("--sigma", type=float, default=0.1, help="noise of the trot (default: %(default)s)")
    parser.add_argument("--rho", type=float, default=0.0, help="its correlation (default: %(default)s)")
    parser.add_argument("--bound", type=float, default=0.3, help="its bound; 2: none (default: %(default)s)")
    add_seed(parser, "of the first episode")
    parser.add_argument("--lock-step", action="store_true", help="simulate as fast as possible, not in real time")
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="record a bag into FOLDER")
    parser.add_argument("--no-simulator", action="store_true", help="a driver publishes the sensors")
    parser.add_argument("--no-controller", action="store_true", help="yours publishes joint_commands_raw")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from ssql_ros.graph import Graph
    from ssql_ros.tasks import find_task

    task = find_task(options.task)
    sim_time = not options.no_simulator
    with Graph() as graph:
        if options.record:
            graph.start("recorder_node", contract=task.robot, output=str(options.record), use_sim_time=sim_time)
        if not options.no_simulator:
            graph.start("sim_node", task=task.name, real_time=not options.lock_step, seed=options.seed)
        if options.policy:
            policy = {"bundle": options.policy, "seed": options.seed, "use_sim_time": sim_time}
            graph.start("policy_node", contract=task.robot, **policy)
        elif not options.no_controller:
            noise = {name: float(getattr(options, name)) for name in ("sigma", "rho", "bound")}
            graph.start("behaviour_node", contract=task.robot, seed=options.seed, use_sim_time=sim_time, **noise)
        shield = {"mode": options.mode, "bundle": options.bundle}
        if options.epsilon is not None:
            shield["epsilon"] = options.epsilon
        graph.start("shield_node", contract=task.robot, use_sim_time=sim_time, **shield)
        while True:
            graph.check()
            time.sleep(0.2)
