"""Writes raw CDR messages to a new rosbag2 bag, so that a kill or a full disk costs little."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.errors import WriterError

from ssql_ros.bags.definitions import BagError, Definition, Definitions
from ssql_ros.bags.mcap_file import CommittedFile

INFINITE = QosTime(9223372036, 854775807)  # what rmw gives for a deadline, lifespan or lease that is not set


def qos_profile(*, reliable: bool = True, transient_local: bool = False, depth: int = 10) -> Qos:
    """Return the QoS profile of a publisher, without deadline, lifespan or lease."""
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=depth,
        reliability=QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
        durability=QosDurability.TRANSIENT_LOCAL if transient_local else QosDurability.VOLATILE,
        deadline=INFINITE,
        lifespan=INFINITE,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=INFINITE,
        avoid_ros_namespace_conventions=False,
    )


class BagWriter:
    """Writes messages to a new bag. What was written before a `flush` is safe against a kill and a loss of power.

    Args:
        path: folder to make; its parents are made too.
        custom: texts for the bag's metadata, such as the contract id.

    Attributes:
        counts: messages by topic.

    Raises:
        BagError: the path exists, or cannot be made. A recording never overwrites another.
    """

    def __init__(self, path: str | os.PathLike[str], custom: dict[str, str] | None = None) -> None:
        self.path = Path(path)
        self.counts: dict[str, int] = {}
        self._definitions = Definitions()
        self._topics: dict[str, Any] = {}
        try:
            self._writer = Writer(self.path, version=9, storage_plugin=StoragePlugin.MCAP)
            self.note(custom or {})
            self._writer.open()
            self._storage: Any = self._writer.storage
            self._take_over_file()
        except WriterError as error:
            raise BagError(f"{self.path}: exists already; a recording never overwrites another") from error
        except OSError as error:
            self._remove()
            raise BagError(f"{self.path}: the bag cannot be made: {error.strerror or error}") from error

    def _take_over_file(self) -> None:
        """Put a file that commits in the place of the one that `rosbags` has opened."""
        self._storage.bio.close()
        head = self._storage.path.read_bytes()
        self._storage.path.unlink()
        self._storage.bio = CommittedFile(self._storage.path)
        self._storage.bio.write(head)
        self._storage.bio.commit()

    def _remove(self) -> None:
        """Remove the beginning of a bag that cannot be made; whoever tries again must not find it there."""
        with contextlib.suppress(OSError):
            for file in self.path.iterdir():
                file.unlink()
            self.path.rmdir()

    def note(self, custom: dict[str, str]) -> None:
        """Put texts into the bag's metadata, which `close` writes."""
        for key, value in custom.items():
            self._writer.set_custom_data(key, value)

    @property
    def file(self) -> Path:
        """Return the bag's MCAP file."""
        return self._storage.path

    @property
    def held_bytes(self) -> int:
        """Return how many bytes are written but not yet on the disk."""
        return self._storage.bio.held_bytes + self._storage.chunk.bio.tell()

    def add_topic(self, topic: str, type_name: str, qos: Sequence[Qos], definition: Definition | None = None) -> None:
        """Announce a topic.

        Args:
            topic: its full name.
            type_name: its ROS type, package/msg/Name.
            qos: what each of its publishers offers; tools that replay the bag need it.
            definition: of the type; None: the one that is installed.

        Raises:
            BagError: the type has no definition, no QoS is given, or the topic has been added before.
        """
        if not qos:
            raise BagError(f"{self.path}: {topic}: needs the QoS of at least one publisher, got none")
        if topic in self._topics:
            raise BagError(f"{self.path}: {topic}: has been added before")
        found = definition or self._definitions.definition(type_name)
        self._topics[topic] = self._writer.add_connection(
            topic, type_name, msgdef=found.text, rihs01=found.digest, offered_qos_profiles=list(qos)
        )
        self.counts[topic] = 0

    def write(self, topic: str, time: int, data: bytes) -> None:
        """Write one message. `time`: ns, when it was received; `data`: CDR with its encapsulation header."""
        if topic not in self._topics:
            raise BagError(f"{self.path}: {topic}: was not added")
        self._writer.write(self._topics[topic], int(time), data)
        self.counts[topic] += 1

    def flush(self) -> None:
        """Bring everything written so far to the disk.

        Raises:
            OSError: it could not be; it is still held, and a later call tries again.
        """
        if self._storage.chunk.msgs:
            self._storage.close_chunk()
        self._storage.bio.commit()

    def close(self) -> None:
        """Write what is left, the index and metadata.yaml.

        Raises:
            BagError: it could not be; what was flushed before can be read, and `recover_bag` makes a whole bag of it.
        """
        if self._writer.storage is None:
            return
        try:
            self._writer.close()
            _sync(self._writer.metapath)
            _sync(self.path)
        except OSError as error:
            self._writer.abort()
            raise BagError(
                f"{self.file}: the bag could not be finished: {error.strerror or error}; it can be read up to the last"
                f" flush, and `ssql bag recover {shlex.quote(str(self.path))}` makes a whole bag of that where there is"
                " room"
            ) from error

    def __enter__(self) -> BagWriter:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the bag, after an error too: what was recorded stays."""
        self.close()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
