"""The flight recorder: every event has its seconds before and after in a file, or the file says what is missing."""

import json
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssql_ros.bags import BagError, Event, FlightRecorder, FlightSettings, open_bag, qos_profile, read_messages
from ssql_ros.bags.flight import LONGEST, SteadyClock
from ssql_ros.bags.flight_ring import MESSAGE_BYTES

STRING = "std_msgs/msg/String"
MS = 1_000_000  # ns
BEFORE, AFTER = 1000, 300  # ms
START = 1_700_000_000_000  # ms


def text(value: str) -> bytes:
    """CDR of a String."""
    data = value.encode() + b"\0"
    return b"\x00\x01\x00\x00" + len(data).to_bytes(4, "little") + data


class FakeClock:
    """Time goes on when it is told to; the system's clock and the steady one are the same."""

    def __init__(self):
        self.time = START * MS

    def now(self):
        return self.time

    def of(self, received):
        return received


class Flight:
    """A recorder with a fake clock; times in ms from the start."""

    def __init__(self, folder, record=None, custom=None, **settings):
        self.clock, self.reports, self.told = FakeClock(), [], []
        settings = FlightSettings(BEFORE / 1000, AFTER / 1000, **settings)
        arguments = folder, settings, custom or {}, self.reports.append, self.told.append
        self.recorder = FlightRecorder(*arguments, clock=self.clock, record=record)
        self.recorder.add_topic("/a", STRING, [qos_profile()])

    def put(self, at, value="", topic="/a"):
        self.clock.time = (START + at) * MS
        self.recorder.put(topic, self.clock.time, text(value or str(at)))

    def event(self, at, kind="incident"):
        self.clock.time = (START + at) * MS
        return self.recorder.event(Event(kind, self.clock.time, f"{kind}: at {at}"))

    def go_on(self, to, every=10, since=None):
        """Put a message every few ms, up to a time, and advance as the node does."""
        since = (self.clock.time // MS - START) if since is None else since
        for at in range(since + every, to + 1, every):
            self.put(at)
            self.recorder.advance(self.clock.time)


def contents(path):
    """What is in a bag of Strings: (ms from the start, text)."""
    return [(time // MS - START, message.data) for _, time, message in read_messages(path)]


def numbers(path):
    return [int(value) for _, value in contents(path)]


def custom(path):
    with open_bag(path) as bag:
        return bag.custom


# Over real bags.


def test_file_holds_what_was_before_and_after_and_names_two_events_10_ms_apart(tmp_path):
    flight = Flight(tmp_path, custom={"robot": "r"})
    flight.go_on(2000)
    file = flight.event(2000)
    flight.go_on(2010)
    assert flight.event(2010, "latched") is file
    flight.go_on(3000)
    flight.recorder.close()
    assert file.path == tmp_path / "20231114T221322Z_incident"
    assert flight.recorder.files == [file.path]
    assert numbers(file.path) == list(range(1000, 2311, 10))
    told = custom(file.path)
    assert (told["robot"], told["flight_before"], told["flight_after"]) == ("r", "1 s", "0.3 s")
    assert json.loads(told["flight_events"]) == [
        {"kind": "incident", "stamp": (START + 2000) * MS, "words": "incident: at 2000"},
        {"kind": "latched", "stamp": (START + 2010) * MS, "words": "latched: at 2010"},
    ]
    assert not {"flight_missing", "flight_cut", "flight_more_events"} & set(told)
    assert flight.reports == []


def test_event_10_ms_after_a_file_was_closed_has_its_time_before_too(tmp_path):
    flight = Flight(tmp_path)
    flight.go_on(1500)
    first = flight.event(1500)
    flight.go_on(1810)
    second = flight.event(1810)
    flight.go_on(2500)
    flight.recorder.close()
    assert numbers(first.path) == list(range(500, 1801, 10))
    assert numbers(second.path) == list(range(810, 2111, 10))


def test_events_that_go_on_and_on_make_files_that_end_and_overlap(tmp_path):
    flight = Flight(tmp_path)
    for at in range(0, 20 * AFTER, 100):
        flight.go_on(at)
        flight.event(at)
    flight.go_on(30 * AFTER)
    flight.recorder.close()
    assert len(flight.recorder.files) == 2
    first, second = (numbers(path) for path in flight.recorder.files)
    assert first == list(range(10, LONGEST * AFTER + 1, 10))
    # The first event that would have been cut begins the second file, with its own time before.
    assert second[0] == (LONGEST - 1) * AFTER + 100 - BEFORE
    assert second[-1] == 20 * AFTER - 100 + AFTER


def test_latched_message_from_long_before_stands_at_the_begin(tmp_path):
    flight = Flight(tmp_path)
    flight.recorder.add_topic("/state", STRING, [qos_profile(transient_local=True, depth=1)])
    flight.put(10, "old", "/state")
    flight.put(20, "contract", "/state")
    flight.go_on(5000, since=20)
    file = flight.event(5000)
    flight.recorder.close()
    assert contents(file.path)[:2] == [(4000, "contract"), (4000, "4000")]
    assert custom(file.path)["flight_carried"] == "1"
    assert [value for _, value in contents(file.path)].count("contract") == 1


def test_recorder_that_ends_before_the_file_does_writes_what_is_there(tmp_path):
    flight = Flight(tmp_path)
    flight.go_on(500)
    file = flight.event(500)
    flight.go_on(600)
    flight.recorder.close()
    assert numbers(file.path) == list(range(10, 601, 10))
    assert custom(file.path)["flight_cut"] == "the recorder ended 0.2 s before the end of this file"


def test_memory_that_is_short_is_said_once_and_in_the_file(tmp_path):
    flight = Flight(tmp_path, max_bytes=50 * (MESSAGE_BYTES + 13))
    flight.go_on(2000)
    file = flight.event(2000)
    flight.go_on(3000)
    assert flight.recorder.warning.startswith("memory holds 0.5 s of 1 s")
    flight.recorder.close()
    assert numbers(file.path) == list(range(1510, 2301, 10))
    assert custom(file.path)["flight_missing"] == "51 messages; 51 of them memory did not hold"
    (report,) = flight.reports
    assert "raise queue_megabytes" in report


def test_file_that_cannot_be_made_is_tried_again_and_holds_everything(tmp_path):
    folder = tmp_path / "disk"
    flight = Flight(folder)
    flight.go_on(2000)
    folder.rmdir()
    folder.touch()  # nothing can be made in it
    file = flight.event(2000)
    assert "disk/20231114T221322Z_incident: the bag cannot be made: Not a directory; trying again" in flight.reports[0]
    assert "cannot be made" in flight.recorder.problem
    for at in (2250, 2500, 2750):
        flight.go_on(at)
        assert flight.event(at) is file
    folder.unlink()
    flight.go_on(4000)
    flight.recorder.close()
    assert flight.reports[1:] == [f"{file.path}: can be written now"]
    assert (flight.recorder.problem, flight.recorder.lost) == ("", 0)
    assert numbers(file.path) == list(range(1000, 3051, 10))


def test_event_that_could_not_be_written_is_said_and_the_next_one_is_tried(tmp_path):
    folder = tmp_path / "disk"
    flight = Flight(folder)
    flight.go_on(2000)
    folder.rmdir()
    folder.touch()
    lost = flight.event(2000)
    flight.go_on(2400)
    assert flight.reports[-1].startswith(f"{lost.path}: NOT written, for incident: at 2000: ")
    assert flight.recorder.problem == flight.reports[-1]
    folder.unlink()
    file = flight.event(2400)
    flight.go_on(3000)
    flight.recorder.close()
    assert numbers(file.path) == list(range(1400, 2701, 10))
    assert flight.recorder.problem == ""


def test_no_more_files_than_allowed_none_removed_and_held_leaves_room(tmp_path):
    flight = Flight(tmp_path, most_files=4)
    at = 0
    for kind in ("held", "held"):
        flight.event(at := at + 1000, kind)
        flight.go_on(at + 500)
    with pytest.raises(BagError, match="holds 2 files of held actions, half of most_files is 2"):
        flight.event(at := at + 1000, "held")
    for kind in ("incident", "snapshot"):
        flight.event(at := at + 1000, kind)
        flight.go_on(at + 500)
    flight.recorder.close()
    files = sorted(tmp_path.iterdir())
    with pytest.raises(BagError, match="holds 4 files, most_files is 4; move some elsewhere"):
        flight.event(at := at + 1000)
    assert sorted(tmp_path.iterdir()) == files
    assert flight.recorder.refused == 2
    assert flight.recorder.problem.startswith(f"{tmp_path} holds 4 files")
    assert flight.reports[-1].startswith("NOT written: incident: at 6000: ")
    files[0].rename(tmp_path / "kept elsewhere")
    assert flight.recorder.problem == ""
    assert flight.event(at + 1000).path.is_dir()
    flight.recorder.close()


def test_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "f").touch()
    with pytest.raises(BagError, match="f: the flight folder cannot be made: File exists"):
        Flight(tmp_path / "f")


def test_steady_time_does_not_follow_a_system_clock_that_is_set():
    clock = SteadyClock()
    before = clock.now()
    assert before <= clock.of(time.time_ns() + 3600 * 10**9) <= clock.now()  # it was set back since
    assert clock.of(time.time_ns() - 5 * 10**9) < before


# Any times, without a disk.


FOLDER = Path(tempfile.gettempdir())


class Kept:
    """In the place of a bag: a list."""

    finished, problem, lost, queued_bytes = True, "", 0, 0

    def __init__(self):
        self.dropped, self.notes, self.messages = {}, None, []

    def add_topic(self, topic, type_name, qos):
        pass

    def put(self, topic, received, data):
        self.messages.append((received // MS - START, data))
        return True

    def stop(self, notes):
        self.notes = notes

    def summary(self):
        return ""


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 10, 50, 100, 250, 299, 300, 301, 700, 1000]),  # ms since the step before
        st.sampled_from([0, 0, 10, 50]),  # ms by which the message comes late
        st.integers(0, 2000),  # bytes
        st.sampled_from(["message", "message", "message", "event", "both"]),
    ),
    min_size=10,
    max_size=60,
)


@given(steps=STEPS, max_bytes=st.sampled_from([3000, 10_000, 10**9]), orderly=st.booleans())
def test_every_message_around_an_event_that_memory_holds_is_in_its_file_once(steps, max_bytes, orderly):
    flight = Flight(FOLDER, lambda path: Kept(), max_bytes=max_bytes)
    now, came, files = 0, [], []

    def in_memory(begin, end):
        """What of a time still is in memory: the newest that fit."""
        held, room = [], max_bytes
        for at, data in reversed(came):
            room -= len(data) + MESSAGE_BYTES
            if room < 0:
                break
            held.append((at, data))
        return [m for m in reversed(held) if begin <= m[0] <= end]

    for i, (later, late, length, what) in enumerate(steps):
        now += later
        at = now - (0 if orderly else late)
        if what != "event":
            data = f"{i}:".encode().ljust(length, b".")
            flight.recorder.put("/a", (START + at) * MS, data)
            came.append((at, data))
            for file in files:
                if file["first"] - BEFORE <= at <= file["end"]:
                    file["expected"].append((at, data))
        if what != "message":
            file = flight.event(at)
            if files and files[-1]["file"] is file:
                assert at <= files[-1]["end"]
                before, files[-1]["end"] = files[-1]["end"], max(files[-1]["end"], at + AFTER)
                files[-1]["expected"] += in_memory(before + 1, files[-1]["end"])
                assert files[-1]["end"] <= files[-1]["first"] + LONGEST * AFTER
            else:
                # Nothing is begun that an open file could have held.
                if files and files[-1]["end"] >= now:
                    assert at < files[-1]["first"] - BEFORE or at + AFTER > files[-1]["first"] + LONGEST * AFTER
                expected = in_memory(at - BEFORE, at + AFTER)
                files.append({"file": file, "first": at, "end": at + AFTER, "expected": expected})
        # The node takes everything before it says how late it is.
        flight.recorder.advance((START + now - 50) * MS)
    flight.recorder.advance((START + now + 10**6) * MS)
    for file in files:
        within = [m for m in came if file["first"] - BEFORE <= m[0] <= file["end"]]
        expected, kept = file["expected"], file["file"].recording
        assert kept.messages == expected if orderly else sorted(kept.messages) == sorted(expected)
        missing = kept.notes.get("flight_missing", "0").split()[0]
        assert int(missing) == len(within) - len(expected)
