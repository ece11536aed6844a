"""`ssql bag recover`: everything that can be read goes to a new bag, and what was lost is told."""

import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from mcap.writer import CompressionType, IndexType, Writer
from rosbags.rosbag2 import Reader, StoragePlugin
from rosbags.rosbag2 import Writer as RosbagsWriter

from ssql_ros.bags import BagError, BagWriter, raw_messages, recover_bag, survey
from ssql_ros.cli.main import main
from support.walk_bag import KINDS, QOS, Sample, transitions, walk_messages, write_mcap


@pytest.fixture(scope="module")
def messages() -> list[Sample]:
    return walk_messages()


def contents(path: Path) -> dict[str, bytes]:
    """Every byte of a file or a folder."""
    return {part.name: part.read_bytes() for part in (path.iterdir() if path.is_dir() else [path])}


def recorded(path: Path) -> list[tuple]:
    """Return all that an MCAP file tells of its messages, by the library's own reader."""
    with path.open("rb") as file:
        return [
            (
                *(channel.topic, schema and (schema.name, schema.encoding, schema.data)),
                *(channel.message_encoding, channel.metadata),
                *(message.log_time, message.publish_time, message.sequence, message.data),
            )
            for schema, channel, message in make_reader(file).iter_messages(log_time_order=False)
        ]


def test_the_first_byte_costs_nothing_and_the_original_is_kept(messages: list[Sample], tmp_path: Path, capsys) -> None:
    file = write_mcap(tmp_path / "bag" / "bag_0.mcap", messages)
    whole = recorded(file)
    data = bytearray(file.read_bytes())
    data[0] ^= 0x40
    file.write_bytes(bytes(data))
    before = contents(file.parent)
    assert main(["bag", "recover", str(file.parent), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["messages"], told["lost"]) == (400, 0)
    assert told["out"] == str(tmp_path / "bag_recovered")
    assert "does not begin like an MCAP file" in " ".join(told["problems"])
    assert contents(file.parent) == before
    assert recorded(tmp_path / "bag_recovered" / "bag_recovered_0.mcap") == whole
    rows, outcome = transitions(tmp_path / "bag_recovered")
    assert (len(rows), outcome.problems) == (99, [])
    # Not over what is there.
    assert main(["bag", "recover", str(file.parent)]) == 2
    assert "is not overwritten; name another folder with --out" in capsys.readouterr().err
    assert main(["bag", "recover", str(file.parent), "--out", str(tmp_path / "other")]) == 0


def test_a_topic_of_any_encoding_is_carried_along_with_all_that_belongs_to_it(
    messages: list[Sample], tmp_path: Path
) -> None:
    file = tmp_path / "bag" / "bag_0.mcap"
    file.parent.mkdir()
    with file.open("wb") as opened:
        writer = Writer(opened, compression=CompressionType.LZ4, chunk_size=5000)
        writer.start(profile="ros2")
        odd = writer.register_channel(
            "/status", "json", writer.register_schema("Status", "jsonschema", b"{}"), {"a": "b"}
        )
        bare = writer.register_channel("/raw", "application/x", 0)
        ros = writer.register_channel(
            "/odom",
            "cdr",
            writer.register_schema(KINDS["/odom"], "ros2msg", b"float64 x"),
            {"offered_qos_profiles": QOS},
        )
        writer.add_attachment(1, 2, "calibration.yaml", "text/yaml", b"gain: 3")
        writer.add_metadata("robot", {"serial": "17"})
        for i in range(50):
            writer.add_message(odd, i, b'{"ok": true}', i + 7, i)
            writer.add_message(bare, i, b"\xff", i, 2 * i)
            writer.add_message(ros, i, b"not even CDR", i, 3 * i)
        writer.finish()
    whole = recorded(file)
    file.write_bytes(file.read_bytes()[:-30])  # without its end
    recovery = recover_bag(tmp_path / "bag")
    assert (recovery.messages, recovery.lost) == (150, 0)
    out = tmp_path / "bag_recovered" / "bag_recovered_0.mcap"
    assert recorded(out) == whole
    with out.open("rb") as opened:
        reader = make_reader(opened)
        assert reader.get_header().profile == "ros2"
        assert [(a.create_time, a.log_time, a.name, a.data) for a in reader.iter_attachments()] == [
            (1, 2, "calibration.yaml", b"gain: 3")
        ]
        assert [m.metadata for m in reader.iter_metadata() if m.name == "robot"] == [{"serial": "17"}]
    assert survey(tmp_path / "bag_recovered").problem == ""
    assert survey(tmp_path / "bag_recovered").topics["/status"].type == "Status as json"


@pytest.mark.parametrize("compression", [CompressionType.NONE, CompressionType.ZSTD, CompressionType.LZ4])
def test_a_broken_chunk_in_the_middle_costs_its_own_messages(
    messages: list[Sample], tmp_path: Path, compression: CompressionType, capsys
) -> None:
    file = write_mcap(tmp_path / "walk.mcap", messages, compression=compression)
    with file.open("rb") as opened:
        chunks = make_reader(opened).get_summary().chunk_indexes
    data = bytearray(file.read_bytes())
    middle = chunks[len(chunks) // 2]
    for at in range(60, middle.chunk_length - 10, 50):
        data[middle.chunk_start_offset + at] ^= 0xFF
    file.write_bytes(bytes(data))
    assert main(["bag", "recover", str(file), "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["messages"] + told["lost"] == 400
    assert 0 < told["lost"] < 60
    assert f"the chunk at byte {middle.chunk_start_offset} cannot be read" in " ".join(told["problems"])
    assert main(["bag", "check", str(file), "--contract", "minitaur", "--quiet"]) == 3
    assert "cannot be read" in capsys.readouterr().out


def test_a_whole_bag_is_left_alone(messages: list[Sample], tmp_path: Path, capsys) -> None:
    file = write_mcap(tmp_path / "walk.mcap", messages)
    with BagWriter(tmp_path / "bag") as writer:
        from ssql_ros.bags import qos_profile

        writer.add_topic("/odom", KINDS["/odom"], [qos_profile()])
        for message in messages[2::4]:
            writer.write("/odom", message.time, message.data)
    for path in (file, tmp_path / "bag"):
        before = contents(path)
        assert main(["bag", "recover", str(path)]) == 0
        assert "is whole" in capsys.readouterr().out
        assert contents(path) == before
    assert sorted(part.name for part in tmp_path.iterdir()) == ["bag", "walk.mcap"]


def test_a_bag_that_is_still_being_written_is_refused(messages: list[Sample], tmp_path: Path, capsys) -> None:
    from ssql_ros.bags import qos_profile

    writer = BagWriter(tmp_path / "ours")
    writer.add_topic("/odom", KINDS["/odom"], [qos_profile()])
    writer.write("/odom", 1, messages[2].data)
    writer.flush()
    assert main(["bag", "recover", str(tmp_path / "ours")]) == 2
    assert "is still being written by" in capsys.readouterr().err
    assert [part.name for part in tmp_path.iterdir()] == ["ours"]
    writer.close()
    assert main(["bag", "recover", str(tmp_path / "ours")]) == 0
    # Another recorder, that locks nothing.
    theirs = write_mcap(tmp_path / "theirs.mcap", messages)
    theirs.write_bytes(theirs.read_bytes()[:-500])
    code = "import sys; f = open(sys.argv[1], 'ab'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(theirs)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(BagError, match=rf"theirs.mcap: is still being written by process {process.pid} \("):
            recover_bag(theirs)
        process.communicate("")
    assert recover_bag(theirs).messages == 400


def test_a_lock_alone_refuses_too(messages: list[Sample], tmp_path: Path) -> None:
    file = write_mcap(tmp_path / "walk.mcap", messages)
    with file.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BagError, match="is still being written by its recorder"):
            recover_bag(file)


def sqlite_bag(path: Path, messages: list[Sample]) -> Path:
    from support.bags import make_store

    store = make_store()
    with RosbagsWriter(path, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        topics = {topic: writer.add_connection(topic, kind, typestore=store) for topic, kind in KINDS.items()}
        for message in messages:
            writer.write(topics[message.topic], message.time, message.data)
    return path


def test_of_a_database_everything_that_can_be_read_is_kept(messages: list[Sample], tmp_path: Path) -> None:
    bag = sqlite_bag(tmp_path / "bag", messages)
    (file,) = bag.glob("*.db3")
    with closing(sqlite3.connect(file)) as database:
        (size,) = database.execute("PRAGMA page_size").fetchone()
        rows = database.execute("SELECT id, topic_id, timestamp, data FROM messages ORDER BY id").fetchall()
    data = bytearray(file.read_bytes())
    at = len(data) // 2 // size * size
    data[at : at + size] = b"\xff" * size
    file.write_bytes(bytes(data))
    before = contents(bag)
    recovery = recover_bag(bag)
    assert contents(bag) == before
    assert recovery.lost is not None
    assert recovery.messages + recovery.lost == 400
    assert 0 < recovery.lost < 40
    (out,) = (tmp_path / "bag_recovered").glob("*.db3")
    with closing(sqlite3.connect(out)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        kept = database.execute("SELECT id, topic_id, timestamp, data FROM messages ORDER BY id").fetchall()
    assert set(kept) <= set(rows)
    with Reader(tmp_path / "bag_recovered") as reader:
        assert reader.message_count == recovery.messages == len(list(reader.messages()))
    assert survey(tmp_path / "bag_recovered").problem == ""


def test_of_several_files_the_whole_ones_are_kept_too(messages: list[Sample], tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    for part in range(3):
        write_mcap(bag / f"bag_{part}.mcap", messages[part * 120 : part * 120 + 160 if part == 2 else part * 120 + 120])
    file = bag / "bag_1.mcap"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    recovery = recover_bag(bag)
    assert recovery.lost is None
    assert 280 < recovery.messages < 400
    assert [part.name for part in sorted((tmp_path / "bag_recovered").glob("*.mcap"))] == [
        f"bag_recovered_{i}.mcap" for i in range(3)
    ]
    assert len(list(raw_messages(tmp_path / "bag_recovered", KINDS))) == recovery.messages


def test_without_room_it_is_told_how_much_is_needed(messages: list[Sample], tmp_path: Path) -> None:
    file = write_mcap(tmp_path / "walk.mcap", messages)
    file.write_bytes(file.read_bytes()[:-500])
    before = contents(file)
    # A disk that is full for files beyond a size.
    code = textwrap.dedent("""
        import resource, signal, sys
        from ssql_ros.cli.main import main
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        sys.exit(main(["bag", "recover", sys.argv[1]]))
    """)
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "needs about 1.3 MB" in done.stderr
    assert "on another disk with --out" in done.stderr
    assert [part.name for part in tmp_path.iterdir()] == ["walk.mcap"]
    assert contents(file) == before


VARIANTS = {
    "chunks": {},
    "no checksums": {"enable_crcs": False},
    "zstd": {"compression": CompressionType.ZSTD},
    "no chunks": {"use_chunking": False},
    "no summary": {
        **{"index_types": IndexType.NONE, "repeat_channels": False, "repeat_schemas": False, "chunk_size": 3000},
        **{"use_statistics": False, "use_summary_offsets": False},
    },
}


@pytest.fixture(scope="module")
def variants(messages: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("variants")
    return {
        name: write_mcap(folder / f"{number}.mcap", messages, **options).read_bytes()
        for number, (name, options) in enumerate(VARIANTS.items())
    }


@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    variant=st.sampled_from(list(VARIANTS)),
    kind=st.sampled_from(["flip", "flips", "truncate", "zeros", "noise", "cut out", "put in"]),
    place=st.floats(0, 1, exclude_max=True),
    length=st.integers(1, 3000),
    bit=st.integers(0, 7),
    seed=st.integers(0, 1000),
)
def test_damage_anywhere_keeps_the_rest_and_tells_what_was_lost(
    messages: list[Sample], variants: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, **damage
) -> None:
    import random

    data, rng = bytearray(variants[damage["variant"]]), random.Random(damage["seed"])
    at, length = int(damage["place"] * len(data)), damage["length"]
    if damage["kind"] == "flip":
        data[at] ^= 1 << damage["bit"]
    elif damage["kind"] == "flips":
        for _ in range(5):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif damage["kind"] == "truncate":
        del data[at:]
    elif damage["kind"] == "zeros":
        data[at : at + length] = bytes(len(data[at : at + length]))
    elif damage["kind"] == "noise":
        data[at : at + length] = rng.randbytes(len(data[at : at + length]))
    elif damage["kind"] == "cut out":
        del data[at : at + length]
    else:
        data[at:at] = rng.randbytes(length)
    folder = tmp_path_factory.mktemp("damaged")
    file = folder / "walk.mcap"
    file.write_bytes(bytes(data))
    os.utime(file, (0, 0))  # of long ago: nobody waits to see whether it grows
    try:
        recovery = recover_bag(file)
    except BagError:
        assert len(data) < 30_000 or damage["kind"] != "flip"
    else:
        count = recovery.messages
        assert count <= 400
        if recovery.out is not None:
            assert len(recorded(recovery.out / "walk_recovered_0.mcap")) == count
            assert survey(recovery.out).problem == ""
        # Every message is there or accounted for; where nobody can know how many there were, that is told.
        if recovery.lost is not None:
            assert count + recovery.lost == 400
        if count < 400:
            assert recovery.lost is None or recovery.lost > 0
            assert recovery.problems
        if damage["kind"] == "flip" and damage["variant"] in ("no chunks", "no checksums"):
            assert count >= 398
    assert file.read_bytes() == bytes(data)
    shutil.rmtree(folder)


def test_a_symbolic_link_and_a_trailing_slash_are_the_bag_itself(
    messages: list[Sample], tmp_path: Path, monkeypatch
) -> None:
    file = write_mcap(tmp_path / "runs" / "bag" / "bag_0.mcap", messages)
    os.truncate(file, file.stat().st_size - 100)
    monkeypatch.chdir(file.parent)
    assert recover_bag(".").out is not None
    assert (tmp_path / "runs" / "bag_recovered").is_dir()
    assert [part.name for part in file.parent.iterdir()] == ["bag_0.mcap"]
