"""Small bags in every form that is read, and bags whose definitions of types are wrong, for `fuzz_targets`."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from random import Random

from bench.fuzz_mutations import mutated_bytes
from ssql_ros.bags import BagWriter, qos_profile
from ssql_ros.bags.definitions import Definitions

KIND, ODD = "std_msgs/msg/Float64MultiArray", "odd_msgs/msg/Odd"
# Of a header, of an array with a length, of itself, of what is no name in Python, of more than memory holds.
DEFINITIONS = (
    "float64 x\nstring[] names\nint32[3] three\n",
    "odd_msgs/Odd other\n",
    "odd_msgs/Odd[] others\n",
    "float64[1000000000] many\n",
    "string[100000000] many\n",
    "odd_msgs/Empty[2000000] many\n" + "=" * 80 + "\nMSG: odd_msgs/Empty\n",
    "odd_msgs/Empty[] many\n" + "=" * 80 + "\nMSG: odd_msgs/Empty\n",
    "float64 CONSTANT=1e999\nint32 x\n",
    "int32 X=" + "9" * 5000 + "\n",
    'string X=\'"""; raise SystemExit\'\nint32 class\n',
    "int32 __class__\nint32 import\n",
    "missing_msgs/Missing x\n",
    "int32 x\nint32 x\n",
    "".join(f"odd_msgs/A{i}[100] x\n" + "=" * 80 + f"\nMSG: odd_msgs/A{i}\n" for i in range(12)) + "uint8 y\n",
    "int32 " + "a" * 100_000 + "\n",
    "int32 x # " + "comment " * 10_000 + "\n",
    "string<=5 x\nint32[<=3] y\n",
    "[" * 5000,
    "",
)
TYPES = (ODD, "1odd/msg/Odd", 'x"]; import os; y["', "odd_msgs/msg/Odd\nint32 z", "odd_msgs/Odd", "", "a/b/c/d", "msg")


def _messages() -> Iterator[tuple[str, int, bytes]]:
    store = Definitions().store
    layout = store.types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    import numpy as np

    for i in range(6):
        message = store.types[KIND](layout=layout, data=np.arange(float(i)))
        yield f"/topic_{i % 2}", 10**9 + i, bytes(store.serialize_cdr(message, KIND))


def valid_bags(folder: Path) -> list[tuple[str, bytes, bytes]]:
    """Return bags of one file each: its name, its content and its metadata.yaml; `folder`: to make them in."""
    with BagWriter(folder / "bag", {"robot": "fuzz"}) as writer:
        for topic in ("/topic_0", "/topic_1"):
            writer.add_topic(topic, KIND, [qos_profile()])
        for message in _messages():
            writer.write(*message)
    metadata = (folder / "bag" / "metadata.yaml").read_bytes()
    found = [("bag.mcap", writer.file.read_bytes(), metadata)]
    text = Definitions().definition(KIND).text
    found += [("bag.mcap", _mcap(KIND, text, compression), b"") for compression in ("zstd", "lz4")]
    path = folder / "bag.db3"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT)")
    columns = "id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB"
    database.execute(f"CREATE TABLE messages({columns})")
    for i in range(2):
        database.execute("INSERT INTO topics VALUES(?, ?, ?, 'cdr')", (i, f"/topic_{i}", KIND))
    for topic, time, data in _messages():
        database.execute(
            "INSERT INTO messages(topic_id, timestamp, data) VALUES(?, ?, ?)", (int(topic[-1]), time, data)
        )
    database.commit()
    database.close()
    from backports import zstd

    return [*found, ("bag.db3", path.read_bytes(), b""), ("bag.db3.zstd", zstd.compress(path.read_bytes()), b"")]


def _mcap(kind: str, definition: str, compression: str, data: bytes | None = None) -> bytes:
    from mcap.writer import CompressionType, Writer

    out = io.BytesIO()
    writer = Writer(out, compression=CompressionType[compression.upper()])
    writer.start(profile="ros2", library="fuzz")
    schema = writer.register_schema(name=kind, encoding="ros2msg", data=definition.encode())
    channels = [writer.register_channel(f"/topic_{i}", "cdr", schema) for i in range(2)]
    for topic, time, content in _messages():
        writer.add_message(channels[int(topic[-1])], time, content if data is None else data, time)
    writer.finish()
    return out.getvalue()


def with_definition(rng: Random) -> bytes:
    """Return an MCAP file with a type that is defined wrongly, and a few messages that say to be of it."""
    kind, text = rng.choice(TYPES), rng.choice(DEFINITIONS)
    if rng.random() < 0.3:
        text = mutated_bytes(rng, text.encode()).decode("latin-1")
    data = b"\0\1\0\0" + rng.choice((bytes(8), b"\xff" * 4, b"\1\0\0\0" * 20, rng.randbytes(16)))
    return _mcap(kind, text, rng.choice(("none", "zstd")), data)
