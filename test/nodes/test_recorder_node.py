"""The recorder as a process: what is published is in the bag, all of it and in order, whatever ends the recorder."""

import math
import os
import re
import resource
import signal
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from nav_msgs.msg import Odometry
from sensor_msgs.msg import Imu, JointState

from ssql_ros.bags import UnfinishedBagWarning, open_bag, read_messages, recover_bag
from ssql_ros.contract.messages import fill, fill_joint_state, set_stamp
from ssql_ros.msg import Episode, ShieldedAction
from ssql_ros.ros.recorded_topic import SequenceWatch
from support.recorders import LATCHED, RELIABLE, SECONDS, SENSOR, Graph, joint_state, stop

pytestmark = pytest.mark.ros


@pytest.fixture
def graph(tmp_path, domain):
    graph = Graph(tmp_path, dict(os.environ))
    yield graph
    graph.close()


def shared_memory(pid):
    """Return the shared memory files of a process, which the middleware leaves behind when it is killed."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return {Path(path) for path in re.findall(r"/dev/shm/\S*fastrtps\S*", maps)}


def shielded_action(i):
    message = ShieldedAction()
    set_stamp(message, 20_000_000 * i)
    values = {"q_safe_proposal": math.nan, "q_safe_action": 0.25, "epsilon": 0.2, "decision_time": 2e-5}
    return fill(message, decision=3, enforced=True, action=[0.5] * 8, candidates_scored=i, reason="stale κ", **values)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_bag_holds_every_message_in_order(graph, number):
    bag = graph.folder / "bag"
    episodes = graph.node.create_publisher(Episode, "episode", LATCHED)
    episodes.publish(fill(Episode(), seed=2**63, steps=7, incident=True))  # latched: before the recorder starts
    recorder = graph.record("-p", f"output:={bag}")
    joints = graph.publisher(JointState, "joint_states", SENSOR)
    actions = graph.publisher(ShieldedAction, "shield_node/shielded_action", RELIABLE)
    graph.wait(lambda: episodes.get_subscription_count() == 1, "the recorder subscribes to episode")
    for i in range(500):
        joints.publish(joint_state(i))
        actions.publish(shielded_action(i))
        time.sleep(0.001)
    episodes.publish(fill(Episode(), seed=8, steps=500, incident=False))
    # The signal comes at once: what the middleware holds by then must be in the bag too.
    output = stop(recorder, number)

    messages = {}
    for topic, received, message in read_messages(bag):
        assert abs(received - time.time_ns()) < 60e9
        messages.setdefault(topic, []).append(message)
    assert sorted(messages) == ["/episode", "/joint_states", "/shield_node/shielded_action"]
    assert [message.position.tolist() for message in messages["/joint_states"]] == [[i, -0.5 * i] for i in range(500)]
    assert [message.candidates_scored for message in messages["/shield_node/shielded_action"]] == list(range(500))
    for i, message in enumerate(messages["/shield_node/shielded_action"]):
        assert message.header.stamp.sec * 10**9 + message.header.stamp.nanosec == 20_000_000 * i
        assert math.isnan(message.q_safe_proposal)
        assert (message.q_safe_action, message.decision, message.enforced) == (0.25, message.HELD, True)
        assert (message.action.tolist(), message.proposal.tolist(), message.reason) == ([0.5] * 8, [], "stale κ")
    assert [(e.seed, e.steps, e.incident) for e in messages["/episode"]] == [(2**63, 7, True), (8, 500, False)]
    with open_bag(bag) as opened:
        assert opened.custom["robot"] == "minitaur"
        assert opened.custom["contract_id"].startswith("minitaur-")
    last = output.strip().splitlines()[-1]
    assert f"bag {bag}: 1002 messages (" in last
    for counted in ("/joint_states 500", "/shield_node/shielded_action 500", "/episode 2"):
        assert counted in last
    assert "never published: /imu/data" in output


def test_topics_follow_namespace_remaps_and_parameter(graph):
    bag = graph.folder / "bag"
    recorder = graph.record(
        *("-r", "__ns:=/dog", "-r", "imu/data:=sensors/imu"),
        *("-p", f"output:={bag}", "-p", "topics:=[joint_states, imu/data, /absolute, /dog/joint_states]"),
    )
    for kind, topic in ((JointState, "/dog/joint_states"), (Imu, "/dog/sensors/imu"), (JointState, "/absolute")):
        graph.publisher(kind, topic, RELIABLE).publish(kind())
    stop(recorder)
    assert sorted(topic for topic, _, _ in read_messages(bag)) == ["/absolute", "/dog/joint_states", "/dog/sensors/imu"]


def test_default_bag_is_named_after_robot_and_time(graph):
    stop_output = stop_when_ready(graph, graph.record())
    (bag,) = (graph.folder / "bags").iterdir()
    assert re.fullmatch(r"minitaur_\d{8}T\d{6}Z", bag.name)
    assert f"bag {bag}: 0 messages" in stop_output
    assert not list(read_messages(bag))


def stop_when_ready(graph, recorder):
    graph.report(lambda status: status.message == "recording", "the recorder's diagnostics")
    return stop(recorder)


def test_existing_bag_is_refused_in_one_line(graph):
    recorder = graph.record("-p", f"output:={graph.folder}")
    output, _ = recorder.communicate(timeout=SECONDS)
    assert recorder.returncode == 2
    assert output.splitlines()[-1] == f"error: {graph.folder}: exists already; a recording never overwrites another"
    assert "Traceback" not in output


def test_publisher_with_weaker_qos_is_recorded_too(graph):
    bag = graph.folder / "bag"
    recorder = graph.record("-p", f"output:={bag}")
    strong = graph.publisher(JointState, "joint_states", LATCHED)
    strong.publish(joint_state(0))
    graph.report(lambda s: {v.key: v.value for v in s.values}["/joint_states"] == "1", "one message recorded")
    weak = graph.publisher(JointState, "joint_states", SENSOR)
    graph.wait(lambda: strong.get_subscription_count() == 1, "both publishers are matched")
    weak.publish(joint_state(1))
    strong.publish(joint_state(2))
    graph.report(lambda s: {v.key: v.value for v in s.values}["/joint_states"] == "3", "three messages recorded")
    assert "/joint_states: a publisher offers a weaker QoS" in stop(recorder)
    assert sorted(m.position[0] for _, _, m in read_messages(bag)) == [0.0, 1.0, 2.0]


def test_topics_of_two_types_are_reported_and_the_others_recorded(graph):
    bag = graph.folder / "bag"
    graph.node.create_publisher(JointState, "joint_states", RELIABLE)
    # One participant cannot offer a topic with two types: the other is another robot's, say.
    with closing(Graph(graph.folder, graph.environment)) as other:
        other.node.create_publisher(Imu, "joint_states", RELIABLE)
        recorder = graph.record("-p", f"output:={bag}")
        graph.publisher(Imu, "imu/data", RELIABLE).publish(Imu())
        status, values = graph.report(lambda s: s.level == DiagnosticStatus.WARN, "a warning on /diagnostics")
        output = stop(recorder)
    assert "recorder_node: recording" in status.name
    assert "disagree on the type: sensor_msgs/msg/Imu, sensor_msgs/msg/JointState" in values["/joint_states"]
    assert values["bag"] == str(bag)
    # Which of the two was known first is chance.
    assert re.search("/joint_states is not (all )?recorded: its publishers disagree", output)
    assert [topic for topic, _, _ in read_messages(bag)] == ["/imu/data"]


def test_type_that_is_not_installed_is_reported_by_name(graph):
    # An empty package that comes first on the recorder's path hides the one that is installed.
    (graph.folder / "hidden" / "nav_msgs").mkdir(parents=True)
    (graph.folder / "hidden" / "nav_msgs" / "__init__.py").touch()
    graph.environment["PYTHONPATH"] = str(graph.folder / "hidden")
    graph.node.create_publisher(Odometry, "odom", RELIABLE)
    recorder = graph.record("-p", f"output:={graph.folder / 'bag'}")
    graph.report(lambda s: "No module named 'nav_msgs.msg'" in str(s.values), "the type is reported")
    joints = graph.publisher(JointState, "joint_states", RELIABLE)
    joints.publish(joint_state(0))
    assert "/odom is not recorded: No module named 'nav_msgs.msg'" in stop(recorder)
    assert [topic for topic, _, _ in read_messages(graph.folder / "bag")] == ["/joint_states"]


def test_full_disk_is_loud_and_leaves_what_was_written(graph):
    bag = graph.folder / "bag"
    recorder = graph.record("-p", f"output:={bag}", "-p", "queue_megabytes:=1")
    joints = graph.publisher(JointState, "joint_states", RELIABLE)
    resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, (50_000, 50_000))
    file = bag / "bag.mcap"
    size = file.stat().st_size
    joints.publish(joint_state(0))
    # Counted as received is not yet written: only what a flush has brought to the disk before it is full must stay.
    graph.wait(lambda: file.stat().st_size > size + 50, "the first message is flushed")
    big = fill_joint_state(JointState(), 0, ["a"], position=np.zeros(5000))
    for _ in range(50):
        joints.publish(big)
        time.sleep(0.001)

    # Either may come first: the queue is full, or the disk is.
    def told(status: DiagnosticStatus) -> bool:
        dropped = {value.key: value.value for value in status.values}["dropped_messages"]
        return "cannot be written" in status.message and int(dropped) > 0

    status, _ = graph.report(told, "a full disk and dropped messages on /diagnostics")
    assert status.level == DiagnosticStatus.ERROR
    assert "bag: cannot be written: File too large; trying again" in status.message
    output = stop(recorder)
    assert "messages are not in the bag" in output
    assert "the bag could not be finished: File too large" in output
    with pytest.warns(UnfinishedBagWarning):
        kept = [m.position.tolist() for _, _, m in read_messages(bag)]
    # Whole messages only: the first, and at most the one that still fitted under the limit.
    assert kept[0] == [0.0, -0.0]
    assert len(kept) <= 2
    assert all(len(position) == 5000 for position in kept[1:])


def test_killed_recorder_loses_at_most_what_a_flush_had_not_reached(graph):
    bag = graph.folder / "bag"
    recorder = graph.record("-p", f"output:={bag}")
    joints = graph.publisher(JointState, "joint_states", RELIABLE)
    file = bag / "bag.mcap"
    for i in range(100):
        joints.publish(joint_state(i))
    size = file.stat().st_size
    graph.wait(lambda: file.stat().st_size > size + 100 * 50, "messages are flushed")
    left = shared_memory(recorder.pid) - shared_memory(os.getpid())
    recorder.kill()
    recorder.wait()
    for path in left:
        path.unlink(missing_ok=True)
    with pytest.warns(UnfinishedBagWarning, match="100 messages could be read"):
        assert [m.position[0] for _, _, m in read_messages(bag)] == list(range(100))
    recovery = recover_bag(bag)
    assert (recovery.messages, recovery.lost) == (100, 0)
    assert [m.position[0] for _, _, m in read_messages(recovery.out)] == list(range(100))


def test_missed_messages_are_counted_only_with_one_publisher():
    watch, a, b = SequenceWatch(), SimpleNamespace(endpoint_gid=[1]), SimpleNamespace(endpoint_gid=[2])
    watch.settle([a])
    for number in (5, 6, 9):  # began at 5: what came before is not missed; 7 and 8 are
        watch.take(number)
    watch.settle([a])
    assert watch.missed == 2
    watch.take(10)
    watch.settle([a])
    assert watch.missed == 2
    for number in (1, 12, 2, 14):  # another publisher has come and numbers anew
        watch.take(number)
    watch.settle([a, b])
    watch.take(20)
    watch.settle([a, b])
    watch.take(30)
    watch.settle([b])
    assert watch.missed == 2
    watch.take(40)
    watch.take(42)
    watch.settle([b])
    assert watch.missed == 3
