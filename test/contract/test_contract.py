"""The contract file: what it means, and what each mistake in it is answered with."""

import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ssql_ros.contract import Contract, ContractError, find_contract, load_contract
from support import legs

SHIPPED = find_contract("minitaur")
CONTRACT = load_contract(SHIPPED)
ABSENT = object()


def changed(folder: Path, **changes: object) -> Path:
    """The shipped contract with values put at `place__like__0__this`, or taken out where ABSENT."""
    document = yaml.safe_load(SHIPPED.read_text())
    for place, value in changes.items():
        *parents, last = (int(key) if key.isdigit() else key for key in place.split("__"))
        target = document
        for key in parents:
            target = target[key]
        if value is ABSENT:
            del target[last]
        else:
            target[last] = value
    path = folder / "robot.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def box(inside: object, unit: str = "rad") -> dict[str, object]:
    return {"inside": inside, "unit": unit}


def error_of(path: Path) -> str:
    with pytest.raises(ContractError) as caught:
        load_contract(path)
    return str(caught.value)


# What the shipped contract says


def test_minitaur_has_the_sizes_of_the_task():
    assert (CONTRACT.frame_size, CONTRACT.observation_size, CONTRACT.action_size) == (12, 120, 8)
    assert (CONTRACT.past("past_frames"), CONTRACT.past("past_actions")) == (5, 5)
    assert (CONTRACT.control_period, CONTRACT.command_timeout) == (0.02, 0.04)
    assert CONTRACT.observed_inputs == ("joint_states", "imu")
    assert CONTRACT.joint_command(CONTRACT.safe_action).tolist() == [-2.0] * 4 + [2.0] * 4


def test_id_of_the_shipped_minitaur_is_the_one_its_networks_carry():
    assert CONTRACT.id == "minitaur-0d69714be1b9"


def test_id_is_the_same_for_what_does_not_change_the_vectors(tmp_path):
    path = changed(
        tmp_path,
        inputs__imu__topic="robot/imu",
        inputs__joint_states__max_age=0.1,
        action__command__topic="commands",
        command_timeout=0.06,
        observation__max_skew=0.01,
        observation__episode_gap=0.2,
    )
    assert load_contract(path).id == CONTRACT.id
    path.write_text("# another comment\n" + SHIPPED.read_text())
    assert load_contract(path).id == CONTRACT.id


@pytest.mark.parametrize(
    "changes",
    [
        {"robot": "another"},
        {"control_period": 0.025},
        {"observation__frame__4__scale": 1},
        {"observation__frame__4__wrap": False},
        {"observation__frame__2__unit": "deg/s"},
        {"observation__frame__0__field": "orientation.pitch", "observation__frame__1__field": "orientation.roll"},
        {"observation__frame__4__joint": "motor_front_leftR_joint"},
        {"observation__derived__0__sum__front_leftR": 0.25},
        {"observation__vector__2__scale": 1.0},
        {"observation__vector__1__count": 4},
        {"action__elements__0__high": 0.5},
        {"action__command__unit": "deg"},
        {"action__joints__0__offset": -1.9},
        {"action__joints__0__sum__front_left_swing": 0.4},
        {"incident__0__above": 0.25},
        {"incident__2__below": -0.8},
        {"incident__2": box({"roll": [0.1, 0.3]})},
        {"safe_action": [0.1] * 8},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_id_changes_with_the_meaning(tmp_path, changes):
    assert load_contract(changed(tmp_path, **changes)).id != CONTRACT.id


def test_id_changes_with_the_order_of_joints_and_features(tmp_path):
    document = yaml.safe_load(SHIPPED.read_text())
    joints, frame = document["action"]["joints"], document["observation"]["frame"]
    swapped = changed(tmp_path, action__joints__0=joints[1], action__joints__1=joints[0])
    assert load_contract(swapped).id != CONTRACT.id
    swapped = changed(tmp_path, observation__frame__4=frame[5], observation__frame__5=frame[4])
    assert load_contract(swapped).id != CONTRACT.id


# Mistakes in the file


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        # Unknown keys name the nearest known one.
        ({"contol_period": 0.02}, ["unknown key 'contol_period'", "did you mean 'control_period'?"]),
        ({"inputs__imu__maxage": 1.0}, ["inputs.imu", "unknown key 'maxage'", "did you mean 'max_age'?"]),
        ({"observation__frame__3__units": "rad"}, ["observation.frame[3]", "'units'", "did you mean 'unit'?"]),
        ({"action__joints__2__sum__front_left_sving": 1.0}, ["action.joints[2].sum", "'front_left_swing'?"]),
        ({"observation__vector__0__xyzzy": 1}, ["observation.vector[0]", "'xyzzy'", "known keys: block, count, scale"]),
        # Missing keys.
        ({"safe_action": ABSENT}, ["key 'safe_action' is missing"]),
        ({"observation__trigger": ABSENT}, ["observation", "key 'trigger' is missing"]),
        ({"observation__frame__4__joint": ABSENT}, ["observation.frame[4].joint", "expected a name, got None"]),
        ({"observation__vector__1__count": ABSENT}, ["observation.vector[1].count", "'past_frames'"]),
        ({"incident__2__above": ABSENT}, ["incident[2].above", "'above', 'below' or both"]),
        # A joint that is not there.
        ({"action__joints__3": ABSENT}, ["action.joints", "is a joint missing?"]),
        (
            {"action__joints__3__sum": {"back_left_swing": 0.5, "back_left_extension": -0.5}},
            ["action.joints", "is a joint"],
        ),
        # Units.
        ({"observation__frame__0__unit": "rad/s"}, ["frame[0].unit", "in rad", "rad or deg, got 'rad/s'"]),
        ({"observation__frame__2__unit": "furlong"}, ["frame[2].unit", "rad/s or deg/s, got 'furlong'"]),
        ({"observation__frame__4__unit": "deg"}, ["frame[4].wrap", "only angles in rad are wrapped"]),
        ({"action__command__unit": "m"}, ["action.command.unit", "rad or deg, got 'm'"]),
        ({"incident__0__unit": "deg"}, ["incident[0].unit", "roll is in rad, got 'deg'"]),
        # Types.
        ({"control_period": "fast"}, ["control_period", "finite number, got 'fast'"]),
        ({"control_period": True}, ["control_period", "finite number, got True"]),
        ({"observation__vector__1__count": 2.5}, ["vector[1].count", "whole number of at least 1, got 2.5"]),
        ({"observation__vector__1__count": 0}, ["vector[1].count", "whole number of at least 1, got 0"]),
        ({"observation__frame__4__wrap": "yes"}, ["frame[4].wrap", "true or false, got 'yes'"]),
        ({"observation__frame": {"a": 1}}, ["observation.frame", "expected a list"]),
        ({"observation__derived__0__sum": [1, 2]}, ["observation.derived[0].sum", "mapping of names to numbers"]),
        ({"inputs": ["imu"]}, ["inputs", "expected a mapping"]),
        ({"observation": None}, ["observation", "expected a mapping, got None"]),
        ({"robot": 3}, ["robot", "expected a name, got 3"]),
        # Numbers that are none, or out of range.
        ({"control_period": math.nan}, ["control_period", "finite number, got nan"]),
        ({"control_period": 10**400}, ["control_period", "finite number"]),
        ({"control_period": 0.0}, ["control_period", "above 0"]),
        ({"inputs__imu__max_age": math.inf}, ["inputs.imu.max_age", "finite number, got inf"]),
        ({"command_timeout": 0.01}, ["command_timeout", "at least control_period (0.02 s)"]),
        ({"action__elements__3__low": math.nan}, ["action.elements[3].low", "finite number, got nan"]),
        ({"action__joints__0__sum__front_left_swing": math.inf}, ["joints[0].sum.front_left_swing", "got inf"]),
        ({"incident__0__above": math.nan}, ["incident[0].above", "got nan"]),
        # Bounds the wrong way round.
        ({"action__elements__3__low": 1.5}, ["action.elements[3].high", "above low (1.5)"]),
        ({"incident__0__below": 0.3}, ["incident[0].below", "under above (0.3), got 0.3"]),
        # The safe action.
        ({"safe_action": [0.0] * 7}, ["safe_action", "expected 8 numbers", "got 7"]),
        ({"safe_action": [0.0] * 7 + [1.01]}, ["safe_action", "outside the action bounds"]),
        ({"safe_action": [-1.01] + [0.0] * 7}, ["safe_action", "outside the action bounds"]),
        ({"safe_action": [0.0] * 7 + [math.nan]}, ["safe_action", "finite numbers only, got nan"]),
        ({"safe_action": []}, ["safe_action", "at least one entry"]),
        # Names.
        ({"observation__frame__1__name": "roll"}, ["observation.frame[1].name", "'roll' is given twice"]),
        ({"observation__derived__0__name": "roll"}, ["observation.derived[0].name", "'roll' is given twice"]),
        ({"action__joints__1__name": "motor_front_leftL_joint"}, ["action.joints[1].name", "given twice"]),
        ({"observation__trigger": "odometry"}, ["observation.trigger", "imu, joint_states; got 'odometry'"]),
        ({"observation__frame__0__input": "gyro"}, ["observation.frame[0].input", "got 'gyro'"]),
        ({"observation__frame__0__field": "orientation.rol"}, ["observation.frame[0].field", "orientation.roll"]),
        ({"observation__frame__0__joint": "a_joint"}, ["observation.frame[0].joint", "has joints"]),
        ({"inputs__imu__type": "sensor_msgs/msg/Image"}, ["inputs.imu.type", "LaserScan"]),
        ({"action__command__type": "std_msgs/msg/String"}, ["action.command.type", "JointState"]),
        ({"observation__vector__0__count": 2}, ["observation.vector[0].count", "not for the block 'frame'"]),
        ({"incident__0__feature": "yaw"}, ["incident[0].feature", "got 'yaw'"]),
        ({"incident__0__feature": ABSENT}, ["incident[0].feature", "a limit needs 'feature', a box needs 'inside'"]),
        # Boxes of the incident rule.
        ({"incident__0": box({"rol": [0, 1]})}, ["incident[0].inside", "unknown key 'rol'", "did you mean 'roll'?"]),
        ({"incident__0": box({"roll": [0, 1]}, "deg")}, ["incident[0].unit", "roll is in rad, got 'deg'"]),
        (
            {"incident__0": box({"roll": [0, 1], "roll_rate": [0, 1]})},
            ["incident[0].unit", "roll_rate is in rad/s, got 'rad'"],
        ),
        ({"incident__0": box({"roll": [1, 0]})}, ["inside.roll", "low under high, got [1.0, 0.0]"]),
        ({"incident__0": box({"roll": [1, 1]})}, ["inside.roll", "low under high, got [1.0, 1.0]"]),
        ({"incident__0": box({"roll": [1]})}, ["incident[0].inside.roll", "expected [low, high]", "got [1.0]"]),
        ({"incident__0": box({"roll": [0, 1, 2]})}, ["inside.roll", "expected [low, high]"]),
        ({"incident__0": box({"roll": 1})}, ["inside.roll", "expected a list", "got 1"]),
        ({"incident__0": box({"roll": [0, math.nan]})}, ["inside.roll", "finite numbers only, got nan"]),
        ({"incident__0": box({"roll": [-math.inf, 0]})}, ["inside.roll", "finite numbers only, got -inf"]),
        ({"incident__0": box({})}, ["incident[0].inside", "got an empty one"]),
        ({"incident__0": box([0, 1])}, ["incident[0].inside", "expected a mapping, got [0, 1]"]),
        ({"incident__0__inside": {"roll": [0, 1]}}, ["incident[0].feature", "is not for a box"]),
        ({"incident__0": {"insid": {"roll": [0, 1]}, "unit": "rad"}}, ["incident[0]", "did you mean 'inside'?"]),
        ({"incident__0": {"inside": {"roll": [0, 1]}}}, ["incident[0]", "key 'unit' is missing"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_mistake_is_named_with_file_and_key(tmp_path, changes, texts):
    path = changed(tmp_path, **changes)
    error = error_of(path)
    assert error.startswith(f"{path}: ")
    for text in texts:
        assert text in error


NOT_ONE_MAPPING = {
    "key twice": (SHIPPED.read_bytes() + b"\nrobot: another\n", "'robot' is given twice"),
    "nested key twice": (
        SHIPPED.read_bytes().replace(b"max_age: 0.2", b"max_age: 0.2, topic: b"),
        "'topic' is given twice",
    ),
    "cut off": (SHIPPED.read_bytes()[:-8], "is not valid YAML"),
    "empty": (b"", "expected a mapping at the top, got NoneType"),
    "list": (b"- a\n- b\n", "expected a mapping at the top, got list"),
    "latin-1": (b"robot: mini\xfftaur\n", "is not UTF-8 text"),
    "syntax": (b"robot: a\tb: c: d", "is not valid YAML"),
    "binary": (b"\x00\x01", "is not valid YAML"),
    "list as key": (b"? [robot]\n: minitaur\n", "cannot be a key"),
    "no such date": (b"robot: 2001-99-99\n", "is not valid YAML"),
    "too deep": (b"[" * 5000, "is not valid YAML"),
    "too long a number": (b"control_period: 1" + b"0" * 5000, "is not valid YAML"),
}


@pytest.mark.parametrize(("content", "text"), NOT_ONE_MAPPING.values(), ids=NOT_ONE_MAPPING)
def test_file_that_is_not_one_mapping_is_refused(tmp_path, content, text):
    path = tmp_path / "robot.yaml"
    path.write_bytes(content)
    error = error_of(path)
    assert error.startswith(f"{path}: ")
    assert text in error


@pytest.mark.parametrize(
    "tag", ["python/object/apply:pathlib.Path.touch [{0}]", "python/name:os.system", "python/object/new:os.system [id]"]
)
def test_yaml_tags_construct_nothing(tmp_path, tag):
    touched = tmp_path / "touched"
    path = tmp_path / "robot.yaml"
    path.write_text(f"robot: !!{tag.format(touched)}\n")
    assert "is not valid YAML" in error_of(path)
    assert not touched.exists()


def test_missing_file_and_unknown_robot_are_named(tmp_path):
    assert error_of(tmp_path / "none.yaml") == f"{tmp_path}/none.yaml: cannot be read: No such file or directory"
    assert error_of(tmp_path).startswith(f"{tmp_path}: cannot be read")
    with pytest.raises(ContractError, match=r"no contract 'maxitaur'.*known: .*minitaur"):
        find_contract("maxitaur")


# Units


def test_degrees_are_converted(tmp_path):
    path = changed(
        tmp_path,
        observation__frame__0__unit="deg",
        observation__frame__2__unit="deg/s",
        incident__0={"feature": "roll", "above": 17.0, "unit": "deg"},
        action__command__unit="deg",
    )
    contract = load_contract(path)
    roll, pitch, roll_rate, *_ = contract.observed.frame
    assert (roll.factor, pitch.factor, roll_rate.factor) == (180 / math.pi, 1.0, 180 / math.pi)
    # A command in degrees: -2 degrees of offset, half a degree per action unit.
    half_degree = math.radians(0.5)
    action = np.zeros(8)
    action[4] = 1.0
    expected = [math.radians(-2.0) - half_degree] * 2 + [math.radians(-2.0)] * 2 + [math.radians(2.0)] * 4
    np.testing.assert_allclose(contract.joint_command(action), expected, rtol=1e-15)
    frame = np.zeros(12)
    frame[0] = 18.5
    margin, cause = contract.margin(frame)
    assert margin == 1.5
    assert cause == "roll 18.500 deg (limit 17)"


# Actions and joint commands

actions = st.lists(st.floats(-3.0, 3.0), min_size=8, max_size=8).map(np.array)


@given(actions)
def test_joint_command_is_the_leg_model_of_the_task(action):
    expected = legs.action_to_joint_positions(action)
    np.testing.assert_allclose(CONTRACT.joint_command(action), expected, rtol=0, atol=1e-15)


@given(actions)
def test_action_comes_back_from_its_joint_command(action):
    np.testing.assert_allclose(CONTRACT.action_of(CONTRACT.joint_command(action)), action, rtol=0, atol=1e-13)


@given(actions)
def test_clipped_action_is_the_nearest_one_in_bounds(action):
    clipped = CONTRACT.clip(action)
    assert clipped.tolist() == [min(max(a, -1.0), 1.0) for a in action]


def test_joint_command_that_no_action_gives_is_refused(tmp_path):
    document = yaml.safe_load(SHIPPED.read_text())
    mimic = {"name": "mimic_joint", "offset": 0.0, "sum": {"front_left_swing": 1.0}}
    contract = load_contract(changed(tmp_path, action__joints=[*document["action"]["joints"], mimic]))
    command = contract.joint_command(np.full(8, 0.5))
    assert command[8] == 0.5
    np.testing.assert_allclose(contract.action_of(command), np.full(8, 0.5), rtol=0, atol=1e-13)
    command[8] = 0.7
    with pytest.raises(ContractError, match="joint command of minitaur: no action gives it"):
        contract.action_of(command)


# The incident rule


def expected_margin(frame: np.ndarray) -> float:
    front_left = 0.5 * (frame[5] - frame[4])
    front_right = 0.5 * (frame[8] - frame[9])
    return max(abs(frame[0]) - 0.3, abs(frame[1]) - 0.3, front_left - 0.8, front_right - 0.8)


@given(st.lists(st.floats(-math.pi, math.pi), min_size=12, max_size=12).map(np.array))
def test_margin_is_the_closed_form_of_the_task(frame):
    margin, cause = CONTRACT.margin(frame)
    assert margin == pytest.approx(expected_margin(frame), abs=1e-12)
    assert cause.split()[0] in ("roll", "pitch", "front_left_swing", "front_right_swing")


@pytest.mark.parametrize(
    ("feature", "value", "margin", "cause"),
    [
        (0, 0.31, 0.01, "roll 0.310 rad (limit 0.3)"),
        (0, -0.35, 0.05, "roll -0.350 rad (limit -0.3)"),
        (1, 0.3, 0.0, "pitch 0.300 rad (limit 0.3)"),
        (5, 1.8, 0.1, "front_left_swing 0.900 rad (limit 0.8)"),
        (8, 1.8, 0.1, "front_right_swing 0.900 rad (limit 0.8)"),
        (9, 1.8, -0.3, "roll 0.000 rad (limit 0.3)"),
    ],
)
def test_cause_is_the_term_with_the_largest_excess(feature, value, margin, cause):
    frame = np.zeros(12)
    frame[feature] = value
    found, words = CONTRACT.margin(frame)
    assert found == pytest.approx(margin, abs=1e-12)
    assert words == cause


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("feature", range(12))
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_margin_of_what_cannot_be_judged_is_infinite(feature, value):
    frame = np.zeros(12)
    frame[feature] = value
    assert CONTRACT.margin(frame)[0] == math.inf


def boxed(folder: Path) -> Contract:
    """Minitaur's, with a box around a roll of 0.2 and a front left swing of 0 rad instead of both tilt limits."""
    limits = yaml.safe_load(SHIPPED.read_text())["incident"][2:]
    return load_contract(
        changed(folder, incident=[box({"roll": [0.1, 0.3], "front_left_swing": [-0.4, 0.4]}), *limits])
    )


@pytest.mark.parametrize(
    ("roll", "left", "right", "margin", "cause"),
    [
        (
            0.2,
            0.0,
            0.0,
            0.1,
            "roll 0.200, front_left_swing 0.000 rad (box roll 0.1 to 0.3, front_left_swing -0.4 to 0.4)",
        ),
        (0.25, 0.38, 0.0, 0.02, "roll 0.250, front_left_swing 0.380"),
        (0.3, 0.0, 0.0, 0.0, "roll 0.300"),  # on a face
        (0.3, 0.4, 0.0, 0.0, "roll 0.300"),  # on a corner
        (0.0, 0.0, 0.0, -0.1, "roll 0.000"),
        (0.0, 0.7, 0.0, -0.1, "front_left_swing 0.700 rad (limit 0.8)"),  # -0.3 of the box
        (-0.2, -0.6, 0.0, -0.3, "roll -0.200"),  # the larger excess, 0.2 along the other axis
        (0.2, 0.0, 1.0, 0.2, "front_right_swing 1.000 rad (limit 0.8)"),  # in the box too
    ],
)
def test_margin_of_a_box_is_the_depth_inside_it(tmp_path, roll, left, right, margin, cause):
    frame = np.zeros(12)
    frame[0], frame[5], frame[8] = roll, 2.0 * left, 2.0 * right
    found, words = boxed(tmp_path).margin(frame)
    assert found == pytest.approx(margin, abs=1e-12)
    assert words.startswith(cause)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("feature", range(12))
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_margin_of_a_box_that_cannot_be_judged_is_infinite(tmp_path, feature, value):
    frame = np.zeros(12)
    frame[feature] = value
    contract = load_contract(changed(tmp_path, incident=[box({"roll": [0.1, 0.3], "pitch": [0.1, 0.3]})]))
    assert contract.limits == ()
    assert contract.margin(frame)[0] == math.inf


def test_id_takes_in_boxes_but_not_the_order_of_their_features(tmp_path):
    sides = {"roll": [0.1, 0.3], "pitch": [0.1, 0.3]}
    contract = load_contract(changed(tmp_path, incident=[box(sides)]))
    swapped = load_contract(changed(tmp_path, incident=[box(dict(reversed(sides.items())))]))
    larger = load_contract(changed(tmp_path, incident=[box(sides | {"roll": [0.1, 0.4]})]))
    assert contract.id == swapped.id != larger.id
    assert contract.boxes == swapped.boxes


def test_contracts_with_equal_ids_mean_equal_vectors():
    again: Contract = load_contract(SHIPPED)
    assert again.id == CONTRACT.id
    assert again.meaning() == CONTRACT.meaning()
