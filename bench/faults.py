"""How soon a shield answers a fault: from the first message that is wrong, or missing, to the safe action.

Faults of processes are in process_faults.py.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bench.clock_faults import ClockDriver, clock_figures
from bench.process_faults import Listener, ProcessFaults
from bench.processes import Processes
from bench.ros import record
from bench.round_trip import RoundTripError
from bench.soak_driver import SoakDriver
from bench.swap import contract_at
from ssql_ros.contract import Contract
from ssql_ros.graph.processes import isolate
from ssql_ros.model.bundle import load_bundle, save_bundle
from ssql_ros.model.probes import with_probes
from ssql_ros.robots.tasks import find_task
from ssql_ros.shield.decision import Decision

SHIELD = "shield_node"
CALM = 10  # periods in which all is well before a fault
PATIENCE = 5.0  # s
GAITS = "minitaur_trots.safetensors"  # what a learner acts by
KINDS = ("messages", "processes", "clock")


@dataclass(frozen=True)
class Expected:
    """What must follow of a fault.

    Attributes:
        who, how: what the driver does wrong.
        after: s, how long what was good before is still believed: the safe action is due one period after that.
    """

    who: str
    how: str
    after: float = 0.0


def expected_of(contract: Contract, proposal_age: float) -> list[Expected]:
    """Return the faults that end in the safe action. `proposal_age`: s, from which on a proposal is stale."""
    sensors = max(contract.inputs[name].max_age for name in contract.observed_inputs)
    return [
        Expected("sensors", "silent", sensors),
        Expected("sensors", "one only", sensors),
        *(Expected("sensors", how, sensors) for how in ("partial", "behind")),
        *(Expected("sensors", how) for how in ("nan", "unstamped", "ahead", "garbage")),
        *(Expected("controller", how, proposal_age) for how in ("silent", "late stamps")),
        *(Expected("controller", how) for how in ("nan", "other names", "garbage")),
    ]


def stopped_clock(contract: Contract) -> list[Expected]:
    """Return the faults of a clock that end in the safe action, as `expected_of` does."""
    sensors = max(contract.inputs[name].max_age for name in contract.observed_inputs)
    return [Expected("clock", "stopped", sensors), Expected("clock", "silent", sensors)]


def bench_faults(
    task: str = "minitaur", rate: float = 50.0, trials: int = 50, seed: int = 0, kind: str = "messages"
) -> dict[str, float]:
    """Break sensors and controller in every way, `trials` times each, and time the safe action and the recovery.

    Args:
        rate: Hz, of the control loop; the driver and the controller keep to it.
        kind: messages: of what sensors and controller send; processes: of those that run; clock: of simulated time.

    Returns:
        messages, clock: for each fault, in ms: NAME_ms_p50 and NAME_ms_max, from when the first message that is wrong
        was sent, or one that is missing was due, beyond what the contract still believes, to the safe action;
        NAME_back_ms_p50, from the first message that is right again to a decision; period_ms; over_one_period: faults
        whose largest is above one period; unanswered: trials without a safe action. Of a clock that is set or slow,
        see `clock_figures`.
        processes: of controller and driver the same, the first message that is missing being due a period after the
        last; of the shield from the command time-out of the driver, counted from the last command, to the driver's
        word that it has stopped; back: from when a process is started or goes on to a decision;
        shield_frozen_burst_max: commands within a period, shield_frozen_oldest: age of a command's observation, after
        it has gone on; error, forgotten: from when a second shield publishes, and ends, to the ERROR of the first and
        its end, or from a full disk to the recorder's ERROR; gap: the longest between two commands in the second after
        what must not be felt, with that of a second in which nothing is done as `undisturbed`.

    Raises:
        ValueError: no such task, or nothing to measure. GraphError: a node is not installed.
    """
    if trials < 1 or not 0.0 < rate <= 1000.0:
        raise ValueError(f"expected at least one trial and a rate of at most 1000 Hz, got {trials} and {rate}")
    if kind not in KINDS:
        raise ValueError(f"--kind: expected one of {', '.join(KINDS)}; got {kind!r}")
    chosen = find_task(task)
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder) / "logs") as nodes:
        contract = contract_at(chosen.robot, Path(folder), 1.0 / rate)
        bundle = _at(contract, chosen.bundle_path(), chosen.contract(), Path(folder))
        isolate()
        if kind == "processes":
            with Listener(contract) as listener:
                gaits = _at(contract, chosen.bundle_path().with_name(GAITS), chosen.contract(), Path(folder))
                return ProcessFaults(nodes, listener, contract, bundle, gaits, Path(folder)).run(trials)
        own = {"contract": contract.path, "bundle": str(bundle), "use_sim_time": kind == "clock"}
        nodes.start(SHIELD, None, None, epsilon=0.99, candidates=32, **own)
        walk, rng = record(chosen, seed), np.random.default_rng(seed)
        if kind == "clock":
            with ClockDriver(contract, walk, rng) as clock:
                told = _measured(clock, contract, trials, nodes.check, stopped_clock(contract))
                return told | clock_figures(clock, trials, partial(_calm, clock, nodes.check))
        with SoakDriver(contract, walk, rng) as driver:
            return _measured(
                driver, contract, trials, nodes.check, expected_of(contract, 2.0 * contract.control_period)
            )


def _at(contract: Contract, path: Path, before: Contract, folder: Path) -> Path:
    """Return the path of a bundle as if it were made for a contract at another rate."""
    shipped = load_bundle(path, before)
    made = type(shipped)(**{**vars(shipped), "contract_id": contract.id, "id": "", "path": ""})
    return Path(save_bundle(with_probes(made, contract), folder / path.name).path)


def _measured(
    driver: SoakDriver, contract: Contract, trials: int, check: Callable[[], None], faults: list[Expected]
) -> dict[str, float]:
    period, figures = contract.control_period, dict[str, float]()
    unanswered = over = 0
    _until(driver, Decision.PASSED, check, 30.0)
    for fault in tqdm(faults, desc="faults", leave=False, disable=None):
        to_safe, back = [], []
        for _ in range(trials):
            _calm(driver, check)
            setattr(driver, fault.who, fault.how)
            begun = driver.due  # when the first message that is wrong is sent, or would have been
            held = _until(driver, Decision.HELD, check, since=begun)
            setattr(driver, fault.who, "")
            if not math.isfinite(held):
                unanswered += 1
                continue
            # Its account comes after the command, which is what the robot waits for.
            came = next((came for came in driver.changed if came > begun), held)
            to_safe.append(came - begun - fault.after)
            right = driver.due
            back.append(_until(driver, Decision.PASSED, check, since=right) - right)
        name = f"{fault.who}_{fault.how}".replace(" ", "_")
        if to_safe:
            times, after = 1e3 * np.array(to_safe), 1e3 * np.array(back)
            figures |= {
                f"{name}_ms_p50": float(np.median(times)),
                f"{name}_ms_max": float(times.max()),
                f"{name}_back_ms_p50": float(np.median(after)),
            }
            over += bool(times.max() > 1e3 * period)
    return {**figures, "period_ms": 1e3 * period, "over_one_period": over, "unanswered": unanswered}


def _calm(driver: SoakDriver, check: Callable[[], None]) -> None:
    for _ in range(CALM):
        driver.step()
    _until(driver, Decision.PASSED, check)


def _until(
    driver: SoakDriver, decision: Decision, check: Callable[[], None], patience: float = PATIENCE, since: float = 0.0
) -> float:
    """Go on until a decision is heard of; return when its account came, s; infinity: none came in time.

    Raises:
        RoundTripError: all is well, and the shield does not decide.
    """
    end = time.monotonic() + patience
    driver.heard.clear()
    while time.monotonic() < end:
        driver.step()
        for came, heard in driver.heard:
            if heard is decision and came > since:
                return came
        check()
    if decision is Decision.HELD:
        return math.inf
    raise RoundTripError(f"the shield: nothing passed for {patience:g} s")
