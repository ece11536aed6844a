"""The recording thread: handing over never waits for the disk, and what cannot be written is counted and said."""

import threading
import time

import pytest

from ssql_ros.bags import BagError, BagWriter, Recording, qos_profile, read_messages

STRING = "std_msgs/msg/String"
DATA = b"\x00\x01\x00\x00\x02\x00\x00\x00a\x00"  # CDR of the text "a"


@pytest.fixture
def slow_disk(monkeypatch):
    """Writing to disk waits for the event that this returns."""
    free = threading.Event()
    flush = BagWriter.flush
    monkeypatch.setattr(BagWriter, "flush", lambda writer: free.wait(20) and flush(writer))
    monkeypatch.setattr("ssql_ros.bags.recording.FLUSH_BYTES", 0)
    yield free
    free.set()


def start(path, max_bytes=1000):
    reports = []
    recording = Recording(BagWriter(path), max_bytes, reports.append)
    recording.add_topic("/a", STRING, [qos_profile()])
    return recording, reports


def wait(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_everything_handed_over_is_in_the_bag(tmp_path):
    recording, reports = start(tmp_path / "bag", max_bytes=10**6)
    for i in range(5000):
        assert recording.put("/a", i, DATA)
    recording.close()
    assert (recording.received, recording.dropped, recording.lost) == ({"/a": 5000}, {"/a": 0}, 0)
    assert (recording.problem, reports) == ("", [])
    assert [(time, message.data) for _, time, message in read_messages(tmp_path / "bag")] == [
        (i, "a") for i in range(5000)
    ]


def test_slow_disk_drops_when_the_queue_is_full_and_counts_it(tmp_path, slow_disk):
    recording, _ = start(tmp_path / "bag", max_bytes=10 * len(DATA))
    recording.put("/a", 0, DATA)
    wait(lambda: recording.queued_bytes == 0)  # the thread has taken it and waits for the disk
    start_time = time.monotonic()
    assert [recording.put("/a", i, DATA) for i in range(1, 21)] == [True] * 10 + [False] * 10
    assert time.monotonic() - start_time < 1.0
    assert recording.dropped == {"/a": 10}
    slow_disk.set()
    recording.close()
    assert recording.lost == 10
    assert [time for _, time, _ in read_messages(tmp_path / "bag")] == list(range(11))


def test_full_disk_is_said_once_and_nothing_is_lost_when_room_comes_back(tmp_path, monkeypatch):
    flush, full = BagWriter.flush, threading.Event()

    def flush_when_there_is_room(writer):
        if full.is_set():
            raise OSError(28, "No space left on device")
        flush(writer)

    monkeypatch.setattr(BagWriter, "flush", flush_when_there_is_room)
    monkeypatch.setattr("ssql_ros.bags.recording.FLUSH_SECONDS", 0.05)
    full.set()
    recording, reports = start(tmp_path / "bag")
    for i in range(5):
        recording.put("/a", i, DATA)
    wait(lambda: reports)
    time.sleep(0.3)  # several more attempts
    assert reports == [f"{tmp_path}/bag: cannot be written: No space left on device; trying again"]
    assert recording.problem == reports[0]
    full.clear()
    wait(lambda: not recording.problem)
    assert reports[1:] == [f"{tmp_path}/bag: can be written again"]
    recording.close()
    assert recording.lost == 0
    assert [time for _, time, _ in read_messages(tmp_path / "bag")] == list(range(5))


def test_fault_of_the_writer_is_said_and_everything_else_stays(tmp_path, monkeypatch):
    write = BagWriter.write

    def faulty_write(writer, topic, time, data):
        if time == 3:
            raise RuntimeError("broken")
        write(writer, topic, time, data)

    monkeypatch.setattr(BagWriter, "write", faulty_write)
    recording, reports = start(tmp_path / "bag")
    for i in range(6):
        recording.put("/a", i, DATA)
    wait(lambda: reports)
    recording.close()
    assert reports == [f"{tmp_path}/bag: recording stopped: RuntimeError: broken"]
    assert recording.lost == 3
    assert [time for _, time, _ in read_messages(tmp_path / "bag")] == [0, 1, 2]


def test_unknown_type_is_refused_at_once(tmp_path):
    recording, _ = start(tmp_path / "bag")
    with pytest.raises(BagError, match="no definition of the type no_msgs/msg/Such"):
        recording.add_topic("/b", "no_msgs/msg/Such", [qos_profile()])
    recording.close()
