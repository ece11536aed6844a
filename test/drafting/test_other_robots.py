"""A cart-pole over Float64, whose messages have no stamps, and an arm over JointState: from bag to transitions."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from ssql_ros.bags import BagWriter, qos_profile
from ssql_ros.bags.definitions import Definitions
from ssql_ros.cli.main import main
from ssql_ros.contract import load_contract
from ssql_ros.drafting.joint_topics import joined_commands
from ssql_ros.drafting.signals import Signal

FLOAT, JOINTS = "std_msgs/msg/Float64", "sensor_msgs/msg/JointState"
PERIOD, NANOSECONDS = 20_000_000, 1_000_000_000
URDF = """<robot name="arm">
  <joint name="shoulder" type="revolute"><limit lower="-2.0" upper="2.0" velocity="1.5" effort="30"/></joint>
  <joint name="elbow" type="revolute"><limit lower="0.0" upper="2.5" velocity="3.0" effort="30"/></joint>
</robot>"""


def rows(bag: Path, contract: Path, capsys) -> dict:
    capsys.readouterr()
    assert main(["bag", "check", str(bag), "--contract", str(contract), "--quiet", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_cart_pole_over_floats(tmp_path, capsys):
    store = Definitions().store
    topics = ("/cart/position", "/pole/angle", "/pole/rate", "/force/command")
    bag, out = tmp_path / "pole", tmp_path / "pole.yaml"
    with BagWriter(bag) as writer:
        for topic in topics:
            writer.add_topic(topic, FLOAT, [qos_profile()])
        for i in range(200):
            values = (
                0.2 * math.sin(0.03 * i),
                0.1 * math.cos(0.1 * i),
                -0.5 * math.sin(0.1 * i),
                8.0 * math.sin(0.3 * i),
            )
            for k, (topic, value) in enumerate(zip(topics, values, strict=True)):
                data = bytes(store.serialize_cdr(store.types[FLOAT](value), FLOAT))
                writer.write(topic, NANOSECONDS + i * PERIOD + k * 500_000, data)
    assert main(["contract", "init", str(bag), "--out", str(out), "--incident", "pole_angle beyond 0.5"]) == 0
    contract = load_contract(out)
    assert (contract.commanded.type, contract.control_period) == (FLOAT, 0.02)
    assert contract.frame_names == ("cart_position", "pole_angle", "pole_rate")
    assert {source.stamps for source in contract.inputs.values()} == {"arrival"}
    assert np.allclose(contract.joint_limits[1], 8.8, atol=0.05)
    assert rows(bag, out, capsys)["rows"] >= 197


def record_arm(bag: Path, commands: dict[str, tuple[str, ...]]) -> None:
    """Write 200 periods of an arm; by topic, the joints that it commands: two as JointState, one as Float64."""
    store, names, none = Definitions().store, ["shoulder", "elbow"], np.zeros(0)
    kinds = {"/joint_states": JOINTS} | {topic: JOINTS if len(told) == 2 else FLOAT for topic, told in commands.items()}
    with BagWriter(bag) as writer:
        for topic, kind in kinds.items():
            writer.add_topic(topic, kind, [qos_profile()])
        for i in range(200):
            stamp = NANOSECONDS + i * PERIOD
            at = store.types["builtin_interfaces/msg/Time"](stamp // NANOSECONDS, stamp % NANOSECONDS)
            header = store.types["std_msgs/msg/Header"](at, "")
            place = np.array([math.sin(0.05 * i), 1.0 + 0.5 * math.cos(0.05 * i)])
            for topic, kind in kinds.items():
                values = place + 0.05 * (topic != "/joint_states")
                if kind == JOINTS:
                    message = store.types[JOINTS](header, names, values, none, none)
                else:
                    message = store.types[FLOAT](values[names.index(commands[topic][0])])
                writer.write(topic, stamp + 1000, bytes(store.serialize_cdr(message, kind)))


def test_an_arm_with_the_limits_of_its_urdf(tmp_path, capsys):
    bag, out, urdf = tmp_path / "arm", tmp_path / "arm.yaml", tmp_path / "arm.urdf"
    urdf.write_text(URDF)
    record_arm(bag, {"/joint_commands": ("shoulder", "elbow")})
    told = ["--urdf", str(urdf), "--incident", "elbow above 2.2"]
    assert main(["contract", "init", str(bag), "--out", str(out), *told]) == 0
    contract = load_contract(out)
    low, high = contract.joint_limits
    assert np.allclose(low, [-2.0, 0.0])
    assert np.allclose(high, [2.0, 2.5])
    assert (contract.commanded.max_rate, contract.holds_pose, contract.past("past_frames")) == (1.5, True, 5)
    assert rows(bag, out, capsys)["rows"] == 199


@pytest.mark.parametrize(
    ("topic", "place"),
    [
        ("/arm/{}_position_controller/command", "{joint}"),  # of ros_control
        ("/model/arm/joint/{}/cmd_pos", "{joint}"),  # as Gazebo's, bridged
    ],
)
def test_an_arm_whose_joints_have_a_topic_each(tmp_path, capsys, topic, place):
    bag, out, urdf = tmp_path / "arm", tmp_path / "arm.yaml", tmp_path / "arm.urdf"
    urdf.write_text(URDF)
    record_arm(bag, {topic.format(joint): (joint,) for joint in ("elbow", "shoulder")})
    told = ["--urdf", str(urdf), "--incident", "elbow above 2.2"]
    assert main(["contract", "init", str(bag), "--out", str(out), *told]) == 0
    contract = load_contract(out)
    assert contract.commanded.topic == topic.format(place).lstrip("/")
    assert (contract.commanded.apart, contract.commanded.joint_names) == (True, ("shoulder", "elbow"))
    assert np.allclose(contract.joint_limits, [[-2.0, 0.0], [2.0, 2.5]])
    assert rows(bag, out, capsys)["rows"] >= 197


def signals(topics: list[str], measured: tuple[str, ...] = ()) -> dict[str, Signal]:
    told = Signal("/joint_states", JOINTS, [1], [1], joints=list(measured))
    return {"/joint_states": told} | {topic: Signal(topic, FLOAT, [1, 2], [0, 0], {"data": [0.0]}) for topic in topics}


def joined(topics: list[str], measured: tuple[str, ...] = ()) -> Signal | None:
    found = signals(topics, measured)
    return joined_commands([found[topic] for topic in topics], found)


def test_names_of_joints_in_small_letters_and_of_one_that_is_not_measured():
    topics = [f"/sh_{name}_position_controller/command" for name in ("rh_ffj0", "rh_thj1", "rh_ffj3")]
    one = joined(topics, ("rh_FFJ1", "rh_FFJ2", "rh_FFJ3", "rh_THJ1"))
    assert one is not None
    assert (one.topic, one.joints) == (
        "/sh_{joint_lower}_position_controller/command",
        ["rh_FFJ3", "rh_THJ1", "rh_ffj0"],
    )


def test_topics_without_measured_joints_are_told_apart_by_one_part_of_the_path():
    one = joined(["/left_wheel_velocity_controller/cmd", "/right_wheel_velocity_controller/cmd"])
    assert one is not None
    assert (one.topic, one.joints) == ("/{joint}_wheel_velocity_controller/cmd", ["left", "right"])
    assert set(one.values) == {("left", "velocity"), ("right", "velocity")}


@pytest.mark.parametrize("topics", [["/a/cmd", "/b/c/cmd"], ["/a/x/cmd", "/b/y/cmd"], ["/cmd"]])
def test_topics_that_are_not_alike_are_not_joined(topics):
    assert joined(topics) is None
