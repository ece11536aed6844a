"""Reads what can be read of bags that are damaged or unfinished: file by file, without metadata and without index."""

from __future__ import annotations

import re
import shutil
import sqlite3
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from backports import zstd

from ssql_ros.bags.mcap_file import LinearReader

SUFFIXES = (".mcap", ".db3", ".mcap.zstd", ".db3.zstd")
# Of messages that were compressed one by one. None that is not begins like this: those begin with 0.
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# How far to look beyond a place of a database that cannot be read: more messages than any bag has.
FARTHEST = 1 << 40

Raw = tuple[str, str, int, bytes]  # topic, type, time in ns, CDR


def storage_files(path: Path) -> list[Path]:
    """Return the files of a bag's folder that hold messages, in the order of recording, or `path` itself."""
    if path.is_dir():
        return sorted((file for file in path.iterdir() if file.name.endswith(SUFFIXES)), key=_in_order)
    return [path] if path.is_file() and path.name.endswith(SUFFIXES) else []


def _in_order(file: Path) -> list[Any]:
    """Order bag_2 before bag_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.name)]


def salvaged(file: Path, problems: list[str]) -> Iterator[Raw]:
    """Yield (topic, type, time in ns, CDR bytes) of one file of a bag as far as it can be read, in order of writing.

    Args:
        problems: is told, in words, what could not be read.
    """
    if file.suffix == ".zstd":
        with tempfile.TemporaryDirectory(prefix="ssql_bag_") as folder:
            plain = Path(folder) / file.stem
            _decompress(file, plain, problems)
            yield from salvaged(plain, problems)
        return
    for topic, kind, time, data in _of_mcap(file, problems) if file.suffix == ".mcap" else _of_sqlite(file, problems):
        if data.startswith(ZSTD_MAGIC):
            try:
                data = zstd.decompress(data)
            except zstd.ZstdError as error:
                problems.append(f"{file}: a message of {topic} cannot be decompressed: {error}")
                continue
        yield topic, kind, time, data


def _decompress(file: Path, plain: Path, problems: list[str]) -> None:
    """Decompress a file as far as it goes."""
    with plain.open("wb") as out:
        try:
            with zstd.open(file, "rb") as packed:
                shutil.copyfileobj(packed, out)
        except (EOFError, zstd.ZstdError) as error:
            problems.append(f"{file}: cannot be decompressed beyond {out.tell()} bytes: {error}")


def _of_mcap(file: Path, problems: list[str]) -> Iterator[Raw]:
    reader = LinearReader(file)
    for channel, time, data in reader:
        yield channel.topic, channel.type, time, data
    if reader.problem:
        problems.append(f"{file}: {reader.problem}")


def _of_sqlite(file: Path, problems: list[str]) -> Iterator[Raw]:
    """Yield the messages of a database in the order of their ids, across places that cannot be read."""
    try:
        with closing(_database(file)) as database:
            # Else a database whose end is cut off is refused as a whole.
            database.execute("PRAGMA writable_schema = ON")
            topics = {row[0]: row[1:] for row in database.execute("SELECT id, name, type FROM topics")}
            yield from _messages(file, database, topics, problems)
    except (sqlite3.Error, ValueError) as error:
        problems.append(f"{file}: {error}")


def _database(file: Path) -> sqlite3.Connection:
    """Open a database for reading; with the log of what its recorder had not yet put into it, where that is there."""
    # In its place a path could end in what SQLite takes for options.
    address = file.resolve().as_uri()
    if file.with_name(f"{file.name}-wal").exists():
        database = sqlite3.connect(f"{address}?mode=ro", uri=True)
        try:
            database.execute("SELECT count(*) FROM sqlite_master")
            return database
        except sqlite3.Error:
            database.close()
    return sqlite3.connect(f"{address}?immutable=1", uri=True)


def _messages(
    file: Path, database: sqlite3.Connection, topics: dict[int, tuple[str, str]], problems: list[str]
) -> Iterator[Raw]:
    # Where a page is cut off, SQLite reads zeros: messages as far back as a page before a damage are not to be trusted.
    (page,) = database.execute("PRAGMA page_size").fetchone()
    doubted: deque[Raw] = deque()
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
                if topic not in topics or not isinstance(data, bytes):
                    continue
                doubted.append((*topics[topic], time, data))
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
