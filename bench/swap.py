"""Benchmark of hot swap: models are exchanged while a robot is driven, and every command is held against both."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bench.processes import Processes
from bench.ros import record
from bench.round_trip import RoundTripError, Step
from bench.swap_driver import Record, SwapDriver
from bench.swap_judge import WINDOW, judged
from ssql_ros.contract import Contract, find_contract, load_contract
from ssql_ros.graph.processes import isolate
from ssql_ros.model.bundle import Bundle, Layer, Network, load_bundle, save_bundle
from ssql_ros.model.probes import with_probes
from ssql_ros.model.signing import write_keys
from ssql_ros.robots.tasks import find_task

ANNOUNCER = "swap_announcer"
PERIOD = 0.01  # s: 100 Hz
BLOCK = 10  # swaps in a row, and then as long without
PAUSE = 3  # steps from one swap's last answer to the next announcement
CANDIDATES = 32  # a round
WARM_UP = 100  # steps that do not count
PATIENCE = 300  # steps, how long an answer may take


def bench_swap(task: str = "minitaur", swaps: int = 200, seed: int = 0, priority: int = 0) -> dict[str, float]:
    """Exchange two bundles under a running shield and policy, at 100 Hz, and judge every command.

    Four processes on this machine: this one is the driver, `policy_node` proposes, `shield_node` decides, and one
    announces, as a learner would.
    Each bundle has a critic and a policy, all four of other weights. Blocks of 10 swaps take turns with stretches of
    as many steps without one. Every second announcement carries the file; the others name its path.

    Args:
        swaps: announcements that both nodes answer.
        seed: of the recorded rollout and of the weights.
        priority: SCHED_FIFO priority of both nodes and the driver, so that other programs on the machine do not count;
            0: normal.

    Returns:
        missed_periods: of the shield, as it counts them; missed_periods_rest: of those, in stretches without swaps;
        swaps: announcements that both nodes took;
        foreign_commands: commands whose account fits neither bundle (its score, threshold, decision or joints);
        foreign_proposals: answers that the policy that they name does not give to their observation; unclear_commands,
        unclear_proposals: the same, but within 24 steps after messages that were lost or late, so that it is not known
        for certain what the node had seen; told_apart: share of the commands
        that only one of the two bundles could have given; commands, held; unanswered: observations that no command
        answers; interval_*_ms: from command to command, during swaps (announcement to last answer) and for the rest;
        swap_p50_ms, swap_p99_ms: from announcement to the last answer.

    Raises:
        ValueError: no such task, or no swaps.
        GraphError: a node is not installed, or ended by itself.
    """
    chosen = find_task(task)
    if swaps < 1:
        raise ValueError(f"expected at least one swap, got {swaps}")
    with tempfile.TemporaryDirectory() as folder, Processes() as processes:
        contract = contract_at(chosen.robot, Path(folder), PERIOD)
        bundles = [
            save_bundle(bundle, Path(folder) / f"{i}.safetensors")
            for i, bundle in enumerate(_bundles(load_bundle(chosen.bundle_path(), chosen.contract()), contract, seed))
        ]
        key = Path(folder) / "key"
        write_keys(key)
        steps = record(chosen, seed)
        isolate()
        # Fewer candidates than by default: on a slow machine a hundred take half of this short period, and a bundle
        # that takes longer is refused.
        for node, settings in (("shield_node", {"candidates": CANDIDATES}), ("policy_node", {"best": True})):
            given = {"contract": contract.path, "bundle": bundles[0].path, "realtime_priority": priority, **settings}
            given["announcement_keys"] = [f"{key}.pub"]
            processes.start(node, None, None, **given)
        processes.program(ANNOUNCER, str(key))
        with SwapDriver(PERIOD, priority) as driver:
            driver.connect(2, processes.check)
            missed = _drive(driver, steps, bundles, contract.id, swaps, processes)
    return {**missed, **judged(driver.record, bundles, contract), **_times(driver.record)}


def contract_at(robot: str, folder: Path, period: float) -> Contract:
    """Return a robot's contract with another control period, s, from a file of its own.

    Readings of one frame have one stamp here. With less skew allowed, a frame is never made of two frames' readings
    where this process was late and sent them in quick succession, so that it is known what the nodes have seen.
    """
    path = find_contract(robot)
    told = load_contract(path)
    text = path.read_text()
    changes = {
        "control_period": (told.control_period, period),
        "command_timeout": (told.command_timeout, told.command_timeout * period / told.control_period),
        "max_skew": (told.observed.max_skew, 0.01 * period),
    }
    for key, (before, after) in changes.items():
        old, new = f"{key}: {before:g}", f"{key}: {after:.9f}"  # YAML has no 5e-05
        if text.count(old) != 1:
            raise ValueError(f"{path}: expected {old!r} once")
        text = text.replace(old, new)
    copy = folder / path.name
    copy.write_text(text)
    return load_contract(copy)


def _bundles(shipped: Bundle, contract: Contract, seed: int) -> Iterator[Bundle]:
    """Yield two bundles of different critics, thresholds and policies."""
    rng = np.random.default_rng(seed)
    n, m = contract.observation_size, contract.action_size
    for i in range(2):
        members = tuple(
            tuple(Layer((layer.weight * rng.normal(1.0, 0.1 * i, layer.weight.shape)), layer.bias) for layer in member)
            for member in shipped.need("critic").members
        )
        # Actions of a few tenths, so that some pass and some do not.
        layers = tuple(Layer(rng.normal(0.0, 0.06, s), np.full(s[1], -0.1)) for s in ((n, 64), (64, 2 * m)))
        policy = Network(np.zeros(n), np.ones(n), 5.0, (_single(layers),))
        critic = replace(shipped.probability_critic(), members=tuple(map(_single, members)), epsilon=0.05 * (2 - i))
        made = replace(shipped, contract_id=contract.id, critic=critic, policy=policy)
        yield with_probes(made, contract)


def _single(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Return layers in the precision that a bundle has."""
    return tuple(Layer(layer.weight.astype(np.float32), layer.bias.astype(np.float32)) for layer in layers)


def _drive(
    driver: SwapDriver, steps: list[Step], bundles: list[Bundle], contract_id: str, swaps: int, processes: Processes
) -> dict[str, float]:
    """Drive through all swaps; return the periods that the shield missed."""
    count = 0

    def walk(n: int) -> None:
        nonlocal count
        for _ in range(n):
            driver.step(steps[count % len(steps)])
            count += 1

    def missed() -> int:
        """Walk until the shield says anew how many periods it has missed."""
        heard = len(driver.states)
        for _ in range(PATIENCE):
            if len(driver.states) > heard:
                return driver.states[-1].missed_periods
            walk(1)
        raise RoundTripError("the shield's state: nothing came")

    walk(WARM_UP)
    before, at_rest = missed(), 0
    start = count
    driver.record = Record()
    walk(WINDOW)
    for i in tqdm(range(swaps), desc="swaps", leave=False, disable=None):
        begin, first = time.monotonic(), count
        driver.answers.clear()
        processes.tell(ANNOUNCER, "\t".join((contract_id, ("path", "data")[i % 2], bundles[(i + 1) % 2].path)))
        while len(answers := driver.answers) < 2:
            processes.check()
            if count - first > PATIENCE:
                raise RoundTripError(f"swap {i}: {2 - len(answers)} nodes gave no answer in {PATIENCE} steps")
            walk(1)
        driver.record.swaps.append((begin, time.monotonic(), list(answers)))
        walk(PAUSE)
        if i % BLOCK == BLOCK - 1 or i == swaps - 1:
            walked, last = count - start, missed()
            walk(walked)
            at_rest += missed() - last
            start = count
    return {"missed_periods": missed() - before, "missed_periods_rest": at_rest}


def _times(record: Record) -> dict[str, float]:
    """Return the intervals between commands in ms, during swaps and for the rest, and how long a swap takes."""
    times = [when for when, _ in record.commands]
    during: dict[str, list[float]] = {"swap": [], "rest": []}
    windows = iter(record.swaps)
    window = next(windows, None)
    for earlier, later in pairwise(times):
        while window is not None and window[1] < earlier:
            window = next(windows, None)
        swapping = window is not None and window[0] < later
        during["swap" if swapping else "rest"].append(1e3 * (later - earlier))
    figures = {
        f"interval_{name}_{kind}_ms": float(np.percentile(values, q)) if values else float("nan")
        for kind, values in during.items()
        for name, q in (("p50", 50), ("p99", 99), ("max", 100))
    }
    lengths = [1e3 * (end - begin) for begin, end, _ in record.swaps]
    return {**figures, **{f"swap_p{q}_ms": float(np.percentile(lengths, q)) for q in (50, 99)}}
