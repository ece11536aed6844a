"""A cart-pole over Float64, whose messages have no stamps, and an arm over JointState: from bag to transitions."""

import json
import math
from pathlib import Path

import numpy as np

from ssql_ros.bags import BagWriter, qos_profile
from ssql_ros.bags.definitions import Definitions
from ssql_ros.cli.main import main
from ssql_ros.contract import load_contract

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


def test_an_arm_with_the_limits_of_its_urdf(tmp_path, capsys):
    store = Definitions().store
    bag, out, urdf, names = tmp_path / "arm", tmp_path / "arm.yaml", tmp_path / "arm.urdf", ["shoulder", "elbow"]
    urdf.write_text(URDF)
    none = np.zeros(0)
    with BagWriter(bag) as writer:
        for topic in ("/joint_states", "/joint_commands"):
            writer.add_topic(topic, JOINTS, [qos_profile()])
        for i in range(200):
            stamp = NANOSECONDS + i * PERIOD
            at = store.types["builtin_interfaces/msg/Time"](stamp // NANOSECONDS, stamp % NANOSECONDS)
            header = store.types["std_msgs/msg/Header"](at, "")
            place = np.array([math.sin(0.05 * i), 1.0 + 0.5 * math.cos(0.05 * i)])
            for topic, values in (("/joint_states", place), ("/joint_commands", place + 0.05)):
                message = store.types[JOINTS](header, names, values, none, none)
                writer.write(topic, stamp + 1000, bytes(store.serialize_cdr(message, JOINTS)))
    told = ["--urdf", str(urdf), "--incident", "elbow above 2.2"]
    assert main(["contract", "init", str(bag), "--out", str(out), *told]) == 0
    contract = load_contract(out)
    low, high = contract.joint_limits
    assert np.allclose(low, [-2.0, 0.0])
    assert np.allclose(high, [2.0, 2.5])
    assert (contract.commanded.max_rate, contract.holds_pose, contract.past("past_frames")) == (1.5, True, 5)
    assert rows(bag, out, capsys)["rows"] == 199
