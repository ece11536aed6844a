"""`ssql run`: the graph of nodes with one command, for machines without `ros2 launch`."""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

from ssql_ros.cli.check import add_driver_robot, add_remap, remaps
from ssql_ros.cli.import_policy import SB3, policy_bundle
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
    parser.add_argument(
        "--contract",
        default="",
        metavar="FILE",
        help="contract YAML in place of the robot's: the same vectors, told in other messages or on other topics",
    )
    parser.add_argument("--mode", choices=("enforce", "monitor"), help="(default: enforce)")
    parser.add_argument("--epsilon", type=float, help="threshold on q_safe (default: the bundle's)")
    parser.add_argument("--bundle", default="", help="safety critic (default: the one shipped)")
    parser.add_argument(
        "--policy",
        default="",
        metavar="POLICY",
        help="the controller is a bundle's policy, or sb3:ZIP: that of stable-baselines3 (PPO, A2C, SAC, TD3, DDPG), "
        "without its noise, as predict(deterministic=True)",
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
    parser.add_argument(
        "--flight",
        type=Path,
        metavar="FOLDER",
        help="keep the last 30 s in memory, and write them into FOLDER with 5 s after whenever something happens",
    )
    parser.add_argument("--markers", action="store_true", help="draw what the shield decides, for RViz and Foxglove")
    parser.add_argument("--no-simulator", action="store_true", help="a driver publishes the sensors")
    parser.add_argument(
        "--no-controller",
        action="store_true",
        help="yours publishes joint_commands_raw, or the contract's COMMAND_raw",
    )
    parser.set_defaults(run=_run, best=None)
    kinds = parser.add_subparsers(dest="kind", metavar="driver")
    driver = kinds.add_parser(
        "driver",
        help="start a scripted driver instead: any robot's topics, types and rates, without the robot",
        description="Starts driver_node in the caller's ROS domain until Ctrl-C: it publishes what the contract's "
        "sensors read while the robot rests, each input at its rate, and lets joints follow commands. With --set it is "
        "wrong on purpose, so that one sees what `ssql check driver` and the shield say of that.",
        epilog="example: ssql run driver --robot NAME --set stamps=zero --set only=joint_states",
    )
    add_driver_robot(driver)
    driver.add_argument("--rate", action="append", default=[], metavar="INPUT=HZ", help="of an input; may be repeated")
    driver.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of driver_node, such as stamps=zero, ahead=10.0, degrees=true, rename=JOINT=NAME; may be "
        "repeated",
    )
    add_remap(driver)
    driver.set_defaults(run=_run_driver)


def _run(options: argparse.Namespace) -> int:
    from ssql_ros.contract import told_otherwise
    from ssql_ros.graph.processes import Graph
    from ssql_ros.model.bundle import load_bundle, save_bundle
    from ssql_ros.model.critic import shielding_critic
    from ssql_ros.model.policy import make_policy
    from ssql_ros.model.probes import with_probes
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
    contract = told_otherwise(task.contract(), options.contract)
    shielding_critic(load_bundle(bundle, contract))
    if options.policy:
        policy = policy_bundle(options.policy, task.name, contract)
        make_policy(policy)
    elif not options.no_controller:
        find_behaviour(options.behaviour or "", contract)
    domain = os.environ.get("ROS_DOMAIN_ID")
    print(f"ROS_DOMAIN_ID={domain or 0}, {'yours' if domain else 'the default'}: whatever robot is in it can hear this")
    with contextlib.ExitStack() as stack:
        if options.policy.startswith(SB3):
            path = Path(stack.enter_context(tempfile.TemporaryDirectory()), "policy.safetensors")
            options.policy, options.best = save_bundle(with_probes(policy, contract), path).path, True
        watch = stack.enter_context(Watch(lambda line: print(line, flush=True)))
        stack.callback(lambda: print(watch.summary(), flush=True))
        graph = stack.enter_context(Graph())
        _start(graph, watch, task, str(bundle), options)
        while True:
            graph.check()
            watch.spin(0.2)


def _start(graph: Any, watch: Any, task: Any, bundle: str, options: argparse.Namespace) -> None:
    from ssql_ros.contract import find_nodes_file
    from ssql_ros.contract.topics import MARKERS
    from ssql_ros.graph.processes import FLIGHT, RECORDER

    def given(*names: str) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(options, name)) is not None}

    sim_time, config = not options.no_simulator, find_nodes_file(task.robot)
    common = {"contract": options.contract or task.robot, "use_sim_time": sim_time}
    if options.record:
        graph.start(RECORDER, config, output=str(options.record), **common)
    if options.flight:
        graph.start(RECORDER, config, {"__node": FLIGHT}, output=str(options.flight), flight=True, **common)
    if not options.no_simulator:
        world = {"task": task.name, "contract": options.contract, "seed": options.seed}
        graph.start("sim_node", config, real_time=not options.lock_step, **world)
        # Before anybody drives it: the first episode is told too.
        watch.wait_for("episode", graph.check)
    if options.policy:
        graph.start("policy_node", config, bundle=options.policy, seed=options.seed, **given("best"), **common)
    elif not options.no_controller:
        noise = given("behaviour", "sigma", "rho", "bound")
        graph.start("behaviour_node", config, seed=options.seed, **noise, **common)
    if options.markers:
        graph.start(MARKERS, config, use_sim_time=sim_time)
    graph.start("shield_node", config, bundle=bundle, **given("mode", "epsilon"), **common)


def _run_driver(options: argparse.Namespace) -> int:
    import json
    import time

    from ssql_ros.contract import find_contract, find_nodes_file, load_contract
    from ssql_ros.graph.processes import Graph
    from ssql_ros.processes.missing import need_ros

    need_ros("ssql run driver")
    robot = options.robot or options.contract
    load_contract(find_contract(robot))
    given: dict[str, Any] = {}
    if options.rate:
        given["rates"] = json.dumps(
            {name: _number("--rate", name, text) for name, text in _pairs("--rate", options.rate)}
        )
    for name, text in _pairs("--set", options.set):
        given[name] = _parameter(name, text)
    topics, domain = remaps(options), os.environ.get("ROS_DOMAIN_ID")
    print(f"ROS_DOMAIN_ID={domain or 0}, {'yours' if domain else 'the default'}: driver_node until Ctrl-C", flush=True)
    with Graph() as graph:
        graph.start("driver_node", find_nodes_file(robot), topics, **{"contract": robot, **given})
        while True:
            graph.check()
            time.sleep(0.2)


def _pairs(option: str, texts: list[str]) -> list[tuple[str, str]]:
    """Return names and values of texts NAME=VALUE. Raises ValueError."""
    for text in texts:
        if not text.partition("=")[0] or "=" not in text:
            raise ValueError(f"{option}: expected NAME=VALUE, got {text!r}")
    return [(text.partition("=")[0], text.partition("=")[2]) for text in texts]


def _number(option: str, name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{option} {name}: expected a number, got {text!r}") from None


def _parameter(name: str, text: str) -> Any:
    """Return a value of the type of driver_node's parameter. Raises ValueError where there is none of this name."""
    from ssql_ros.nodes.driver_node import PARAMETERS

    defaults = {parameter.name: parameter.default for parameter in PARAMETERS}
    if name not in defaults:
        raise ValueError(f"--set {name}: driver_node has no such parameter; it has {', '.join(defaults)}")
    if isinstance(defaults[name], bool):
        if text not in ("true", "false"):
            raise ValueError(f"--set {name}: expected true or false, got {text!r}")
        return text == "true"
    return _number("--set", name, text) if isinstance(defaults[name], float) else text
