"""`ssql contract policy`: who may publish what in a robot's graph, as a policy of SROS 2."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(kinds: Any) -> None:
    """Add the kind `policy`."""
    policy = kinds.add_parser(
        "policy",
        help="who may publish, hear and call what: an SROS 2 policy of the robot's graph",
        description="Writes an SROS 2 policy (XML, schema 0.2.0) in which only the shield publishes the robot's "
        "commands, only the driver its sensors, and only the learner and the announcer announce models; `ros2 security "
        "create_permission` makes permissions of it. Name the nodes that your robot has: who is not in it gets no key.",
        epilog="example: ssql contract policy minitaur --namespace /lab --nodes shield_node controller driver_node "
        "--controller walker --driver leg_driver --out policy.xml",
    )
    policy.add_argument("contract", help="a robot's name, or the path of its contract YAML")
    policy.add_argument("--namespace", default="", metavar="NS", help="of all nodes (default: none)")
    policy.add_argument(
        "--nodes",
        nargs="+",
        metavar="NODE",
        help="which of them there are: shield_node, recorder_node, policy_node, behaviour_node, learner_node, "
        "driver_node, sim_node, controller (yours), announcer (`ssql bundle announce`), operator (who calls services) "
        "(default: all)",
    )
    policy.add_argument("--controller", default="controller", metavar="NAME", help="of your controller's node")
    policy.add_argument("--driver", default="driver_node", metavar="NAME", help="of your driver's node")
    policy.add_argument(
        "--remap",
        action="append",
        default=[],
        metavar="FROM:=TO",
        help="a topic that your graph remaps; may be given again",
    )
    policy.add_argument("--out", type=Path, metavar="FILE", help="(default: standard output)")
    policy.set_defaults(run=_policy)


def _policy(options: argparse.Namespace) -> int:
    from ssql_ros.contract import find_contract, load_contract
    from ssql_ros.drafting.access import ROLES, accesses
    from ssql_ros.drafting.sros_policy import policy_xml
    from ssql_ros.processes.files import write_atomically

    contract = load_contract(find_contract(options.contract))
    remap = {}
    for given in options.remap:
        before, found, after = given.partition(":=")
        if not (before and found and after):
            raise ValueError(f"--remap: expected FROM:=TO, got {given!r}")
        remap[before] = after
    names = {"controller": options.controller, "driver_node": options.driver}
    enclaves = accesses(contract, options.nodes or ROLES, names, remap)
    text = policy_xml(enclaves, options.namespace, f"SROS 2 policy of {contract.id}, by ssql contract policy")
    if options.out is None:
        print(text, end="")
    else:
        write_atomically(options.out, text.encode())
        print(f"{options.out}: {len(enclaves)} enclaves: {', '.join(enclaves)}")
    return 0
