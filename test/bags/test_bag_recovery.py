"""Bags that were not closed: what a kill, a loss of power or a full disk leaves is read, and finished."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import zstandard
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

from ssql_ros.bags import (
    BagError,
    BagWriter,
    UnfinishedBagWarning,
    open_bag,
    qos_profile,
    read_messages,
    recover_bag,
)
from support.bags import JOINTS, SHIELDED, check_read, joints, make_store, shielded, write_both


@pytest.fixture(scope="module")
def store():
    return make_store()


@pytest.fixture
def bag(tmp_path, store):
    with BagWriter(tmp_path / "runs" / "bag", {"contract_id": "minitaur-1"}) as writer:
        write_both(store, writer, 100)
    return tmp_path / "runs" / "bag"


def test_missing_metadata_is_named_and_messages_are_read(bag):
    (bag / "metadata.yaml").unlink()
    with pytest.raises(BagError, match=r"metadata.yaml: is missing: .*`ssql bag recover .*bag` writes that to a new"):
        open_bag(bag)
    with pytest.warns(UnfinishedBagWarning, match=r"metadata.yaml: is missing.*; 200 messages could be read"):
        check_read(bag, 100)
    recovery = recover_bag(bag)
    assert (recovery.messages, recovery.lost) == (200, 0)
    check_read(recovery.out, 100)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_file_yields_what_is_readable_and_says_so(bag, share):
    file = bag / "bag.mcap"
    os.truncate(file, int(share * file.stat().st_size))
    with pytest.raises(BagError, match=r"bag\.mcap: (is cut off|has no end)"):
        open_bag(bag)
    with pytest.warns(UnfinishedBagWarning, match=r"messages could be read"):
        messages = list(read_messages(bag, ["/joint_states"]))
    assert len(messages) > 100 * (share - 0.2)
    assert [message.position[0] for _, _, message in messages] == list(range(len(messages)))


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [False, True])
def test_every_truncation_is_read_or_refused(tmp_path, store, compressed):
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        if compressed:  # as other recorders do
            writer.storage.compression, writer.storage.compressor = "zstd", zstandard.compress
        for topic, kind, make in (("/joint_states", JOINTS, joints), ("/shielded_action", SHIELDED, shielded)):
            connection = writer.add_connection(topic, kind, typestore=store, offered_qos_profiles=[qos_profile()])
            for i in range(10):
                writer.write(connection, i, make(store, i))
            writer.storage.close_chunk()
    file = tmp_path / "bag" / "bag.mcap"
    data = file.read_bytes()
    counts = []
    for size in range(0, len(data), 61):
        file.write_bytes(data[:size])
        with pytest.warns(UnfinishedBagWarning, match=r"bag.mcap.*messages could be read"):
            counts.append(len(list(read_messages(file))))
    assert counts == sorted(counts)
    assert set(counts) == ({0, 10, 20} if compressed else set(range(21)))


def test_zeros_after_a_loss_of_power_end_the_bag(bag):
    file = bag / "bag.mcap"
    size = file.stat().st_size
    os.truncate(file, size // 2)
    os.truncate(file, size)
    with pytest.warns(UnfinishedBagWarning, match=r"bag.mcap: is damaged"):
        count = len(list(read_messages(bag)))
    assert count > 50
    recovery = recover_bag(bag)
    assert recovery.messages == count
    assert recovery.lost == 200 - count  # metadata.yaml told how many there were
    assert len(list(read_messages(recovery.out))) == count


KILLED = """
    import sys, time
    sys.path.insert(0, {folder!r})
    from support.bags import make_store, write_both
    from ssql_ros.bags import BagWriter
    store = make_store()
    writer = BagWriter({path!r})
    write_both(store, writer, 3000)
    writer.flush()
    write_both(store, writer, 10, start=3000)
    print("ready", flush=True)
    time.sleep(60)
"""


def test_killed_writer_loses_nothing_that_was_flushed(tmp_path):
    path = tmp_path / "bag"
    code = textwrap.dedent(KILLED.format(folder=str(Path(__file__).parents[1]), path=str(path)))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
    assert not (path / "metadata.yaml").exists()
    with pytest.warns(UnfinishedBagWarning, match="bag.mcap: has no end: .*; 6000 messages could be read"):
        check_read(path, 3000)
    recovery = recover_bag(path)
    assert (recovery.messages, recovery.lost) == (6000, 0)
    assert "did not close it" in "; ".join(recovery.problems)
    assert [p.name for p in path.iterdir()] == ["bag.mcap"]
    assert sorted(p.name for p in recovery.out.iterdir()) == ["bag_recovered_0.mcap", "metadata.yaml"]
    check_read(recovery.out, 3000)
    with open_bag(recovery.out) as opened:
        assert "did not close" in opened.custom["recovered"]
        assert opened.topics["/shield_node/shielded_action"].count == 3000


def test_recovered_bag_keeps_qos_and_definitions(bag):
    with Reader(bag) as reader:
        before = {c.topic: (c.ext.offered_qos_profiles, c.msgdef, c.digest) for c in reader.connections}
    (bag / "metadata.yaml").unlink()
    with Reader(recover_bag(bag).out) as reader:
        assert {c.topic: (c.ext.offered_qos_profiles, c.msgdef, c.digest) for c in reader.connections} == before


def test_recovery_refuses_what_is_not_a_bag(tmp_path):
    with pytest.raises(BagError, match=r"is not a bag: it holds neither"):
        recover_bag(tmp_path)


@pytest.fixture
def file_size_limit():
    """A disk that is full for files beyond a size: this process may write no longer ones."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size or before[0], before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk_costs_nothing_when_room_comes_back(tmp_path, store, file_size_limit):
    with BagWriter(tmp_path / "bag") as writer:
        write_both(store, writer, 50)
        writer.flush()
        size = writer.file.stat().st_size
        write_both(store, writer, 50, start=50)
        file_size_limit(size + 1000)
        with pytest.raises(OSError, match="File too large"):
            writer.flush()
        assert writer.file.stat().st_size == size
        file_size_limit(None)
        writer.flush()
    check_read(tmp_path / "bag", 100)


def test_full_disk_at_the_end_leaves_what_was_flushed(tmp_path, store, file_size_limit):
    writer = BagWriter(tmp_path / "bag")
    write_both(store, writer, 50)
    writer.flush()
    write_both(store, writer, 50, start=50)
    file_size_limit(writer.file.stat().st_size + 1000)
    with pytest.raises(BagError, match=r"bag.mcap: the bag could not be finished: File too large; .*bag recover"):
        writer.close()
    file_size_limit(None)
    writer.close()
    recovery = recover_bag(tmp_path / "bag")
    assert recovery.messages == 100
    check_read(recovery.out, 50)
