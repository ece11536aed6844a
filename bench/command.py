"""`ssql bench`: speed, as ratios against a peer or a limit measured in the same run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from ssql_ros.cli.figures import add_json, report
from ssql_ros.cli.options import add_task


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "bench",
        help="measure speed against a peer or a limit in the same run",
        description="Machines are noisy: every figure that counts is a ratio of two things timed in turn.",
    )
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")

    sim = subjects.add_parser("sim", help="simulation steps against the bare physics; replay; reset")
    add_task(sim, default="minitaur")
    sim.add_argument("--seconds", type=float, default=20.0, help="how long to measure (default: %(default)s)")
    sim.set_defaults(run=_figures_of("task", "seconds", "seed"))

    shield = subjects.add_parser("shield", help="one decision against torch eager; the node's start-up and memory")
    add_task(shield, "whose bundle", default="minitaur")
    shield.add_argument("--repeats", type=int, default=2000, help="decisions timed per size (default: %(default)s)")
    shield.set_defaults(run=_figures_of("task", "repeats", "seed"))

    ros = subjects.add_parser("ros", help="observation in to action out across processes, against a bare relay")
    add_task(ros, "whose contract", default="minitaur")
    ros.add_argument("--messages", type=int, default=3000, help="round trips of each (default: %(default)s)")
    ros.add_argument("--rate", type=float, default=100.0, help="Hz, observations sent (default: %(default)s)")
    ros.set_defaults(run=_figures_of("task", "messages", "rate", "seed"))

    swap = subjects.add_parser("swap", help="models exchanged at 100 Hz: missed periods, and commands of neither model")
    add_task(swap, "whose bundle", default="minitaur")
    swap.add_argument("--swaps", type=int, default=200, help="(default: %(default)s)")
    swap.add_argument("--priority", type=int, default=0, help="SCHED_FIFO, of nodes and driver (default: none)")
    swap.set_defaults(run=_figures_of("task", "swaps", "seed", "priority"))

    faults = subjects.add_parser("faults", help="from a fault to the safe action, and back")
    add_task(faults, "whose bundle", default="minitaur")
    faults.add_argument("--rate", type=float, default=50.0, help="Hz, of the control loop (default: %(default)s)")
    faults.add_argument("--trials", type=int, default=50, help="of each fault (default: %(default)s)")
    faults.add_argument(
        "--kind",
        default="messages",
        help="messages: of sensors and controller; processes: killed, frozen, doubled; clock: of simulated time "
        "(default: %(default)s)",
    )
    faults.set_defaults(run=_figures_of("task", "rate", "trials", "seed", "kind"))

    soak = subjects.add_parser(
        "soak", help="the graph under random faults: commands, memory, bags, decisions taken again"
    )
    add_task(soak, "whose bundle", default="minitaur")
    soak.add_argument("--minutes", type=float, default=20.0, help="(default: %(default)s)")
    soak.add_argument("--out", type=Path, help="keep bags, bundles and logs in this folder")
    soak.set_defaults(run=_figures_of("task", "minutes", "seed", "out"))

    bag = subjects.add_parser("bag", help="conversion of a bag against a bare loop of `rosbags`; its memory")
    add_task(bag, "whose contract", default="minitaur")
    bag.add_argument("--megabytes", type=float, default=100.0, help="size of the bag (default: %(default)s)")
    bag.add_argument("--rounds", type=int, default=3, help="turns of each of the two (default: %(default)s)")
    bag.set_defaults(run=_figures_of("task", "megabytes", "seed", "rounds"))

    alignment = subjects.add_parser(
        "alignment", help="observations live against those of a bag of the same messages, 50 to 1000 Hz, 1 %% lost"
    )
    add_task(alignment, "whose contract", default="minitaur")
    alignment.add_argument("--seconds", type=float, default=60.0, help="of each rate and offset (default: %(default)s)")
    alignment.add_argument("--lost", type=float, default=0.01, help="share of messages (default: %(default)s)")
    alignment.set_defaults(run=_figures_of("task", "seconds", "lost", "seed"))

    train = subjects.add_parser("train", help="SAC updates against stable-baselines3 and SBX (`make peers` first)")
    train.add_argument("--rounds", type=int, default=30, help="turns of 64 updates each (default: %(default)s)")
    train.add_argument("--threads", type=int, default=0, help="of each side; 0: all that there are")
    train.set_defaults(run=_figures_of("rounds", "threads", "seed"))

    offline = subjects.add_parser("offline", help="updates of SafeFQL against FQL in JAX (`make peers` first)")
    offline.add_argument(
        "--size",
        default="published",
        choices=("published", "boat"),
        help="critics 2x256 and actors 4x512, or the boat's 2x128 and 3x128 (default: %(default)s)",
    )
    offline.add_argument("--actor-batch", type=int, default=256, help="the critics' is 256 (default: %(default)s)")
    offline.add_argument(
        "--fql", type=Path, metavar="CLONE", help="of github.com/seohongpark/fql: the authors' own too"
    )
    offline.add_argument("--rounds", type=int, default=10, help="turns of each (default: %(default)s)")
    offline.add_argument("--updates", type=int, default=16, help="of one turn (default: %(default)s)")
    offline.add_argument("--threads", type=int, default=0, help="of each side; 0: all that there are")
    offline.set_defaults(run=_figures_of("size", "rounds", "updates", "threads", "seed", "actor_batch", "fql"))

    policy = subjects.add_parser("policy", help="one pass of a flow policy against ten, and against a diffusion's")
    add_task(policy, "whose bundle", default="boat")
    policy.add_argument("--bundle", type=Path, help="with a policy one_step_flow (default: the task's)")
    policy.add_argument("--repeats", type=int, default=2000, help="decisions timed of each (default: %(default)s)")
    policy.set_defaults(run=_policy)

    fuzz = subjects.add_parser(
        "fuzz",
        help="wrong inputs of everything that is read from outside: crashes, slowest, memory",
        description="Valid contracts, messages, bundles, announcements, bags, keys, checkpoints and requests, with a "
        "few changes that know their structure. Each must be refused with an error that says what is wrong, or be "
        "accepted. "
        "Exit status 1: something else happened, or took more than 1 s or 200 MB.",
    )
    fuzz.add_argument("--targets", nargs="+", metavar="TARGET", help="which of them (default: all)")
    fuzz.add_argument("--inputs", type=int, default=1000, help="of each target (default: %(default)s)")
    fuzz.add_argument("--first", type=int, default=0, metavar="INDEX", help="to try one input again, with --inputs 1")
    fuzz.add_argument("--quiet", action="store_true", help="no progress bars")
    fuzz.set_defaults(run=_fuzz)

    for subject in (sim, shield, ros, swap, faults, soak, bag, alignment, train, offline, policy, fuzz):
        subject.add_argument("--seed", type=int, default=0, help="seed of the inputs (default: %(default)s)")
        add_json(subject)


def _figures_of(*names: str) -> Callable[[argparse.Namespace], int]:
    """Return what runs the benchmark of a subject, bench.SUBJECT.bench_SUBJECT, with these options as arguments."""

    def run(options: argparse.Namespace) -> int:
        bench = getattr(import_module(f"bench.{options.subject}"), f"bench_{options.subject}")
        report(bench(*(getattr(options, name) for name in names)), options.seed, options.json)
        return 0

    return run


def _fuzz(options: argparse.Namespace) -> int:
    from bench.fuzz import bench_fuzz

    figures, faults = bench_fuzz(options.targets, options.inputs, options.first, options.seed, options.quiet)
    report(figures, options.seed, options.json, notes=faults)
    return int(bool(faults))


def _policy(options: argparse.Namespace) -> int:
    from bench.policy import bench_policy
    from ssql_ros.model.bundle import load_bundle
    from ssql_ros.robots.tasks import find_task

    task = find_task(options.task)
    bundle = load_bundle(options.bundle or task.bundle_path(), task.contract())
    report(bench_policy(bundle, options.repeats, options.seed), options.seed, options.json)
    return 0
