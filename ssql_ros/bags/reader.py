"""Reads rosbag2 bags: the messages of chosen topics in the order of time, by the definitions that the bag holds.

A bag is gone through once when it is opened, so that what is told of it is what is there: neither the index of its
files nor its metadata.yaml nor the order in which messages were written has to be right for them to be read.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
import warnings
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rosbags.serde import SerdeError
from rosbags.typesys.store import Typestore

from ssql_ros.bags.definitions import BagError, store_of
from ssql_ros.bags.metadata import METADATA, Metadata, differences, read_metadata
from ssql_ros.bags.ordering import Raw, in_time
from ssql_ros.bags.salvage import SUFFIXES, StorageFile, database_of, not_a_bag, storage_files

# A message that rclpy's serialize_message made may end in bytes that mean nothing: rmw estimates its length, too long
# by a few bytes for each empty sequence. `rosbags` takes no more than 3, so those that are left are cut off.
PADDING = 64


class UnfinishedBagWarning(UserWarning):
    """A bag was read of which something is missing; the text says what."""


@dataclass(frozen=True)
class TopicInfo:
    """One topic of a bag: its ROS type and how many messages it has.

    Attributes:
        type: of most of its messages; with the encoding, where that is not CDR.
        count: of all its messages.
        types: messages of each type, where there is more than one.
    """

    type: str
    count: int
    types: dict[str, int] = field(default_factory=dict)

    def has(self, type_name: str) -> bool:
        """Tell whether messages of a type are there."""
        return type_name == self.type or type_name in self.types


class Bag:
    """A bag that has been gone through once; make one with `open_bag` or `survey`.

    Attributes:
        files: of the bag, as far as each can be read.
        topics: by name; with the messages that can be read.
        begin, end: ns, time of the first and the last message; equal where there is none.
        custom: the texts that its writer put into the metadata.
        problems: what is wrong with the bag, in words; empty: nothing.
        lost: messages that are known to be lost; None: some are, and nobody knows how many.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        listed = storage_files(path)
        metadata = read_metadata(path) if path.is_dir() else Metadata()
        self.problems = [metadata.problem] if metadata.problem else []
        self.files: list[StorageFile] = []
        self.lost: int | None = 0
        for file in listed:
            try:
                self.files.append(StorageFile(file))
            except OSError as error:
                self.problems.append(f"{file}: cannot be read: {error.strerror or error}")
                self.lost = None
        counts: dict[str, Counter[str]] = {}
        for opened in self.files:
            self.problems += opened.problems
            self.lost = None if self.lost is None or opened.lost is None else self.lost + opened.lost
            for (topic, kind), count in opened.counts.items():
                counts.setdefault(topic, Counter())[kind] += count
        self.topics: dict[str, TopicInfo] = {}
        for topic, kinds in counts.items():
            types = {kind: count for kind, count in kinds.items() if count}
            self.topics[topic] = TopicInfo(
                kinds.most_common(1)[0][0], sum(types.values()), types if len(types) > 1 else {}
            )
        held = [file for file in self.files if any(file.counts.values())]
        self.begin = min((file.begin for file in held), default=0)
        self.end = max((file.end for file in held), default=0)
        embedded = (file.mcap.custom for file in self.files if file.mcap is not None)
        self.custom = metadata.custom or next(embedded, {})
        if metadata.counts is not None:
            found = {topic: info.count for topic, info in self.topics.items()}
            self.problems += differences(path, metadata, listed, found)
            if fewer := sum((metadata.counts - Counter(found)).values()):
                self.lost = max(fewer, self.lost or 0)
            elif self.lost is None and +metadata.counts == +Counter(found):
                self.lost = 0  # nothing but what is around the messages

    def raw_messages(self, topics: Collection[str]) -> Iterator[Raw]:
        """Yield (topic, type, time in ns, CDR bytes) of `topics`, in the order of time."""
        sources = (
            (file.begin, file.end, lambda file=file: file.messages(topics))
            for file in self.files
            if any(count and topic in topics for (topic, _), count in file.counts.items())
        )
        try:
            for _, raw in in_time(sources):
                yield raw
        except sqlite3.Error as error:
            raise BagError(f"{self.path}: cannot be put into the order of time: {error}") from error

    def messages(self, topics: Collection[str] | None = None) -> Iterator[tuple[str, int, Any]]:
        """Yield (topic, time in ns, message) in the order of time, of `topics` or of all.

        Raises:
            BagError: a type is unknown, or a message is not of its topic's type.
        """
        wanted = set(self.topics if topics is None else topics).intersection(self.topics)
        if not wanted:
            return
        kinds = [
            kind for topic in sorted(wanted) for kind in (self.topics[topic].types or {self.topics[topic].type: 0})
        ]
        texts = self._definitions()
        store = store_of([(kind, texts.get(kind, "")) for kind in dict.fromkeys(kinds)], self.path)
        for topic, kind, time, data in self.raw_messages(wanted):
            yield topic, time, _deserialised(store, kind, data, topic, self.path)

    def _definitions(self) -> dict[str, str]:
        """Return the definitions of types that the files hold as .msg text."""
        found: dict[str, str] = {}
        for file in self.files:
            if file.mcap is not None:
                for schema in file.mcap.schemas.values():
                    if schema.encoding == "ros2msg":
                        found.setdefault(schema.name, schema.data.decode("utf-8", "replace"))
                continue
            try:
                with closing(database_of(file.plain)) as database:
                    columns = "topic_type, encoded_message_definition"
                    query = f"SELECT {columns} FROM message_definitions WHERE encoding = 'ros2msg'"
                    found.update(dict(database.execute(query)))
            except sqlite3.Error:
                continue  # older ones have no such table; the installed definitions serve
        return found

    def close(self) -> None:
        """Nothing stays open; kept so that a bag can be used like a file."""

    def __enter__(self) -> Bag:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing stays open."""


def _opened(path: Path) -> Bag:
    """Return a bag of which anything can be read. Raises BagError where nothing can."""
    if not path.exists():
        raise BagError(f"{path}: there is no such bag")
    if not (files := storage_files(path)):
        if path.is_dir() and (path / METADATA).is_file():
            raise BagError(f"{path}: holds {METADATA} but none of the bag's files ({', '.join(SUFFIXES)})")
        if path.is_dir():
            raise BagError(f"{path}: is not a bag: it holds neither {METADATA} nor an .mcap or .db3 file")
        raise BagError(f"{path}: expected the folder of a bag, or a file whose name ends in {', '.join(SUFFIXES)}")
    try:
        faults = [f"{file}: {fault}" for file in files if (fault := not_a_bag(file))]
    except OSError as error:
        raise BagError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(faults) == len(files):
        raise BagError("; ".join(faults))
    return Bag(path)


def open_bag(path: str | os.PathLike[str]) -> Bag:
    """Open a bag that is whole: the folder of a rosbag2 bag, or one file of it.

    Raises:
        BagError: it is missing, unfinished or damaged; the text names the file and what to do.
    """
    bag = _opened(Path(path))
    if bag.problems:
        raise BagError(f"{'; '.join(bag.problems)}{remedy(bag)}")
    return bag


def read_messages(
    path: str | os.PathLike[str], topics: Collection[str] | None = None
) -> Iterator[tuple[str, int, Any]]:
    """Yield (topic, time in ns, message) of a bag, of `topics` or of all; a topic that it lacks yields nothing.

    Of an unfinished or damaged bag what is readable comes, and then an `UnfinishedBagWarning` that says what is not.

    Raises:
        BagError: nothing is there to read, a type is unknown, or a message is not of its topic's type.
    """
    bag, count = _opened(Path(path)), 0
    for message in bag.messages(topics):
        count += 1
        yield message
    if bag.problems:
        warnings.warn(
            f"{'; '.join(bag.problems)}{remedy(bag)}; {count} messages could be read",
            UnfinishedBagWarning,
            stacklevel=2,
        )


def raw_messages(path: str | os.PathLike[str], topics: Collection[str]) -> Iterator[Raw]:
    """Yield (topic, type, time in ns, CDR bytes) of a bag in the order of time; of a damaged one what is readable.

    An `UnfinishedBagWarning` then says what is not.

    Raises:
        BagError: nothing is there to read.
    """
    bag = _opened(Path(path))
    yield from bag.raw_messages(topics)
    if bag.problems:
        warnings.warn("; ".join(bag.problems), UnfinishedBagWarning, stacklevel=2)


@dataclass(frozen=True)
class Survey:
    """What a bag holds.

    Attributes:
        topics: by name, with the messages that can be read.
        begin, end: ns, time of the first and the last message; equal where there is none.
        problem: in words; empty: the bag is whole.
        bag: to read it with; None: nothing is there to read.
    """

    path: Path
    topics: dict[str, TopicInfo]
    begin: int
    end: int
    custom: dict[str, str]
    problem: str
    bag: Bag | None = None


def survey(path: str | os.PathLike[str]) -> Survey:
    """Look into a bag, reading it through.

    Raises:
        BagError: nothing is there to read.
    """
    bag = _opened(Path(path))
    problem = f"{'; '.join(bag.problems)}{remedy(bag)}" if bag.problems else ""
    return Survey(bag.path, bag.topics, bag.begin, bag.end, bag.custom, problem, bag)


def remedy(bag: Bag) -> str:
    """Return what to do about a bag with problems; empty where nothing helps."""
    if not any(file.problems for file in bag.files) and (not bag.path.is_dir() or (bag.path / METADATA).is_file()):
        return ""  # what its files hold is whole
    kept = sum(topic.count for topic in bag.topics.values())
    if not kept or any(not_a_bag(file) for file in storage_files(bag.path)):
        return ""
    whole = not any(file.problems for file in bag.files) and bag.lost == 0
    told = "everything in its files could be read" if whole else "what can be read of it is used"
    return f"; {told}; `ssql bag recover {shlex.quote(str(bag.path))}` writes that to a new bag"


def _deserialised(store: Typestore, type_name: str, data: bytes, topic: str, path: Path) -> Any:
    fault: Exception | None = None
    for padding in range(0, PADDING + 1, 4):
        try:
            return store.deserialize_cdr(data[: len(data) - padding], type_name)
        except (SerdeError, KeyError) as error:
            fault = fault or error
    raise BagError(f"{path}: a message of {topic} is not a {type_name}: {fault}") from fault
