"""The recorder in flight mode as a process: what happened around events is in files, and nothing else is written."""

import json
import os
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from ssql_ros.bags import open_bag, read_messages
from ssql_ros.contract.messages import fill, fill_joint_state
from ssql_ros.msg import Incident, ShieldedAction, ShieldState
from support.recorders import LATCHED, RELIABLE, SECONDS, SENSOR, Graph, joint_state, stop

pytestmark = pytest.mark.ros
BEFORE, AFTER = 0.3, 1.5  # s; long enough after that two messages 10 ms apart are in one file on any machine
NS = 10**9


@pytest.fixture
def graph(tmp_path, domain):
    graph = Graph(tmp_path, dict(os.environ))
    yield graph
    graph.close()


def record(graph, *arguments, after=AFTER):
    settings = {"flight": "true", "flight_seconds": BEFORE, "after_seconds": after, "output": graph.folder / "flight"}
    given = [word for name, value in settings.items() for word in ("-p", f"{name}:={value}")]
    return graph.record(*given, *arguments)


def snapshot(graph, client):
    assert client.wait_for_service(SECONDS)
    answer = client.call_async(Trigger.Request())
    graph.wait(answer.done, "an answer of ~/snapshot")
    return answer.result()


def test_two_events_10_ms_apart_are_in_one_file_and_a_snapshot_in_another(graph):
    state = graph.node.create_publisher(ShieldState, "shield_node/state", LATCHED)
    state.publish(fill(ShieldState(), latched=True, incidents=3))  # from before the recorder: no event
    recorder, folder = record(graph), graph.folder / "flight"
    joints = graph.publisher(JointState, "joint_states", SENSOR)
    actions = graph.publisher(ShieldedAction, "shield_node/shielded_action", RELIABLE)
    incidents = graph.publisher(Incident, "incident", LATCHED)
    graph.wait(lambda: state.get_subscription_count() == 1, "the recorder subscribes to the state")
    published = []

    def walk(seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            joints.publish(joint_state(len(published)))
            published.append(time.time_ns())
            time.sleep(0.002)

    def act(decision, reason=""):
        actions.publish(fill(ShieldedAction(), decision=decision, reason=reason))

    act(ShieldedAction.HELD, "no proposal yet")  # it waits at start: no event
    incidents.publish(fill(Incident(), incident=False))
    act(ShieldedAction.PASSED)
    walk(3 * BEFORE)
    assert list(folder.iterdir()) == []
    first = len(published)
    incidents.publish(fill(Incident(), incident=True, cause="roll"))
    walk(0.01)
    second = len(published)
    act(ShieldedAction.HELD, "imu/data is stale")
    while not list(folder.glob("*/metadata.yaml")):
        walk(0.05)
        assert recorder.poll() is None
    (path,) = folder.iterdir()
    assert path.name.endswith("Z_incident")

    answer = snapshot(graph, graph.node.create_client(Trigger, "recorder_node/snapshot"))
    assert answer.success
    output = stop(recorder, signal.SIGINT)  # in the middle of what was to follow

    with open_bag(path) as bag:
        custom = bag.custom
    events = json.loads(custom["flight_events"])
    assert [(event["kind"], event["words"]) for event in events] == [
        ("incident", "incident: roll"),
        ("held", "held: imu/data is stale"),
    ]
    assert custom["robot"] == "minitaur"
    assert not {"flight_missing", "flight_cut"} & set(custom)
    begin, end = events[0]["stamp"] - BEFORE * NS, events[1]["stamp"] + AFTER * NS
    messages = list(read_messages(path))
    # A hair: the recorder holds steady times, made of the system's.
    assert all(begin - NS / 1000 <= received <= end + NS / 1000 for _, received, _ in messages)
    walked = [int(message.position[0]) for topic, _, message in messages if topic == "/joint_states"]
    assert walked == list(range(walked[0], walked[-1] + 1))
    assert walked[0] < first - 1
    assert walked[-1] > second
    assert walked[0] > 0  # what is older than that is not in it
    # What was latched long before explains the file.
    assert [m.incidents for topic, _, m in messages if topic == "/shield_node/state"] == [3]
    (shot,) = set(folder.iterdir()) - {path}
    assert answer.message == str(shot)
    assert shot.name.endswith("Z_snapshot")
    with open_bag(shot) as bag:
        assert bag.custom["flight_cut"].startswith("the recorder ended ")
        assert [event["kind"] for event in json.loads(bag.custom["flight_events"])] == ["snapshot"]
    assert output.strip().splitlines()[-1].endswith(f"flight files in {folder}: {path.name}, {shot.name}")


def test_full_disk_is_loud_and_the_next_event_is_written(graph):
    recorder = record(graph, "-p", "most_files:=2", after=0.1)
    joints = graph.publisher(JointState, "joint_states", RELIABLE)
    client = graph.node.create_client(Trigger, "recorder_node/snapshot")
    resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
    joints.publish(fill_joint_state(JointState(), 0, ["a"], position=np.zeros(10_000)))
    lost = snapshot(graph, client)
    status, _ = graph.report(lambda s: "could not be finished" in s.message, "a full disk on /diagnostics")
    assert status.level == DiagnosticStatus.ERROR
    assert "File too large" in status.message
    resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    joints.publish(joint_state(7))
    written = snapshot(graph, client)
    graph.wait(lambda: (Path(written.message) / "metadata.yaml").exists(), "the file has ended")
    refused = snapshot(graph, client)
    assert (refused.success, refused.message.partition("; ")[0]) == (
        False,
        f"{graph.folder / 'flight'} holds 2 files, most_files is 2",
    )
    output = stop(recorder)
    assert f"{lost.message}: 1 messages are not in it" in output
    assert [m.position[0] for topic, _, m in read_messages(written.message) if topic == "/joint_states"][-1] == 7
