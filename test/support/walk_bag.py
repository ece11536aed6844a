"""A standing Minitaur of 100 frames as messages, and MCAP files of them by the `mcap` library's own writer."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from mcap.writer import CompressionType, Writer

from bench.bag import sensor_message
from ssql_ros.bags.conversion import Conversion, convert
from ssql_ros.bags.definitions import Definitions
from ssql_ros.data.rewards import reward_of
from ssql_ros.robots.tasks import find_task
from support.bags import make_store

TASK = find_task("minitaur")
MINITAUR = TASK.contract()
PERIOD, START = 20_000_000, 1_700_000_000_000_000_000
KINDS = {
    "/joint_states": "sensor_msgs/msg/JointState",
    "/imu/data": "sensor_msgs/msg/Imu",
    "/odom": "nav_msgs/msg/Odometry",
    "/joint_commands": "sensor_msgs/msg/JointState",
}
QOS = "- history: 3\n  depth: 10\n  reliability: 2\n  durability: 2\n"


@dataclass(frozen=True)
class Sample:
    topic: str
    kind: str
    time: int
    data: bytes = field(repr=False)
    sequence: int = 0
    encoding: str = "cdr"


def walk_messages(frames: int = 100) -> list[Sample]:
    store, env = make_store(), TASK.make()
    env.reset(seed=0)
    reading, found = env.sensors(), []
    env.close()
    for i in range(frames):
        action = np.concatenate([np.full(4, 0.01 * (i % 20)), np.zeros(4)])
        step = (reading, MINITAUR.joint_command(action), MINITAUR.commanded.joint_names)
        for place, (topic, kind) in enumerate(KINDS.items()):
            stamp = START + i * PERIOD
            data = bytes(store.serialize_cdr(sensor_message(store, step, kind, topic, stamp), kind))
            found.append(Sample(topic, kind, stamp + 1000 * (place + 1), data, i))
    return found


def write_mcap(path: Path, messages: list[Sample], **options) -> Path:
    """Write messages in this order; options are those of mcap.writer.Writer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    definitions = Definitions()
    options = {"compression": CompressionType.NONE, "chunk_size": 20_000, **options}
    with path.open("wb") as file:
        writer = Writer(file, **options)
        writer.start(profile="ros2")
        schemas: dict[str, int] = {}
        channels: dict[tuple[str, str], int] = {}
        for message in messages:
            if message.kind not in schemas:
                text = definitions.definition(message.kind).text if message.encoding == "cdr" else "{}"
                encoding = "ros2msg" if message.encoding == "cdr" else "jsonschema"
                schemas[message.kind] = writer.register_schema(message.kind, encoding, text.encode())
            key = (message.topic, message.kind)
            if key not in channels:
                metadata = {"offered_qos_profiles": QOS}
                channels[key] = writer.register_channel(
                    message.topic, message.encoding, schemas[message.kind], metadata
                )
            writer.add_message(channels[key], message.time, message.data, max(message.time - 500, 0), message.sequence)
        writer.finish()
    return path


def transitions(bag: Path) -> tuple[list[dict], Conversion]:
    rows: list[dict] = []
    return rows, convert([bag], MINITAUR, reward_of(MINITAUR), rows.append)


def with_time(message: Sample, time: int) -> Sample:
    return replace(message, time=time)
