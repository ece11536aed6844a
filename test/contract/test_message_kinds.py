"""Types that are described by a table give the numbers that rclpy's own message objects hold, to the last bit."""

import math
import re
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from geometry_msgs.msg import Twist, TwistStamped, WrenchStamped
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from sensor_msgs.msg import BatteryState, LaserScan, Range
from std_msgs.msg import Float64, Float64MultiArray, MultiArrayDimension

from ssql_ros.contract import ContractError, message_kinds
from ssql_ros.contract.header import stamp_of
from ssql_ros.contract.message_kinds import Kind, kinds
from ssql_ros.contract.messages import InputReader
from ssql_ros.contract.serialised import reader_of

NUMBER = st.floats(-1e6, 1e6)
FRAME = st.text(max_size=7)


def read(message, kind, *fields):
    """What is read of a message's bytes, as live and from a bag, and its stamp in ns."""
    parsed = reader_of(kind, bytes)(serialize_message(message))
    return kinds()[kind].reader(fields, "topic")(parsed), stamp_of(parsed)


def headed(message, frame, sec=7, nanosec=9):
    message.header.frame_id = frame
    message.header.stamp.sec, message.header.stamp.nanosec = sec, nanosec
    return message


@settings(max_examples=60, deadline=None)
@given(FRAME, st.lists(NUMBER, min_size=6, max_size=6))
def test_twists_and_wrenches(frame, numbers):
    twist, stamped, wrench = Twist(), headed(TwistStamped(), frame), headed(WrenchStamped(), frame)
    pairs = [(twist.linear, twist.angular), (stamped.twist.linear, stamped.twist.angular)]
    pairs.append((wrench.wrench.force, wrench.wrench.torque))
    for pair in pairs:
        for vector, values in zip(pair, (numbers[:3], numbers[3:]), strict=True):
            vector.x, vector.y, vector.z = values
    fields = [f"{part}.{axis}" for part in ("linear", "angular") for axis in "xyz"]
    assert read(twist, "geometry_msgs/msg/Twist", *fields) == (numbers, 0)
    assert read(stamped, "geometry_msgs/msg/TwistStamped", *fields) == (numbers, 7_000_000_009)
    fields = [f"{part}.{axis}" for part in ("force", "torque") for axis in "xyz"]
    assert read(wrench, "geometry_msgs/msg/WrenchStamped", *fields)[0] == numbers


@settings(max_examples=60, deadline=None)
@given(st.lists(NUMBER, min_size=1, max_size=9), st.lists(FRAME, max_size=3))
def test_floats_behind_layouts_of_any_length(numbers, labels):
    message = Float64MultiArray(data=numbers)
    message.layout.dim = [MultiArrayDimension(label=label, size=3, stride=2) for label in labels]
    fields = [f"data[{i}]" for i in range(len(numbers))]
    assert read(message, "std_msgs/msg/Float64MultiArray", *fields) == (numbers, 0)
    assert read(Float64(data=numbers[0]), "std_msgs/msg/Float64", "data") == (numbers[:1], 0)
    with pytest.raises(ContractError, match="data\\[9\\]: cannot be read"):
        read(message, "std_msgs/msg/Float64MultiArray", "data[9]")


@settings(max_examples=60, deadline=None)
@given(FRAME, st.lists(st.floats(0.0, 40.0, width=32), min_size=1, max_size=40))
def test_scans_are_reduced_by_their_own_angles(frame, ranges):
    step = np.float32(2 * math.pi / len(ranges)).item()
    message = headed(LaserScan(angle_min=-math.pi, angle_increment=step, ranges=ranges), frame)
    message.range_min, message.range_max = 0.1, 30.0
    (nearest,), _ = read(message, "sensor_msgs/msg/LaserScan", "min(-180, 180)")
    least, most = np.float32(0.1).item(), np.float32(30.0).item()
    assert nearest == min(min(max(each, least), most) for each in ranges)


def test_a_sector_is_found_in_a_scan_that_runs_from_0_to_360_degrees():
    ranges = [1.0 + i for i in range(36)]  # beam i at 10 i degrees
    message = LaserScan(angle_increment=math.radians(10.0), ranges=ranges, range_max=100.0)
    found, _ = read(
        message, "sensor_msgs/msg/LaserScan", "min(-30, 30)", "min(85, 95)", "mean(175, 205)", "max(-30, 30)"
    )
    assert found == [1.0, 10.0, 20.0, 36.0]
    with pytest.raises(ContractError, match="none of 36 beams"):
        read(message, "sensor_msgs/msg/LaserScan", "min(1, 2)")
    # REP-117: nothing there is as far as the sensor sees, too near is near, and NaN is no measurement.
    message.range_min = 0.5
    for pair, expected in (
        ((math.inf, math.nan), 100.0),
        ((math.inf, -math.inf), 0.5),
        ((0.2, math.inf), 0.5),
        ((math.nan, 7.0), 7.0),
        ((200.0, 300.0), 100.0),
    ):
        message.ranges = [*pair, *ranges[2:]]
        assert read(message, "sensor_msgs/msg/LaserScan", "min(-5, 15)")[0] == [expected]
    message.ranges = [math.nan, math.nan, *ranges[2:]]
    with pytest.raises(ContractError, match="none of 36 beams lies in the sector and measures"):
        read(message, "sensor_msgs/msg/LaserScan", "min(-5, 15)")


def test_range_and_battery():
    message = headed(Range(min_range=0.5, max_range=4.0, range=2.5), "sonar")
    assert read(message, "sensor_msgs/msg/Range", "range") == ([2.5], 7_000_000_009)
    for value, expected in ((math.inf, 4.0), (-math.inf, 0.5), (9.0, 4.0)):
        message.range = value
        assert read(message, "sensor_msgs/msg/Range", "range")[0] == [expected]
    battery = headed(BatteryState(voltage=12.5, current=-2.0, percentage=0.5), "b")
    assert read(battery, "sensor_msgs/msg/BatteryState", "voltage", "current", "percentage")[0] == [12.5, -2.0, 0.5]


@pytest.mark.parametrize("kind", sorted(set(kinds()) - {"std_msgs/msg/Float64"}))
def test_bytes_that_are_no_whole_message_are_refused(kind):
    for data in (b"\x00\x01\x00\x00", b"\x00\x01\x00\x00" + b"\xff" * 12):
        with pytest.raises(ContractError, match="is not a whole message"):
            reader_of(kind, bytes)(data)


def test_a_package_adds_a_type_of_its_own(monkeypatch, capsys):
    own = Kind("my_msgs/msg/Tank", (("header", "header"), ("name", "string"), ("litres", "f")), {"litres": "1"})
    broken = SimpleNamespace(name="b", value="nowhere:KIND", load=lambda: 1 / 0)
    found = [broken, SimpleNamespace(name="tank", value="my_robot:TANK", load=lambda: own)]
    monkeypatch.setattr(message_kinds, "entry_points", lambda group: sorted(found, key=lambda entry: entry.name))
    kinds.cache_clear()
    try:
        assert kinds()["my_msgs/msg/Tank"] is own
        assert "input b: nowhere:KIND cannot be loaded" in capsys.readouterr().err
        # A header with a frame of one letter, a name of three, and a float32 on its own boundary.
        data = struct.pack("<4xiII2s2xI4sf", 7, 9, 2, b"a\0", 4, b"oil\0", 2.5)
        parsed = reader_of("my_msgs/msg/Tank", bytes)(b"\x00\x01\x00\x00" + data[4:])
        assert (own.reader(["litres"], "tank")(parsed), stamp_of(parsed)) == ([2.5], 7_000_000_009)
    finally:
        monkeypatch.undo()
        kinds.cache_clear()


CONTRACT = """
robot: cart
control_period: 0.1
inputs:
  odometry: {topic: odom, type: nav_msgs/msg/Odometry}
  scan: {topic: scan, type: sensor_msgs/msg/LaserScan}
  push: {topic: push, type: std_msgs/msg/Float64}
observation:
  trigger: odometry
  frame:
    - {name: sin, input: odometry, field: orientation.yaw, unit: rad, function: sin}
    - {name: cos, input: odometry, field: orientation.yaw, unit: rad, function: cos}
    - {name: turn, input: odometry, field: angular_velocity.z, unit: deg/s}
    - {name: front, input: scan, field: "min(-30, 30)", unit: m}
    - {name: push, input: push, field: data, unit: N}
action:
  elements: [{name: forward, low: -1, high: 1}, {name: turn, low: -1, high: 1}]
  command: {topic: cmd_vel, type: geometry_msgs/msg/Twist}
  parts: [{name: linear.x, offset: 0.25, sum: {forward: 0.25}}, {name: angular.z, sum: {turn: 1.5}}]
incident: [{feature: front, below: 0.2, unit: m}]
safe_action: [-1, 0]
"""


@pytest.fixture
def contract(tmp_path):
    from ssql_ros.contract import load_contract

    path = tmp_path / "cart.yaml"
    path.write_text(CONTRACT)
    return load_contract(path)


def test_the_contract_for_twist_of_the_how_to_loads(tmp_path):
    from ssql_ros.contract import load_contract

    page = Path(__file__).resolve().parents[2] / "docs/how_to/shield_my_controller.md"
    (block,) = re.findall(r"```yaml\n(robot:.*?)```", page.read_text(), flags=re.DOTALL)
    (tmp_path / "cart.yaml").write_text(block)
    commanded = load_contract(tmp_path / "cart.yaml").commanded
    assert (commanded.topic, commanded.raw_topic, commanded.type) == (
        "cmd_vel",
        "cmd_vel_raw",
        "geometry_msgs/msg/Twist",
    )


def test_defaults_follow_from_the_control_period(contract):
    assert (contract.command_timeout, contract.observed.max_skew, contract.observed.episode_gap) == (0.2, 0.025, 0.5)
    assert {source.max_age for source in contract.inputs.values()} == {0.2}
    assert contract.inputs["push"].stamps == "arrival"
    assert [block.kind for block in contract.observed.blocks] == ["frame"]


def test_sine_and_cosine_of_the_heading(contract):
    from nav_msgs.msg import Odometry

    message = Odometry()
    message.pose.pose.orientation.z, message.pose.pose.orientation.w = math.sin(0.6), math.cos(0.6)
    message.twist.twist.angular.z = 1.0
    found = InputReader(contract, contract.inputs["odometry"])(
        reader_of("nav_msgs/msg/Odometry", bytes)(serialize_message(message))
    )
    assert np.allclose(found, [math.sin(1.2), math.cos(1.2), 180.0 / math.pi], atol=1e-12)


@pytest.mark.parametrize(
    ("old", "new", "texts"),
    [
        ("min(-30, 30)", "least(-30, 30)", ["frame[3].field", "min(from, to)", "got 'least(-30, 30)'"]),
        ("function: sin", "function: tan", ["frame[0].function", "expected one of sin, cos", "'tan'"]),
        ("field: data, unit: N", "field: data, unit: deg", ["frame[4].unit", "the message does not say", "got 'deg'"]),
        ("std_msgs/msg/Float64}", "std_msgs/msg/Float64, stamps: header}", ["inputs.push.stamps", "has no header"]),
        ("parts: [{name: linear.x", "parts: [{name: linear.q", ["action.parts[0].name", "linear.x", "got 'linear.q'"]),
        ("parts:", "joints:", ["action.joints", "has parts, and no joints"]),
        ("msg/Twist}", "msg/Twist, unit: deg}", ["action.command.unit", "m/s and rad/s"]),
    ],
)
def test_mistakes_are_told_with_key_and_fix(tmp_path, old, new, texts):
    from ssql_ros.contract import load_contract

    path = tmp_path / "cart.yaml"
    path.write_text(CONTRACT.replace(old, new))
    with pytest.raises(ContractError) as raised:
        load_contract(path)
    assert str(raised.value).startswith(f"{path}: ")
    for text in texts:
        assert text in str(raised.value)
