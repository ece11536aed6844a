"""Bags as exporters, merging tools and other recorders leave them: what they hold is read, in the order of time."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.writer import CompressionType, IndexType
from rosbags.rosbag2 import StoragePlugin, Writer

from ssql_ros.bags import raw_messages, survey
from ssql_ros.bags.ordering import in_time
from ssql_ros.cli.main import main
from support.walk_bag import KINDS, PERIOD, START, Sample, transitions, walk_messages, with_time, write_mcap


@pytest.fixture(scope="module")
def messages() -> list[Sample]:
    return walk_messages()


@pytest.fixture(scope="module")
def expected(messages: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    rows, outcome = transitions(write_mcap(tmp_path_factory.mktemp("walk") / "walk.mcap", messages))
    assert (len(rows), outcome.problems) == (99, [])
    return rows


def check_rows(rows: list[dict], expected: list[dict]) -> None:
    assert len(rows) == len(expected)
    for mine, its in zip(rows, expected, strict=True):
        assert all(np.array_equal(mine[name], value) for name, value in its.items())


def by_topic(messages: list[Sample]) -> list[Sample]:
    return sorted(messages, key=lambda message: list(KINDS).index(message.topic))


def shuffled(messages: list[Sample]) -> list[Sample]:
    return [messages[i] for i in np.random.default_rng(0).permutation(len(messages))]


def newer_first(messages: list[Sample]) -> list[Sample]:
    odom = next(message for message in messages if message.topic == "/odom")
    return [with_time(odom, START + 10_000_000_000), *messages]


ORDERS = {
    "as recorded": list,
    "topic by topic": by_topic,
    "backwards": lambda messages: messages[::-1],
    "shuffled": shuffled,
    "one newer first": newer_first,
}
WRITERS = {
    "chunks": {},
    "zstd": {"compression": CompressionType.ZSTD},
    "lz4": {"compression": CompressionType.LZ4},
    "one chunk": {"chunk_size": 1 << 30},
    "no chunks": {"use_chunking": False},
    "no message index": {"index_types": IndexType.CHUNK},
    "no index": {"index_types": IndexType.NONE},
    "channels not repeated": {"repeat_channels": False},
    "schemas not repeated": {"repeat_schemas": False},
    "no summary": {
        **{"index_types": IndexType.NONE, "repeat_channels": False, "repeat_schemas": False},
        **{"use_statistics": False, "use_summary_offsets": False},
    },
    "no checksums": {"enable_crcs": False},
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("options", WRITERS)
def test_every_order_and_every_way_of_writing_gives_the_same_transitions(
    messages: list[Sample], expected: list[dict], tmp_path: Path, order: str, options: str
) -> None:
    file = write_mcap(tmp_path / "walk.mcap", ORDERS[order](messages), **WRITERS[options])
    rows, outcome = transitions(file)
    assert outcome.problems == []
    assert outcome.counts["messages"] == 400 + (order == "one newer first")
    check_rows(rows, expected)
    seen = survey(file)
    assert seen.problem == ""
    assert {topic: info.count for topic, info in seen.topics.items()} == {
        topic: 100 + (order == "one newer first" and topic == "/odom") for topic in KINDS
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(range(40)),
    times=st.lists(st.integers(0, 30), min_size=40, max_size=40),
    chunk=st.sampled_from([1, 500, 5000, 1 << 20]),
    chunked=st.booleans(),
    files=st.integers(1, 3),
)
def test_messages_come_in_the_order_of_log_time_whatever_their_order_in_files(
    messages: list[Sample], tmp_path_factory: pytest.TempPathFactory, order, times, chunk, chunked, files
) -> None:
    bag = tmp_path_factory.mktemp("order")
    mixed = [with_time(messages[i], times[i]) for i in order]
    for part in range(files):
        write_mcap(bag / f"bag_{part}.mcap", mixed[part::files], chunk_size=chunk, use_chunking=chunked)
    with pytest.warns(UserWarning, match=r"metadata\.yaml: is missing"):
        found = list(raw_messages(bag, KINDS))
    assert [time for _, _, time, _ in found] == sorted(times)
    assert sorted(data for _, _, _, data in found) == sorted(message.data for message in mixed)
    shutil.rmtree(bag)


def test_no_source_is_opened_before_it_is_due() -> None:
    opened: list[int] = []

    def source(number: int, times: list[int]):
        def messages():
            opened.append(number)
            for time in times:
                yield time, ("/x", "y", time, bytes([number]))

        return min(times), max(times), messages

    found = in_time([source(0, [10, 20]), source(1, [0, 5]), source(2, [5, 12]), source(3, [30])])
    assert next(found)[0] == 0
    assert opened == [1]
    rest = [(time, raw[3][0]) for time, raw in found]
    assert rest == [(5, 1), (5, 2), (10, 0), (12, 2), (20, 0), (30, 3)]


@pytest.mark.parametrize("storage", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
@pytest.mark.parametrize("listed", ["as recorded", "the other way round"])
def test_files_that_overlap_and_are_listed_in_any_order_are_merged(
    messages: list[Sample], expected: list[dict], tmp_path: Path, storage: StoragePlugin, listed: str
) -> None:
    from support.bag_forms import joined
    from support.bags import make_store

    store = make_store()
    # By topic: every file spans the whole time.
    for part, topic in enumerate(KINDS):
        with Writer(tmp_path / "bag" / str(part) / "bag", version=9, storage_plugin=storage) as writer:
            its = writer.add_connection(topic, KINDS[topic], typestore=store)
            others = [writer.add_connection(other, KINDS[other], typestore=store) for other in KINDS if other != topic]
            assert len(others) == 3
            for message in messages:
                if message.topic == topic:
                    writer.write(its, message.time, message.data)
    bag = joined(tmp_path / "bag")
    document = yaml.safe_load((bag / "metadata.yaml").read_text())
    information = document["rosbag2_bagfile_information"]
    for entry in information["topics_with_message_count"]:
        entry["message_count"] = 100
    if listed != "as recorded":
        information["relative_file_paths"].reverse()
        information["files"].reverse()
    (bag / "metadata.yaml").write_text(yaml.safe_dump(document))
    rows, outcome = transitions(bag)
    assert outcome.problems == []
    check_rows(rows, expected)


def test_of_two_types_on_one_topic_the_contract_s_is_used_and_the_other_told(
    messages: list[Sample], expected: list[dict], tmp_path: Path, capsys
) -> None:
    other = Sample("/odom", "geometry_msgs/msg/TwistStamped", START + 50 * PERIOD + 5, b"\x00\x01\x00\x00" + bytes(60))
    for place in (0, 200, 400):
        mixed = [*messages[:place], other, *messages[place:]]
        file = write_mcap(tmp_path / f"{place}.mcap", mixed)
        rows, outcome = transitions(file)
        check_rows(rows, expected)
        (problem,) = outcome.problems
        assert "/odom: 1 messages of type geometry_msgs/msg/TwistStamped are not used" in problem
    assert main(["bag", "check", str(file), "--contract", "minitaur", "--quiet"]) == 3
    assert "problem: " in capsys.readouterr().out
    assert main(["bag", "info", str(file)]) == 0
    assert "geometry_msgs/msg/TwistStamped" in capsys.readouterr().out


@pytest.mark.parametrize("told", [10, 99, 101, 5000])
def test_counts_of_metadata_that_are_off_are_told_and_everything_is_read(
    messages: list[Sample], expected: list[dict], tmp_path: Path, told: int, capsys
) -> None:
    from support.bags import make_store

    bag, store = tmp_path / "bag", make_store()
    with Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = {topic: writer.add_connection(topic, kind, typestore=store) for topic, kind in KINDS.items()}
        for message in messages:
            writer.write(topics[message.topic], message.time, message.data)
    text = (bag / "metadata.yaml").read_text()
    (bag / "metadata.yaml").write_text(re.sub(r"(?m)- message_count: 100$", f"- message_count: {told}", text, count=1))
    rows, outcome = transitions(bag)
    check_rows(rows, expected)
    (problem,) = outcome.problems
    assert f"metadata.yaml: its counts of messages are off: {told} of /" in problem
    assert "where 100 can be read" in problem
    assert "recover" not in problem
    assert main(["bag", "info", str(bag), "--json"]) == 3
    assert "counts of messages are off" in json.loads(capsys.readouterr().out)["problem"]


@pytest.mark.parametrize(
    ("encoding", "advice"),
    [("json", "only messages serialised by ROS 2"), ("ros1", "rosbags-convert"), ("protobuf", "only messages")],
)
def test_another_serialisation_is_named_with_what_to_do(
    messages: list[Sample], tmp_path: Path, encoding: str, advice: str, capsys
) -> None:
    strange = [
        Sample(message.topic, message.kind.replace("/msg", ""), message.time, b"{}", 0, encoding)
        for message in messages
    ]
    file = write_mcap(tmp_path / "strange.mcap", strange)
    assert main(["bag", "info", str(file)]) == 0
    assert f"as {encoding}" in capsys.readouterr().out
    assert main(["bag", "check", str(file), "--contract", "minitaur", "--quiet"]) == 2
    told = capsys.readouterr().err
    assert f"sensor_msgs/JointState as {encoding}" in told or f"sensor_msgs/Imu as {encoding}" in told
    assert advice in told
    assert "recover" not in told


def test_a_pointer_of_git_lfs_is_called_what_it_is(tmp_path: Path, capsys) -> None:
    for name in ("walk.mcap", "walk.db3"):
        file = tmp_path / name.replace(".", "_") / name
        file.parent.mkdir()
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345678\n")
        for path in (file, file.parent):
            for command in (["info"], ["recover"], ["check", "--contract", "minitaur", "--quiet"]):
                assert main(["bag", command[0], str(path), *command[1:]]) == 2
                told = capsys.readouterr().err
                assert f"{name}: is a Git LFS pointer and not the bag of 12.3 MB itself; `git lfs pull`" in told
                assert "bag recover" not in told
