"""Units are told by range: what is out of it, which unit would explain it, and what is let through."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssql_ros.contract import Contract, find_contract, load_contract
from ssql_ros.contract.message_kinds import Header, Stamp
from ssql_ros.contract.serialised import Imu, JointState, Quaternion, Vector3
from ssql_ros.drivers.findings import Level
from ssql_ros.drivers.units import Measured, unit_findings
from support.toy_robot import toy_contract, toy_yaml

HAND = load_contract(find_contract("shadow_hand"))
HEADER = Header(Stamp(1, 0))


def found(contract: Contract, name: str, message: object) -> list[tuple[Level, str]]:
    measured = Measured()
    measured.hear(message)
    frame = np.full(contract.frame_size, np.nan)
    return [(f.level, f.kind) for f in unit_findings(contract, contract.inputs[name], measured, frame)]


def joints(positions: dict[str, float]) -> JointState:
    return JointState(HEADER, list(positions), tuple(positions.values()), (), ())


@given(st.integers(0, 19), st.floats(0.0, 1.0))
def test_a_joint_inside_its_limits_is_well_and_in_degrees_is_not(command: int, share: float) -> None:
    low, high = (bound[command] for bound in HAND.joint_limits)
    moved = HAND.commanded.moved[command]
    value = (low + share * (high - low)) / len(moved)
    assert found(HAND, "joint_states", joints(dict.fromkeys(moved, value))) == []
    degrees = found(HAND, "joint_states", joints(dict.fromkeys(moved, math.degrees(value))))
    total = abs(math.degrees(value)) * len(moved)
    assert degrees == [(Level.ERROR, "degrees")] or total < 100.0
    if degrees:
        assert total > 0.1


@pytest.mark.parametrize(("value", "kinds"), [(1.6, []), (2.0, ["range"]), (-1.0, ["range"]), (500.0, ["range"])])
def test_a_joint_beyond_its_limits_is_told_without_a_guess(value: float, kinds: list[str]) -> None:
    assert [kind for _, kind in found(HAND, "joint_states", joints({"rh_FFJ3": value}))] == kinds


def test_an_accelerometer_in_g_is_told(tmp_path: Path) -> None:
    path = tmp_path / "toy.yaml"
    up = "{name: up, input: imu, field: linear_acceleration.z, unit: m/s^2}"
    path.write_text(toy_yaml().replace("frame: [", f"frame: [{up}, "))
    contract = load_contract(path)
    for length, kinds in ((9.81, []), (1.0, ["gravity"])):
        q, zero, none = Quaternion(0.0, 0.0, 0.0, 1.0), Vector3(0.0, 0.0, 0.0), (0.0,) * 9
        message = Imu(HEADER, q, none, zero, none, Vector3(0.0, 0.0, length), none)
        assert [kind for _, kind in found(contract, "imu", message)] == kinds


def test_a_joint_that_nobody_limits_may_turn_twice() -> None:
    contract = toy_contract()
    assert found(contract, "joints", joints({"other": 1e9})) == []
