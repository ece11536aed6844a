"""What a shield does when an incident happens: what it sends, for how long, and what ends it, on a simulated clock."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssql_ros.contract.stamped import NANOSECONDS
from ssql_ros.model.backup import Backup
from ssql_ros.shield.decision import Decision, ShieldSettings
from ssql_ros.shield.faults import FaultLatch
from ssql_ros.shield.loop import ShieldLoop
from ssql_ros.shield.tick import Mode, Tick
from support.toy_robot import PERIOD, PERIOD_NS, FormulaCritic, toy_contract

CONTRACT = toy_contract()
SAFE_COMMAND = [0.1 + 0.5 * 0.25]
SETTINGS = ShieldSettings(epsilon=0.1, max_observation_age=0.04, max_proposal_age=0.04)
UPRIGHT, FALLEN = 0.0, 0.5
WORDS = "incident: roll 0.500 rad (limit 0.3), margin 0.2 rad"


class Robot:
    """A robot that leans as a test says, before a shield of a contract that says what follows an incident."""

    def __init__(self, on_incident: str, mode: Mode = Mode.ENFORCE, simulated: bool = False, **contract):
        critic = FormulaCritic(lambda actions: np.full(len(actions), -9.0))
        critic.backup = Backup((-1.0,))
        told = replace(CONTRACT, on_incident=on_incident, **contract)
        self.loop = ShieldLoop(told, critic, SETTINGS, mode, simulated=simulated)
        self.now, self.k = 100.0, 0
        self.loop.start(self.now)

    def step(self, roll: float, action: float = 0.5, joint: float = 0.0, pause: int = 0) -> Tick:
        """One period: the robot leans, the controller goes on as if nothing was. `pause`: periods before."""
        self.k += 1 + pause
        self.now += (1 + pause) * PERIOD
        stamp = NANOSECONDS + self.k * PERIOD_NS
        clock = stamp if self.loop.inputs.simulated else 0
        self.loop.read("imu", stamp, self.now, clock, np.array([roll]))
        self.loop.read("joints", stamp, self.now, clock, np.array([joint]))
        action = np.array([action])
        self.loop.propose(action, self.loop.contract.joint_command(action), stamp, self.now)
        return self.loop.tick(self.now, clock)

    def steps(self, rolls) -> list[Decision]:
        return [self.step(roll).verdict.decision for roll in rolls]

    def reset(self) -> str:
        return self.loop.reset_fault(self.now, 0)


# What is sent


@pytest.mark.parametrize(
    ("response", "joint", "command"),
    [
        ("hold", 0.0, SAFE_COMMAND),
        ("backup", 0.0, [0.1 - 0.5]),
        ("damp", 0.2, [0.2]),
        ("damp", 7.0, [0.1 + 0.5]),  # beyond what any action commands
    ],
)
def test_incident_latches_at_once_and_what_the_contract_says_is_sent_until_it_is_reset(response, joint, command):
    robot = Robot(response)
    assert robot.step(UPRIGHT).verdict.decision is Decision.PASSED
    for roll in (FALLEN, FALLEN, UPRIGHT, UPRIGHT):  # standing up by itself is no release
        tick = robot.step(roll, joint=joint)
        assert (tick.verdict.decision, tick.joint_command.tolist()) == (Decision.FAULT, command)
        assert tick.verdict.reason == f"latched, {response}: {WORDS}"
    assert robot.reset() == WORDS
    tick = robot.step(UPRIGHT)
    assert (tick.verdict.decision, tick.joint_command.tolist()) == (Decision.PASSED, [0.1 + 0.5 * 0.5])


def test_damping_follows_the_measured_pose_and_is_zero_where_velocities_are_commanded():
    robot = Robot("damp")
    robot.step(FALLEN, joint=0.1)
    assert [robot.step(FALLEN, joint=q).joint_command[0] for q in (0.2, 0.3, -0.4)] == pytest.approx([0.2, 0.3, -0.4])
    robot = Robot("damp", commanded=replace(CONTRACT.commanded, field="velocity"))
    assert robot.step(FALLEN, joint=0.3).joint_command.tolist() == [0.0]


def test_backup_of_a_critic_that_has_none_is_the_safe_action():
    robot = Robot("backup")
    robot.loop.critic.backup = None
    assert robot.step(FALLEN).joint_command.tolist() == SAFE_COMMAND


def test_by_default_decisions_go_on_and_the_incident_is_told():
    assert CONTRACT.on_incident == "continue"
    robot = Robot("continue")
    assert set(robot.steps([UPRIGHT, FALLEN, FALLEN, UPRIGHT])) == {Decision.PASSED}
    watched = robot.loop.supervision
    assert (watched.latched, watched.incidents.incidents) == (None, 1)
    assert watched.faults.history[0].words == WORDS
    assert watched.faults.history[0].ended == "only told"


def test_sensors_that_fail_after_the_incident_change_nothing_of_what_is_sent():
    robot = Robot("damp")
    robot.step(FALLEN, joint=0.2)
    robot.loop.unreadable("imu", "imu/data: roll is nan")
    robot.now += 1.0
    tick = robot.loop.tick(robot.now)
    assert (tick.verdict.decision, tick.joint_command.tolist()) == (Decision.FAULT, [0.2])
    with pytest.raises(ValueError, match="not observed, so nobody knows where it is: imu/data: roll is nan"):
        robot.reset()


@pytest.mark.parametrize("response", ["hold", "damp", "backup"])
def test_command_moves_no_faster_than_the_contract_says_into_the_fault_and_out_of_it(response):
    robot = Robot(response, commanded=replace(CONTRACT.commanded, max_rate=2.0))
    sent = [robot.step(UPRIGHT, 0.9, joint=0.1).joint_command[0] for _ in range(30)]
    sent += [robot.step(FALLEN, 0.9, joint=-0.3).joint_command[0] for _ in range(30)]
    goal = {"hold": SAFE_COMMAND[0], "damp": -0.3, "backup": -0.4}[response]
    assert sent[-1] == pytest.approx(goal)
    robot.step(UPRIGHT, joint=-0.3)
    robot.reset()
    sent += [robot.step(UPRIGHT, 0.9, joint=-0.3).joint_command[0] for _ in range(30)]
    assert np.abs(np.diff(sent)).max() <= 2.0 * PERIOD + 1e-12
    assert sent[-1] == pytest.approx(0.1 + 0.5 * 0.9)


# What ends it


def test_reset_is_refused_with_the_reason_while_the_robot_is_inside_and_where_nothing_is_latched():
    robot = Robot("hold")
    robot.step(UPRIGHT)
    with pytest.raises(ValueError, match="no fault is latched"):
        robot.reset()
    robot.step(FALLEN)
    with pytest.raises(ValueError, match=r"inside its failure set: roll 0.500 rad \(limit 0.3\), margin 0.2 rad"):
        robot.reset()
    assert robot.step(UPRIGHT).verdict.decision is Decision.FAULT


def test_pause_of_a_real_robot_ends_no_fault_and_a_new_episode_of_a_simulation_does():
    for simulated, decision in ((False, Decision.FAULT), (True, Decision.PASSED)):
        robot = Robot("hold", simulated=simulated)
        robot.steps([UPRIGHT, FALLEN])
        assert robot.step(UPRIGHT).verdict.decision is Decision.FAULT
        assert robot.step(FALLEN, pause=50).verdict.decision is Decision.FAULT  # it begins where it may not be
        assert robot.step(UPRIGHT, pause=50).verdict.decision is decision
    assert robot.loop.supervision.faults.history[0].ended == "the simulation began anew"


def test_activation_does_not_end_a_fault():
    robot = Robot("hold")
    robot.steps([FALLEN, UPRIGHT])
    robot.loop.start(robot.now)
    assert robot.step(UPRIGHT).verdict.decision is Decision.FAULT


def test_robot_that_is_taken_over_inside_its_failure_set_is_not_driven():
    robot = Robot("hold", Mode.DISABLED)
    assert robot.steps([UPRIGHT, FALLEN]) == [Decision.PASSED] * 2
    assert robot.loop.supervision.latched is None
    robot.loop.mode = Mode.ENFORCE
    assert robot.step(FALLEN).verdict.decision is Decision.FAULT


def test_shield_that_is_taken_out_passes_proposals_and_comes_back_latched():
    robot = Robot("hold")
    robot.step(FALLEN)
    robot.loop.mode = Mode.DISABLED
    assert robot.step(FALLEN).verdict.decision is Decision.PASSED
    robot.loop.mode = Mode.ENFORCE
    assert robot.step(UPRIGHT).verdict.decision is Decision.FAULT


def test_monitor_says_what_it_would_do_and_commands_nothing():
    robot = Robot("hold", Mode.MONITOR)
    robot.step(UPRIGHT)
    tick = robot.step(FALLEN)
    assert (tick.verdict.decision, tick.joint_command, tick.enforced) == (Decision.FAULT, None, False)


# The account


def test_robot_that_trembles_on_the_boundary_has_one_incident_and_a_new_one_after_a_second():
    robot = Robot("continue")
    robot.steps([FALLEN, UPRIGHT] * 20)
    assert robot.loop.supervision.incidents.incidents == 1
    robot.steps([UPRIGHT] * 51 + [FALLEN])
    assert robot.loop.supervision.incidents.incidents == 2


@given(st.lists(st.sampled_from(["note", "told", "release"]), max_size=60))
def test_history_holds_the_newest_ten_and_only_the_fault_in_force_is_open(events):
    latch, noted = FaultLatch(), 0
    for event in events:
        if event == "release":
            latch.release("somebody")
        else:
            noted += latch.latched is None
            latch.note(noted, f"fault {noted}", "hold", event == "note")
        opened = [fault for fault in latch.history if not fault.ended]
        assert opened == ([latch.latched] if latch.latched else [])
        assert [fault.stamp for fault in latch.history] == list(range(noted, max(noted - 10, 0), -1))


def test_margin_of_a_frame_says_its_unit():
    judged = CONTRACT.judged(np.array([0.1, 0.0]))
    assert (judged.margin, judged.unit) == (pytest.approx(-0.2), "rad")
    assert CONTRACT.margin(np.array([math.nan, 0.0]))[0] == math.inf
