"""Finishes bags that their recorder could not close."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from rosbags.rosbag2.metadata import parse_qos

from ssql_ros.bags.definitions import BagError, Definition
from ssql_ros.bags.mcap_file import Channel, LinearReader
from ssql_ros.bags.reader import mcap_files, readable, store_of_channel
from ssql_ros.bags.writer import BagWriter, qos_profile

FLUSH_BYTES = 1 << 20


@dataclass(frozen=True)
class Recovery:
    """What `recover_bag` found: how many messages, and why the file ended early, in words (empty: it did not)."""

    messages: int
    problem: str


def recover_bag(path: str | os.PathLike[str]) -> Recovery:
    """Finish an unfinished bag: everything readable is kept, and the index and metadata.yaml are written.

    The recovered bag is written beside the unfinished one and takes its place when it is complete.

    Raises:
        BagError: `path` is not the folder of a bag of one MCAP file, a type in it is unknown, or the recovered bag
            cannot be written.
    """
    path = Path(path)
    files = mcap_files(path) if path.is_dir() else []
    if len(files) != 1:
        raise BagError(f"{path}: expected the folder of a bag with one .mcap file, found {len(files)}")
    work = path / ".recovery"
    shutil.rmtree(work, ignore_errors=True)
    try:
        recovery, recovered = _copy(files[0], work / path.resolve().name)
        os.replace(recovered, files[0].with_name(recovered.name))
        os.replace(recovered.with_name("metadata.yaml"), path / "metadata.yaml")
        if files[0].name != recovered.name:
            files[0].unlink()
    except OSError as error:
        raise BagError(f"{path}: the recovered bag cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return recovery


def _copy(file: Path, target: Path) -> tuple[Recovery, Path]:
    """Write what is readable of an MCAP `file` to a new bag `target`; return the outcome and the new MCAP file."""
    reader, count = LinearReader(file), 0
    with BagWriter(target, {"recovered": f"{file.name} was not closed by its recorder"}) as writer:
        for channel, time, data, _ in readable(reader):
            if channel.topic not in writer.counts:
                profiles = parse_qos(channel.qos) or [qos_profile()]
                writer.add_topic(channel.topic, channel.type, profiles, _definition(channel, file))
            writer.write(channel.topic, time, data)
            count += 1
            if writer.held_bytes > FLUSH_BYTES:
                writer.flush()
    return Recovery(count, reader.problem), writer.file


def _definition(channel: Channel, file: Path) -> Definition | None:
    if channel.encoding != "ros2msg" or not channel.definition:
        return None
    return Definition(channel.definition, store_of_channel(channel, file).hash_rihs01(channel.type))
