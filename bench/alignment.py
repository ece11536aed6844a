"""Benchmark of the alignment: what is observed live against what a bag of the same messages gives, at many rates."""

from __future__ import annotations

import heapq
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ssql_ros.bags import BagWriter, qos_profile
from ssql_ros.bags.conversion import convert
from ssql_ros.bags.definitions import Definitions
from ssql_ros.bags.roles import Role as TopicRole
from ssql_ros.bags.roles import reader_for
from ssql_ros.contract import Contract, ObservationAssembler
from ssql_ros.contract.fields import JOINT_STATE
from ssql_ros.contract.stamped import NANOSECONDS
from ssql_ros.data.rewards import reward_of
from ssql_ros.data.transitions import COMMAND
from ssql_ros.robots.tasks import find_task
from ssql_ros.shield.loop import SLACK

RATES = (50, 125, 250, 500, 1000)  # Hz, of every sensor
OFFSETS = (0.0, 0.001, -0.001, 0.004, 0.008)  # s, of the other inputs behind the trigger
SLOPE = 1e-3  # rad/s: joints move so slowly that a position tells when it was measured
TRANSPORT = 0.002  # s, how long a message is on its way at most
ANSWER = 0.003  # s, how long the controller takes
START = 1_700_000_000 * NANOSECONDS

Event = tuple[int, int, str, bytes]  # arrival in ns, number, topic, CDR


def bench_alignment(
    task: str = "minitaur", seconds: float = 60.0, lost: float = 0.01, seed: int = 0
) -> dict[str, float]:
    """Feed the same messages to the assembler of a shield, as they come, and to the conversion of a bag.

    Joint states, IMU and odometry at 50 to 1000 Hz, the latter two 0 to 8 ms apart from the first, each on its way for
    up to 2 ms, of each a share lost; a controller answers each observation once. A position tells when it was measured.

    Args:
        seconds: of each pair of rate and offset.
        lost: share of the messages of each topic.

    Returns:
        live_equals_bag: 1 where every row of every bag has, to the last bit, the observation that was there live as
        soon as the frame was ready (what the period's end forces before that is made of what had come, and left out);
        history_error_max_s: how far any measured entry of a history lay from its place, one control period apart;
        transitions_share: least share of the control periods that became transitions, over the pairs;
        compared_share: least share of the rows that were compared;
        ready_share: least share of the periods with an observation that was ready in time; history_whole_share: least
        share of the observations whose history was measured throughout; pairs.

    Raises:
        ValueError: the task's contract has no joint states, or a number is out of range.
    """
    contract = find_task(task).contract()
    if contract.inputs[contract.observed.trigger].type != JOINT_STATE:
        raise ValueError(f"--task: expected a robot whose joint states begin its frames, {task} has none")
    if not seconds > 0.0 or not 0.0 <= lost < 1.0:
        raise ValueError(f"expected seconds above 0 and a share of 0 to below 1 lost, got {seconds} and {lost}")
    pairs = list(itertools.product(RATES, OFFSETS))
    runs = [
        _run(contract, rate, offset, seconds, lost, np.random.default_rng([seed, i]))
        for i, (rate, offset) in enumerate(tqdm(pairs, desc="rates and offsets", leave=False, disable=None))
    ]
    return {
        "live_equals_bag": float(all(run["equal"] for run in runs)),
        "history_error_max_s": max(run["error"] for run in runs),
        "transitions_share": min(run["rows"] for run in runs),
        "compared_share": min(run["compared"] for run in runs),
        "ready_share": min(run["decided"] for run in runs),
        "history_whole_share": min(run["whole"] for run in runs),
        "pairs": float(len(runs)),
    }


def _run(
    contract: Contract, rate: int, offset: float, seconds: float, lost: float, rng: np.random.Generator
) -> dict[str, float]:
    live, messages = _live(contract, list(_sensors(contract, rate, offset, seconds, lost, rng)), lost, rng)
    with tempfile.TemporaryDirectory(prefix="ssql_bench_alignment_") as folder:
        _write(contract, Path(folder) / "bag", messages)
        rows: list[dict[str, Any]] = []
        convert([Path(folder) / "bag"], contract, reward_of(contract), rows.append)
    seen = [(row, live[row["stamp"]]) for row in rows if row["stamp"] in live]
    periods = seconds / contract.control_period
    wholes = [(stamp, vector) for stamp, (vector, missing) in live.items() if not missing]
    return {
        "equal": float(len(rows) > 0 and all(np.array_equal(row["observation"], v) for row, (v, _) in seen)),
        "compared": len(seen) / max(1, len(rows)),
        "error": max((_error(contract, stamp, vector) for stamp, vector in wholes), default=0.0),
        "rows": len(rows) / periods,
        "decided": len(live) / periods,
        "whole": len(wholes) / max(1, len(live)),
    }


def _error(contract: Contract, stamp: int, vector: np.ndarray) -> float:
    """Return how far the farthest past frame lies from its place, told by its joints' positions, in s."""
    place = next(i for i, f in enumerate(contract.observed.frame) if f.input == contract.observed.trigger)
    factor = contract.observed.frame[place].factor
    count, size = contract.past("past_frames"), contract.frame_size
    times = vector[place::size][: 1 + count] / factor / SLOPE
    return max((abs(times[0] - times[k] - k * contract.control_period) for k in range(1, 1 + count)), default=0.0)


def _sensors(
    contract: Contract, rate: int, offset: float, seconds: float, lost: float, rng: np.random.Generator
) -> Iterator[Event]:
    """Yield what the driver sends, in no order."""
    make, number = _maker(contract), itertools.count()
    reward = reward_of(contract)
    names = dict.fromkeys((*contract.observed_inputs, reward.input))
    for name in names:
        source = contract.inputs[name]
        shift = 0.0 if name == contract.observed.trigger else offset
        before = 0
        for i in range(round(seconds * rate)):
            stamp = START + round((i / rate + shift) * NANOSECONDS)
            # One topic keeps its order; several do not keep theirs.
            before = max(before + 1, stamp + round(rng.uniform(0.0, TRANSPORT) * NANOSECONDS))
            if rng.random() >= lost:
                yield before, next(number), source.topic, make(source.type, stamp, i / rate)


def _maker(contract: Contract) -> Callable[[str, int, float], bytes]:
    """Return what makes the CDR bytes of a message of a type, its stamp (ns), and the time (s) that it tells of."""
    store, types = Definitions().store, Definitions().store.types
    joints = list(dict.fromkeys(f.joint for f in contract.observed.frame if f.joint))

    def make(kind: str, stamp: int, time: float) -> bytes:
        at = types["builtin_interfaces/msg/Time"](sec=stamp // NANOSECONDS, nanosec=stamp % NANOSECONDS)
        header = types["std_msgs/msg/Header"](stamp=at, frame_id="base")
        vector, quaternion = types["geometry_msgs/msg/Vector3"], types["geometry_msgs/msg/Quaternion"]
        zero, level = vector(x=0.0, y=0.0, z=0.0), quaternion(x=0.0, y=0.0, z=0.0, w=1.0)
        if kind == JOINT_STATE:
            values = np.full(len(joints), SLOPE * time)
            message = types[kind](header=header, name=joints, position=values, velocity=values, effort=values)
        elif kind == "sensor_msgs/msg/Imu":
            nine = np.zeros(9)
            rate = vector(x=SLOPE * time, y=0.0, z=0.0)
            message = types[kind](header, level, nine, rate, nine, zero, nine)
        else:
            point = types["geometry_msgs/msg/Point"](x=SLOPE * time, y=0.0, z=0.0)
            pose = types["geometry_msgs/msg/PoseWithCovariance"](
                pose=types["geometry_msgs/msg/Pose"](position=point, orientation=level), covariance=np.zeros(36)
            )
            twist = types["geometry_msgs/msg/TwistWithCovariance"](
                twist=types["geometry_msgs/msg/Twist"](linear=zero, angular=zero), covariance=np.zeros(36)
            )
            message = types[kind](header=header, child_frame_id="base", pose=pose, twist=twist)
        return bytes(store.serialize_cdr(message, kind))

    return make


def _live(
    contract: Contract, sensors: list[Event], lost: float, rng: np.random.Generator
) -> tuple[dict[int, tuple[np.ndarray, int]], list[Event]]:
    """Play what is sent to an assembler, and a controller that answers.

    Returns:
        by stamp, the observation that was there when it was ready, and how much of its history stood in; and all
        messages in the order of arrival, the commands too.
    """
    assembler, told = ObservationAssembler(contract), {}
    command = TopicRole(COMMAND, JOINT_STATE)
    inputs = {
        contract.inputs[name].topic: (name, reader_for(TopicRole(name, contract.inputs[name].type), contract, None))
        for name in contract.observed_inputs
    }
    read_command, make_command = reader_for(command, contract, None), _commander(contract)
    heapq.heapify(sensors)
    arrived: list[Event] = []
    answered, due = -1, sensors[0][0] + NANOSECONDS
    patience = round(SLACK * contract.control_period * NANOSECONDS)

    def decide(now: int, number: int) -> None:
        nonlocal answered, due
        newest, due = assembler.stamp, now + patience
        if newest is None or newest <= answered:
            return
        answered = newest
        if assembler.ready:
            told[newest] = (assembler.vector(), assembler.missing())
        if rng.random() >= lost:
            answer = now + round(ANSWER * NANOSECONDS)
            action = rng.uniform(contract.commanded.low, contract.commanded.high)
            command = make_command(action, newest)
            # The shield knows what it sends; whoever records hears it later.
            assembler.executed(read_command(command)[1], newest)
            heapq.heappush(sensors, (answer, -number - 1, contract.commanded.topic, command))

    while sensors:
        if sensors[0][0] > due:
            decide(due, sensors[0][1])  # as a shield does where nothing new is ready in time
        event = heapq.heappop(sensors)
        arrival, number, topic, data = event
        arrived.append(event)
        if topic in inputs:
            name, read = inputs[topic]
            stamp, values = read(data)
            assembler.read(name, stamp, arrival / NANOSECONDS, values)
        if assembler.ready and (assembler.stamp or 0) > answered:
            decide(arrival, number)
    return told, arrived


def _commander(contract: Contract) -> Callable[[np.ndarray, int], bytes]:
    store, types, told = Definitions().store, Definitions().store.types, contract.commanded

    def make(action: np.ndarray, stamp: int) -> bytes:
        at = types["builtin_interfaces/msg/Time"](sec=stamp // NANOSECONDS, nanosec=stamp % NANOSECONDS)
        header = types["std_msgs/msg/Header"](stamp=at, frame_id="")
        fields = {name: np.empty(0) for name in ("position", "velocity", "effort")}
        fields[told.field] = contract.joint_command(action)
        message = types[JOINT_STATE](header=header, name=list(told.joint_names), **fields)
        return bytes(store.serialize_cdr(message, JOINT_STATE))

    return make


def _write(contract: Contract, path: Path, messages: list[Event]) -> None:
    kinds = {source.topic: source.type for source in contract.inputs.values()}
    kinds[contract.commanded.topic] = JOINT_STATE
    with BagWriter(path) as writer:
        for topic in dict.fromkeys(topic for _, _, topic, _ in messages):
            writer.add_topic(f"/{topic}", kinds[topic], [qos_profile()])
        for arrival, _, topic, data in messages:
            writer.write(f"/{topic}", arrival, data)
