"""`ssql bundle import`, and `sb3:ZIP` where a policy is named: one of stable-baselines3, to stand behind the shield."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssql_ros.cli.figures import command_line, versions
from ssql_ros.cli.options import add_robot

if TYPE_CHECKING:
    from ssql_ros.contract import Contract
    from ssql_ros.model.bundle import Bundle

SB3 = "sb3:"  # begins the name of a policy that is a zip of stable-baselines3


def add_parser(kinds: Any) -> None:
    """Add what `ssql bundle` does by it."""
    parser = kinds.add_parser(
        "import",
        help="a bundle of a stable-baselines3 policy, as a controller behind the shield",
        description="Reads the actor's weights of a zip that PPO, A2C, SAC, TD3 or DDPG of stable-baselines3 saved "
        "(MlpPolicy). The zip holds pickles, too, which can run any code when they are opened: none of them is. "
        "Whether the observations that it learned from were the contract's nobody can see in it; running averages of "
        "VecNormalize are not in the zip, and a policy that learned behind them acts wrongly without: --normalise.",
        epilog="example: ssql bundle import sac_boat.zip --task boat --critic runs/sqrl/bundle.safetensors "
        "--out sac.safetensors; ssql eval policy --task boat --bundle sac.safetensors",
    )
    parser.add_argument("zip", type=Path, metavar="ZIP", help="what `model.save` wrote")
    add_robot(parser, "whose policy it is", required=True)
    parser.add_argument(
        "--normalise",
        type=Path,
        metavar="NPZ",
        help="what VecNormalize made of observations: np.savez(FILE, mean=env.obs_rms.mean, var=env.obs_rms.var, "
        "epsilon=env.epsilon, clip=env.clip_obs)",
    )
    parser.add_argument("--critic", type=Path, metavar="BUNDLE", help="put the safety critic of this one behind it")
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="file to write (.safetensors)")
    parser.add_argument("--overwrite", action="store_true", help="replace BUNDLE if it is there")
    parser.set_defaults(run=_run, needs=("torch",))


def _run(options: argparse.Namespace) -> int:
    from ssql_ros.model.bundle import load_bundle, save_bundle
    from ssql_ros.model.probes import with_probes
    from ssql_ros.robots.tasks import find_task

    if options.out.exists() and not options.overwrite:
        raise ValueError(f"{options.out} is there already; --overwrite replaces it")
    task = find_task(options.contract or options.task)
    contract = task.contract()
    bundle = imported(options.zip, task.name, contract, options.normalise)
    if options.critic is not None:
        shield = load_bundle(options.critic, contract)
        bundle = replace(bundle, critic=shield.safety_critic())
        bundle.provenance["safety_critic"] = shield.id
    saved = save_bundle(with_probes(bundle, contract), options.out)
    print(f"bundle {saved.id} is in {saved.path}; of the zip's pickles none was opened")
    return 0


def imported(path: Path, task: str, contract: Contract, averages: Path | None = None) -> Bundle:
    """Return the policy of a zip of stable-baselines3 as a bundle without a critic.

    Args:
        task: name of the task that it is for.
        averages: as of `nn.sb3.read_policy`.

    Raises:
        ValueError: it cannot be read, or its spaces are not the contract's.
    """
    from ssql_ros.model.bundle import Bundle
    from ssql_ros.processes.missing import need

    need("torch")
    from ssql_ros.nn.sb3 import read_policy

    network, kind, about = read_policy(path, contract, averages)
    facts = {"task": task, "imported_from": str(path), **about, "command": command_line(), "versions": versions()}
    return Bundle(contract.id, None, facts, policy=network, policy_kind=kind)


def policy_bundle(named: str, task: str, contract: Contract) -> Bundle:
    """Return the bundle of a policy that is named by its path, or as `sb3:ZIP`. Raises ValueError."""
    from ssql_ros.model.bundle import load_bundle

    if named.startswith(SB3):
        return imported(Path(named.removeprefix(SB3)), task, contract)
    return load_bundle(named, contract)
