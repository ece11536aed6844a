"""`ssql bundle import`: a policy of stable-baselines3 as a bundle, to stand behind the shield."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssql_ros.cli.figures import command_line, versions
from ssql_ros.cli.options import add_robot


def add_parser(kinds: Any) -> None:
    """Add what `ssql bundle` does by it."""
    parser = kinds.add_parser(
        "import",
        help="a bundle of a stable-baselines3 policy, as a controller behind the shield",
        description="Reads the actor's weights of a zip that SAC, TD3 or DDPG of stable-baselines3 saved (MlpPolicy, "
        "ReLU). The zip holds pickles, too, which can run any code when they are opened: none of them is. Whether the "
        "observations that it learned from were the contract's nobody can see in it; running averages of VecNormalize "
        "are not in the zip, and a policy that learned behind them acts wrongly without.",
        epilog="example: ssql bundle import sac_boat.zip --task boat --critic runs/sqrl/bundle.safetensors "
        "--out sac.safetensors; ssql eval policy --task boat --bundle sac.safetensors",
    )
    parser.add_argument("zip", type=Path, metavar="ZIP", help="what `model.save` wrote")
    add_robot(parser, "whose policy it is", required=True)
    parser.add_argument("--critic", type=Path, metavar="BUNDLE", help="put the safety critic of this one behind it")
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="file to write (.safetensors)")
    parser.add_argument("--overwrite", action="store_true", help="replace BUNDLE if it is there")
    parser.set_defaults(run=_run, needs=("torch",))


def _run(options: argparse.Namespace) -> int:
    from ssql_ros.model.bundle import Bundle, load_bundle, save_bundle
    from ssql_ros.model.probes import with_probes
    from ssql_ros.nn.sb3 import read_policy
    from ssql_ros.robots.tasks import find_task

    if options.out.exists() and not options.overwrite:
        raise ValueError(f"{options.out} is there already; --overwrite replaces it")
    task = find_task(options.contract or options.task)
    contract = task.contract()
    network, about = read_policy(options.zip, contract.observation_size, contract.action_size)
    provenance = {"task": task.name, "imported_from": str(options.zip), **about}
    bundle = Bundle(
        contract.id, None, {**provenance, "command": command_line(), "versions": versions()}, policy=network
    )
    if options.critic is not None:
        shield = load_bundle(options.critic, contract)
        bundle = replace(bundle, critic=shield.safety_critic())
        bundle.provenance["safety_critic"] = shield.id
    saved = save_bundle(with_probes(bundle, contract), options.out)
    print(f"bundle {saved.id} is in {saved.path}; of the zip's pickles none was opened")
    return 0
