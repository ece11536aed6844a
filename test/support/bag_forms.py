"""The same walk in every form that rosbag2 gives a bag, written by the `rosbags` library, and its transitions."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from ssql_ros.bags import open_bag, qos_profile, raw_messages
from ssql_ros.bags.conversion import Conversion, convert
from ssql_ros.data.rewards import reward_of
from ssql_ros.robots.tasks import find_task
from support.bags import make_store

MINITAUR = find_task("minitaur").contract()
REWARD = reward_of(MINITAUR)
MYSTERY = "other_msgs/msg/Mystery"  # a type that nobody knows
NANOSECONDS = 1_000_000_000

NONE, FILE, MESSAGE, CHUNK = (getattr(CompressionMode, name) for name in ("NONE", "FILE", "MESSAGE", "STORAGE"))
SQLITE, MCAP = StoragePlugin.SQLITE3, StoragePlugin.MCAP


@dataclass(frozen=True)
class Form:
    """How a bag lies on the disk."""

    storage: StoragePlugin
    compression: CompressionMode = NONE
    files: int = 1
    version: int = 9

    def __str__(self) -> str:
        return f"{self.storage.name}-{self.compression.name}-{self.files}-v{self.version}".lower()


FORMS = [
    Form(SQLITE),
    Form(SQLITE, version=8),
    Form(SQLITE, FILE),
    Form(SQLITE, MESSAGE),
    Form(SQLITE, NONE, 3),
    Form(SQLITE, FILE, 3),
    Form(MCAP, FILE),
    Form(MCAP, MESSAGE),
    Form(MCAP, CHUNK),
    Form(MCAP, NONE, 3),
    Form(MCAP, FILE, 3),
]


def converted(bag: Path, **options: str) -> tuple[list[dict], Conversion]:
    rows: list[dict] = []
    return rows, convert([bag], MINITAUR, REWARD, rows.append, **options)


def check_same(rows: list[dict], expected: list[dict]) -> None:
    """What is there is what the whole bag says."""
    by_stamp = {row["stamp"]: row for row in expected}
    begins = {row["episode"]: row["stamp"] for row in reversed(rows)}
    for row in rows:
        its = by_stamp[row["stamp"]]
        for name in ("action", "margin", "incident", "terminal"):
            assert np.array_equal(row[name], its[name]), name
        # After a cut the history of observations and of the reward's actions begins anew.
        if row["stamp"] - begins[row["episode"]] > 0.2 * NANOSECONDS:
            assert row["reward"] == its["reward"]
            assert np.array_equal(row["observation"], its["observation"])


def write_as(form: Form, walk: Path, path: Path, namespace: str = "", strangers: bool = False) -> Path:
    """Write the walk in another form.

    Args:
        strangers: with topics that no contract names, one of a type that nobody knows.
    """
    store = make_store()
    with open_bag(walk) as opened:
        kinds = {topic: info.type for topic, info in opened.topics.items()}
    messages = list(raw_messages(walk, kinds))
    parts = [
        messages[i * len(messages) // form.files : (i + 1) * len(messages) // form.files] for i in range(form.files)
    ]
    for i, part in enumerate(parts):
        writer = Writer(path / str(i) / path.name, version=form.version, storage_plugin=form.storage)
        writer.set_compression(form.compression, CompressionFormat.ZSTD)
        with writer:
            topics = {
                topic: writer.add_connection(
                    f"{namespace}{topic}", kind, typestore=store, offered_qos_profiles=[qos_profile()]
                )
                for topic, kind in kinds.items()
            }
            if strangers:
                mystery = writer.add_connection("/mystery", MYSTERY, msgdef="float64 x", rihs01="RIHS01_" + "0" * 64)
                writer.write(mystery, part[0][2], b"\x00\x01\x00\x00" + bytes(8))
            for topic, _, time, data in part:
                writer.write(topics[topic], time, data)
    return joined(path)


def joined(path: Path) -> Path:
    """Make one bag of the parts in `path`/0/NAME ...: files and metadata.yaml as `ros2 bag record` leaves them."""
    told = []
    for part in sorted(path.iterdir(), key=lambda part: int(part.name)):
        info = yaml.safe_load((part / path.name / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
        (old,) = info["relative_file_paths"]
        file = next(file for file in (part / path.name).iterdir() if file.name.startswith(old))
        info["relative_file_paths"] = [file.name.replace(path.name, f"{path.name}_{part.name}", 1)]
        file.rename(path / info["relative_file_paths"][0])
        told.append(info)
        shutil.rmtree(part)
    whole = dict(told[0])
    whole["relative_file_paths"] = [file for info in told for file in info["relative_file_paths"]]
    begins = [info["starting_time"]["nanoseconds_since_epoch"] for info in told]
    lengths = [info["duration"]["nanoseconds"] for info in told]
    counts = [info["message_count"] for info in told]
    whole["duration"] = {"nanoseconds": begins[-1] + lengths[-1] - begins[0]}
    whole["message_count"] = sum(counts)
    for at, topic in enumerate(whole["topics_with_message_count"]):
        topic["message_count"] = sum(info["topics_with_message_count"][at]["message_count"] for info in told)
    whole["files"] = [
        {
            "path": file,
            "starting_time": {"nanoseconds_since_epoch": begin},
            "duration": {"nanoseconds": length},
            "message_count": count,
        }
        for file, begin, length, count in zip(whole["relative_file_paths"], begins, lengths, counts, strict=True)
    ]
    (path / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": whole}))
    return path
