"""`ssql train`: learning, with its whole configuration written into what it makes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssql_ros.cli.figures import add_json, command_line, report, versions
from ssql_ros.cli.logs import add_log, log_folder
from ssql_ros.cli.options import add_quiet, add_seed, add_task
from ssql_ros.processes.interrupts import Interrupted
from ssql_ros.robots import DEFAULT


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser("train", help="learn in simulation", description="Learn in simulation; ends in a bundle.")
    parser.set_defaults(needs=("torch",))
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    critic = subjects.add_parser(
        "critic",
        help="a safety critic from rollouts of the noisy controller and of the masked one",
        description="Learns Q_safe(s, a), the discounted probability of a future incident. The defaults take some "
        "ten minutes on two cores; what was interrupted goes on with the same command, from BUNDLE.checkpoint. "
        "The bundle carries the command, seed, versions, data and held-out figures.",
    )
    add_task(critic, default=DEFAULT)
    add_seed(critic, "of everything that is drawn")
    critic.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="file to write (.safetensors)")
    critic.add_argument("--episodes", type=int, default=600, help="of the noisy controller (default: %(default)s)")
    critic.add_argument("--rounds", type=int, default=3, help="of masked rollouts (default: %(default)s)")
    critic.add_argument("--masked-episodes", type=int, default=250, help="per round (default: %(default)s)")
    critic.add_argument("--updates", type=int, default=8000, help="gradient steps per round (default: %(default)s)")
    critic.add_argument("--held-out", type=int, default=120, help="episodes for the figures (default: %(default)s)")
    critic.add_argument("--gamma-safe", type=float, default=0.95, help="discount (default: %(default)s)")
    critic.add_argument("--epsilon", type=float, default=0.02, help="threshold in the bundle (default: %(default)s)")
    critic.add_argument("--overwrite", action="store_true", help="replace BUNDLE if it is there")
    add_quiet(critic)
    add_json(critic)
    critic.set_defaults(run=_going_on(_critic))

    for name, text in _ALGORITHMS.items():
        _add_algorithm(subjects, name, text)
    for name, (text, more, example) in _OFFLINE.items():
        _add_offline(subjects, name, text, more, example)
    _add_behaviour(subjects)


_ALGORITHMS = {
    "sqrl": "SQRL: a safety critic with the policy, then fine-tuning behind its mask",
    "sac": "SAC: no safety critic",
    "esac": "E-SAC: a low percentile of ten critics",
    "wcpg": "WCPG: conditional value at risk of a distributional critic",
    "ssql": "SSQL: from the task's safe behaviour policy alone, without leaving its support",
    "cql": "CQL: offline, from what the task's safe behaviour policy collects; critics pressed down beside it",
    "iql": "IQL: offline, from what the task's safe behaviour policy collects; no other action is judged",
    "cpo": "CPO: on-policy, a trust region with incidents an episode as the constraint",
    "dqn": "DQN, on grid worlds alone: free to visit any cell, beside SSQL there",
    "rs": "RS: the risk as a priced cost in the reward; begins from SQRL's pre-training",
}


# Those that learn from a log too, each with an example.
_FROM_LOGS = {
    "ssql": "example: ssql train ssql --bag bags/monday --task minitaur_trots",
    "cql": "example: ssql train cql --bag bags/monday bags/tuesday --task minitaur",
    "iql": "example: ssql train iql --bag bags/monday bags/tuesday --task minitaur",
}


def _add_algorithm(subjects: Any, name: str, text: str) -> None:
    from_logs = name in _FROM_LOGS
    parser = subjects.add_parser(
        name,
        help=text,
        description=f"{text}. The run lies in one folder: configuration, checkpoint, log of episodes, TensorBoard "
        "curves, and in the end figures and a bundle that the shield node loads. The same command goes on from the "
        "last checkpoint."
        + (" With --data or --bag nothing is driven to learn from: only the final policy, to judge it." * from_logs),
        epilog=_FROM_LOGS.get(name),
    )
    if from_logs:
        add_log(parser, required=False, data="a log in place of the world: of `ssql bag convert` or `ssql collect`")
    if name == "ssql":
        parser.add_argument(
            "--behaviour", default="", metavar="BUNDLE", help="with a log: b of `ssql train behaviour`, not the task's"
        )
    worlds = {"dqn": "gridworld or spider_grid", "ssql": "e.g. spider or minitaur_trots, gridworld or spider_grid"}
    of_it = worlds.get(name, "e.g. spider or minitaur_velocity")
    add_task(parser, f"which world, {of_it}", grids=name in worlds, required=True)
    parser.add_argument("--phase", choices=("pretrain", "finetune"), default="pretrain", help="(default: %(default)s)")
    parser.add_argument("--from", dest="source", default="", metavar="BUNDLE", help="pre-trained bundle or run folder")
    of_log = "; updates from a log, or on a grid (default: 20000)" if from_logs else ""
    parser.add_argument("--steps", type=int, help=f"of collection (default: 500000){of_log}")
    add_seed(parser, "of everything that is drawn")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="(default: runs/TASK_PHASE_ALGORITHM_SEED; PHASE is log from a log)"
    )
    parser.add_argument(
        "--set",
        nargs="*",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="settings of the algorithm, e.g. epsilon=0.05",
    )
    parser.add_argument("--checkpoint-every", type=int, help=f"steps (default: 25000{'; 2000 from a log' * from_logs})")
    parser.add_argument("--episodes", type=int, default=100, help="of the final policy (default: %(default)s)")
    parser.add_argument(
        "--threads", type=int, default=1, help="0: one per processor, seldom faster at these widths (default: 1)"
    )
    add_quiet(parser)
    add_json(parser)
    parser.set_defaults(run=_going_on(_algorithm), algorithm=name)


# Those that learn from a log alone: in a line, what comes of it, an example.
_OFFLINE = {
    "safefql": (
        "SafeFQL: from a log alone; a policy of one forward pass, gated by reachability",
        "The bundle has policy and safety critic; `ssql calibrate` then certifies it.",
        "example: ssql collect --task boat --out data/boat; "
        "ssql train safefql --data data/boat --task boat --out runs/boat; ssql calibrate runs/boat/bundle.safetensors; "
        "or straight from what a robot has recorded: ssql train safefql --bag bags/monday --task minitaur",
    ),
    "iql_lagrangian": (
        "IQL with a Lagrangian: from a log alone; a step in the failure set has a price, found by dual ascent",
        "The price rises while the policy's estimated steps in the failure set an episode are above the setting "
        "cost_budget (1), and falls below it. The bundle has the policy, and no safety critic.",
        "example: ssql collect --task boat --out data/boat; "
        "ssql train iql_lagrangian --data data/boat --task boat --steps 16000 --set cost_budget=0.5",
    ),
}


def _add_offline(subjects: Any, name: str, text: str, more: str, example: str) -> None:
    parser = subjects.add_parser(
        name,
        help=text,
        description=f"{text}. Nothing is driven. The run lies in one folder: configuration, checkpoint, TensorBoard "
        f"curves, and in the end figures and a bundle. The same command goes on from the last checkpoint. {more}",
        epilog=example,
    )
    add_log(parser, required=True, data="folder of `ssql collect` or `ssql bag convert`")
    add_task(parser, "which world, e.g. boat", required=True)
    parser.add_argument("--steps", type=int, default=20_000, help="updates (default: %(default)s)")
    add_seed(parser, "of everything that is drawn")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help=f"(default: runs/TASK_{name}_SEED)")
    parser.add_argument(
        "--set",
        nargs="*",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="settings of the algorithm, e.g. gamma=0.99",
    )
    parser.add_argument("--checkpoint-every", type=int, default=2000, help="steps (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="0: one per processor (default: %(default)s)")
    add_quiet(parser)
    add_json(parser)
    parser.set_defaults(run=_going_on(_offline), algorithm=name)


def _add_behaviour(subjects: Any) -> None:
    parser = subjects.add_parser(
        "behaviour",
        help="a behaviour policy from a data set, by maximum likelihood, with a stated support",
        description="Fits a mixture density network to the actions of a data set or of bags, by "
        "maximum likelihood. Its support is where log b(a|s) reaches a floor: the quantile (default 0.05) of the log "
        "density of held-out actions, so that the monitor finds about that share of the same controller's actions "
        "outside. It promises nothing of states. Ends in a folder with a bundle in which the policy acts; `ssql train "
        "ssql --data DATASET --behaviour BUNDLE` then learns inside of its support.",
        epilog="example: ssql collect --task spider --episodes 400 --out data/spider; "
        "ssql train behaviour --data data/spider --task spider --out runs/b; "
        "ssql train ssql --task spider --data data/spider --behaviour runs/b/bundle.safetensors --steps 10000",
    )
    add_log(parser, required=True, data="folder of `ssql collect` or `ssql bag convert`")
    add_task(parser, "which world's contract, e.g. spider", required=True)
    parser.add_argument("--steps", type=int, default=5000, help="updates (default: %(default)s)")
    add_seed(parser, "of everything that is drawn")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="(default: runs/TASK_behaviour_SEED)")
    parser.add_argument(
        "--set",
        nargs="*",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="settings, e.g. components=8 quantile=0.05",
    )
    parser.add_argument("--threads", type=int, default=1, help="0: one per processor (default: %(default)s)")
    add_quiet(parser)
    add_json(parser)
    parser.set_defaults(run=_going_on(_behaviour))


def _going_on(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Return `run`, which says how to go on where it is interrupted."""

    def resumable(options: argparse.Namespace) -> int:
        try:
            return run(options)
        except Interrupted as interrupted:
            said = (
                f"{interrupted.note}; go on" if interrupted.note else "go on from the last checkpoint, if there is one,"
            )
            interrupted.note = f"{said} with the same command: {command_line()}"
            raise

    return resumable


def _behaviour(options: argparse.Namespace) -> int:
    from ssql_ros.robots.tasks import find_task
    from ssql_ros.training.behaviour_runs import BehaviourPlan, run_behaviour

    _set_threads(options.threads)
    data = log_folder(options, find_task(options.task))
    plan = BehaviourPlan(str(data), options.task, options.steps, options.seed, _settings(options.set))
    folder = options.out or Path("runs") / f"{plan.task}_behaviour_{plan.seed}"
    figures = run_behaviour(plan, folder, {"command": command_line(), "versions": versions()}, show=not options.quiet)
    report(figures, plan.seed, options.json, notes=(f"run and bundle are in {folder}",))
    return 0


def _set_threads(threads: int) -> None:
    import torch

    if threads < 0:
        raise ValueError(f"--threads: expected at least 0, got {threads}")
    if threads:
        torch.set_num_threads(threads)


def _offline(options: argparse.Namespace) -> int:
    from ssql_ros.robots.tasks import find_task
    from ssql_ros.training.offline_runs import OfflinePlan, run_offline

    _set_threads(options.threads)
    plan = OfflinePlan(
        data=str(log_folder(options, find_task(options.task))),
        task=options.task,
        steps=options.steps,
        seed=options.seed,
        settings=_settings(options.set),
        checkpoint_every=options.checkpoint_every,
        algorithm=options.algorithm,
    )
    folder = options.out or Path("runs") / f"{plan.task}_{plan.algorithm}_{plan.seed}"
    figures = run_offline(plan, folder, {"command": command_line(), "versions": versions()}, show=not options.quiet)
    report(figures, plan.seed, options.json, notes=(f"run and bundle are in {folder}",))
    return 0


def _settings(pairs: list[str]) -> dict[str, Any]:
    """Return settings from NAME=VALUE, the value in JSON."""
    settings = {}
    for pair in pairs:
        name, found, value = pair.partition("=")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            found = ""
        if not found:
            raise ValueError(f"--set {pair!r}: expected NAME=VALUE with a number, true, false or null")
    return settings


def _algorithm(options: argparse.Namespace) -> int:
    from ssql_ros.robots.tasks import find_task
    from ssql_ros.training.runs import Plan, run_training
    from ssql_sim.grid import GRIDS

    _set_threads(options.threads)
    if options.task in GRIDS or options.algorithm == "dqn":
        return _grid(options)
    if options.algorithm in _FROM_LOGS and (log := log_folder(options, find_task(options.task))) is not None:
        return _from_log(options, log)
    if getattr(options, "behaviour", None):
        raise ValueError("--behaviour is for learning from a log: name it with --data or --bag")
    plan = Plan(
        algorithm=options.algorithm,
        task=options.task,
        phase=options.phase,
        steps=500_000 if options.steps is None else options.steps,
        seed=options.seed,
        source=str(options.source),
        settings=_settings(options.set),
        checkpoint_every=25_000 if options.checkpoint_every is None else options.checkpoint_every,
        evaluation=options.episodes,
    )
    folder = options.out or Path("runs") / f"{plan.task}_{plan.phase}_{plan.algorithm}_{plan.seed}"
    facts = {"command": command_line(), "versions": versions()}
    figures = run_training(plan, folder, facts, show=not options.quiet)
    report(figures, plan.seed, options.json, notes=(f"run and bundle are in {folder}",))
    return 0


def _grid(options: argparse.Namespace) -> int:
    from ssql_ros.training.grid_runs import GridPlan, run_grid

    if options.phase != "pretrain" or options.source:
        raise ValueError("--phase and --from: on a grid everything is learned from nothing")
    if getattr(options, "data", None) or getattr(options, "bag", None):
        raise ValueError("--data and --bag: on a grid everything is learned in the world")
    plan = GridPlan(
        algorithm=options.algorithm,
        task=options.task,
        steps=20_000 if options.steps is None else options.steps,
        seed=options.seed,
        settings=_settings(options.set),
        checkpoint_every=25_000 if options.checkpoint_every is None else options.checkpoint_every,
        evaluation=options.episodes,
    )
    folder = options.out or Path("runs") / f"{plan.task}_{plan.algorithm}_{plan.seed}"
    figures = run_grid(plan, folder, {"command": command_line(), "versions": versions()}, show=not options.quiet)
    report(figures, plan.seed, options.json, notes=(f"run is in {folder}",))
    return 0


def _from_log(options: argparse.Namespace, log: Path) -> int:
    from ssql_ros.training.logged_runs import LoggedPlan, run_logged

    if options.phase != "pretrain" or options.source:
        raise ValueError("--phase and --from: a log is learned from as it is, from nothing")
    plan = LoggedPlan(
        algorithm=options.algorithm,
        task=options.task,
        data=str(log),
        steps=20_000 if options.steps is None else options.steps,
        seed=options.seed,
        settings=_settings(options.set),
        checkpoint_every=2000 if options.checkpoint_every is None else options.checkpoint_every,
        evaluation=options.episodes,
        behaviour=getattr(options, "behaviour", ""),
    )
    folder = options.out or Path("runs") / f"{plan.task}_log_{plan.algorithm}_{plan.seed}"
    figures = run_logged(plan, folder, {"command": command_line(), "versions": versions()}, show=not options.quiet)
    report(figures, plan.seed, options.json, notes=(f"run and bundle are in {folder}",))
    return 0


def _critic(options: argparse.Namespace) -> int:
    # Learning loads torch and the world; the other commands must not wait for them.
    from ssql_ros.algorithms.safety_critic import CriticSettings
    from ssql_ros.model.bundle import save_bundle
    from ssql_ros.robots.tasks import find_task
    from ssql_ros.training.critic_training import TrainingPlan, held_out_figures, train_critic

    if options.out.exists() and not options.overwrite:
        raise ValueError(f"{options.out} is there already; --overwrite replaces it")
    for name in ("gamma_safe", "epsilon"):
        if not 0.0 < getattr(options, name) < 1.0:
            raise ValueError(f"--{name.replace('_', '-')}: expected a number between 0 and 1")
    plan = TrainingPlan(
        episodes=options.episodes,
        rounds=options.rounds,
        masked_episodes=options.masked_episodes,
        updates=options.updates,
        held_out_episodes=options.held_out,
        epsilon=options.epsilon,
        critic=CriticSettings(gamma_safe=options.gamma_safe),
    )
    provenance = {"command": command_line(), "versions": versions()}
    checkpoint = options.out.with_name(f"{options.out.name}.checkpoint")
    made = train_critic(find_task(options.task), plan, options.seed, provenance, not options.quiet, checkpoint)
    bundle = save_bundle(made, options.out)
    checkpoint.unlink(missing_ok=True)
    note = f"bundle {bundle.id} is in {bundle.path}"
    report(dict(held_out_figures(bundle.provenance)), options.seed, options.json, notes=(note,))
    return 0
