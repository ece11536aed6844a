"""Several nodes on one topic, in bags, by the real command: parts of a robot's joints, and what contradicts itself."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssql_ros.data.data_set import DataSet
from support.bags import make_store
from support.walk_bag import Sample, walk_messages, write_mcap

STORE, JOINTS = make_store(), "sensor_msgs/msg/JointState"
SSQL = Path(sys.executable).with_name("ssql")


@pytest.fixture(scope="module")
def messages() -> list[Sample]:
    return walk_messages()


@pytest.fixture(scope="module")
def expected(messages: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    data = converted(messages, tmp_path_factory.mktemp("walk"), 0)[1]
    assert len(data) == 99
    return np.array(data["observation"])


def converted(messages: list[Sample], folder: Path, status: int) -> tuple[list[str], DataSet | None]:
    """Lines and data set of `ssql bag convert`, and the account of `check`, whose exit status is the same."""
    bag = write_mcap(folder / "bag.mcap", sorted(messages, key=lambda message: message.time))
    words = [str(SSQL), "bag", "check", str(bag), "--contract", "minitaur", "--quiet"]
    told = subprocess.run([*words, "--json"], capture_output=True, text=True, timeout=120, check=False)
    assert told.returncode == status, told.stderr
    words[2] = "convert"
    done = subprocess.run(
        [*words, "--out", str(folder / "set")], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == status, done.stderr
    rows = json.loads(told.stdout)["rows"]
    data = DataSet(folder / "set") if rows else None
    assert (folder / "set").exists() == bool(rows)
    assert rows == (0 if data is None else len(data))
    return done.stdout.splitlines(), data


def joint_messages(messages: list[Sample]) -> list[Sample]:
    return [message for message in messages if message.topic == "/joint_states"]


def others(messages: list[Sample]) -> list[Sample]:
    return [message for message in messages if message.topic != "/joint_states"]


def part(message: Sample, where: Callable[[str], bool], later: int, factor: float = 1.0) -> Sample:
    """What a node says that knows only some joints, `later` ns after `message`; its positions times `factor`."""
    whole = STORE.deserialize_cdr(message.data, JOINTS)
    at = [i for i, name in enumerate(whole.name) if where(name)]
    names, positions = [whole.name[i] for i in at], factor * whole.position[at] + 0.0
    none = np.array([])
    said = STORE.types[JOINTS](header=whole.header, name=names, position=positions, velocity=none, effort=none)
    return replace(message, data=bytes(STORE.serialize_cdr(said, JOINTS)), time=message.time + later)


def everything(_name: str) -> bool:
    return True


def left(name: str) -> bool:
    return "_left" in name


def right(name: str) -> bool:
    return "_right" in name


@pytest.mark.slow
@pytest.mark.parametrize(("later", "first"), [(-500, 0.0), (200, -1.9064)])
def test_a_second_node_that_says_0_is_named_and_never_becomes_rows(messages, tmp_path, later, first) -> None:
    zeros = [part(message, everything, later, 0.0) for message in joint_messages(messages)]
    lines, data = converted([*messages, *zeros], tmp_path, 1)
    assert data is None
    (problem,) = [line for line in lines if line.startswith("problem: ")]
    assert "joint_states: two messages of one stamp (1700000000.000000 s) contradict each other" in problem
    assert f"motor_front_leftL_joint is {first:g} and {-1.9064 - first:g} in position" in problem
    assert "do two nodes publish the same joints?" in problem
    assert any("100 contradictions: " in line for line in lines)


@pytest.mark.slow
def test_a_contradiction_at_a_few_stamps_costs_these_and_is_named(messages, tmp_path, expected) -> None:
    zeros = [part(message, everything, -500, 0.0) for message in joint_messages(messages)[50:53]]
    lines, data = converted([*messages, *zeros], tmp_path, 3)
    at = (np.array(data["stamp"]) - messages[0].time + 1000) // 20_000_000
    assert at.tolist() == [*range(49), *range(53, 99)]
    assert np.array_equal(data["observation"][:49], expected[:49])
    assert any("1700000001.000000 s) contradict each other" in line for line in lines if line.startswith("problem: "))


def test_a_node_that_contradicts_some_joints_is_named(messages, tmp_path) -> None:
    joints = joint_messages(messages)
    halves = [part(message, where, 100 * k) for message in joints for k, where in enumerate((left, right))]
    zeros = [part(message, right, 500, 0.0) for message in joints]
    lines, _ = converted([*others(messages), *halves, *zeros], tmp_path, 1)
    (problem,) = [line for line in lines if line.startswith("problem: ")]
    assert "motor_front_rightL_joint is " in problem


PARTS = {
    "left and right": ((left, 0, 1), (right, 300, 1)),
    "right and left": ((right, 0, 1), (left, 300, 1)),
    "three": (
        (lambda name: "front_left" in name, 200, 1),
        (lambda name: "back_left" in name, 100, 1),
        (right, 0, 1),
    ),
    "all, and some of it again": ((everything, 0, 1), (left, 300, 1)),
    "all, and a gripper": ((everything, 0, 1), (lambda name: False, 300, 1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_parts_of_one_stamp_are_one_robot(messages, tmp_path, expected, parts) -> None:
    said = [part(message, where, later) for message in joint_messages(messages) for where, later, _ in parts]
    lines, data = converted([*others(messages), *said], tmp_path, 0)
    assert np.array_equal(data["observation"], expected)
    assert not any("between: " in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("slow", ["left", "right"])
def test_of_parts_at_different_rates_the_faster_begins_frames_and_the_slower_is_held(messages, tmp_path, slow) -> None:
    said = []
    for i, message in enumerate(joint_messages(messages)):
        for name, where, later in (("left", left, 0), ("right", right, 300)):
            if name != slow or i % 2 == 0:
                said.append(part(message, where, later))
    _, data = converted([*others(messages), *said], tmp_path, 0)
    assert len(data) == 99
