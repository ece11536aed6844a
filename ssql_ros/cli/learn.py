"""`ssql learn`: from bags to a shield by one command, without a simulator."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ssql_ros.cli.figures import add_json, command_line, report, versions
from ssql_ros.cli.options import HELD_OUT, add_quiet, add_seed
from ssql_ros.processes.interrupts import Interrupted


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "learn",
        help="from bags to a shield by one command, without a simulator",
        description="Checks and converts the bags, says what they can teach and what they cannot, learns a behaviour "
        "policy, a safety critic and a policy, and judges all on episodes that nothing was learned from. FOLDER then "
        "has bundle.safetensors, which the shield node loads, and report.html: what the data covers, where the shield "
        "would have stepped in, and its figures. The same command goes on where it was interrupted; finished stages "
        "are not done again. No figure of it is a certificate: nothing is driven.",
        epilog="example: ssql contract init bags/monday --out my_robot.yaml; "
        "ssql learn bags/monday --contract my_robot.yaml --out learned; "
        "ros2 launch ssql_ros shield.launch.py contract:=my_robot.yaml bundle:=learned/bundle.safetensors",
    )
    parser.add_argument("bags", type=Path, nargs="+", metavar="BAG", help="folder of a bag, or one .mcap or .db3 file")
    parser.add_argument("--contract", required=True, help="contract YAML, or a robot's name")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="what is made")
    parser.add_argument("--namespace", help="of the robot's topics (default: the only one)")
    parser.add_argument(
        "--policy", choices=("safefql", "ssql", "none"), default="safefql", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--steps",
        nargs="*",
        default=[],
        metavar="STAGE=N",
        help="updates of behaviour, critic or policy (default: behaviour=2000 critic=2000 policy=6000)",
    )
    parser.add_argument(
        "--set",
        nargs="*",
        action="extend",
        default=[],
        metavar="STAGE.NAME=VALUE",
        help="settings of their algorithms, e.g. critic.gamma_safe=0.9 (default: small networks; it looks 0.6 s ahead)",
    )
    parser.add_argument(
        "--held-out-share", type=float, default=HELD_OUT, metavar="SHARE", help="of episodes (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="(default: %(default)s)")
    add_seed(parser, "of everything that is drawn")
    add_quiet(parser)
    add_json(parser)
    parser.set_defaults(run=_learn, needs=("torch", "matplotlib"))


def _pairs(option: str, pairs: list[str]) -> dict[str, Any]:
    found = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            found[name] = json.loads(value)
        except ValueError as error:
            raise ValueError(f"{option} {pair!r}: expected NAME=VALUE with a number, true, false or null") from error
    return found


def _learn(options: argparse.Namespace) -> int:
    try:
        return _stages(options)
    except Interrupted as interrupted:
        interrupted.note = f"{interrupted.note}; go on with the same command: {command_line()}"
        raise


def _stages(options: argparse.Namespace) -> int:
    import torch

    from ssql_ros.bags.data_set import Source, data_set_of
    from ssql_ros.contract import find_contract
    from ssql_ros.data.rewards import reward_of
    from ssql_ros.evaluation.evidence import evidence_of
    from ssql_ros.report.logged_page import write_logged_page
    from ssql_ros.robots.tasks import find_task
    from ssql_ros.training.logged_stages import Stages

    torch.set_num_threads(max(options.threads, 1))
    task = find_task(str(find_contract(options.contract)))
    contract, facts = task.contract(), {"command": command_line(), "versions": versions()}
    settings: dict[str, dict[str, Any]] = {}
    for name, value in _pairs("--set", options.set).items():
        stage, found, setting = name.partition(".")
        if not found:
            raise ValueError(f"--set {name}: expected STAGE.NAME=VALUE, such as critic.gamma_safe=0.9")
        settings.setdefault(stage, {})[setting] = value
    stages = Stages(
        task,
        options.out,
        options.out / "data",
        options.policy,
        options.seed,
        options.held_out_share,
        _pairs("--steps", options.steps),
        settings,
    )

    def say(line: str) -> None:
        if not options.json:
            print(line, flush=True)

    reward = None if contract.reward is None else reward_of(contract)
    data = data_set_of(
        Source(tuple(options.bags), contract, reward, options.namespace), stages.data, facts, show=not options.quiet
    )
    for problem in data.manifest["problems"]:
        say(f"problem: {problem}")
    evidence = evidence_of(data, contract)
    say(f"data: {evidence.steps} steps in {evidence.episodes} episodes, {evidence.seconds / 60:.1f} min")
    for sentence in evidence.words:
        say(f"  {sentence}")
    if contract.reward is None and options.policy != "none":
        say(
            f"  {contract.path} names no reward: the policy does what was done, as far as its critic takes it for safe."
        )
    figures = stages.run(evidence, facts, not options.quiet, say)
    bundle, calibration = stages.serve(data, evidence)
    page = options.out / "report.html"
    if not page.exists():
        write_logged_page(page, bundle, data, contract, evidence, figures, calibration, {**facts, "seed": options.seed})
    shown = {f"{stage}_{name}": value for stage, found in figures.items() for name, value in found.items()}
    shown = {name: value for name, value in shown.items() if "held_out" in name or name.endswith("epsilon")}
    if bundle.critic is None:
        shield = "no shield: the log has no incident, and no policy with a critic (--policy safefql) was asked for"
    else:
        shield = f"{calibration['statement']}\nshield: {options.out / 'bundle.safetensors'}"
    report(shown, options.seed, options.json, notes=[shield, f"report: {page}"])
    return 0
