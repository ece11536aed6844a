"""Writes what can be read of damaged or unfinished bags to a new bag beside them; the original is never touched.

Records are copied as they are: no message is decoded, so a topic of any encoding is carried along, with its schema,
QoS, sequence numbers and both of its times, and attachments and metadata with it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import sqlite3
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from mcap.records import Attachment, Header, Metadata
from mcap.writer import CompressionType, Writer
from rosbags.typesys import TypesysError

from ssql_ros.bags.bounds import bounded_yaml
from ssql_ros.bags.definitions import BagError, store_of
from ssql_ros.bags.mcap_records import McapFile
from ssql_ros.bags.mcap_scan import ATTACHMENT, HEADER, MESSAGE, MESSAGE_START, METADATA, RECORD_HEADER
from ssql_ros.bags.metadata import write_metadata
from ssql_ros.bags.reader import Bag, survey
from ssql_ros.bags.salvage import StorageFile, database_of, rows_of, storage_files

QUIET_SECONDS = 1.0  # a file that was written to this recently is watched for as long
SPARE_BYTES = 1 << 20
COMPRESSION = {"": CompressionType.NONE, "lz4": CompressionType.LZ4, "zstd": CompressionType.ZSTD}


@dataclass(frozen=True)
class Recovery:
    """What `recover_bag` did.

    Attributes:
        out: folder of the new bag; None: the bag is whole, and nothing was written.
        messages: that were kept; all of the bag where nothing was written.
        lost: messages that are lost; None: some are, and nobody knows how many.
        problems: what was wrong with the bag, in words.
    """

    out: Path | None
    messages: int
    lost: int | None
    problems: list[str]


def recover_bag(path: str | os.PathLike[str], out: str | os.PathLike[str] | None = None) -> Recovery:
    """Write everything of a bag that can be read to a new bag, with index and metadata.yaml.

    Args:
        path: folder of a bag, or one of its files.
        out: folder to make; None: beside the bag, NAME_recovered.

    Raises:
        BagError: nothing is there to read, the bag is still being written, `out` is there already, or there is no room.
    """
    path = Path(path)
    target = Path(out) if out is not None else default_out(path)
    _refuse_while_written(path)
    before = _sizes(path)
    bag = survey(path).bag
    assert bag is not None
    if _sizes(path) != before:
        raise BagError(f"{path}: is still being written: it grew while it was read; stop its recorder first")
    kept = sum(topic.count for topic in bag.topics.values())
    if not bag.problems:
        return Recovery(None, kept, 0, [])
    if not kept:
        raise BagError(f"{'; '.join(bag.problems)}; no message can be recovered, and nothing was written")
    if target.exists():
        raise BagError(f"{target}: is there already, and is not overwritten; name another folder with --out")
    written = _write(bag, target)
    lost = bag.lost if written == kept or bag.lost is None else bag.lost + kept - written
    return Recovery(target, written, lost, bag.problems)


def default_out(path: Path) -> Path:
    """Return where the recovered bag goes: beside the bag."""
    whole = path.resolve()
    name = whole.name if path.is_dir() else whole.name.split(".", 1)[0]
    return path.parent / f"{name}_recovered" if path.name == whole.name else whole.parent / f"{name}_recovered"


def _sizes(path: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for file in storage_files(path):
        for part in (file, file.with_name(f"{file.name}-wal")):
            with contextlib.suppress(OSError):
                status = part.stat()
                found[part.name] = (status.st_size, status.st_mtime_ns)
    return found


def _refuse_while_written(path: Path) -> None:
    """Raise BagError where a recorder still writes to the bag, as far as that can be seen from here."""
    for file in storage_files(path):
        who = _writer_of(file)
        try:
            with file.open("rb") as opened:
                fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            who = who or "its recorder"
        except OSError:
            pass  # no locks on this file system; or `survey` says what is wrong
        if who:
            raise BagError(f"{file}: is still being written by {who}; stop the recorder first, it closes the bag")
    # A recorder on another machine: of what was written to just now, whether more comes.
    before = _sizes(path)
    if any(time.time() - written / 1e9 < QUIET_SECONDS for _, written in before.values()):
        time.sleep(QUIET_SECONDS)
        if _sizes(path) != before:
            raise BagError(f"{path}: is still being written: it grows; stop its recorder first, it closes the bag")


def _writer_of(file: Path) -> str:
    """Return which process of this machine has a file open for writing; empty: none that can be seen."""
    try:
        wanted = file.stat()
    except OSError:
        return ""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            for opened in (process / "fd").iterdir():
                with contextlib.suppress(OSError, ValueError):
                    status = opened.stat()
                    if (status.st_dev, status.st_ino) != (wanted.st_dev, wanted.st_ino):
                        continue
                    flags = (process / "fdinfo" / opened.name).read_text().split("flags:", 1)[1].split()[0]
                    if int(flags, 8) & os.O_ACCMODE != os.O_RDONLY:
                        command = (process / "comm").read_text().strip()
                        return f"process {process.name} ({command})"
    return ""


def _write(bag: Bag, target: Path) -> int:
    """Write the new bag under another name first; return its messages."""
    needed = sum(file.plain.stat().st_size for file in bag.files) + SPARE_BYTES
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(target.parent).free
    except OSError as error:
        raise BagError(f"{target}: the recovered bag cannot be written: {error.strerror or error}") from error
    room = (
        f"{target}: the recovered bag needs about {needed / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free there; "
        "make room, or name a folder on another disk with --out. The bag is as it was"
    )
    if needed > free:
        raise BagError(room)
    work: Path | None = None
    try:
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
        work.chmod(0o755)
        parts = [_write_file(file, work, f"{target.name}_{i}") for i, file in enumerate(bag.files)]
        if len({part["storage"] for part in parts}) != 1:
            raise BagError(f"{bag.path}: holds MCAP and SQLite files; recover them one by one")
        write_metadata(work, _information(bag, parts))
        for file in [*work.iterdir(), work]:
            _sync(file)
        work.rename(target)
        _sync(target.parent)
    except (OSError, sqlite3.Error) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "full" in str(error):
            raise BagError(room) from error
        raise BagError(f"{target}: the recovered bag cannot be written: {error}") from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
    return sum(sum(part["counts"].values()) for part in parts)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_file(file: StorageFile, folder: Path, name: str) -> dict[str, Any]:
    """Write what can be read of one file; return what metadata.yaml tells of it."""
    if file.mcap is not None:
        told = _write_mcap(file.mcap, folder / f"{name}.mcap")
        return {**told, "storage": "mcap", "path": f"{name}.mcap", "begin": file.begin, "end": file.end}
    told = _write_sqlite(file.plain, folder / f"{name}.db3")
    return {**told, "storage": "sqlite3", "path": f"{name}.db3", "begin": file.begin, "end": file.end}


def _write_mcap(source: McapFile, out: Path) -> dict[str, Any]:
    counts: Counter[int] = Counter()
    with out.open("wb") as file:
        writer = Writer(file, compression=COMPRESSION.get(source.compression, CompressionType.ZSTD))
        writer.start(profile=_profile(source))
        schemas = {
            number: writer.register_schema(schema.name, schema.encoding, schema.data)
            for number, schema in sorted(source.schemas.items())
        }
        channels = {
            number: writer.register_channel(
                channel.topic, channel.message_encoding, schemas.get(channel.schema_id, 0), channel.metadata
            )
            for number, channel in sorted(source.channels.items())
        }
        for record in source.records():
            if record.opcode == MESSAGE:
                at = record.start - RECORD_HEADER.size
                _, _, number, sequence, log_time, publish_time = MESSAGE_START.unpack_from(record.buffer, at)
                data = bytes(record.buffer[at + MESSAGE_START.size : record.stop])
                writer.add_message(channels[number], log_time, data, publish_time, sequence)
                counts[number] += 1
            elif record.opcode in (ATTACHMENT, METADATA):
                # One that cannot be read is no reason to lose the messages.
                with contextlib.suppress(ValueError, EOFError, struct.error, MemoryError):
                    _add(writer, record.opcode, record.stream())
        writer.finish()
    topics = [
        {
            "name": channel.topic,
            "type": source.schemas[channel.schema_id].name if channel.schema_id in source.schemas else "",
            "serialization_format": channel.message_encoding,
            "offered_qos_profiles": _profiles(channel.metadata.get("offered_qos_profiles", "")),
            "type_description_hash": channel.metadata.get("topic_type_hash") or _hash(source, channel.schema_id),
        }
        for _, channel in sorted(source.channels.items())
    ]
    by_topic: Counter[tuple[str, str]] = Counter()
    for (number, _), topic in zip(sorted(source.channels.items()), topics, strict=True):
        by_topic[topic["name"], topic["type"]] += counts[number]
    return {"counts": by_topic, "topics": topics}


def _add(writer: Writer, opcode: int, stream: Any) -> None:
    if opcode == ATTACHMENT:
        found = Attachment.read(stream)
        writer.add_attachment(found.create_time, found.log_time, found.name, found.media_type, found.data)
    else:
        told = Metadata.read(stream)
        writer.add_metadata(told.name, told.metadata)


def _profile(source: McapFile) -> str:
    for record in source.records():
        if record.opcode == HEADER:
            with contextlib.suppress(Exception):
                return str(Header.read(record.stream()).profile)
        break
    return "ros2"


def _hash(source: McapFile, number: int) -> str:
    """Return the RIHS01 hash of a type that the file defines; empty where it cannot be told."""
    schema = source.schemas.get(number)
    if schema is None or schema.encoding != "ros2msg":
        return ""
    try:
        return store_of([(schema.name, schema.data.decode())], source.path).hash_rihs01(schema.name)
    except (BagError, UnicodeDecodeError, KeyError, TypesysError):
        return ""


def _profiles(text: str) -> Any:
    """Return QoS profiles as metadata.yaml has them: a list since version 9, a text before."""
    try:
        return bounded_yaml(text) or []
    except yaml.YAMLError:
        return []


def _write_sqlite(source: Path, out: Path) -> dict[str, Any]:
    counts: Counter[tuple[str, str]] = Counter()
    with closing(database_of(source)) as database, closing(sqlite3.connect(out, isolation_level=None)) as copy:
        copy.execute("PRAGMA synchronous = OFF")  # synced as a whole, at the end
        copy.execute("BEGIN")
        tables_of = "SELECT {} FROM sqlite_master WHERE type = 'table' AND sql NOT NULL"
        for (sql,) in database.execute(tables_of.format("sql")).fetchall():
            if not sql.upper().startswith("CREATE TABLE SQLITE_"):
                copy.execute(sql)
        tables = [name for (name,) in copy.execute(tables_of.format("name"))]
        for table in tables:
            if table != "messages" and not table.startswith("sqlite_"):
                with contextlib.suppress(sqlite3.DatabaseError):
                    _copy_rows(database, copy, table)
        copy.executemany(
            "INSERT OR IGNORE INTO messages (id, topic_id, timestamp, data) VALUES (?, ?, ?, ?)",
            _known(rows_of(source, database, []), copy),
        )
        copy.execute("CREATE INDEX IF NOT EXISTS timestamp_idx ON messages (timestamp ASC)")
        copy.execute("COMMIT")
        columns = {row[1] for row in copy.execute("PRAGMA table_info(topics)")}
        names = ["name", "type", "serialization_format", "id"]
        names += [name for name in ("offered_qos_profiles", "type_description_hash") if name in columns]
        topics = []
        for row in copy.execute(f"SELECT {', '.join(names)} FROM topics").fetchall():
            found = dict(zip(names, row, strict=True))
            (count,) = copy.execute("SELECT count(*) FROM messages WHERE topic_id = ?", (found.pop("id"),)).fetchone()
            counts[found["name"], found["type"]] += count
            qos = _profiles(str(found.get("offered_qos_profiles") or ""))
            topics.append({"type_description_hash": "", **found, "offered_qos_profiles": qos})
    return {"counts": counts, "topics": topics}


def _copy_rows(database: sqlite3.Connection, copy: sqlite3.Connection, table: str) -> None:
    quoted = '"' + table.replace('"', '""') + '"'
    for row in database.execute(f"SELECT * FROM {quoted}"):
        copy.execute(f"INSERT OR IGNORE INTO {quoted} VALUES ({', '.join('?' * len(row))})", row)


def _known(rows: Iterator[tuple[int, int, int, bytes]], copy: sqlite3.Connection) -> Iterator[tuple]:
    topics = {number for (number,) in copy.execute("SELECT id FROM topics")}
    return (row for row in rows if row[1] in topics)


def _information(bag: Bag, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the metadata.yaml of the new bag."""
    counts: Counter[tuple[str, str]] = Counter()
    topics: dict[tuple[str, str], dict[str, Any]] = {}
    for part in parts:
        counts.update(part["counts"])
        for topic in part["topics"]:
            topics.setdefault((topic["name"], topic["type"]), topic)
    return {
        "version": 9,
        "storage_identifier": parts[0]["storage"],
        "duration": {"nanoseconds": bag.end - bag.begin},
        "starting_time": {"nanoseconds_since_epoch": bag.begin},
        "message_count": sum(counts.values()),
        "topics_with_message_count": [
            {"topic_metadata": topic, "message_count": counts[key]} for key, topic in topics.items()
        ],
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": [part["path"] for part in parts],
        "files": [
            {
                "path": part["path"],
                "starting_time": {"nanoseconds_since_epoch": part["begin"]},
                "duration": {"nanoseconds": part["end"] - part["begin"]},
                "message_count": sum(part["counts"].values()),
            }
            for part in parts
        ],
        "custom_data": {**bag.custom, "recovered": f"from {bag.path.name}: " + "; ".join(bag.problems)},
        "ros_distro": "",
    }


__all__ = ["Recovery", "default_out", "recover_bag"]
