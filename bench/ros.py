"""Benchmark of the shield in the graph: observation in to action out across processes, against a bare relay."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from bench.processes import Processes
from bench.round_trip import Answer, RoundTrips, Step, step_messages
from ssql_ros.graph.processes import isolate
from ssql_ros.robots.noise import Noise, blind_actions
from ssql_ros.robots.tasks import Task, find_task

SHIELD, RELAY = "shielded", "relayed"
NOISE = Noise("A", sigma=0.05)
FAST = 500.0  # Hz, of a fast driver's sensors
BLOCK = 250  # round trips of each in one block ratio
WARM_UP = 100  # round trips of each that do not count
TIMEOUT = 0.1  # s, an answer that takes longer is lost


def bench_ros(task: str = "minitaur", messages: int = 3000, rate: float = 100.0, seed: int = 0) -> dict[str, float]:
    """Measure how long a robot waits for its command with the shield in between, next to a relay that does nothing.

    Three processes on this machine: this one is driver and controller, `shield_node` runs in one namespace and
    `relay_node` in another. This one publishes IMU, joint states and a stamped command, of a recorded noisy trot, and
    waits for the command that comes back with the same stamp, or with sensors at 500 Hz beside, with that of a frame
    since the step before. Shield and relay take turns, message by message, so that
    neither loads the other and whatever else the machine does hits both; at the default rate each is fed at the
    Minitaur's own 50 Hz. Processes sleep between messages, as they do in service.

    Args:
        messages: round trips of each.
        rate: Hz, of both together.
        seed: of the recorded rollout.

    Returns:
        shield_p50_us, shield_p99_us, relay_p50_us, relay_p99_us: from just before the observation's first message is
        published to the command's arrival, medians over blocks of 250 round trips of each; ratio_p50, ratio_p99:
        shield over relay, medians over the blocks' ratios; lost: answers that did not come within 0.1 s, of both;
        not_passed: share of the commands that the shield changed; the same of a third as many with sensors at 500 Hz
        beside, as ratio_p50_500hz, ratio_p99_500hz, lost_500hz, not_passed_500hz.

    Raises:
        ValueError: no such task, or no messages or rate.
        GraphError: a node is not installed, or ended by itself.
    """
    chosen = find_task(task)
    if messages < 1 or not 0.0 < rate < float("inf"):
        raise ValueError(f"expected at least one message at a rate above 0, got {messages} at {rate}")
    recording = record(chosen, seed)
    isolate()
    with Processes() as processes:
        processes.start("shield_node", None, {"__ns": f"/{SHIELD}"}, contract=chosen.robot)
        processes.program("relay_node", "--ros-args", "-r", f"__ns:=/{RELAY}")
        with RoundTrips((SHIELD, RELAY)) as trips:
            trips.connect(processes.check)
            _run(trips, recording, min(messages, WARM_UP), rate)
            gc.collect()
            gc.freeze()
            answers = _run(trips, recording, messages, rate)
            # The same with the sensors of a driver at 500 Hz: nine readings more between two that are answered.
            fast = _run(trips, recording, max(1, messages // 3), rate, FAST)
            gc.unfreeze()
        processes.check()
    figures = _figures(answers)
    of_fast = _figures(fast)
    return figures | {f"{name}_500hz": of_fast[name] for name in ("ratio_p50", "ratio_p99", "lost", "not_passed")}


def record(task: Task, seed: int) -> list[Step]:
    """Return one episode of the trot, with noise that a critic lets pass, as messages."""
    contract, env, trot = task.contract(), task.make(), blind_actions(task.controller(NOISE), seed)
    env.reset(seed=seed)
    steps, ended = [], False
    while not ended:
        sensors, action = env.sensors(), next(trot)
        joint_command = contract.joint_command(action)
        steps.append(step_messages(sensors, contract.commanded.joint_names, joint_command))
        _, _, terminated, truncated, _ = env.step(action)
        ended = terminated or truncated
    env.close()
    return steps


def _run(
    trips: RoundTrips, recording: list[Step], messages: int, rate: float, sensors: float = 0.0
) -> dict[str, list[Answer | None]]:
    """Return the answers of both graphs to `messages` steps of the recording, sent in turn.

    `sensors`: Hz of the sensors between the steps that are answered; 0: there are none.
    """
    answers: dict[str, list[Answer | None]] = {SHIELD: [], RELAY: []}
    due = time.monotonic()
    for i in tqdm(range(messages), desc="round trips", leave=False, disable=None):
        step = recording[i % len(recording)]
        if step is recording[0]:
            due = max(due, time.monotonic()) + EPISODE_GAP
        for name, heard in answers.items():
            while sensors and time.monotonic() + 1.5 / sensors < due:
                trips.rest(time.monotonic() + 1.0 / sensors)
                trips.sense(step)
            trips.rest(due)
            since = time.time_ns() - round(2e9 / rate) if sensors else 0
            heard.append(trips.send(name, step, TIMEOUT, since))
            due = max(due + 1.0 / rate, time.monotonic())
    return answers


# s, a pause in which the shield sees that a new episode begins: the contract's episode gap is 0.1 s.
EPISODE_GAP = 0.2


def _figures(answers: dict[str, list[Answer | None]]) -> dict[str, float]:
    shield, relay = answers[SHIELD], answers[RELAY]
    figures: dict[str, float] = {}
    blocks = [slice(i, i + BLOCK) for i in range(0, max(1, len(shield) - BLOCK // 2), BLOCK)]
    for percentile in (50, 99):
        pairs = [(_percentile(shield[b], percentile), _percentile(relay[b], percentile)) for b in blocks]
        figures[f"shield_p{percentile}_us"] = statistics.median(pair[0] for pair in pairs)
        figures[f"relay_p{percentile}_us"] = statistics.median(pair[1] for pair in pairs)
        figures[f"ratio_p{percentile}"] = statistics.median(pair[0] / pair[1] for pair in pairs)
    came = [answer for answer in shield if answer is not None]
    figures["lost"] = float(sum(answer is None for answer in (*shield, *relay)))
    figures["not_passed"] = sum(not answer.unchanged for answer in came) / len(came) if came else 1.0
    return figures


def _percentile(answers: Sequence[Answer | None], percentile: float) -> float:
    """Return a percentile in microseconds; a lost answer took for ever."""
    seconds = [float("inf") if answer is None else answer.seconds for answer in answers]
    return 1e6 * float(np.percentile(seconds, percentile, method="lower"))
