"""Benchmark of the conversion of bags: messages a second against a bare loop of `rosbags`, and memory."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ssql_ros.robots.tasks import find_task

STAMP = struct.Struct("<iI")  # s and ns, after the four bytes that CDR begins with


def bench_bag(task: str = "minitaur", megabytes: float = 100.0, seed: int = 0, rounds: int = 3) -> dict[str, float]:
    """Convert a bag made by repeating one simulated walk, in turns with a bare read-and-deserialise loop.

    Every turn is a process of its own, so that its memory is its own; the two take turns, the ratio is the median.

    Args:
        megabytes: size of the bag.
        rounds: turns of each of the two.

    Returns:
        ratio_to_rosbags: messages of the file a second, ours over theirs; messages; megabytes; peak_rss_mb of the
        conversion; rosbags_peak_rss_mb; rows.

    Raises:
        ValueError: a size or rounds that are not above 0.
    """
    if not megabytes > 0.0:
        raise ValueError(f"--megabytes: expected a number above 0, got {megabytes}")
    if rounds < 1:
        raise ValueError(f"--rounds: expected at least 1, got {rounds}")
    with tempfile.TemporaryDirectory(prefix="ssql_bench_bag_") as folder:
        bag = Path(folder) / "bag"
        messages = make_bag(bag, task, megabytes, seed)
        ratios, ours, theirs = [], {}, {}
        for i in range(rounds):
            theirs = _in_a_process("bare", bag, Path(folder) / f"none{i}", task)
            ours = _in_a_process("convert", bag, Path(folder) / f"set{i}", task)
            ratios.append(theirs["seconds"] / ours["seconds"])
        size = sum(file.stat().st_size for file in bag.iterdir()) / 1e6
    return {
        "ratio_to_rosbags": float(np.median(ratios)),
        "ratio_least": min(ratios),
        "peak_rss_mb": ours["peak_rss_mb"],
        "rosbags_peak_rss_mb": theirs["peak_rss_mb"],
        "messages": float(messages),
        "messages_per_s": messages / ours["seconds"],
        "rows": ours["rows"],
        "megabytes": size,
    }


def make_bag(path: Path, task: str, megabytes: float, seed: int) -> int:
    """Write a bag of at least `megabytes`: one walk, again and again, a second between; return its messages."""
    from rosbags.typesys.store import Typestore

    from ssql_ros.bags import BagWriter, qos_profile
    from ssql_ros.bags.definitions import Definitions

    chosen = find_task(task)
    contract = chosen.contract()
    definitions = Definitions()
    kinds = ("sensor_msgs/msg/JointState", "sensor_msgs/msg/Imu", "nav_msgs/msg/Odometry")
    for kind in kinds:
        definitions.add(kind)
    store: Typestore = definitions.store
    topics = {
        "/odom": kinds[2],
        "/imu/data": kinds[1],
        "/joint_states": kinds[0],
        "/joint_commands": kinds[0],
    }
    walk = [
        [
            (topic, bytearray(store.serialize_cdr(sensor_message(store, step, kind, topic, 0), kind)))
            for topic, kind in topics.items()
        ]
        for step in _walk(chosen, seed)
    ]
    count, size, start = 0, 0.0, 10**9
    period = round(contract.control_period * 1e9)
    with BagWriter(path) as writer:
        for topic, kind in topics.items():
            writer.add_topic(topic, kind, [qos_profile()])
        while size < megabytes * 1e6:
            for i, step in enumerate(walk):
                stamp = start + i * period
                for at, (topic, data) in enumerate(step):
                    STAMP.pack_into(data, 4, *divmod(stamp, 10**9))
                    writer.write(topic, stamp + at, bytes(data))
                    size += len(data)
                    count += 1
            start += len(walk) * period + 10**9
    return count


def _walk(task: object, seed: int) -> list[tuple]:
    """Return sensors and joint command of each step of one walk."""
    from ssql_ros.robots.noise import Noise, blind_actions

    env = task.make()  # type: ignore[attr-defined]
    contract = task.contract()  # type: ignore[attr-defined]
    trot = blind_actions(task.controller(Noise("A", sigma=0.05)), seed)  # type: ignore[attr-defined]
    env.reset(seed=seed)
    steps = []
    for _ in range(500):
        action = next(trot)
        steps.append((env.sensors(), contract.joint_command(action), contract.commanded.joint_names))
        env.step(action)
    env.close()
    return steps


def sensor_message(store: object, step: tuple, kind: str, topic: str, stamp: int) -> object:
    """Return what a driver publishes on a topic, of (reading, joint command, joint names)."""
    reading, command, names = step
    types = store.types  # type: ignore[attr-defined]
    header = types["std_msgs/msg/Header"](
        stamp=types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9), frame_id="base_link"
    )
    vector, turn = types["geometry_msgs/msg/Vector3"], types["geometry_msgs/msg/Quaternion"]
    if topic == "/joint_commands":
        return types[kind](
            header=header, name=list(names), position=np.array(command), velocity=np.array([]), effort=np.array([])
        )
    if topic == "/joint_states":
        parts = (reading.joint_position, reading.joint_velocity, reading.joint_effort)
        position, velocity, effort = (np.array(part, float) for part in parts)
        return types[kind](
            header=header, name=list(reading.joint_names), position=position, velocity=velocity, effort=effort
        )
    if topic == "/imu/data":
        return types[kind](
            header=header,
            orientation=turn(*map(float, reading.orientation)),
            orientation_covariance=np.zeros(9),
            angular_velocity=vector(*map(float, reading.angular_velocity)),
            angular_velocity_covariance=np.zeros(9),
            linear_acceleration=vector(*map(float, reading.linear_acceleration)),
            linear_acceleration_covariance=np.zeros(9),
        )
    pose = types["geometry_msgs/msg/Pose"](
        position=types["geometry_msgs/msg/Point"](*map(float, reading.base_position)),
        orientation=turn(*map(float, reading.base_orientation)),
    )
    twist = types["geometry_msgs/msg/Twist"](
        linear=vector(*map(float, reading.base_velocity_body)), angular=vector(*map(float, reading.angular_velocity))
    )
    return types[kind](
        header=header,
        child_frame_id="base_link",
        pose=types["geometry_msgs/msg/PoseWithCovariance"](pose=pose, covariance=np.zeros(36)),
        twist=types["geometry_msgs/msg/TwistWithCovariance"](twist=twist, covariance=np.zeros(36)),
    )


def _in_a_process(what: str, bag: Path, out: Path, task: str) -> dict[str, float]:
    """Run one turn; return its figures."""
    command = [sys.executable, __file__, what, str(bag), str(out), task]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{' '.join(command)}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def _bare(bag: Path) -> int:
    """Read and deserialise every message, as the library's own example does."""
    from rosbags.highlevel import AnyReader

    count = 0
    with AnyReader([bag]) as reader:
        for connection, _, data in reader.messages():
            reader.deserialize(data, connection.msgtype)
            count += 1
    return count


def _converted(bag: Path, out: Path, task: str) -> int:
    from ssql_ros.bags.conversion import convert
    from ssql_ros.data.data_set import DataSetWriter, transition_columns
    from ssql_ros.data.rewards import reward_of

    contract = find_task(task).contract()
    with DataSetWriter(out, transition_columns(contract.observation_size, contract.action_size)) as writer:
        counts = convert([bag], contract, reward_of(contract, 0.3), writer.add).counts
        writer.finish({"counts": dict(counts)})
    return counts["rows"]


def main() -> None:
    """Run one turn in this process, and print its figures."""
    what, bag, out, task = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    begin = time.perf_counter()
    rows = _bare(bag) if what == "bare" else _converted(bag, out, task)
    seconds = time.perf_counter() - begin
    # What getrusage tells begins with the memory of who started this process.
    told = Path("/proc/self/status").read_text()
    peak = int(next(line.split()[1] for line in told.splitlines() if line.startswith("VmHWM"))) / 1024.0
    print(json.dumps({"seconds": seconds, "rows": rows, "peak_rss_mb": peak}))


if __name__ == "__main__":
    main()
