"""Reads rosbag2 bags: the messages of chosen topics, deserialised by the definitions that the bag holds."""

from __future__ import annotations

import os
import shlex
import struct
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
from backports import zstd
from rosbags.interfaces import Connection, MessageDefinitionFormat
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.errors import ReaderError
from rosbags.serde import SerdeError
from rosbags.typesys.store import Typestore

from ssql_ros.bags.definitions import BagError, store_of
from ssql_ros.bags.mcap_file import Channel, LinearReader
from ssql_ros.bags.salvage import Raw, salvaged, storage_files

# What the reader of `rosbags`, and what it reads with, raise on files that are not as they should be.
DAMAGE = (
    *(ReaderError, OSError, ValueError, TypeError, LookupError, AssertionError, struct.error, apsw.Error),
    *(zstd.ZstdError, EOFError, RuntimeError, ArithmeticError, MemoryError),
)

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
        # Of the messages' times, ns; the library's end is one beyond the last.
        self.begin, self.end = (reader.start_time, reader.end_time - 1) if reader.message_count else (0, 0)

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

    def raw_messages(self, topics: Collection[str]) -> Iterator[Raw]:
        """Yield (topic, type, time in ns, CDR bytes) of `topics`, in the order of time.

        Raises:
            BagError: the file is damaged.
        """
        wanted = [c for c in self._reader.connections if c.topic in topics]
        try:
            if wanted:
                told = sum(c.msgcount for c in wanted)
                for number, (connection, time, data) in enumerate(self._reader.messages(wanted), start=1):
                    if number > told:
                        # The pages of a damaged database may point in a circle.
                        raise BagError(f"{self.path}: the bag is damaged: it holds more than the {told} messages told")
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
        if not storage_files(path):
            raise BagError(f"{path}: is not a bag: it holds neither metadata.yaml nor an .mcap or .db3 file")
        raise BagError(f"{path / 'metadata.yaml'}: is missing: the recorder did not close this bag{_remedy(path)}")
    try:
        reader = Reader(path)
        reader.open()
    except DAMAGE as error:
        raise BagError(f"{path}: the bag cannot be opened: {str(error) or repr(error)}{_remedy(path)}") from error
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


def raw_messages(path: str | os.PathLike[str], topics: Collection[str]) -> Iterator[Raw]:
    """Yield (topic, type, time in ns, CDR bytes) of a bag; of an unfinished or damaged one what is readable.

    An `UnfinishedBagWarning` then says what is not. From a damage on, messages come in the order of writing.

    Raises:
        BagError: nothing is there to read.
    """
    path, last = Path(path), -1
    try:
        with open_bag(path) as bag:
            for message in bag.raw_messages(topics):
                last = message[2]
                yield message
        return
    except BagError as error:
        reason = error
    files, problems = storage_files(path), list[str]()
    if not files:
        raise reason
    for file in files:
        # Before the damage all messages came in the order of time.
        yield from (message for message in salvaged(file, problems) if message[0] in topics and message[2] > last)
    told = "; ".join([str(reason), *problems]) if problems else f"{reason}; everything could be read"
    warnings.warn(told, UnfinishedBagWarning, stacklevel=2)


@dataclass(frozen=True)
class Survey:
    """What a bag holds, as far as it can be told without reading its messages.

    Attributes:
        topics: by name; of a damaged bag those that were met, with the messages that can be read.
        begin, end: ns, time of the first and the last message; equal where there is none.
        problem: in words; empty: the bag is whole, as far as can be seen.
    """

    path: Path
    topics: dict[str, TopicInfo]
    begin: int
    end: int
    custom: dict[str, str]
    problem: str


def survey(path: str | os.PathLike[str]) -> Survey:
    """Look into a bag. A damaged one is read through.

    Raises:
        BagError: nothing is there to read.
    """
    path = Path(path)
    try:
        with open_bag(path) as bag:
            return Survey(path, bag.topics, bag.begin, bag.end, bag.custom, "")
    except BagError as error:
        reason = error
    files, problems = storage_files(path), list[str]()
    if not files:
        raise reason
    counts: dict[str, TopicInfo] = {}
    times: list[int] = []
    for file in files:
        for topic, kind, time, _ in salvaged(file, problems):
            counts[topic] = TopicInfo(kind, 1 + (counts[topic].count if topic in counts else 0))
            times = [min(time, *times), max(time, *times)] if times else [time, time]
    begin, end = times or (0, 0)
    return Survey(path, counts, begin, end, {}, "; ".join([str(reason), *problems]))


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
    # Of a bag that is split, and of a database, everything is read as it is.
    return f"; `ssql bag recover {shlex.quote(str(folder))}` finishes it" if len(mcap_files(folder)) == 1 else ""


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
