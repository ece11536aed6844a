"""A contract is drafted from what a robot says; what nobody can know is asked for."""

import json
from pathlib import Path

import pytest
import yaml

from ssql_ros.cli.main import main
from ssql_ros.contract import ContractError, load_contract, robot_folder
from ssql_ros.contract.plugs import plugs
from ssql_ros.drafting.draft import DraftFeature
from ssql_ros.drafting.json_schema import json_schema
from ssql_ros.drafting.rules import ask_rules, read_rule
from ssql_ros.drafting.urdf import read_urdf
from support.diff_drive_bag import record
from support.logs import TASK, record_trots

URDF = """<robot name="arm">
  <joint name="elbow" type="revolute"><limit lower="-1.5" upper="0.5" velocity="2.0" effort="30"/></joint>
  <joint name="wheel" type="continuous"><limit velocity="8" effort="0"/></joint>
  <joint name="plate" type="fixed"/>
</robot>"""
FRAME = [DraftFeature("roll", "imu", "orientation.roll", "rad", low=-0.1, high=0.2)]


def fits(value, schema) -> bool:
    """Whether a value follows a JSON Schema, of the words that ours has."""
    if "anyOf" in schema:
        return any(fits(value, one) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return value in schema.get("enum", [schema.get("const")])
    kind = schema["type"]
    if kind == "object":
        named, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        return (
            isinstance(value, dict)
            and set(schema.get("required", ())) <= set(value)
            and all(fits(v, named[k]) if k in named else others and fits(v, others) for k, v in value.items())
        )
    if kind == "array":
        few, many = schema.get("minItems", 0), schema.get("maxItems", 10**6)
        return isinstance(value, list) and few <= len(value) <= many and all(fits(v, schema["items"]) for v in value)
    types = {"number": (int, float), "integer": int, "boolean": bool, "string": str}
    right = isinstance(value, types[kind]) and (kind == "boolean" or not isinstance(value, bool))
    return right and (kind != "number" or value > schema.get("exclusiveMinimum", -1e300))


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bags") / "walk"
    record_trots(path, 2, 60)
    return path


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bags") / "drive"
    record(path, 3)
    return path


def init(bag: Path, out: Path, *more: str) -> int:
    return main(["contract", "init", str(bag), "--out", str(out), *more])


def test_frame_of_the_minitaur_is_that_of_its_contract(walk, tmp_path, capsys):
    out = tmp_path / "mini.yaml"
    assert init(walk, out, "--robot", "mini", "--incident", "roll beyond 0.3") == 0
    made, own = load_contract(out), TASK.contract()
    frames = [{(f.input, f.field, f.joint) for f in contract.observed.frame} for contract in (made, own)]
    assert frames[0] == frames[1]
    assert (made.control_period, made.observed.trigger, made.past("past_frames")) == (0.02, "joint_states", 5)
    assert (set(made.commanded.joint_names), made.holds_pose) == (set(own.commanded.joint_names), True)
    assert made.observed.max_skew == own.observed.max_skew == 0.005
    assert "motor_front_leftL_joint" in capsys.readouterr().out
    # What was commanded lies inside of what an action can say, and nothing is lost in a conversion.
    assert main(["contract", "check", str(out), "--bag", str(walk)]) == 0
    assert main(["bag", "check", str(walk), "--contract", str(out), "--quiet", "--json"]) in (0, 3)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == 120


def test_a_robot_that_nobody_knows_gets_a_contract_of_its_own(drive, tmp_path):
    out = tmp_path / "cart.yaml"
    assert init(drive, out, "--robot", "cart", "--incident", "scan_nearest below 0.25") == 0
    made = load_contract(out)
    assert made.commanded.type == "geometry_msgs/msg/Twist"
    assert made.commanded.joint_names == ("linear.x", "angular.z")
    assert {"scan_front", "scan_nearest", "velocity_x", "yaw_rate"} <= set(made.frame_names)
    assert not {"x", "y"} & set(made.frame_names)
    # Not to move is the safe action.
    assert abs(made.joint_command(made.safe_action)).max() < 1e-9
    assert init(drive, out, "--incident", "scan_nearest below 0.25") == 2  # never over what somebody may have changed


@pytest.mark.parametrize(
    ("more", "texts"),
    [
        ([], ["--incident: expected at least one", "scan_nearest", "velocity_x: "]),
        (["--incident", "scan_far below 1"], ["expected a feature of the frame", "scan_front", "got 'scan_far'"]),
        (["--incident", "scan_front near 1"], ["expected FEATURE above X"]),
        (["--incident", "scan_front below 1 rad"], ["scan_front is in m, got 'rad'"]),
        (["--incident", "scan_front below nan"], ["expected a finite number, got 'nan'"]),
        (["--command", "/odom"], ["--command /odom", "/cmd_vel (geometry_msgs/msg/Twist)"]),
        (["--topic", "/laser"], ["--topic /laser", "/scan (sensor_msgs/msg/LaserScan)"]),
    ],
)
def test_what_cannot_be_known_is_asked_for_with_what_there_is(drive, tmp_path, capsys, more, texts):
    assert init(drive, tmp_path / "cart.yaml", *more) == 2
    said = capsys.readouterr().err
    for text in texts:
        assert text in said
    assert not (tmp_path / "cart.yaml").exists()


def test_a_person_is_asked_until_the_rule_can_be_read():
    lines, told = iter(["", "yaw above 1", "roll beyond 0.3", ""]), []
    rules = ask_rules(FRAME, lambda _: next(lines), told.append)
    assert [(rule.feature.name, rule.above, rule.below) for rule in rules] == [("roll", 0.3, -0.3)]
    assert any("needs at least one" in line for line in told)
    assert any("got 'yaw'" in line for line in told)
    with pytest.raises(ContractError, match="above 0"):
        read_rule("roll beyond -1", FRAME)


def test_a_urdf_tells_limits_of_the_joints_that_move(tmp_path):
    path = tmp_path / "arm.urdf"
    path.write_text(URDF)
    joints = read_urdf(path)
    assert set(joints) == {"elbow", "wheel"}
    assert joints["elbow"].of("position") == (-1.5, 0.5)
    assert joints["wheel"].of("velocity") == (-8.0, 8.0)
    assert joints["wheel"].of("effort") == (-float("inf"), float("inf"))
    path.write_text("<robot><joint name='a' type='revolute'><limit lower='x'/></joint></robot>")
    with pytest.raises(ContractError, match="joint a: limit: expected numbers"):
        read_urdf(path)


@pytest.mark.parametrize("robot", sorted(plugs()))
def test_shipped_contracts_follow_the_schema_that_editors_have(robot):
    told = yaml.safe_load((robot_folder(robot) / "contract.yaml").read_text())
    assert fits(told, json_schema())
    assert not fits({**told, "contrl_period": 0.1}, json_schema())
    assert not fits({**told, "control_period": 0}, json_schema())
    assert not fits({**told, "incident": []}, json_schema())


def test_schema_names_every_key_and_forbids_others():
    found = json_schema()
    feature = found["properties"]["observation"]["properties"]["frame"]["items"]
    assert feature["required"] == ["name", "input", "field", "unit"]
    assert feature["properties"]["wrap"]["type"] == "boolean"
    assert feature["properties"]["function"]["enum"] == ["sin", "cos"]
    assert found["properties"]["control_period"]["exclusiveMinimum"] == 0
    assert found["additionalProperties"] is feature["additionalProperties"] is False
