"""`ssql run`: the graph of nodes with one command, for machines without `ros2 launch`."""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path
from typing import Any

from ssql_ros.cli.options import add_seed, add_task
from ssql_ros.robots import DEFAULT


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "run",
        help="start simulator, controller and shield until Ctrl-C, without ros2 launch",
        description="Starts the nodes of launch/robot.launch.py as processes, in the caller's ROS domain, and says "
        "in a line each how episodes end and what the shield does. All nodes end with it, the shield first. Without "
        "the simulator it drives a robot; without the controller yours does. What is not given here is as nodes.yaml "
        "of the robot has it.",
    )
    add_task(parser, "which robot", default=DEFAULT)
    parser.add_argument("--mode", choices=("enforce", "monitor"), help="(default: enforce)")
    parser.add_argument("--epsilon", type=float, help="threshold on q_safe (default: the bundle's)")
    parser.add_argument("--bundle", default="", help="safety critic (default: the one shipped)")
    parser.add_argument(
        "--policy", default="", metavar="BUNDLE", help="a bundle's policy is the controller, not a behaviour"
    )
    parser.add_argument(
        "--behaviour",
        metavar="NAME",
        help="the controller: one of the robot's, a task with a safe behaviour policy, or a bundle that holds one "
        "(default: the robot's first)",
    )
    parser.add_argument("--sigma", type=float, help="noise on top of it, action units")
    parser.add_argument("--rho", type=float, help="its correlation from step to step")
    parser.add_argument("--bound", type=float, help="its bound, action units; 2: none")
    add_seed(parser, "of the first episode")
    parser.add_argument("--lock-step", action="store_true", help="simulate as fast as possible, not in real time")
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="record a bag into FOLDER")
    parser.add_argument("--no-simulator", action="store_true", help="a driver publishes the sensors")
    parser.add_argument("--no-controller", action="store_true", help="yours publishes joint_commands_raw")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from ssql_ros.graph.processes import Graph
    from ssql_ros.model.bundle import load_bundle
    from ssql_ros.model.critic import shielding_critic
    from ssql_ros.model.shipped import find_shipped_bundle
    from ssql_ros.processes.missing import need, need_ros
    from ssql_ros.robots.plug import find_behaviour
    from ssql_ros.robots.tasks import find_task

    need_ros("ssql run")
    if not options.no_simulator:
        need("gymnasium")
    from ssql_ros.ros.watch import Watch

    task = find_task(options.task)
    # What cannot be served is said here, before anything has started.
    bundle = Path(options.bundle) if options.bundle else find_shipped_bundle(task.robot)
    shielding_critic(load_bundle(bundle, task.contract()))
    if not options.policy and not options.no_controller:
        find_behaviour(options.behaviour or "", task.contract())
    domain = os.environ.get("ROS_DOMAIN_ID")
    print(f"ROS_DOMAIN_ID={domain or 0}, {'yours' if domain else 'the default'}: whatever robot is in it can hear this")
    with contextlib.ExitStack() as stack:
        watch = stack.enter_context(Watch(lambda line: print(line, flush=True)))
        stack.callback(lambda: print(watch.summary(), flush=True))
        graph = stack.enter_context(Graph())
        _start(graph, watch, task, str(bundle), options)
        while True:
            graph.check()
            watch.spin(0.2)


def _start(graph: Any, watch: Any, task: Any, bundle: str, options: argparse.Namespace) -> None:
    from ssql_ros.contract import find_nodes_file

    def given(*names: str) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(options, name)) is not None}

    sim_time, config = not options.no_simulator, find_nodes_file(task.robot)
    common = {"contract": task.robot, "use_sim_time": sim_time}
    if options.record:
        graph.start("recorder_node", config, output=str(options.record), **common)
    if not options.no_simulator:
        graph.start("sim_node", config, task=task.name, real_time=not options.lock_step, seed=options.seed)
        # Before anybody drives it: the first episode is told too.
        watch.wait_for("episode", graph.check)
    if options.policy:
        graph.start("policy_node", config, bundle=options.policy, seed=options.seed, **common)
    elif not options.no_controller:
        noise = given("behaviour", "sigma", "rho", "bound")
        graph.start("behaviour_node", config, seed=options.seed, **noise, **common)
    graph.start("shield_node", config, bundle=bundle, **given("mode", "epsilon"), **common)
