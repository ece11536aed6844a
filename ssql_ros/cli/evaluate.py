"""`ssql eval`: what a shield or a policy does in its world, with intervals."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssql_ros.cli.figures import add_json, report
from ssql_ros.cli.import_policy import policy_bundle
from ssql_ros.cli.options import add_quiet, add_seed, add_task
from ssql_ros.robots import DEFAULT

if TYPE_CHECKING:
    import numpy as np


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser("eval", help="judge in simulation", description="Judge in simulation, with intervals.")
    parser.set_defaults(needs=("gymnasium",))
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    shield = subjects.add_parser(
        "shield",
        help="an untrusted controller with the shield watching, and with it enforcing, same seeds",
        description="Runs the task's untrusted controller twice over the same seeds: the shield first only monitors, "
        "then enforces. Intervals are 95 %: Wilson for falls, bootstrap over episodes for means.",
    )
    add_task(shield, default=DEFAULT, env=True)
    shield.add_argument("--bundle", type=Path, help="safety critic (default: the task's in config/bundles)")
    shield.add_argument("--episodes", type=int, default=60, help="of each mode (default: %(default)s)")
    shield.add_argument("--epsilon", type=float, help="threshold on q_safe (default: the bundle's)")
    shield.add_argument(
        "--nearest", action="store_true", help="the most probable safe candidate (default: the first that is drawn)"
    )
    shield.add_argument("--sigma", type=float, help="noise of the controller (default: the task's)")
    shield.add_argument("--rho", type=float, help="its correlation from step to step (default: the task's)")
    add_seed(shield, "of the first episode")
    add_quiet(shield)
    add_json(shield)
    shield.set_defaults(run=_shield)

    matrix = subjects.add_parser(
        "matrix",
        help="many controllers in many worlds, without the shield and with it",
        description="Every cell is one controller in one world, over the same seeds without the shield and with it. "
        "Waves, draws held for 10 steps, noise of 1 and the constants are families that no critic learns from.",
    )
    add_task(matrix, default=DEFAULT, env=True)
    matrix.add_argument("--bundle", type=Path, help="safety critic (default: the task's for controllers nobody knows)")
    matrix.add_argument("--episodes", type=int, default=20, help="of each cell and way (default: %(default)s)")
    matrix.add_argument("--epsilon", type=float, help="threshold on q_safe (default: the bundle's)")
    matrix.add_argument("--out", type=Path, metavar="CSV", help="write every cell there")
    add_seed(matrix, "of the first episode")
    add_quiet(matrix)
    add_json(matrix)
    matrix.set_defaults(run=_matrix)

    policy = subjects.add_parser(
        "policy",
        help="a bundle's policy, behind its own shield where it has one",
        description="Runs the policy of a bundle. Intervals are 95 %: Wilson for incidents, bootstrap over episodes "
        "for the return. Velocities are m/s. A robot whose ground truth is known begins at states from which it can "
        "stay safe, uniformly drawn, or at those of a file.",
    )
    add_task(policy, required=True, env=True)
    policy.add_argument(
        "--bundle",
        required=True,
        metavar="POLICY",
        help="a .safetensors file with a policy, or sb3:ZIP, of stable-baselines3",
    )
    policy.add_argument("--phase", choices=("pretrain", "finetune"), default="finetune", help="(default: %(default)s)")
    policy.add_argument("--goal", type=float, help="goal velocity in m/s, of robots that walk (default: the task's)")
    policy.add_argument("--episodes", type=int, help="(default: 100, or one for each of --initial-states)")
    policy.add_argument(
        "--initial-states",
        type=Path,
        metavar="CSV",
        help="begin at these: columns as in the contract's frame",
    )
    policy.add_argument("--epsilon", type=float, help="threshold on q_safe (default: the bundle's)")
    policy.add_argument("--unshielded", action="store_true", help="without the safety critic")
    policy.add_argument("--drawn", action="store_true", help="draw actions (default: the most probable ones)")
    add_seed(policy, "of the first episode")
    add_quiet(policy)
    add_json(policy)
    policy.set_defaults(run=_policy)

    behaviour = subjects.add_parser(
        "behaviour",
        help="a task's safe behaviour policy; of a mixture of gaits each one alone, without noise and with it",
        description="Runs what SSQL learns from, and what it must beat. Rewards are those of the task.",
    )
    add_task(behaviour, required=True)
    behaviour.add_argument("--episodes", type=int, default=10, help="of each (default: %(default)s)")
    add_seed(behaviour, "of the first episode")
    add_quiet(behaviour)
    add_json(behaviour)
    behaviour.set_defaults(run=_behaviour)

    promise = subjects.add_parser(
        "promise",
        help="whether a behaviour policy keeps its promise: incidents and unsupported actions over many steps",
        description="Lets the task's behaviour policy act, watched by the monitor that watches training. Tasks: those "
        "with a behaviour policy (spider, minitaur_trots, ...) and the grid worlds gridworld and spider_grid.",
    )
    add_task(promise, grids=True, required=True, env=True)
    promise.add_argument(
        "--bundle", type=Path, help="of `ssql train behaviour`: a learned one instead of the task's own"
    )
    promise.add_argument("--steps", type=int, default=100_000, help="(default: %(default)s)")
    promise.add_argument("--dishonest", action="store_true", help="it breaks its promise, to see it caught")
    add_seed(promise, "of everything that is drawn")
    add_quiet(promise)
    add_json(promise)
    promise.set_defaults(run=_promise)


def _promise(options: argparse.Namespace) -> int:
    from ssql_ros.evaluation.promises import watch_grid, watch_task
    from ssql_ros.model.bundle import load_bundle
    from ssql_ros.model.policy import behaviour_of
    from ssql_ros.robots.tasks import find_task
    from ssql_sim.grid import GRIDS

    if options.task in GRIDS and options.bundle:
        raise ValueError(f"--bundle: there is no contract for {options.task}")
    if options.task in GRIDS:
        figures = watch_grid(GRIDS[options.task], options.steps, options.seed, options.dishonest)
    else:
        task, behaviour = find_task(options.task), None
        if options.bundle:
            behaviour = behaviour_of(load_bundle(options.bundle, task.contract()))
        figures = watch_task(task, options.steps, options.seed, options.dishonest, not options.quiet, behaviour)
    report(figures, options.seed, options.json)
    return 0


def _matrix(options: argparse.Namespace) -> int:
    from ssql_ros.evaluation.matrix import as_csv, evaluate_matrix, matrix_figures
    from ssql_ros.processes.files import write_atomically
    from ssql_ros.robots.tasks import find_task

    task, show = find_task(options.task), not options.quiet
    cells = evaluate_matrix(task, options.bundle, options.episodes, options.seed, show, options.epsilon)
    if options.out:
        write_atomically(options.out, as_csv(cells).encode())
    lines = [
        f"{cell.world:16} {cell.controller:32} {cell.falls_without:3} -> {cell.falls_with:3} of {cell.episodes}, "
        f"{100 * cell.changed:5.1f} % changed, return {cell.return_without:7.2f} -> {cell.return_with:7.2f}"
        for cell in cells
    ]
    report(matrix_figures(cells), options.seed, options.json, notes=lines)
    return 0


def _behaviour(options: argparse.Namespace) -> int:
    from ssql_ros.evaluation.bundle_evaluation import evaluate_behaviour
    from ssql_ros.robots.tasks import find_task

    figures = evaluate_behaviour(find_task(options.task), options.episodes, options.seed, show=not options.quiet)
    report(figures, options.seed, options.json)
    return 0


def _policy(options: argparse.Namespace) -> int:
    from ssql_ros.evaluation.bundle_evaluation import evaluate_policy, read_starts, starts_of
    from ssql_ros.model.critic import thresholds_of
    from ssql_ros.robots.tasks import find_task

    task = find_task(options.task)
    world = dict(task.world(options.phase))
    if options.goal is not None:
        if "goal_velocity" not in world:
            raise ValueError(f"--goal: task {task.name!r} has no goal velocity")
        world["goal_velocity"] = options.goal
    bundle = policy_bundle(options.bundle, task.name, task.contract())
    shielded = bundle.critic is not None and not options.unshielded
    starts: np.ndarray | None
    if options.initial_states is not None:
        task.plug.need("truth")
        starts = read_starts(options.initial_states, task.contract())
        episodes = len(starts) if options.episodes is None else options.episodes
        if episodes > len(starts):
            raise ValueError(f"--episodes {episodes}: {options.initial_states} has only {len(starts)} states")
    else:
        episodes = 100 if options.episodes is None else options.episodes
        starts = starts_of(task, episodes, options.seed) if episodes > 0 else None
    figures = evaluate_policy(
        task,
        bundle,
        world,
        episodes,
        options.seed,
        shielded,
        options.epsilon,
        options.drawn,
        show=not options.quiet,
        starts=starts,
    )
    note = "without a shield"
    if shielded:
        held = {name: value for name, value in thresholds_of(bundle, options.epsilon).items() if value is not None}
        figures |= held
        note = f"behind its shield, {', '.join(f'{name} {value:g}' for name, value in held.items())}"
    report(figures, options.seed, options.json, notes=(note,))
    return 0


def _shield(options: argparse.Namespace) -> int:
    from ssql_ros.evaluation.shield_comparison import evaluate_shield
    from ssql_ros.robots.tasks import find_task

    task = find_task(options.task)
    noise = {name: getattr(options, name) for name in ("sigma", "rho") if getattr(options, name) is not None}
    figures = evaluate_shield(
        task,
        options.bundle,
        options.episodes,
        options.seed,
        options.epsilon,
        noise,
        show=not options.quiet,
        nearest=options.nearest,
    )
    falls = (
        f"falls in {figures['episodes']:g} episodes: {figures['falls_monitor']:g} watched, "
        f"{figures['falls_enforce']:g} shielded"
    )
    report(figures, options.seed, options.json, notes=(falls,))
    return 0
