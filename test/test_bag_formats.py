"""Every form that rosbag2 gives a bag: the same walk converts to the same transitions; damage costs what is damaged.

The bags are written by the `rosbags` library: SQLite and MCAP, compressed by file, by message and by chunk, split.
"""

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from bag_helpers import make_store
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from ssql_ros.bags import BagError, open_bag, qos_profile, raw_messages, survey
from ssql_ros.bags.conversion import Conversion, convert
from ssql_ros.bench.bag import make_bag
from ssql_ros.cli.main import main
from ssql_ros.dataset import DataSet
from ssql_ros.rewards import ForwardVelocity, reward_of
from ssql_ros.tasks import find_task

MINITAUR = find_task("minitaur").contract()
REWARD = reward_of(MINITAUR)
MYSTERY = "other_msgs/msg/Mystery"
NANOSECONDS = 1_000_000_000

NONE, FILE, MESSAGE, CHUNK = (getattr(CompressionMode, name) for name in ("NONE", "FILE", "MESSAGE", "STORAGE"))
SQLITE, MCAP = StoragePlugin.SQLITE3, StoragePlugin.MCAP


@dataclass(frozen=True)
class Form:
    """How a bag lies on the disk."""

    storage: StoragePlugin
    compression: CompressionMode = NONE
    files: int = 1
    version: int = 9

    def __str__(self) -> str:
        return f"{self.storage.name}-{self.compression.name}-{self.files}-v{self.version}".lower()


FORMS = [
    Form(SQLITE),
    Form(SQLITE, version=8),
    Form(SQLITE, FILE),
    Form(SQLITE, MESSAGE),
    Form(SQLITE, NONE, 3),
    Form(SQLITE, FILE, 3),
    Form(MCAP, FILE),
    Form(MCAP, MESSAGE),
    Form(MCAP, CHUNK),
    Form(MCAP, NONE, 3),
    Form(MCAP, FILE, 3),
]


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("walk") / "walk"
    make_bag(path, "minitaur", 0.3, 0)
    return path


@pytest.fixture(scope="module")
def expected(walk: Path) -> list[dict]:
    rows, outcome = converted(walk)
    assert (len(rows), outcome.problems) == (499, [])
    return rows


def converted(bag: Path, **options: str) -> tuple[list[dict], Conversion]:
    rows: list[dict] = []
    return rows, convert([bag], MINITAUR, REWARD, rows.append, **options)


def check_same(rows: list[dict], expected: list[dict]) -> None:
    """What is there is what the whole bag says."""
    by_stamp = {row["stamp"]: row for row in expected}
    begins = {row["episode"]: row["stamp"] for row in reversed(rows)}
    for row in rows:
        its = by_stamp[row["stamp"]]
        for name in ("action", "margin", "incident", "terminal"):
            assert np.array_equal(row[name], its[name]), name
        # After a cut the history of observations and of the reward's actions begins anew.
        if row["stamp"] - begins[row["episode"]] > 0.2 * NANOSECONDS:
            assert row["reward"] == its["reward"]
            assert np.array_equal(row["observation"], its["observation"])


def write_as(form: Form, walk: Path, path: Path, namespace: str = "", strangers: bool = False) -> Path:
    """Write the walk in another form.

    Args:
        strangers: with topics that no contract names, one of a type that nobody knows.
    """
    store = make_store()
    with open_bag(walk) as opened:
        kinds = {topic: info.type for topic, info in opened.topics.items()}
    messages = list(raw_messages(walk, kinds))
    parts = [
        messages[i * len(messages) // form.files : (i + 1) * len(messages) // form.files] for i in range(form.files)
    ]
    for i, part in enumerate(parts):
        writer = Writer(path / str(i) / path.name, version=form.version, storage_plugin=form.storage)
        writer.set_compression(form.compression, CompressionFormat.ZSTD)
        with writer:
            topics = {
                topic: writer.add_connection(
                    f"{namespace}{topic}", kind, typestore=store, offered_qos_profiles=[qos_profile()]
                )
                for topic, kind in kinds.items()
            }
            if strangers:
                mystery = writer.add_connection("/mystery", MYSTERY, msgdef="float64 x", rihs01="RIHS01_" + "0" * 64)
                writer.write(mystery, part[0][2], b"\x00\x01\x00\x00" + bytes(8))
            for topic, _, time, data in part:
                writer.write(topics[topic], time, data)
    return joined(path)


def joined(path: Path) -> Path:
    """Make one bag of the parts in `path`/0/NAME ...: files and metadata.yaml as `ros2 bag record` leaves them."""
    told = []
    for part in sorted(path.iterdir(), key=lambda part: int(part.name)):
        info = yaml.safe_load((part / path.name / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
        (old,) = info["relative_file_paths"]
        file = next(file for file in (part / path.name).iterdir() if file.name.startswith(old))
        info["relative_file_paths"] = [file.name.replace(path.name, f"{path.name}_{part.name}", 1)]
        file.rename(path / info["relative_file_paths"][0])
        told.append(info)
        shutil.rmtree(part)
    whole = dict(told[0])
    whole["relative_file_paths"] = [file for info in told for file in info["relative_file_paths"]]
    begins = [info["starting_time"]["nanoseconds_since_epoch"] for info in told]
    lengths = [info["duration"]["nanoseconds"] for info in told]
    counts = [info["message_count"] for info in told]
    whole["duration"] = {"nanoseconds": begins[-1] + lengths[-1] - begins[0]}
    whole["message_count"] = sum(counts)
    for at, topic in enumerate(whole["topics_with_message_count"]):
        topic["message_count"] = sum(info["topics_with_message_count"][at]["message_count"] for info in told)
    whole["files"] = [
        {
            "path": file,
            "starting_time": {"nanoseconds_since_epoch": begin},
            "duration": {"nanoseconds": length},
            "message_count": count,
        }
        for file, begin, length, count in zip(whole["relative_file_paths"], begins, lengths, counts, strict=True)
    ]
    (path / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": whole}))
    return path


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_of_a_bag_gives_the_same_transitions(
    walk: Path, expected: list[dict], tmp_path: Path, form: Form
) -> None:
    bag = write_as(form, walk, tmp_path / "bag")
    rows, outcome = converted(bag)
    assert outcome.problems == []
    assert len(rows) == len(expected)
    for mine, its in zip(rows, expected, strict=True):
        assert all(np.array_equal(mine[name], value) for name, value in its.items())
    seen = survey(bag)
    assert sum(topic.count for topic in seen.topics.values()) == 2000
    assert seen.problem == ""


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_without_metadata_everything_is_read_and_the_account_says_so(
    walk: Path, expected: list[dict], tmp_path: Path, form: Form
) -> None:
    bag = write_as(form, walk, tmp_path / "bag")
    (bag / "metadata.yaml").unlink()
    rows, outcome = converted(bag)
    (problem,) = outcome.problems
    assert f"{bag / 'metadata.yaml'}: is missing" in problem
    assert "everything could be read" in problem
    assert len(rows) == len(expected)
    assert all(np.array_equal(a["observation"], b["observation"]) for a, b in zip(rows, expected, strict=True))
    seen = survey(bag)
    assert sum(topic.count for topic in seen.topics.values()) == 2000
    assert "metadata.yaml: is missing" in seen.problem


@pytest.mark.parametrize("kept", [0.5, 0.9])
@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize("form", [form for form in FORMS if form.files == 1 and form.version == 9], ids=str)
def test_a_cut_off_file_gives_what_comes_before_the_cut(
    walk: Path, expected: list[dict], tmp_path: Path, form: Form, metadata: bool, kept: float
) -> None:
    bag = write_as(form, walk, tmp_path / "bag")
    (file,) = (file for file in bag.iterdir() if file.name != "metadata.yaml")
    data = file.read_bytes()
    file.write_bytes(data[: int(kept * len(data))])
    if not metadata:
        (bag / "metadata.yaml").unlink()
    if form.compression == CHUNK and kept == 0.5:
        # A chunk of compression is all or nothing, and this walk is no more than one.
        with pytest.raises(BagError, match=r"bag_0\.mcap: is cut off at byte"):
            converted(bag)
        return
    rows, outcome = converted(bag)
    assert any(str(bag) in problem for problem in outcome.problems)
    check_same(rows, expected)
    assert len(rows) > 0.85 * kept * len(expected)
    assert outcome.counts["unreadable"] == 0


@pytest.mark.parametrize("storage", [SQLITE, MCAP])
def test_a_part_of_a_split_bag_that_is_damaged_or_gone_costs_no_other(
    walk: Path, expected: list[dict], tmp_path: Path, storage: StoragePlugin
) -> None:
    bag = write_as(Form(storage, NONE, 3), walk, tmp_path / "bag")
    (middle,) = bag.glob("bag_1*")
    whole = middle.read_bytes()
    middle.write_bytes(whole[: len(whole) // 2])
    rows, outcome = converted(bag)
    assert any(str(middle) in problem for problem in outcome.problems)
    check_same(rows, expected)
    assert 2 / 3 * len(expected) + 20 < len(rows) < len(expected) - 20
    assert {row["episode"] for row in rows} == {0, 1}
    middle.unlink()
    rows, outcome = converted(bag)
    assert any("bag_1" in problem for problem in outcome.problems)
    check_same(rows, expected)
    assert 2 / 3 * len(expected) - 6 < len(rows) <= 2 / 3 * len(expected)


def test_a_page_of_a_database_that_is_overwritten_costs_what_lay_in_it(
    walk: Path, expected: list[dict], tmp_path: Path
) -> None:
    bag = write_as(Form(SQLITE), walk, tmp_path / "bag")
    (file,) = bag.glob("*.db3")
    with closing(sqlite3.connect(file)) as database:
        (size,) = database.execute("PRAGMA page_size").fetchone()
    data = bytearray(file.read_bytes())
    at = len(data) // 2 // size * size
    data[at : at + size] = b"\xff" * size
    file.write_bytes(bytes(data))
    rows, outcome = converted(bag)
    assert any(str(file) in problem and "cannot be read" in problem for problem in outcome.problems)
    check_same(rows, expected)
    assert len(rows) > 0.9 * len(expected)


def test_a_recorder_that_was_killed_leaves_its_newest_messages_in_the_log_of_its_database(
    walk: Path, expected: list[dict], tmp_path: Path
) -> None:
    bag = write_as(Form(SQLITE), walk, tmp_path / "bag")
    (file,) = bag.glob("*.db3")
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        last = list(database.execute("SELECT * FROM messages WHERE id > 1000"))
        database.execute("DELETE FROM messages WHERE id > 1000")
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.executemany(f"INSERT INTO messages VALUES ({','.join('?' * len(last[0]))})", last)
        database.commit()
        # As a kill leaves them: a database that has not been closed, and its log.
        killed = tmp_path / "killed" / "bag"
        killed.mkdir(parents=True)
        for part in bag.iterdir():
            if part.suffix in (".db3", ".db3-wal"):
                shutil.copy(part, killed)
    assert len(list(killed.iterdir())) == 2
    before = {part.name: part.read_bytes() for part in killed.iterdir()}
    rows, _ = converted(killed)
    assert [row["stamp"] for row in rows] == [row["stamp"] for row in expected]
    assert {name: (killed / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("storage", [SQLITE, MCAP])
def test_a_type_that_nobody_knows_stands_in_no_one_s_way(
    walk: Path, expected: list[dict], tmp_path: Path, storage: StoragePlugin, capsys
) -> None:
    bag = write_as(Form(storage), walk, tmp_path / "bag", namespace="/robot", strangers=True)
    rows, outcome = converted(bag)
    assert (len(rows), outcome.problems) == (len(expected), [])
    assert main(["bag", "info", str(bag), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["topics"]["/mystery"] == {"type": MYSTERY, "messages": 1}
    # Where the contract needs the topic, it is refused by name.
    with Writer(tmp_path / "odd", version=9, storage_plugin=storage) as writer:
        for topic in ("/joint_states", "/imu/data", "/joint_commands", "/odom"):
            odd = writer.add_connection(topic, MYSTERY, msgdef="float64 x", rihs01="RIHS01_" + "0" * 64)
            writer.write(odd, 0, b"\x00\x01\x00\x00" + bytes(8))
    with pytest.raises(BagError, match=f"expected type .*, the bag has {MYSTERY}"):
        converted(tmp_path / "odd")


def test_topics_that_the_contract_s_yaml_names_serve_as_any(walk: Path, expected: list[dict], tmp_path: Path) -> None:
    from ssql_ros.spec import find_contract, load_contract

    # Somebody's robot, recorded by `ros2 bag record`: other names, absolute and relative, in a namespace.
    store, bag = make_store(), tmp_path / "bag"
    names = {
        "/joint_states": "/dog/motors/state",
        "/imu/data": "/dog/vectornav/imu",
        "/joint_commands": "/dog/motors/command",
        "/odom": "/tracker/odometry",
    }
    with open_bag(walk) as opened:
        kinds = {topic: info.type for topic, info in opened.topics.items()}
    with Writer(bag, version=9, storage_plugin=SQLITE) as writer:
        topics = {topic: writer.add_connection(names[topic], kind, typestore=store) for topic, kind in kinds.items()}
        for topic, _, time, data in raw_messages(walk, kinds):
            writer.write(topics[topic], time, data)
    document = yaml.safe_load(find_contract("minitaur").read_text())
    by_old = {old.lstrip("/"): new.removeprefix("/dog/") for old, new in names.items()}
    for source in document["inputs"].values():
        source["topic"] = by_old[source["topic"]]
    document["action"]["command"]["topic"] = by_old[document["action"]["command"]["topic"]]
    path = tmp_path / "dog.yaml"
    path.write_text(yaml.safe_dump(document))
    contract = load_contract(path)
    rows: list[dict] = []
    outcome = convert([bag], contract, reward_of(contract), rows.append)
    assert (len(rows), outcome.problems) == (len(expected), [])
    assert all(np.array_equal(a["observation"], b["observation"]) for a, b in zip(rows, expected, strict=True))


def test_of_several_robots_in_a_bag_one_must_be_named(walk: Path, expected: list[dict], tmp_path: Path) -> None:
    store, bag = make_store(), tmp_path / "bag"
    with open_bag(walk) as opened:
        kinds = {topic: info.type for topic, info in opened.topics.items()}
    with Writer(bag, version=9, storage_plugin=MCAP) as writer:
        topics = {
            f"{space}{topic}": writer.add_connection(f"{space}{topic}", kind, typestore=store)
            for space in ("/a", "/b")
            for topic, kind in kinds.items()
        }
        for topic, _, time, data in raw_messages(walk, kinds):
            for space in ("/a", "/b"):
                writer.write(topics[f"{space}{topic}"], time, data)
    with pytest.raises(BagError, match=r"several robots: .* under /a, /b; say which with --namespace"):
        converted(bag)
    rows, _ = converted(bag, namespace="a")
    assert len(rows) == len(expected)
    with pytest.raises(BagError, match="has no topic /c/imu/data"):
        converted(bag, namespace="/c/")


def test_one_bag_of_several_that_cannot_be_read_costs_no_other(walk: Path, tmp_path: Path, capsys) -> None:
    bad = tmp_path / "bad.db3"
    bad.write_bytes(b"SQLite format 3\x00" + bytes(200))
    out = tmp_path / "set"
    command = ["bag", "convert", str(bad), str(walk), "--contract", "minitaur", "--out", str(out), "--quiet", "--json"]
    assert main(command) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == 499
    assert any("bad.db3" in problem for problem in told["problems"])
    assert DataSet(out).manifest["problems"] == told["problems"]
    assert isinstance(REWARD, ForwardVelocity)
