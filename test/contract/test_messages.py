"""Messages to numbers and back, over the wire: what is put into a message is what comes out at the other end."""

import json
import math
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from hypothesis import given, settings
from hypothesis import strategies as st
from nav_msgs.msg import Odometry
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Float64MultiArray

import ssql_ros.msg
from ssql_ros.contract import ContractError, find_contract, load_contract
from ssql_ros.contract.messages import (
    fill,
    fill_joint_command,
    fill_joint_state,
    fill_quaternion,
    fill_vector3,
    set_stamp,
    stamp_of,
)
from ssql_ros.msg import (
    DecisionRecord,
    Episode,
    Incident,
    ModelAnnouncement,
    ModelStatus,
    Proposal,
    ShieldedAction,
    ShieldState,
)

CONTRACT = load_contract(find_contract("minitaur"))
OWN = (DecisionRecord, Episode, Incident, ModelAnnouncement, ModelStatus, Proposal, ShieldedAction, ShieldState)


def wired(message: object) -> object:
    """`message` after serialisation and back."""
    return deserialize_message(serialize_message(message), type(message))


# Every kind of number into every kind of field

floats = st.one_of(
    st.floats(),
    st.floats().map(np.float64),
    st.floats(width=32).map(np.float32),
    st.floats(width=16).map(np.float16),
    st.integers(-(2**53), 2**53),
    st.integers(-(2**31), 2**31 - 1).map(np.int32),
    st.integers(-(2**53), 2**53).map(np.int64),
    st.integers(0, 255).map(np.uint8),
    st.booleans(),
    st.booleans().map(np.bool_),
)
booleans = st.one_of(st.booleans(), st.booleans().map(np.bool_), st.integers(0, 1), st.integers(0, 1).map(np.int64))


def whole_numbers(bits: int) -> st.SearchStrategy:
    number = st.integers(0, 2**bits - 1)
    small = st.integers(0, 2 ** min(bits - 1, 31) - 1)
    return st.one_of(
        number,
        number.map(getattr(np, f"uint{bits}")),
        small.map(np.int64),
        small.map(float),
        small.map(np.float64),
        st.booleans().map(np.bool_),
    )


def values_for(kind: str) -> st.SearchStrategy:
    """Whatever a field of `kind` can hold, in all the types that code has it in."""
    if kind == "sequence<double>":
        arrays = st.sampled_from([np.float64, np.float32, np.int64, np.bool_])
        numbers = st.lists(st.integers(0, 100), max_size=9)
        return st.one_of(st.lists(floats, max_size=9), st.builds(np.array, numbers, arrays), st.tuples(floats, floats))
    if kind == "sequence<uint8>":
        return st.one_of(st.binary(max_size=40), st.lists(whole_numbers(8), max_size=9))
    if kind == "sequence<boolean>":
        return st.one_of(st.lists(booleans, max_size=9), st.builds(np.array, st.lists(st.booleans(), max_size=9)))
    if kind.startswith("uint"):
        return whole_numbers(int(kind[4:]))
    # A string ends at a NUL in ROS.
    text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
    return {"double": floats, "boolean": booleans, "string": text}[kind]


def same(sent: object, came: object) -> bool:
    """True where `came` is the number, text or list that `sent` means, with Python's own type."""
    if isinstance(sent, str):
        return sent == came
    if np.iterable(sent):
        sent = list(sent)
        return len(sent) == len(came) and all(same(a, b) for a, b in zip(sent, came, strict=True))
    number = sent.item() if isinstance(sent, np.generic) else sent
    return number == came or (math.isnan(number) and math.isnan(came))


@pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)
def test_numpy_and_python_numbers_survive_the_wire_in_every_field(kind):
    fields = {name: of for name, of in kind.get_fields_and_field_types().items() if name != "header"}

    @settings(max_examples=200, deadline=None)
    @given(st.fixed_dictionaries({name: values_for(of) for name, of in fields.items()}))
    def check(values):
        came = wired(fill(kind(), **values))
        for name, of in fields.items():
            assert same(values[name], getattr(came, name)), f"{name} of type {of}"
            if of in ("boolean", "double"):
                assert type(getattr(came, name)) is {"boolean": bool, "double": float}[of]

    check()


def test_every_own_message_is_tried():
    found = {name for name, kind in vars(ssql_ros.msg).items() if isinstance(kind, type) and not name.startswith("_")}
    assert found == {kind.__name__ for kind in OWN}


@given(st.lists(floats, max_size=20))
def test_forward_command_survives_the_wire(values):
    assert same(values, wired(fill(Float64MultiArray(), data=values)).data)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (ShieldedAction, "decision", 256),
        (ShieldedAction, "decision", -1),
        (ShieldedAction, "decision", np.int64(300)),
        (ShieldedAction, "candidates_scored", 2**32),
        (ShieldState, "ticks", 2**64),
        (ShieldState, "ticks", -1),
        (Episode, "steps", 1.5),
        (Episode, "steps", math.nan),
        (Episode, "steps", math.inf),
        (Episode, "steps", "7"),
        (Episode, "steps", None),
        (ModelAnnouncement, "data", [0, 256]),
        (Incident, "margin", None),
        (Incident, "margin", "0.5"),
        (Incident, "incident", "False"),
        (Proposal, "action", ["0.5"]),
        (Proposal, "action", np.zeros((2, 2))),
        (Proposal, "header", 0.0),
        (Proposal, "actions", [0.0]),
    ],
    ids=repr,
)
def test_value_that_its_field_cannot_hold_is_refused_by_name(kind, field, value):
    with pytest.raises(ContractError, match=rf"{kind.__name__}.*{field}"):
        fill(kind(), **{field: value})


@given(st.integers(-(2**31) * 10**9, 2**31 * 10**9 - 1), st.sampled_from([int, np.int64]))
def test_stamp_survives_the_wire_to_the_nanosecond(nanoseconds, of):
    message = Imu()
    set_stamp(message, of(nanoseconds))
    assert stamp_of(wired(message)) == nanoseconds


@pytest.mark.parametrize("nanoseconds", [2**31 * 10**9, -(2**31) * 10**9 - 1])
def test_stamp_beyond_its_32_bits_is_refused(nanoseconds):
    with pytest.raises(ContractError, match=r"Imu\.header\.stamp"):
        set_stamp(Imu(), nanoseconds)


numbers = st.floats(allow_nan=False)


@given(st.lists(numbers, min_size=8, max_size=8), st.sampled_from([np.float64, np.float32]), st.integers(0, 2**60))
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_joint_command_survives_the_wire_by_name(values, of, stamp):
    values = np.array(values).astype(of)
    came = wired(fill_joint_command(JointState(), CONTRACT, values, stamp))
    assert came.name == list(CONTRACT.commanded.joint_names)
    assert list(came.position) == values.astype(float).tolist()
    assert (len(came.velocity), len(came.effort), stamp_of(came)) == (0, 0, stamp)


@given(st.lists(floats, min_size=4, max_size=4))
def test_vectors_and_quaternions_survive_the_wire(values):
    imu, odometry = Imu(), Odometry()
    fill_quaternion(imu.orientation, values)
    fill_vector3(imu.angular_velocity, values[:3])
    fill_vector3(odometry.pose.pose.position, np.array(values[1:], float))
    imu, odometry = wired(imu), wired(odometry)
    q, w, p = imu.orientation, imu.angular_velocity, odometry.pose.pose.position
    assert same([*values, *values[:3], *values[1:]], [q.x, q.y, q.z, q.w, w.x, w.y, w.z, p.x, p.y, p.z])


# Between two processes, over DDS


def every_message() -> list:
    """One of every message that this package fills, each number in the type that it is most easily lost in."""
    one, half, yes = np.int64(1), np.float32(0.5), np.bool_(True)
    array = np.arange(8, dtype=np.float32) - 3
    joints = fill_joint_state(JointState(), np.int64(7_000_000_001), ["a", "b"], position=array[:2], effort=array[2:4])
    imu, odometry, diagnostics = Imu(), Odometry(), DiagnosticArray()
    for message in (imu, odometry, diagnostics):
        set_stamp(message, np.int64(3_000_000_002))
    fill_quaternion(imu.orientation, np.array([0, 0, 0, 1]))
    fill_vector3(odometry.twist.twist.linear, array[:3])
    messages = [
        fill(Episode(), episode=one, seed=np.uint64(2**63), steps=3, incident=yes, return_sum=half, velocity_mean=2),
        fill(Incident(), incident=np.float32(-0.5) < 0, margin=np.float32(-0.25), cause="roll 0,31 κ"),
        fill(ModelAnnouncement(), bundle_id="id", data=bytes(range(256)), summary="two\nlines"),
        fill(Proposal(), contract_id=CONTRACT.id, source="policy", action=array, mean=list(array), std=[half] * 8),
        fill(ShieldedAction(), decision=one, enforced=yes, action=array, q_safe_proposal=half, q_safe_action=1),
        fill(ShieldState(), mode=np.uint8(2), epsilon=half, ticks=np.int64(2**40), held=one, last_reason="stale"),
        fill(Float64MultiArray(), data=array),
        fill_joint_command(JointState(), CONTRACT, array, 5),
    ]
    return [*messages, joints, imu, odometry, diagnostics]


LATCHED_PUBLISHER = """
import sys, rclpy, test_messages
from ssql_ros.ros.process import LATCHED
rclpy.init()
node = rclpy.create_node("sender")
publishers = []
for i, message in enumerate(test_messages.every_message()):
    publishers.append(node.create_publisher(type(message), f"message{i}", LATCHED))
    publishers[-1].publish(message)
sys.stdin.read()  # until the test has seen them all
node.destroy_node()
rclpy.shutdown()
"""


def test_every_message_reaches_another_process_unchanged(domain):
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    from ssql_ros.ros.process import LATCHED

    expected = every_message()
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {json.dumps(os.path.dirname(__file__))})"]
    command[-1] += LATCHED_PUBLISHER
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("receiver", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    came = {}
    for i, message in enumerate(expected):
        node.create_subscription(type(message), f"message{i}", lambda m, i=i: came.setdefault(i, m), LATCHED)
    with subprocess.Popen(command, stdin=subprocess.PIPE) as sender:
        try:
            deadline = time.monotonic() + 30.0
            while len(came) < len(expected) and sender.poll() is None and time.monotonic() < deadline:
                executor.spin_once(timeout_sec=0.2)
        finally:
            sender.stdin.close()
            assert sender.wait(timeout=20.0) == 0
            executor.shutdown()
            node.destroy_node()
            rclpy.shutdown(context=context)
    assert sorted(came) == list(range(len(expected)))
    for i, message in enumerate(expected):
        assert came[i] == message
    # Not only equal to what was sent, but to what was meant.
    episode, incident, _, proposal, shielded, state, forward, *_ = (came[i] for i in range(len(expected)))
    assert (episode.incident, episode.seed, episode.return_sum, episode.velocity_mean) == (True, 2**63, 0.5, 2.0)
    assert (incident.incident, incident.margin, incident.cause) == (True, -0.25, "roll 0,31 κ")
    assert (shielded.decision, shielded.enforced, shielded.q_safe_action) == (ShieldedAction.RESAMPLED, True, 1.0)
    assert (state.mode, state.epsilon, state.ticks) == (ShieldState.DISABLED, 0.5, 2**40)
    assert list(proposal.action) == list(forward.data) == [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0]
