"""`ssql check`: what runs on the graph against what a contract needs."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from ssql_ros.cli.figures import add_json, command_line, versions


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser("check", help="hold what runs on the ROS graph against a robot's contract")
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    driver = subjects.add_parser(
        "driver",
        help="what a driver publishes and takes, live, and what helps where that is not what the contract needs",
        description="Listens to the graph of this ROS domain and prints a table, a finding a row with what helps: "
        "topics, types, rates, QoS, names of joints, units by range, clocks, extra publishers, and who else commands "
        "the robot. It publishes nothing. Exit status 0: the shield could run on this driver; 1: it could not; 2: "
        "wrong use. `ssql run driver` starts a scripted driver to try it on.",
    )
    add_driver_robot(driver)
    driver.add_argument(
        "--seconds", type=float, default=5.0, help="to listen for, from the first message on (default: %(default)s)"
    )
    driver.add_argument("--namespace", default="", help="of the robot's topics (default: none)")
    add_remap(driver)
    driver.add_argument("--use-sim-time", action="store_true", help="stamps are of /clock")
    add_json(driver)
    driver.set_defaults(run=_driver)


def add_driver_robot(parser: argparse.ArgumentParser) -> None:
    """Add --robot and --contract, of which one is given."""
    either = parser.add_mutually_exclusive_group(required=True)
    either.add_argument("--robot", metavar="NAME", help="a robot that is shipped, or a package's plug")
    either.add_argument("--contract", metavar="FILE", help="contract YAML of any robot")


def add_remap(parser: argparse.ArgumentParser) -> None:
    """Add --remap."""
    parser.add_argument(
        "--remap", action="append", default=[], metavar="FROM:=TO", help="a topic of the contract; may be repeated"
    )


def remaps(options: argparse.Namespace) -> dict[str, str]:
    """Return the topics of --remap, from and to. Raises ValueError."""
    for rule in options.remap:
        if not all(rule.partition(":=")):
            raise ValueError(f"--remap: expected FROM:=TO, got {rule!r}")
    return {rule.partition(":=")[0]: rule.partition(":=")[2] for rule in options.remap}


def _driver(options: argparse.Namespace) -> int:
    from ssql_ros.contract import find_contract, load_contract
    from ssql_ros.drivers.findings import Level, table
    from ssql_ros.processes.missing import need_ros

    need_ros("ssql check driver")
    from ssql_ros.ros.driver_check import check_driver

    contract = load_contract(find_contract(options.robot or options.contract))
    rules = [":=".join(names) for names in remaps(options).items()]
    findings = check_driver(contract, options.seconds, options.namespace, options.use_sim_time, rules)
    counts = {f"{level.name.lower()}s": sum(f.level is level for f in findings) for level in Level if level}
    if options.json:
        listed = [finding.as_dict() for finding in findings]
        facts = {"versions": versions(), "command": command_line(), "contract": contract.id}
        print(json.dumps({"figures": counts, "findings": listed, **facts}))
    else:
        print(f"{contract.id}, {contract.path}; ROS_DOMAIN_ID={os.environ.get('ROS_DOMAIN_ID', '0')}")
        print("\n".join(table(findings)))
        ready = "the shield cannot run on it" if counts["errors"] else "the shield can run on it"
        print(f"{counts['errors']} errors, {counts['warnings']} warnings: {ready}")
    return 1 if counts["errors"] else 0
