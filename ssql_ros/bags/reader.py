"""Reads rosbag2 bags: the messages of chosen topics, deserialised by the definitions that the bag holds."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection, MessageDefinitionFormat
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.errors import ReaderError
from rosbags.serde import SerdeError
from rosbags.typesys.store import Typestore

from ssql_ros.bags.definitions import BagError, store_of
from ssql_ros.bags.mcap_file import Channel, LinearReader

# What the reader of `rosbags` raises on files that are not as they should be.
DAMAGE = (ReaderError, OSError, ValueError, TypeError, KeyError, IndexError, AssertionError, struct.error)

# A message that rclpy's serialize_message made may end in bytes that mean nothing: rmw estimates its length, too long
# by a few bytes for each empty sequence. `rosbags` takes no more than 3, so those that are left are cut off.
PADDING = 64


class UnfinishedBagWarning(UserWarning):
    """A bag was read that its recorder did not close; the text says how far it goes."""


@dataclass(frozen=True)
class TopicInfo:
    """One topic of a bag: its ROS type and how many messages it has."""

    type: str
    count: int


class Bag:
    """A bag that is open for reading; make one with `open_bag`.

    Attributes:
        topics: by name.
        custom: the texts that its writer put into the metadata.
    """

    def __init__(self, path: Path, reader: Reader) -> None:
        self.path = path
        self._reader = reader
        self._stores: dict[int, Typestore] = {}
        self.topics: dict[str, TopicInfo] = {}
        for connection in reader.connections:
            # A split bag has the same topic once per file.
            count = self.topics[connection.topic].count if connection.topic in self.topics else 0
            self.topics[connection.topic] = TopicInfo(connection.msgtype, count + connection.msgcount)
        self.custom: dict[str, str] = dict(reader.storage.metadata.custom or {})

    def messages(self, topics: Collection[str] | None = None) -> Iterator[tuple[str, int, Any]]:
        """Yield (topic, time in ns, message) in the order of time, of `topics` or of all.

        Raises:
            BagError: the file is damaged, or holds a message of an unknown type.
        """
        wanted = [c for c in self._reader.connections if topics is None or c.topic in topics]
        if not wanted:
            return
        store = store_of([(c.msgtype, _msg_text(c)) for c in wanted], self.path)
        source = self._reader.messages(wanted)
        while True:
            try:
                connection, time, data = next(source)
            except StopIteration:
                return
            except DAMAGE as error:
                raise BagError(f"{self.path}: the bag is damaged: {error}") from error
            message = _deserialised(store, connection.msgtype, data, connection.topic, self.path)
            yield connection.topic, time, message

    def raw_messages(self, topics: Collection[str]) -> Iterator[tuple[str, str, int, bytes]]:
        """Yield (topic, type, time in ns, CDR bytes) of `topics`, in the order of time.

        Raises:
            BagError: the file is damaged.
        """
        wanted = [c for c in self._reader.connections if c.topic in topics]
        try:
            if wanted:
                for connection, time, data in self._reader.messages(wanted):
                    yield connection.topic, connection.msgtype, time, bytes(data)
        except DAMAGE as error:
            raise BagError(f"{self.path}: the bag is damaged: {error}") from error

    def close(self) -> None:
        """Close the file."""
        if self._reader.is_open:
            self._reader.close()

    def __enter__(self) -> Bag:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()


def open_bag(path: str | os.PathLike[str]) -> Bag:
    """Open a bag: the folder of a rosbag2 bag, or one MCAP file.

    Raises:
        BagError: it is missing, unfinished (no metadata.yaml, or the file is cut off) or damaged; the text names the
            file and what to do.
    """
    path = Path(path)
    if not path.exists():
        raise BagError(f"{path}: there is no such bag")
    if path.is_dir() and not (path / "metadata.yaml").is_file():
        if not mcap_files(path):
            raise BagError(f"{path}: is not a bag: it holds neither metadata.yaml nor an .mcap file")
        raise BagError(f"{path / 'metadata.yaml'}: is missing: the recorder did not close this bag{_remedy(path)}")
    try:
        reader = Reader(path)
        reader.open()
    except DAMAGE as error:
        raise BagError(f"{path}: the bag cannot be opened: {error}{_remedy(path)}") from error
    return Bag(path, reader)


def read_messages(
    path: str | os.PathLike[str], topics: Collection[str] | None = None
) -> Iterator[tuple[str, int, Any]]:
    """Yield (topic, time in ns, message) of a bag, of `topics` or of all; a topic that it lacks yields nothing.

    An unfinished or cut-off MCAP yields what is readable, in the order of writing, and then gives an
    `UnfinishedBagWarning` that says why it ends.

    Raises:
        BagError: nothing is there to read, the file is damaged, or a type is unknown.
    """
    try:
        bag = open_bag(path)
    except BagError as error:
        files = mcap_files(Path(path))
        if not files:
            raise
        for file in files:
            yield from _read_linearly(file, topics, str(error))
        return
    with bag:
        yield from bag.messages(topics)


def raw_messages(path: str | os.PathLike[str], topics: Collection[str]) -> Iterator[tuple[str, str, int, bytes]]:
    """Yield (topic, type, time in ns, CDR bytes) of a bag; of an unfinished or damaged MCAP what is readable.

    An `UnfinishedBagWarning` then says why it ends.

    Raises:
        BagError: nothing is there to read.
    """
    try:
        bag = open_bag(path)
    except BagError as error:
        files = mcap_files(Path(path))
        if not files:
            raise
        for file in files:
            reader = LinearReader(file)
            for channel, time, data in reader:
                if channel.topic in topics:
                    yield channel.topic, channel.type, time, bytes(data)
            warnings.warn(f"{error}: {file} {reader.problem or 'was read whole'}", UnfinishedBagWarning, stacklevel=2)
        return
    with bag:
        yield from bag.raw_messages(topics)


def topics_of(path: str | os.PathLike[str]) -> dict[str, TopicInfo]:
    """Return a bag's topics; of an unfinished MCAP those that were met.

    Raises:
        BagError: nothing is there to read.
    """
    try:
        with open_bag(path) as bag:
            return bag.topics
    except BagError:
        files = mcap_files(Path(path))
        if not files:
            raise
    counts: dict[str, TopicInfo] = {}
    for file in files:
        for channel, _, _ in LinearReader(file):
            before = counts.get(channel.topic)
            counts[channel.topic] = TopicInfo(channel.type, 1 + (before.count if before else 0))
    return counts


def _read_linearly(file: Path, topics: Collection[str] | None, reason: str) -> Iterator[tuple[str, int, Any]]:
    """Yield what can be read of an MCAP file without its index; `reason`: why its index does not serve."""
    reader, count = LinearReader(file), 0
    for channel, time, _, message in readable(reader, topics):
        count += 1
        yield channel.topic, time, message
    if reader.problem:
        reason = f"{file}: {reader.problem}{_remedy(file)}"
    warnings.warn(f"{reason}; {count} messages could be read", UnfinishedBagWarning, stacklevel=3)


def readable(reader: LinearReader, topics: Collection[str] | None = None) -> Iterator[tuple[Channel, int, bytes, Any]]:
    """Yield (channel, time in ns, CDR bytes, message) of an MCAP file as far as its messages can be deserialised.

    What follows one that cannot be is no better: the file was not completely written there. `reader.problem` says so.

    Raises:
        BagError: a type is unknown.
    """
    stores: dict[str, Typestore] = {}
    for channel, time, data in reader:
        if topics is not None and channel.topic not in topics:
            continue
        if channel.topic not in stores:
            stores[channel.topic] = store_of_channel(channel, reader.path)
        try:
            message = _deserialised(stores[channel.topic], channel.type, data, channel.topic, reader.path)
        except BagError as error:
            reader.problem = f"is damaged: {error}"
            return
        yield channel, time, data, message


def store_of_channel(channel: Channel, file: Path) -> Typestore:
    """Return a type store for one channel of an MCAP file. Raises BagError where its type is unknown."""
    return store_of([(channel.type, channel.definition if channel.encoding == "ros2msg" else "")], file)


def mcap_files(path: Path) -> list[Path]:
    """Return the MCAP files of a bag's folder, or `path` itself where it is one."""
    if path.is_dir():
        return sorted(path.glob("*.mcap"))
    return [path] if path.suffix == ".mcap" and path.is_file() else []


def _remedy(path: Path) -> str:
    """Return what to do about an unfinished bag, where something can be done."""
    folder = path if path.is_dir() else path.parent
    return f"; ssql_ros.bags.recover_bag({str(folder)!r}) finishes it" if mcap_files(folder) else ""


def _msg_text(connection: Connection) -> str:
    definition = connection.msgdef
    return definition.data if definition.format == MessageDefinitionFormat.MSG else ""


def _deserialised(store: Typestore, type_name: str, data: bytes, topic: str, path: Path) -> Any:
    fault: Exception | None = None
    for padding in range(0, PADDING + 1, 4):
        try:
            return store.deserialize_cdr(data[: len(data) - padding], type_name)
        except (SerdeError, KeyError) as error:
            fault = fault or error
    raise BagError(f"{path}: a message of {topic} is not a {type_name}: {fault}") from fault
