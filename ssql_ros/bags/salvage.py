"""The files of a bag, each read by itself: what it holds, in the order of time, and around what is damaged."""

from __future__ import annotations

import re
import shutil
import sqlite3
import tempfile
from collections import Counter, deque
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from backports import zstd

from ssql_ros.bags.bounds import unpacked_message
from ssql_ros.bags.mcap_records import McapFile
from ssql_ros.bags.mcap_scan import MAGIC
from ssql_ros.bags.ordering import Raw, TimedRaw

SUFFIXES = (".mcap", ".db3", ".mcap.zstd", ".db3.zstd")
SQLITE_MAGIC = b"SQLite format 3\0"
# Of messages that were compressed one by one. None that is not begins like this: those begin with 0.
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
LFS = b"version https://git-lfs.github.com/spec/"
# How far to look beyond a place of a database that cannot be read: more messages than any bag has.
FARTHEST = 1 << 40

Kind = tuple[str, str]  # topic, type


def storage_files(path: Path) -> list[Path]:
    """Return the files of a bag's folder that hold messages, in the order of recording, or `path` itself."""
    if path.is_dir():
        return sorted((file for file in path.iterdir() if file.name.endswith(SUFFIXES)), key=_in_order)
    return [path] if path.is_file() and path.name.endswith(SUFFIXES) else []


def _in_order(file: Path) -> list[Any]:
    """Order bag_2 before bag_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.name)]


def not_a_bag(file: Path) -> str:
    """Return what a file is that only has the name of a bag's file, and what to do; empty: it may be one."""
    with file.open("rb") as opened:
        head = opened.read(512)
    if head.startswith(LFS):
        size = re.search(rb"^size (\d+)", head, re.MULTILINE)
        told = f" of {int(size[1]) / 1e6:.1f} MB" if size else ""
        return f"is a Git LFS pointer and not the bag{told} itself; `git lfs pull` in its repository fetches that"
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return "is a web page and not a bag; download the file itself"
    return ""


class StorageFile:
    """One file of a bag, that has been gone through once.

    Attributes:
        counts: messages that can be read, by topic and type.
        begin, end: ns, of the first and the last of them; equal where there is none.
        problems: in words, each with the file's path; empty: nothing is wrong with it.
        lost: messages that are known to be lost; None: some are, and nobody knows how many.

    Raises:
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.plain = path, path
        self.counts: Counter[Kind] = Counter()
        self.begin = self.end = 0
        self.problems: list[str] = []
        self.lost: int | None = 0
        self.mcap: McapFile | None = None
        self._sorted = True
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if path.suffix == ".zstd":
            self._folder = tempfile.TemporaryDirectory(prefix="ssql_bag_")
            self.plain = Path(self._folder.name) / path.stem
            self._decompress()
        if fault := not_a_bag(self.plain):
            self._tell(fault, None)
            return
        with self.plain.open("rb") as opened:
            head = opened.read(len(SQLITE_MAGIC))
        # By what it holds rather than by its name; where its beginning is damaged, the name tells.
        sqlite = not head.startswith(MAGIC) and (head == SQLITE_MAGIC or self.plain.suffix == ".db3")
        if sqlite:
            self._scan_sqlite()
        else:
            self._scan_mcap()

    def messages(self, topics: Collection[str]) -> Iterator[TimedRaw]:
        """Yield (time, (topic, type, time, data)) of `topics` in the order of time."""
        if self.mcap is not None:
            found = self.mcap.messages(topics)
        else:
            rows = (raw for raw in salvaged(self.plain, []) if raw[0] in topics)
            found = ((raw[2], raw) for raw in (rows if self._sorted else _spooled(rows)))
        for timed in found:
            time, (topic, kind, _, data) = timed
            if data.startswith(ZSTD_MAGIC):
                try:
                    yield time, (topic, kind, time, unpacked_message(data))
                except (zstd.ZstdError, ValueError) as error:
                    self._tell(f"a message of {topic} cannot be decompressed: {error}", None)
                continue
            yield timed

    def _tell(self, text: str, lost: int | None) -> None:
        self.problems.append(f"{self.path}: {text}")
        self.lost = None if lost is None or self.lost is None else self.lost + lost

    def _decompress(self) -> None:
        """Decompress the file as far as it goes."""
        with self.plain.open("wb") as out:
            try:
                with zstd.open(self.path, "rb") as packed:
                    shutil.copyfileobj(packed, out)
            except (EOFError, zstd.ZstdError) as error:
                self._tell(f"cannot be decompressed beyond {out.tell()} bytes: {error}", None)

    def _scan_mcap(self) -> None:
        mcap = self.mcap = McapFile(self.plain)
        mcap.scan()
        for number, channel in mcap.channels.items():
            self.counts[channel.topic, mcap.label(channel)] += mcap.counts[number]
        self.begin, self.end = mcap.begin, mcap.end
        self.problems += [f"{self.path}: {problem}" for problem in mcap.problems]
        self.lost = mcap.lost if self.lost is not None else None

    def _scan_sqlite(self) -> None:
        problems: list[str] = []
        last: int | None = None
        for topic, kind in _topics(self.plain, []).values():
            self.counts[topic, kind] = 0
        for topic, kind, time, _ in salvaged(self.plain, problems):
            self.counts[topic, kind] += 1
            self.begin = time if last is None else min(self.begin, time)
            self.end = time if last is None else max(self.end, time)
            self._sorted = self._sorted and (last is None or time >= last)
            last = time
        if problems:
            self.lost = None
        # What was decompressed has a name of its own.
        self.problems += [problem.replace(str(self.plain), str(self.path), 1) for problem in problems]


def _spooled(rows: Iterator[Raw]) -> Iterator[Raw]:
    """Put messages into the order of time, on the disk: a bag may be larger than memory."""
    # Of an empty name: SQLite's own temporary file.
    with closing(sqlite3.connect("", isolation_level=None)) as spool:
        spool.execute("BEGIN")
        spool.execute("CREATE TABLE messages (topic TEXT, type TEXT, time INTEGER, data BLOB)")
        spool.executemany("INSERT INTO messages VALUES (?, ?, ?, ?)", rows)
        yield from spool.execute("SELECT topic, type, time, data FROM messages ORDER BY time, rowid")


def _topics(file: Path, problems: list[str]) -> dict[int, Kind]:
    try:
        with closing(database_of(file)) as database:
            return _topics_of(database)
    except (sqlite3.Error, ValueError) as error:
        problems.append(f"{file}: {error}")
        return {}


def _topics_of(database: sqlite3.Connection) -> dict[int, Kind]:
    return {
        number: (topic, kind if encoding == "cdr" else f"{kind} as {encoding}")
        for number, topic, kind, encoding in database.execute("SELECT id, name, type, serialization_format FROM topics")
        if isinstance(topic, str) and isinstance(kind, str)
    }


def salvaged(file: Path, problems: list[str]) -> Iterator[Raw]:
    """Yield (topic, type, time in ns, bytes) of a database in the order of writing, around what is damaged.

    Args:
        problems: is told, in words, what could not be read.
    """
    try:
        with closing(database_of(file)) as database:
            topics = _topics_of(database)
            for _, topic, time, data in rows_of(file, database, problems):
                if topic in topics:
                    yield *topics[topic], time, data
    except (sqlite3.Error, ValueError) as error:
        problems.append(f"{file}: {error}")


def database_of(file: Path) -> sqlite3.Connection:
    """Open a database for reading; with the log of what its recorder had not yet put into it, where that is there."""
    # In its place a path could end in what SQLite takes for options.
    address = file.resolve().as_uri()
    database = None
    if file.with_name(f"{file.name}-wal").exists():
        database = sqlite3.connect(f"{address}?mode=ro", uri=True)
        try:
            database.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.Error:
            database.close()
            database = None
    if database is None:
        database = sqlite3.connect(f"{address}?immutable=1", uri=True)
    # Else a database whose end is cut off is refused as a whole.
    database.execute("PRAGMA writable_schema = ON")
    return database


def rows_of(file: Path, database: sqlite3.Connection, problems: list[str]) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield (id, topic, time in ns, data) of a database in the order of ids, across places that cannot be read."""
    # Where a page is cut off, SQLite reads zeros: messages as far back as a page before a damage are not to be trusted.
    (page,) = database.execute("PRAGMA page_size").fetchone()
    doubted: deque[tuple[int, int, int, bytes]] = deque()
    size, last, step, fault = 0, -1, 0, ""
    while step <= FARTHEST:
        try:
            # By id: the table itself, in which messages lie as they came; no index is needed.
            rows = database.execute(
                "SELECT id, topic_id, timestamp, data FROM messages NOT INDEXED WHERE id > ? ORDER BY id",
                (last + step,),
            )
            for number, topic, time, data in rows:
                if number <= last:
                    # Damaged pages may point back: without this the way through them has no end.
                    raise sqlite3.DatabaseError(f"message {number} follows message {last}")
                if step:
                    problems.append(f"{file}: up to {number - last - 1} messages cannot be read: {fault}")
                last, step = number, 0
                if not isinstance(data, bytes) or not isinstance(time, int):
                    problems.append(f"{file}: message {number} is none: its columns are of other types")
                    continue
                doubted.append((number, topic, time, data))
                size += len(data)
                while size > page + len(doubted[0][3]):
                    size -= len(doubted[0][3])
                    yield doubted.popleft()
            break
        except sqlite3.DatabaseError as error:
            if doubted:
                problems.append(f"{file}: {len(doubted)} messages before a damage are not used")
            doubted.clear()
            size, fault, step = 0, str(error), 2 * step or 1
    yield from doubted
    if step:
        problems.append(f"{file}: nothing after message {last} can be read: {fault}")


__all__ = ["SUFFIXES", "Kind", "StorageFile", "database_of", "not_a_bag", "rows_of", "salvaged", "storage_files"]
