"""A robot that is put elsewhere while stamps go on (CASES: resets without Episode messages), against fast motions."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.bag import sensor_message
from ssql_ros.cli.main import main
from ssql_ros.contract import Contract, load_contract
from ssql_ros.contract.contract import Feature, Input
from ssql_ros.contract.leaps import LeapRule
from ssql_ros.contract.readings import Frame, Source
from support.bags import make_store
from support.toy_robot import PERIOD_NS, toy_contract
from support.walk_bag import KINDS, MINITAUR, PERIOD, START, TASK, Sample, transitions, write_mcap

JOINTS, IMU, ODOMETRY = (KINDS[topic] for topic in ("/joint_states", "/imu/data", "/odom"))


def driven(steps: int, hold: int, restarts: tuple[int, ...] = ()) -> list[Sample]:
    """Messages of a Minitaur that full swings, each held for some periods, throw down, whatever comes of it.

    Args:
        restarts: steps before which it is back at its start, while stamps go on.
    """
    store, env, rng = make_store(), TASK.make(), np.random.default_rng(0)
    env.reset(seed=0)
    found, action = [], np.zeros(8)
    for i in range(steps):
        if i in restarts:
            env.reset()
        if i % hold == 0:
            action = np.sign(rng.normal(size=8))
        step = (env.sensors(), MINITAUR.joint_command(action), MINITAUR.commanded.joint_names)
        for place, (topic, kind) in enumerate(KINDS.items()):
            stamp = START + i * PERIOD
            data = bytes(store.serialize_cdr(sensor_message(store, step, kind, topic, stamp), kind))
            found.append(Sample(topic, kind, stamp + 1000 * (place + 1), data, i))
        env.step(action)
    env.close()
    return found


@pytest.mark.parametrize("hold", [1, 8])
def test_no_motion_is_taken_for_a_reset(tmp_path: Path, hold: int) -> None:
    # Legs at up to 84 rad/s, a body that is thrown over and lies on its back.
    rows, outcome = transitions(write_mcap(tmp_path / "thrown.mcap", driven(400, hold)))
    assert outcome.counts["resets"] == 0, outcome.first_reset
    assert outcome.counts["periods"] == 400
    assert outcome.counts["incidents"] > 0
    assert len(rows) > 0


def test_where_the_robot_is_back_at_its_start_an_episode_ends_and_none_spans_it(tmp_path: Path, capsys) -> None:
    restarts = (40, 80, 120)
    bag = write_mcap(tmp_path / "resets.mcap", driven(160, 8, restarts))
    rows, outcome = transitions(bag)
    assert outcome.counts["resets"] == 3
    assert outcome.problems == []
    at = [(row["stamp"] - START) // PERIOD for row in rows]
    for restart in restarts:
        # No row goes over the leap; the one before it has no known end, and is no incident.
        assert restart - 1 not in at
        before = [row for i, row in zip(at, rows, strict=True) if i < restart][-1]
        first = rows[at.index(restart)]
        assert first["episode"] == before["episode"] + 1
        # The history begins anew: past frames are the first one, and nothing was executed before it.
        assert np.array_equal(first["observation"][12:72].reshape(5, 12), np.tile(first["observation"][:12], (5, 1)))
        assert not first["observation"][72:112].any()
    assert all(row["incident"] == row["terminal"] for row in rows)
    # The command says so.
    assert main(["bag", "check", str(bag), "--contract", "minitaur", "--quiet"]) == 0
    told = capsys.readouterr().out
    assert "3 times the robot was put elsewhere, which ends an episode; the first:" in told
    assert "at 1700000000.800 s " in told
    assert main(["bag", "check", str(bag), "--contract", "minitaur", "--quiet", "--json"]) == 0
    account = json.loads(capsys.readouterr().out)
    assert account["resets"] == 3
    assert account["first_reset"].startswith("at 1700000000.800 s ")


def test_a_walk_that_is_carried_back_is_cut_though_the_robot_stands_the_same_way(tmp_path: Path) -> None:
    # All but the odometry is as before: 2 m back in one period.
    store, found = make_store(), []
    env = TASK.make()
    env.reset(seed=0)
    reading = env.sensors()
    env.close()
    for i in range(60):
        there = reading._replace(base_position=(0.04 * (i % 50), 0.0, 0.2))
        step = (there, MINITAUR.joint_command(np.zeros(8)), MINITAUR.commanded.joint_names)
        for topic, kind in KINDS.items():
            stamp = START + i * PERIOD
            found.append(Sample(topic, kind, stamp, bytes(
                store.serialize_cdr(sensor_message(store, step, kind, topic, stamp), kind)), i))  # fmt: skip
    rows, outcome = transitions(write_mcap(tmp_path / "carried.mcap", found))
    assert outcome.counts["resets"] == 1
    assert "the position on odom moved by 1.96 m" in outcome.first_reset
    assert len(rows) == 58
    assert [row["episode"] for row in rows] == [0] * 49 + [1] * 9
    first = rows[49]
    assert not first["observation"][72:112].any()
    assert first["reward"] == pytest.approx(rows[0]["reward"])


def contract_with(features: list[Feature], **speeds: float) -> Contract:
    """The toy's contract with another frame."""
    toy = toy_contract()
    kinds = {"joints": JOINTS, "imu": IMU, "odometry": ODOMETRY}
    inputs = {name: Input(name, name, kind, 0.04, max_speed=speeds.get(name)) for name, kind in kinds.items()}
    return replace(toy, inputs=inputs, observed=replace(toy.observed, frame=tuple(features), trigger=features[0].input))


def feature(source: str, field: str, joint: str | None = None, unit: str = "rad", scale: float = 1.0) -> Feature:
    return Feature(f"{joint or source} {field}", source, field, unit, joint, scale, False)


def leap(contract: Contract, before: list[float], after: list[float], periods: int = 1) -> str:
    frames = []
    for stamp, values in ((0, before), (periods * PERIOD_NS, after)):
        names = dict.fromkeys(feature.input for feature in contract.observed.frame)
        held = [(Source(name, np.zeros(0, int), None), stamp, 0.0) for name in names]
        frames.append(Frame(stamp, stamp + PERIOD_NS, 1, values=np.array(values), held=held))
    return LeapRule(contract).find(*frames)


TILT = [feature("imu", f"orientation.{turn}") for turn in ("roll", "pitch")]
RATES = [feature("imu", f"world_angular_velocity.{axis}", unit="rad/s") for axis in "xy"]


def test_a_body_is_judged_by_its_rates_and_as_a_whole() -> None:
    contract = contract_with(TILT + RATES)
    assert leap(contract, [0.35, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]).startswith(
        "imu orientation.roll and imu orientation.pitch moved by 0.35 rad in 0.020 s, where measured velocities"
    )
    assert not leap(contract, [0.35, 0.0, 9.0, 0.0], [0.0, 0.0, -3.0, 0.0])
    # Somersault: roll flips as pitch passes 90 degrees, and the body has turned by 0.1 rad.
    near = math.pi / 2 - 0.05
    assert not leap(contract, [0.0, near, 0.0, 5.0], [math.pi, near, 0.0, 5.0])
    # Without rates, what is in the range of a gyroscope may be.
    assert not leap(contract_with(TILT), [0.35, 0.0], [0.0, 0.0])
    assert leap(contract_with(TILT), [0.8, 0.0], [0.0, 0.0])
    # Roll alone says too little.
    assert not leap(contract_with(TILT[:1]), [3.0], [0.0])


def test_degrees_and_signs_change_nothing() -> None:
    scaled = [replace(f, scale=-1.0, unit="deg" if f.unit == "rad" else "deg/s") for f in TILT + RATES]
    contract, turn = contract_with(scaled), -180.0 / math.pi
    assert leap(contract, [0.35 * turn, 0.0, turn, 0.0], [0.0] * 4)
    assert not leap(contract, [0.35 * turn, 0.0, 9.0 * turn, 0.0], [0.0] * 4)


def test_a_joint_may_turn_as_fast_as_it_says_or_as_its_kind_can() -> None:
    position, velocity = feature("joints", "position", "joint0"), feature("joints", "velocity", "joint0", "rad/s")
    # Nothing is known of its velocity: 100 rad/s.
    assert leap(contract_with([position]), [0.0], [2.1])
    assert not leap(contract_with([position]), [0.0], [1.9])
    assert not leap(contract_with([position]), [0.0], [2.1], periods=2)
    # An encoder begins anew after a turn.
    assert not leap(contract_with([position]), [3.1], [-3.1])
    # The contract knows better.
    assert leap(contract_with([position], joints=10.0), [0.0], [0.3])
    assert not leap(contract_with([position], joints=150.0), [0.0], [2.1])
    both = contract_with([position, velocity])
    assert leap(both, [0.0, 0.0], [0.6, 0.0])
    assert not leap(both, [0.0, 0.0], [0.45, 0.0])  # what a direct drive does between two measurements
    assert not leap(both, [0.0, 120.0], [2.4, 120.0])
    # A wheel is free.
    assert not leap(contract_with([feature("joints", "position", "wheel")]), [0.0], [3.0])


def test_a_vehicle_may_drive_as_fast_as_it_says() -> None:
    place = [feature("odometry", f"position.{axis}", unit="m") for axis in "xy"]
    speed = [feature("odometry", f"linear_velocity.{axis}", unit="m/s") for axis in "xy"]
    assert leap(contract_with(place), [0.0, 0.0], [1.5, 1.5])
    assert not leap(contract_with(place), [0.0, 0.0], [1.3, 1.3])
    assert leap(contract_with(place, odometry=5.0), [0.0, 0.0], [0.1, 0.1])
    # Velocities are of the body, positions are not.
    assert not leap(contract_with(place + speed), [0.0, 0.0, 30.0, 0.0], [0.0, 0.6, 30.0, 0.0])
    assert leap(contract_with(place + speed), [0.0, 0.0, 1.0, 0.0], [0.0, 0.6, 1.0, 0.0])
    # Where only that along x is measured, it explains nothing.
    assert not leap(contract_with(place + speed[:1]), [0.0, 0.0, 1.0], [0.0, 0.6, 1.0])


@pytest.mark.parametrize("speed", ["0", "-1.0", "fast"])
def test_a_speed_that_is_none_is_refused(tmp_path: Path, speed: str) -> None:
    text = Path(MINITAUR.path).read_text()
    path = tmp_path / "minitaur.yaml"
    path.write_text(text.replace("max_speed: 10.0", f"max_speed: {speed}"))
    with pytest.raises(ValueError, match="max_speed"):
        load_contract(path)


def test_a_speed_limit_is_no_part_of_what_vectors_mean(tmp_path: Path) -> None:
    path = tmp_path / "minitaur.yaml"
    path.write_text(Path(MINITAUR.path).read_text().replace(", max_speed: 10.0", ""))
    assert load_contract(path).id == MINITAUR.id
