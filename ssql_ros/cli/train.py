"""`ssql train`: learning, with its whole configuration written into what it makes."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssql_ros.cli.figures import add_json, command_line, report, versions
from ssql_ros.cli.logs import add_log, log_folder
from ssql_ros.cli.options import HELD_OUT, add_quiet, add_robot, add_seed, add_task, add_track
from ssql_ros.processes.interrupts import Interrupted
from ssql_ros.robots import DEFAULT


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "train",
        help="learn in simulation, or from data",
        description="Learn in simulation, or from data; ends in a bundle.",
    )
    parser.set_defaults(needs=("torch",))
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    critic = subjects.add_parser(
        "critic",
        help="a safety critic: from rollouts of the noisy controller and of the masked one, or from a log",
        description="Learns Q_safe(s, a), the discounted probability of a future incident. The defaults take some "
        "ten minutes on two cores; what was interrupted goes on with the same command, from BUNDLE.checkpoint. "
        "The bundle carries the command, seed, versions, data and held-out figures. With --data or --bag nothing is "
        "driven: what is learned is the risk of whoever drove, judged on episodes that are held out; --out is then the "
        "folder of the run.",
        epilog="example: ssql train critic --contract my_robot.yaml --bag bags/monday --out runs/critic",
    )
    add_robot(critic, default=DEFAULT)
    add_log(critic, required=False, data="learn from a data set of `ssql bag convert` or `ssql collect`")
    _add_held_out_share(critic)
    add_seed(critic, "of everything that is drawn")
    critic.add_argument(
        "--out", type=Path, required=True, metavar="BUNDLE", help="file to write (.safetensors); from a log a folder"
    )
    critic.add_argument(
        "--backup", action="store_true", help="of the task's backup, from adversaries (default: of its controller)"
    )
    critic.add_argument("--episodes", type=int, default=600, help="of the noisy controller (default: %(default)s)")
    critic.add_argument("--rounds", type=int, default=3, help="of masked rollouts (default: %(default)s)")
    critic.add_argument("--masked-episodes", type=int, default=250, help="per round (default: %(default)s)")
    critic.add_argument(
        "--updates",
        type=int,
        default=8000,
        help="gradient steps per round, or in all from a log (default: %(default)s)",
    )
    critic.add_argument(
        "--held-out", type=int, default=120, help="episodes in simulation for the figures (default: %(default)s)"
    )
    critic.add_argument("--gamma-safe", type=float, default=0.95, help="discount (default: %(default)s)")
    critic.add_argument(
        "--epsilon",
        type=float,
        help="threshold in the bundle (default: 0.02; from a log as low as the setting `alarms` lets it be: the share "
        "of steps that no incident followed at which the shield may step in, 0.15)",
    )
    critic.add_argument("--set", **_SET)
    critic.add_argument("--overwrite", action="store_true", help="replace BUNDLE if it is there")
    add_quiet(critic)
    add_json(critic)
    critic.set_defaults(run=_resumable(_critic), algorithm="critic")

    for name, learner in _LEARNERS.items():
        _add_learner(subjects, name, learner)


@dataclass(frozen=True)
class _Learner:
    """What the command line says of an algorithm.

    Attributes:
        text: in a line; more: further sentences of its description.
        log: whether it learns from a data set: "", "may" or "must".
        grid: worlds it knows, where it learns on grids.
        steps: default from a data set; every: between checkpoints.
    """

    text: str
    more: str = ""
    example: str | None = None
    log: str = ""
    grid: str = ""
    steps: int = 20_000
    every: int = 2000


_SET: dict[str, Any] = {
    "nargs": "*",
    "action": "extend",
    "default": [],
    "metavar": "NAME=VALUE",
    "help": "settings of the algorithm, e.g. hidden=[64,64]",
}
_FOLDER = (
    "The run lies in one folder: configuration, checkpoint, TensorBoard curves, and in the end figures and a bundle "
    "that the shield node loads. The same command resumes it from the last checkpoint."
)
_JUDGED = (
    "With --data or --bag nothing is driven to learn from: only the final policy, to judge it; with --contract not "
    "even that: it is judged on episodes of the log that are held out."
)
_LEARNERS = {
    "sqrl": _Learner("SQRL: a safety critic with the policy, then fine-tuning behind its mask"),
    "sac": _Learner("SAC: no safety critic"),
    "esac": _Learner("E-SAC: a low percentile of ten critics"),
    "wcpg": _Learner("WCPG: conditional value at risk of a distributional critic"),
    "ssql": _Learner(
        "SSQL: from the task's safe behaviour policy alone, without leaving its support",
        _JUDGED,
        "example: ssql train ssql --bag bags/monday --task minitaur_trots",
        log="may",
        grid="e.g. spider or minitaur_trots, gridworld or spider_grid",
    ),
    "cql": _Learner(
        "CQL: offline, from what the task's safe behaviour policy collects; critics pressed down beside it",
        _JUDGED,
        "example: ssql train cql --bag bags/monday bags/tuesday --task minitaur",
        log="may",
    ),
    "iql": _Learner(
        "IQL: offline, from what the task's safe behaviour policy collects; no other action is judged",
        _JUDGED,
        "example: ssql train iql --bag bags/monday bags/tuesday --task minitaur",
        log="may",
    ),
    "cpo": _Learner("CPO: on-policy, a trust region with incidents an episode as the constraint"),
    "dqn": _Learner(
        "DQN, on grid worlds alone: free to visit any cell, beside SSQL there", grid="gridworld or spider_grid"
    ),
    "rs": _Learner("RS: the risk as a priced cost in the reward; begins from SQRL's pre-training"),
    "safefql": _Learner(
        "SafeFQL: from a log alone; a policy of one forward pass, gated by reachability",
        "The bundle has policy and safety critic; `ssql certify` then certifies it.",
        "example: ssql collect --task boat --out data/boat; "
        "ssql train safefql --data data/boat --task boat --out runs/boat; ssql certify runs/boat/bundle.safetensors; "
        "or straight from what a robot has recorded: ssql train safefql --bag bags/monday --task minitaur",
        log="must",
    ),
    "iql_lagrangian": _Learner(
        "IQL with a Lagrangian: from a log alone; a step in the failure set has a price, found by dual ascent",
        "The price rises while the policy's estimated steps in the failure set an episode are above the setting "
        "cost_budget (1), and falls below it. The bundle has the policy, and no safety critic.",
        "example: ssql collect --task boat --out data/boat; "
        "ssql train iql_lagrangian --data data/boat --task boat --steps 16000 --set cost_budget=0.5",
        log="must",
    ),
    "behaviour": _Learner(
        "a behaviour policy from a data set, by maximum likelihood, with a stated support",
        "Fits a mixture density network to the actions of a data set or of bags. Its support is where log b(a|s) "
        "reaches a floor: the quantile (default 0.05) of the log density of held-out actions, so that the monitor "
        "finds about that share of the same controller's actions outside. It promises nothing of states. In the bundle "
        "the policy acts; `ssql train ssql --data DATASET --behaviour BUNDLE` then learns inside of its support.",
        "example: ssql collect --task spider --episodes 400 --out data/spider; "
        "ssql train behaviour --data data/spider --task spider --out runs/b; "
        "ssql train ssql --task spider --data data/spider --behaviour runs/b/bundle.safetensors --steps 10000",
        log="must",
        steps=5000,
        every=1000,
    ),
}


def _add_learner(subjects: Any, name: str, learner: _Learner) -> None:
    description = f"{learner.text}. {_FOLDER} {learner.more}"
    parser = subjects.add_parser(name, help=learner.text, description=description, epilog=learner.example)
    if learner.log:
        add_log(parser, required=learner.log == "must", data="a data set of `ssql bag convert` or `ssql collect`")
    if name == "ssql":
        parser.add_argument(
            "--behaviour", default="", metavar="BUNDLE", help="with a log: b of `ssql train behaviour`, not the task's"
        )
    of_it = learner.grid or ("e.g. boat or spider" if learner.log == "must" else "e.g. spider or minitaur_velocity")
    if learner.log:
        add_robot(parser, f"which world, {of_it}", grids=bool(learner.grid), required=True)
        _add_held_out_share(parser)
    else:
        add_task(parser, f"which world, {of_it}", grids=bool(learner.grid), required=True, env=True)
    updates = f"updates (default: {learner.steps})"
    if learner.log == "must":
        parser.set_defaults(phase="pretrain", source="")
        steps, every, folder, episodes = updates, str(learner.every), f"runs/TASK_{name}_SEED", 0
    else:
        parser.add_argument("--phase", choices=("pretrain", "finetune"), default="pretrain", help="(default: pretrain)")
        parser.add_argument("--from", dest="source", default="", metavar="BUNDLE", help="pre-trained bundle, or run")
        steps, every = "of collection (default: 500000)", "25000"
        steps += f"; from a log, or on a grid, {updates}" if learner.log or learner.grid else ""
        every += "; 2000 from a log" if learner.log else ""
        folder, episodes = "runs/TASK_PHASE_ALGORITHM_SEED", 100
    parser.add_argument("--steps", type=int, help=steps)
    add_seed(parser, "of everything that is drawn")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help=f"(default: {folder}; PHASE is log from a log)")
    parser.add_argument("--set", **_SET)
    parser.add_argument("--settings", action="store_true", help="say what --set can change, with its values here")
    parser.add_argument("--checkpoint-every", type=int, help=f"steps (default: {every})")
    parser.add_argument("--episodes", type=int, default=episodes, help="of the final policy (default: %(default)s)")
    parser.add_argument(
        "--threads", type=int, default=1, help="0: one per processor, seldom faster at these widths (default: 1)"
    )
    add_track(parser)
    add_quiet(parser)
    add_json(parser)
    parser.set_defaults(run=_resumable(_learn), algorithm=name)


def _add_held_out_share(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--held-out-share",
        type=float,
        metavar="SHARE",
        help="from a log: of its episodes, with and without an incident, that nothing learns from and that what is "
        f"learned is judged on (default: {HELD_OUT} with --contract, where no world is there to judge in, else 0)",
    )


def _resumable(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Return `run`, which says how to resume it where it is interrupted."""

    def told(options: argparse.Namespace) -> int:
        try:
            return run(options)
        except Interrupted as interrupted:
            said = (
                f"{interrupted.note}; go on" if interrupted.note else "go on from the last checkpoint, if there is one,"
            )
            interrupted.note = f"{said} with the same command: {command_line()}"
            raise

    return told


def _set_threads(threads: int) -> None:
    import torch

    if threads < 0:
        raise ValueError(f"--threads: expected at least 0, got {threads}")
    if threads:
        torch.set_num_threads(threads)


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


def _learn(options: argparse.Namespace) -> int:
    from ssql_ros.robots.tasks import find_task
    from ssql_ros.training.plan import Plan

    name = getattr(options, "contract", None) or options.task
    _set_threads(options.threads)
    learner, grid = _LEARNERS[options.algorithm], _on_grid(options)
    data = ""
    if grid and (getattr(options, "data", None) or getattr(options, "bag", None)):
        raise ValueError("--data and --bag: on a grid everything is learned in the world")
    if learner.log and not grid and (log := log_folder(options, find_task(name))) is not None:
        data = str(log)
    steps, every = (learner.steps, learner.every) if data else (20_000 if grid else 500_000, 25_000)
    bare = not grid and bool(find_task(name).contract_file)
    plan = Plan(
        algorithm=options.algorithm,
        task=name,
        steps=steps if options.steps is None else options.steps,
        seed=options.seed,
        phase=options.phase,
        source=str(options.source),
        data=data,
        behaviour=getattr(options, "behaviour", ""),
        settings=_settings(options.set),
        checkpoint_every=every if options.checkpoint_every is None else options.checkpoint_every,
        evaluation=0 if bare else options.episodes,
        held_out=_held_out_share(options, bare) if data else 0.0,
    )
    if options.settings:
        return _show_settings(plan)
    kind = "" if grid or learner.log == "must" else f"{plan.phase}_"
    folder = options.out or Path("runs") / f"{_short(plan.task)}_{kind}{plan.algorithm}_{plan.seed}"
    return _run(plan, folder, options)


def _show_settings(plan: Any) -> int:
    from ssql_ros.training.described_settings import described

    here = plan.checked_settings()
    for setting in described(type(here)):
        value, default = (json.dumps(each) for each in (getattr(here, setting.name), setting.default))
        changed = "" if value == default else f" (the algorithm's own: {default})"
        print(f"{setting.name}={value}{changed}: {setting.expected}")
        print(textwrap.indent(textwrap.fill(setting.text, 96), "    "))
    return 0


def _short(task: str) -> str:
    """Return a task's name as a part of a folder's: of a contract's file, or of a world, without what leads to it."""
    from ssql_ros.robots.tasks import ENV, find_task

    return find_task(task).robot if task.startswith(ENV) else Path(task).stem


def _held_out_share(options: argparse.Namespace, bare: bool) -> float:
    if options.held_out_share is None:
        return HELD_OUT if bare else 0.0
    return float(options.held_out_share)


def _run(plan: Any, folder: Path, options: argparse.Namespace) -> int:
    from ssql_ros.training.run import run

    facts = {"command": command_line(), "versions": versions()}
    figures = run(plan, folder, facts, show=not options.quiet, trackers=getattr(options, "track", ()))
    report(figures, plan.seed, options.json, notes=(f"run is in {folder}",))
    return 0


def _on_grid(options: argparse.Namespace) -> bool:
    from ssql_sim.grid import GRIDS

    return options.task in GRIDS or options.algorithm == "dqn"


def _critic(options: argparse.Namespace) -> int:
    if options.data or options.bag:
        return _logged_critic(options)
    if options.contract or options.held_out_share is not None:
        raise ValueError("--contract and --held-out-share: are for learning from a log: give --data or --bag")
    # Learning loads torch and the world; the other commands must not wait for them.
    from ssql_ros.model.bundle import save_bundle
    from ssql_ros.robots.tasks import find_task
    from ssql_ros.training.critic_training import TrainingPlan, critic_settings, held_out_figures, train_critic

    if options.out.exists() and not options.overwrite:
        raise ValueError(f"{options.out} is there already; --overwrite replaces it")
    options.epsilon = 0.02 if options.epsilon is None else options.epsilon
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
        backup=options.backup,
        critic=critic_settings(options.backup, options.gamma_safe, _settings(options.set)),
    )
    provenance = {"command": command_line(), "versions": versions()}
    checkpoint = options.out.with_name(f"{options.out.name}.checkpoint")
    made = train_critic(find_task(options.task), plan, options.seed, provenance, not options.quiet, checkpoint)
    bundle = save_bundle(made, options.out)
    checkpoint.unlink(missing_ok=True)
    note = f"bundle {bundle.id} is in {bundle.path}"
    report(dict(held_out_figures(bundle.provenance)), options.seed, options.json, notes=(note,))
    return 0


def _logged_critic(options: argparse.Namespace) -> int:
    from ssql_ros.robots.tasks import find_task
    from ssql_ros.training.plan import Plan

    _set_threads(1)
    task = find_task(options.contract or options.task)
    settings = {"gamma_safe": options.gamma_safe, **_settings(options.set)}
    if options.epsilon is not None:
        settings["epsilon"] = options.epsilon
    data = str(log_folder(options, task, with_reward=False))
    share = HELD_OUT if options.held_out_share is None else options.held_out_share
    plan = Plan(
        "critic",
        task.name,
        options.updates,
        options.seed,
        data=data,
        settings=settings,
        checkpoint_every=1000,
        held_out=share,
    )
    return _run(plan, options.out, options)
