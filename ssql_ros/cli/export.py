"""`ssql bundle export`: bundles made without training."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssql_ros.cli import export_policy
from ssql_ros.cli.figures import command_line, versions
from ssql_ros.cli.options import add_task, task_of


def add_parser(kinds: Any) -> None:
    """Add what `ssql bundle` does by it."""
    parser = kinds.add_parser("export", help="write a bundle without training", description="Write a bundle.")
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    behaviour = subjects.add_parser(
        "behaviour",
        help="a task's safe behaviour policy, which a robot begins with before anything is learned",
        description="Writes a bundle whose policy is the task's safe behaviour policy, with the safety critic that the "
        "task ships behind it. policy_node serves it, and takes a learned policy in its place when one is announced.",
    )
    add_task(behaviour, "which one, e.g. minitaur_trots", required=True)
    behaviour.set_defaults(run=_behaviour)
    served = subjects.add_parser(
        "served",
        help="a bundle without its reward critics: all that a robot needs that does not go on learning",
        description="Writes a bundle with the policy and the safety critic of another one, and without its reward "
        "critics, which only learning needs; they are about half of what SQRL makes.",
    )
    served.add_argument("bundle", type=Path, metavar="FROM", help="bundle to read")
    add_task(served, "which world (default: the one that the bundle was made for)", env=True)
    served.set_defaults(run=_served)
    export_policy.add_subject(subjects)
    for subject in (behaviour, served):
        subject.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="file to write (.safetensors)")
        subject.add_argument("--overwrite", action="store_true", help="replace BUNDLE if it is there")


def _served(options: argparse.Namespace) -> int:
    from ssql_ros.model.bundle import load_bundle, save_bundle
    from ssql_ros.model.probes import with_probes

    _refuse_present(options)
    contract = task_of(options.bundle, options.task).contract()
    bundle = load_bundle(options.bundle, contract)
    bundle.need("policy")
    saved = save_bundle(with_probes(replace(bundle, reward=None), contract), options.out)
    print(f"bundle {saved.id} is in {saved.path}, {options.out.stat().st_size / 1e6:.2f} MB")
    return 0


def _refuse_present(options: argparse.Namespace) -> None:
    if options.out.exists() and not options.overwrite:
        raise ValueError(f"{options.out} is there already; --overwrite replaces it")


def _behaviour(options: argparse.Namespace) -> int:
    from ssql_ros.model.bundle import Bundle, load_bundle, save_bundle
    from ssql_ros.model.probes import with_probes
    from ssql_ros.robots.tasks import find_task

    _refuse_present(options)
    task = find_task(options.task)
    contract, behaviour = task.contract(), task.behaviour_policy()
    provenance = {"task": task.name, "command": command_line(), "versions": versions(), "promise": behaviour.promise}
    critic = None
    if task.bundle:
        shield = load_bundle(task.bundle_path(), contract)
        critic = shield.critic
        provenance["safety_critic"] = shield.id
    bundle = Bundle(
        contract.id,
        critic,
        provenance,
        policy_kind="behaviour",
        behaviour=behaviour.describe(),
    )
    saved = save_bundle(with_probes(bundle, contract), options.out)
    print(f"bundle {saved.id} is in {saved.path}: {behaviour.promise}")
    return 0
