"""Each mistake of a driver is found, named and told what helps, in messages that a shield would have had to take."""

from collections.abc import Iterator

import pytest
from rclpy.serialization import serialize_message

from ssql_ros.contract import Contract, find_contract, load_contract
from ssql_ros.contract.plugs import plugs
from ssql_ros.drivers.check import DriverCheck, Message, check_messages
from ssql_ros.drivers.faults import Faults, read_renames
from ssql_ros.drivers.findings import Finding, Level, ordered, said, table
from ssql_ros.drivers.scripted import ScriptedRobot
from ssql_ros.nodes.sensors import sensor_message

BEGIN, SECOND = 1_790_000_000_000_000_000, 1_000_000_000


def contract_of(robot: str) -> Contract:
    return load_contract(find_contract(robot))


def published(
    contract: Contract, seconds: float, faults: Faults, only: str = "", rates: dict[str, float] | None = None
) -> Iterator[Message]:
    """What a scripted driver publishes, as it comes 1 ms later."""
    robot, events = ScriptedRobot(contract), []
    for name in contract.inputs:
        rate = (rates or {}).get(name, 1.0 / contract.control_period)
        # The trigger last of those of one instant.
        last = name == contract.observed.trigger
        events += [(BEGIN + round(i * SECOND / rate), last, name) for i in range(int(seconds * rate))]
    readings = robot.readings()
    for now, _, name in sorted(events):
        source, broken = contract.inputs[name], not only or name == only
        stamp = faults.stamp(now, BEGIN) if broken else now
        reading = faults.reading(readings[name]) if broken else readings[name]
        data = serialize_message(sensor_message(source.type, reading, stamp))
        yield Message(source.topic, source.type, now + 1_000_000, data, now + 1_000_000)


def found(contract: Contract, *arguments: object, **options: object) -> list[Finding]:
    seconds = max(1.0, 40 * contract.control_period)
    messages = published(contract, seconds, *(arguments or (Faults(),)), **options)
    return check_messages(contract, messages, BEGIN + round(seconds * SECOND)).findings()


def kinds(findings: list[Finding], level: Level = Level.ERROR) -> set[tuple[str, str]]:
    return {(finding.kind, finding.where) for finding in findings if finding.level is level}


@pytest.mark.parametrize("robot", plugs())
def test_a_good_driver_of_every_robot_has_nothing_but_what_is_well(robot: str) -> None:
    contract = contract_of(robot)
    findings = found(contract)
    assert {finding.level for finding in findings} == {Level.OK}
    assert kinds(findings, Level.OK) == {("observation", "observation")} | {
        ("heard", source.topic) for source in contract.inputs.values()
    }


def test_a_trigger_that_is_faster_than_the_control_rate_is_well() -> None:
    findings = found(contract_of("shadow_hand"), rates={"joint_states": 125.0, "goal": 10.0})
    assert {finding.level for finding in findings} == {Level.OK}
    assert any("125.0 Hz" in finding.found for finding in findings)


@pytest.mark.parametrize(
    ("robot", "faults", "only", "expected", "text"),
    [
        ("minitaur", Faults(stamps="zero"), "imu", ("stamp_zero", "imu/data"), "header.stamp is 0"),
        ("minitaur", Faults(ahead=10.0), "imu", ("clock_ahead", "imu/data"), "s ahead of this clock"),
        ("minitaur", Faults(ahead=-10.0), "imu", ("clock_behind", "imu/data"), "clock is behind this one by about 10"),
        ("minitaur", Faults(stamps="still"), "imu", ("stamp_still", "imu/data"), "stands still"),
        ("minitaur", Faults(degrees=True), "", ("degrees", "joint_states"), "motor_front_leftL_joint position -114.6"),
        ("minitaur", Faults(w_first=True), "imu", ("w_first", "imu/data"), "with w last: roll 0.000"),
        ("shadow_hand", Faults(degrees=True), "", ("degrees", "joint_states"), "in degrees"),
        ("shadow_hand", Faults(frame_id="map"), "cube", ("unreadable", "cube_pose"), "frame 'rh_palm_surface'"),
        (
            "shadow_hand",
            Faults(rename=(("rh_FFJ3", "rh_ffj3"),)),
            "",
            ("missing_joint", "joint_states"),
            "lacks rh_FFJ3",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else None,
)
def test_a_mistake_is_found_where_it_is(
    robot: str, faults: Faults, only: str, expected: tuple[str, str], text: str
) -> None:
    findings = found(contract_of(robot), faults, only=only)
    assert expected in kinds(findings)
    # Nothing else is blamed but what comes of it: that there is no observation.
    assert kinds(findings) <= {expected, ("observation", "observation")}
    (finding,) = (finding for finding in findings if (finding.kind, finding.where) == expected)
    assert text in finding.found
    assert finding.fix


def test_a_name_that_is_nearly_right_is_told() -> None:
    findings = found(contract_of("shadow_hand"), Faults(rename=(("rh_FFJ3", "rh_ffj3"),)))
    (missing,) = (finding for finding in findings if finding.kind == "missing_joint")
    assert "rh_FFJ3: rh_ffj3?" in missing.fix
    assert ("extra_joint", "joint_states") in kinds(findings, Level.NOTE)


def test_a_driver_that_is_too_slow_is_found() -> None:
    findings = found(contract_of("minitaur"), rates={"joint_states": 20.0})
    assert ("rate", "joint_states") in kinds(findings)
    (slow,) = (finding for finding in findings if finding.kind == "rate")
    assert "20.0 Hz, below the control rate of 50 Hz" in slow.found


def test_a_driver_that_stops_is_found() -> None:
    contract = contract_of("minitaur")
    messages = list(published(contract, 1.0, Faults()))
    findings = check_messages(contract, messages, BEGIN + 3 * SECOND).findings()
    assert {("stale", "joint_states"), ("stale", "imu/data"), ("observation", "observation")} <= kinds(findings)


def test_two_drivers_of_the_same_joints_are_found() -> None:
    contract = contract_of("minitaur")
    first = list(published(contract, 1.0, Faults()))
    second = [m for m in published(contract, 1.0, Faults(degrees=True)) if m.topic == "joint_states"]
    findings = check_messages(contract, sorted([*first, *second], key=lambda m: m.time), BEGIN + SECOND).findings()
    assert ("contradiction", "joint_states") in kinds(findings)


@pytest.mark.parametrize("told", [True, False], ids=["clock", "no clock"])
def test_stamps_of_a_simulation_are_held_against_its_clock(told: bool) -> None:
    contract, apart = contract_of("minitaur"), BEGIN - SECOND  # from this computer's clock
    messages = [
        message._replace(clock=told * (message.clock - apart))
        for message in published(contract, 1.0, Faults(ahead=-apart / SECOND))
    ]
    findings = check_messages(contract, messages, BEGIN + SECOND, simulated=True).findings()
    if told:
        assert kinds(findings) == set()
    else:
        assert kinds(findings) == {("observation", "observation")}
        assert any("no /clock comes" in finding.found for finding in findings)


def test_bytes_that_are_no_message_are_counted() -> None:
    contract = contract_of("boat")
    messages = [m._replace(data=m.data[:40]) for m in published(contract, 0.5, Faults())]
    findings = check_messages(contract, messages, BEGIN + SECOND).findings()
    (bad,) = (finding for finding in findings if finding.kind == "unreadable")
    assert bad.found.startswith("100 of 100 messages: ")


def test_nothing_at_all_is_no_observation() -> None:
    contract = contract_of("boat")
    findings = DriverCheck(contract).findings()
    assert [(f.level, f.kind, f.found) for f in findings] == [
        (Level.ERROR, "observation", "no observation yet: waiting for odom")
    ]


def test_the_table_has_a_row_for_each_finding_and_says_what_helps() -> None:
    rows = [
        Finding(Level.OK, "heard", "odom", "well"),
        said(Level.ERROR, "qos", "odom", "odom: too little; offer more"),
    ]
    lines = table(ordered(rows))
    assert [line.split() for line in lines] == [
        ["level", "topic", "found", "what", "helps"],
        ["error", "odom", "too", "little", "offer", "more"],
        ["ok", "odom", "well"],
    ]
    assert rows[1].as_dict() == {
        "level": "error", "kind": "qos", "where": "odom", "found": "too little", "fix": "offer more"
    }  # fmt: skip


def test_renames_are_read_and_others_refused() -> None:
    assert read_renames("a=b,c=d") == (("a", "b"), ("c", "d"))
    with pytest.raises(ValueError, match="expected JOINT=NAME"):
        read_renames("a")
