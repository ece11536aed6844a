"""Bags for tests: two topics, one of a standard type and one of ours, with a message of each every millisecond."""

import math

import numpy as np
from rosbags.typesys.store import Typestore

from ssql_ros.bags import qos_profile, read_messages
from ssql_ros.bags.definitions import Definitions

SHIELDED, JOINTS = "ssql_ros/msg/ShieldedAction", "sensor_msgs/msg/JointState"


def make_store() -> Typestore:
    definitions = Definitions()
    definitions.add(SHIELDED)
    definitions.add("ssql_ros/msg/Proposal")
    return definitions.store


def header(store, i):
    stamp = store.types["builtin_interfaces/msg/Time"](sec=i // 50, nanosec=i % 50 * 20_000_000)
    return store.types["std_msgs/msg/Header"](stamp=stamp, frame_id="base")


def joints(store, i):
    message = store.types[JOINTS](
        header=header(store, i),
        name=["a", "b"],
        position=np.array([i, -0.5 * i]),
        velocity=np.array([]),
        effort=np.array([]),
    )
    return bytes(store.serialize_cdr(message, JOINTS))


def shielded(store, i):
    kind = store.types[SHIELDED]
    message = kind(
        header=header(store, i),
        decision=kind.RESAMPLED,
        enforced=True,
        proposal=np.arange(8.0) + i,
        action=np.zeros(8),
        q_safe_proposal=math.nan,
        q_safe_action=0.125,
        rule=kind.PROBABILITY,
        epsilon=0.2,
        delta=math.nan,
        candidates_scored=9,
        candidates_safe=1,
        history_missing=0,
        taken_over=False,
        decision_time=2e-5,
        bundle_id="0123456789abcdef",
        reason="unsafe: κ",
    )
    return bytes(store.serialize_cdr(message, SHIELDED))


def write_both(store, writer, count, start=0):
    if "/joint_states" not in writer.counts:
        writer.add_topic("/joint_states", JOINTS, [qos_profile(reliable=False)])
        writer.add_topic("/shield_node/shielded_action", SHIELDED, [qos_profile(transient_local=True, depth=3)])
    for i in range(start, start + count):
        writer.write("/joint_states", 1_000_000 * i, joints(store, i))
        writer.write("/shield_node/shielded_action", 1_000_000 * i + 1, shielded(store, i))


def check_read(bag, count):
    messages = list(read_messages(bag))
    assert [time for _, time, _ in messages] == [1_000_000 * (i // 2) + i % 2 for i in range(2 * count)]
    for i in range(count):
        (topic, _, state), (other, _, action) = messages[2 * i : 2 * i + 2]
        assert (topic, other) == ("/joint_states", "/shield_node/shielded_action")
        assert state.name == ["a", "b"]
        assert state.position.tolist() == [i, -0.5 * i]
        assert action.proposal.tolist() == (np.arange(8.0) + i).tolist()
        assert math.isnan(action.q_safe_proposal)
        assert (action.q_safe_action, action.decision, action.enforced) == (0.125, action.RESAMPLED, True)
        assert (action.candidates_scored, action.reason) == (9, "unsafe: κ")
