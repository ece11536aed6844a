"""When the shield decides, on a simulated clock: one command a period, at once on an answer, safe on every fault."""

import contextlib
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssql_ros.contract import ContractError
from ssql_ros.contract.health import Freshness
from ssql_ros.contract.stamped import NANOSECONDS
from ssql_ros.shield.decision import Decision, ShieldSettings
from ssql_ros.shield.loop import SLACK, ShieldLoop
from ssql_ros.shield.tick import Mode, Tick
from support.toy_robot import PERIOD, PERIOD_NS, FormulaCritic, toy_contract

CONTRACT = toy_contract()
SAFE_COMMAND = [0.1 + 0.5 * 0.25]
SETTINGS = ShieldSettings(epsilon=0.1, max_observation_age=0.04, max_proposal_age=0.04)


def stamp(k: int) -> int:
    return NANOSECONDS + k * PERIOD_NS


class Robot:
    """A loop with its driver and controller on one clock, which only the tests move. Frame k is stamped k periods."""

    def __init__(self, mode: Mode = Mode.ENFORCE, safe_below: float = math.inf):
        # Safe are actions up to `safe_below`; risk grows with the action.
        self.critic = FormulaCritic(lambda actions: np.where(actions[:, 0] <= safe_below, -9.0, 9.0 + actions[:, 0]))
        self.loop = ShieldLoop(CONTRACT, self.critic, SETTINGS, mode)
        self.now = 100.0
        self.loop.start(self.now)

    def observe(self, k: int, roll: float = 0.0) -> None:
        # Stamps begin at 1 s, as 0 is none.
        self.loop.read("imu", stamp(k), self.now, 0, np.array([roll]))
        self.loop.read("joints", stamp(k), self.now, 0, np.array([0.0]))

    def propose(self, action: float, k: int | None, joints: float | None = None) -> None:
        command = CONTRACT.joint_command(np.array([action])) if joints is None else np.array([joints])
        self.loop.propose(np.array([action]), command, 0 if k is None else stamp(k), self.now)

    def due(self) -> bool:
        return self.loop.wait(self.now) == 0.0

    def tick(self) -> Tick:
        return self.loop.tick(self.now)

    def run(self, seconds: float, every: float = 0.001) -> list[tuple[float, Tick]]:
        """Let time pass, ticking whenever something is due."""
        ticks, end = [], self.now + seconds
        while self.now < end:
            self.now += min(every, max(self.loop.wait(self.now), 1e-6))
            if self.due():
                ticks.append((self.now, self.tick()))
        return ticks

    def step(self, k: int, action: float) -> Tick:
        """One period in which all goes well."""
        self.observe(k)
        self.propose(action, k)
        assert self.due()
        tick = self.tick()
        self.now += PERIOD
        return tick


# Timing


def test_one_command_a_period_when_nothing_comes():
    robot = Robot()
    ticks = robot.run(1.0)
    times = [time for time, _ in ticks]
    assert len(ticks) == 50
    np.testing.assert_allclose(np.diff(times), PERIOD, rtol=0, atol=2e-6)
    assert times[0] == pytest.approx(100.0 + PERIOD, abs=2e-6)
    assert {tick.verdict.decision for _, tick in ticks} == {Decision.HELD}
    assert {tick.verdict.reason for _, tick in ticks} == {"no observation yet: waiting for joint_states, imu/data"}
    assert all(tick.joint_command.tolist() == SAFE_COMMAND for _, tick in ticks)
    assert not any(tick.complete for _, tick in ticks)
    assert (robot.loop.ticks, robot.loop.counts[Decision.HELD], robot.loop.missed_periods) == (50, 50, 0)


def test_answer_to_a_new_observation_is_decided_on_at_once():
    robot = Robot()
    robot.now += 0.003
    robot.observe(1)
    assert not robot.due()
    assert robot.loop.wait(robot.now) == pytest.approx(PERIOD - 0.003)
    robot.now += 0.002
    robot.propose(0.5, 1)
    assert robot.due()
    tick = robot.tick()
    assert (tick.complete, tick.stamp, tick.verdict.decision) == (True, stamp(1), Decision.PASSED)
    # The next is due when the news has had a quarter of a period more than one to come.
    assert robot.loop.wait(robot.now) == pytest.approx(SLACK * PERIOD)


def test_proposal_before_its_observation_waits_for_it():
    robot = Robot()
    robot.step(1, 0.5)
    robot.propose(0.6, 2)
    assert not robot.due()
    robot.observe(2)
    assert robot.due()
    assert robot.tick().proposal.tolist() == [0.6]


def test_frame_is_never_decided_on_at_once_twice():
    robot = Robot()
    robot.observe(1)
    robot.propose(0.5, 1)
    assert robot.tick().complete
    for action in (0.6, 0.7):
        robot.propose(action, 1)
        assert not robot.due()
    robot.observe(1)
    assert not robot.due()
    # The newest is what the next command of the clock is made of.
    robot.now += SLACK * PERIOD
    tick = robot.tick()
    assert (tick.complete, tick.proposal.tolist()) == (False, [0.7])


def test_answer_to_an_old_frame_waits_for_its_successor():
    robot = Robot()
    robot.step(1, 0.5)
    robot.observe(2)
    robot.propose(0.6, 1)
    assert not robot.due()
    robot.propose(0.7, 2)
    assert robot.due()
    assert robot.tick().proposal.tolist() == [0.7]


def test_answer_without_stamp_is_one_to_the_newest_observation():
    robot = Robot()
    robot.observe(1)
    robot.propose(0.5, None)
    assert robot.due()
    assert robot.tick().complete
    robot.observe(2)
    assert not robot.due()  # answered once; the next observation wants its own


@given(st.lists(st.sampled_from(["observe", "answer", "old", "unstamped", "garbage", "wait", "long"]), max_size=40))
def test_whatever_comes_commands_never_stop_and_no_frame_is_answered_twice(events):
    robot, k, last, at_once = Robot(), 1, 100.0, []
    for event in events:
        if event == "observe":
            k += 1
            robot.observe(k)
        elif event == "garbage":
            robot.loop.unreadable_proposal("garbage", stamp(k), robot.now)
        elif event in ("answer", "old", "unstamped"):
            robot.propose(0.5, {"answer": k, "old": k - 1, "unstamped": None}[event])
        ticks = [(robot.now, robot.tick())] if robot.due() else []
        ticks += robot.run({"wait": 0.004, "long": 0.05}.get(event, 0.0))
        for time, tick in ticks:
            assert time - last <= SLACK * PERIOD + 2e-6
            assert np.isfinite(tick.joint_command).all()
            last = time
            at_once += [tick.stamp] if tick.complete else []
    assert len(at_once) == len(set(at_once))
    assert robot.loop.missed_periods == 0
    assert sum(robot.loop.counts.values()) == robot.loop.ticks


@pytest.mark.parametrize("news", [False, True])
def test_command_over_half_a_period_late_is_a_missed_period(news):
    robot = Robot()
    robot.step(1, 0.5)  # at 100.0: the next is due 1.25 periods later
    robot.now = 100.0 + 1.7 * PERIOD
    assert robot.tick().complete is False
    assert robot.loop.missed_periods == 0
    robot.now += 1.51 * PERIOD
    if news:
        robot.observe(2)
        robot.propose(0.5, 2)
    assert robot.tick().complete is news
    assert robot.loop.missed_periods == 1


# Faults


def test_controller_that_falls_silent_is_repeated_for_its_time_and_then_held():
    robot = Robot()
    for k in range(5):
        robot.step(k, 0.5)
    decisions = []
    for k in range(5, 10):  # the driver goes on
        robot.observe(k)
        decisions += [tick.verdict for _, tick in robot.run(PERIOD)]
    assert [verdict.decision for verdict in decisions[:2]] == [Decision.PASSED, Decision.HELD]
    assert {verdict.decision for verdict in decisions[1:]} == {Decision.HELD}
    assert decisions[-1].reason.startswith("proposal is stale")
    assert robot.loop.holding
    robot.step(10, 0.5)
    assert not robot.loop.holding


def test_driver_that_falls_silent_is_held():
    robot = Robot()
    robot.step(1, 0.5)
    ticks = []
    for _ in range(5):
        robot.propose(0.5, 1)
        ticks += robot.run(PERIOD)
    assert ticks[-1][1].verdict.reason.startswith("observation is stale")
    assert ticks[-1][1].joint_command.tolist() == SAFE_COMMAND


def test_inputs_that_make_no_whole_observation_are_held_though_they_are_fresh():
    robot = Robot()
    robot.step(1, 0.5)
    for k in range(2, 12):
        robot.loop.read("imu", stamp(k) - 241_000_000, robot.now, 0, np.array([0.0]))
        robot.loop.read("joints", stamp(k), robot.now, 0, np.array([0.0]))
        robot.propose(0.5, k)
        ticks = robot.run(PERIOD)
    assert ticks[-1][1].verdict.decision == Decision.HELD
    assert "imu/data is stamped 0.241 s before joint_states" in ticks[-1][1].verdict.reason


def test_unreadable_proposal_is_held_at_once_with_its_fault_until_a_good_one():
    robot = Robot()
    robot.step(1, 0.5)
    robot.observe(2)
    robot.loop.unreadable_proposal("joint_commands_raw: joint0 is nan", stamp(2), robot.now)
    assert robot.due()
    tick = robot.tick()
    assert (tick.complete, tick.verdict.decision) == (True, Decision.HELD)
    assert tick.verdict.reason == robot.loop.last_reason == "joint_commands_raw: joint0 is nan"
    assert (tick.joint_command.tolist(), tick.proposal.size, tick.enforced) == (SAFE_COMMAND, 0, True)
    robot.now += PERIOD
    robot.observe(3)
    assert robot.run(PERIOD)[0][1].verdict.reason == "joint_commands_raw: joint0 is nan"
    assert robot.step(4, 0.5).verdict.decision == Decision.PASSED


def test_unreadable_observation_is_held_with_its_fault_until_a_whole_one():
    robot = Robot()
    robot.step(1, 0.5)
    robot.loop.unreadable("imu", "imu/data: roll is nan")
    robot.propose(0.5, 2)
    tick = robot.run(PERIOD)[0][1]
    assert (tick.verdict.decision, tick.verdict.reason) == (Decision.HELD, "imu/data: roll is nan")
    assert tick.joint_command.tolist() == SAFE_COMMAND
    # Half an observation is none.
    robot.loop.read("joints", stamp(2), robot.now, 0, np.array([0.0]))
    assert robot.run(PERIOD)[0][1].verdict.reason == "imu/data: roll is nan"
    assert robot.step(3, 0.5).verdict.decision == Decision.PASSED


def test_critic_that_fails_is_held_and_the_commands_go_on():
    robot = Robot()

    def broken(actions):
        raise RuntimeError("no more memory")

    robot.critic.formula = broken
    tick = robot.step(1, 0.5)
    assert (tick.verdict.decision, tick.joint_command.tolist()) == (Decision.HELD, SAFE_COMMAND)
    assert tick.verdict.reason == "the decision failed: RuntimeError: no more memory"


def test_proposal_from_before_the_start_is_not_used():
    robot = Robot()
    robot.observe(1)
    robot.propose(0.5, 1)
    robot.loop.start(robot.now)
    assert not robot.due()
    assert robot.run(PERIOD)[0][1].verdict.reason == "no proposal yet"


# What goes to the robot

ODD = 0.1 + 0.5 * 0.3 + 2**-54  # a joint position that arithmetic on the action does not give back bit for bit


def test_safe_proposal_goes_through_bit_for_bit():
    robot = Robot()
    robot.observe(1)
    robot.propose(0.3, 1, joints=ODD)
    tick = robot.tick()
    assert tick.joint_command.tolist() == [ODD]
    assert (tick.verdict.decision, tick.enforced) == (Decision.PASSED, True)


@pytest.mark.parametrize("mode", [Mode.MONITOR, Mode.DISABLED])
def test_shield_that_only_watches_commands_nothing_of_its_own_and_hands_on_bit_for_bit(mode):
    robot = Robot(mode, safe_below=-0.5)
    assert {tick.joint_command for _, tick in robot.run(0.2)} == {None}
    robot.observe(1)
    robot.propose(0.9, 1, joints=ODD)
    handed = robot.loop.relayed(np.array([ODD]), stamp(1))
    tick = robot.tick()
    assert (handed.tolist(), tick.joint_command, tick.enforced) == ([ODD], None, False)
    assert tick.verdict.decision == (Decision.RESAMPLED if mode is Mode.MONITOR else Decision.PASSED)
    if mode is Mode.DISABLED:
        assert tick.verdict.reason == "shield is disabled"
        assert not robot.critic.scored


@pytest.mark.parametrize("mode", [Mode.MONITOR, Mode.DISABLED])
def test_what_is_handed_on_stays_inside_the_joint_limits_of_the_contract(mode):
    robot = Robot(mode)
    for joints in (1e30, -1e30, 0.61):
        assert robot.loop.relayed(np.array([joints]), 0).tolist() == [np.clip(joints, -0.4, 0.6)]


def test_disabled_shield_passes_whatever_the_sensors_say():
    robot = Robot(Mode.DISABLED)
    robot.loop.unreadable("imu", "imu/data: roll is nan")
    robot.propose(0.3, None)
    assert robot.run(PERIOD)[0][1].verdict.decision == Decision.PASSED


def test_unsafe_proposal_is_replaced_when_the_shield_enforces():
    robot = Robot(safe_below=-0.5)
    tick = robot.step(1, 0.9)
    assert (tick.verdict.decision, tick.enforced) == (Decision.RESAMPLED, True)
    assert tick.verdict.action[0] <= -0.5
    assert tick.joint_command.tolist() == CONTRACT.joint_command(tick.verdict.action).tolist()
    assert tick.proposal.tolist() == [0.9]


def test_clipped_proposal_commands_the_clipped_action():
    tick = Robot().step(1, 7.5)
    assert (tick.verdict.decision, tick.verdict.reason) == (Decision.PASSED, "clipped to the action bounds")
    assert tick.joint_command.tolist() == [0.1 + 0.5]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_proposal_that_is_not_finite_does_not_reach_the_robot(value):
    robot = Robot()
    robot.observe(1)
    robot.propose(value, 1, joints=value)
    tick = robot.tick()
    assert (tick.verdict.decision, tick.joint_command.tolist()) == (Decision.HELD, SAFE_COMMAND)


# What the history remembers


@pytest.mark.parametrize(
    ("mode", "proposed", "remembered"),
    [(Mode.ENFORCE, 0.3, 0.3), (Mode.ENFORCE, 7.5, 1.0), (Mode.MONITOR, 0.9, 0.9), (Mode.DISABLED, 0.9, 0.9)],
)
def test_executed_action_lands_in_the_history(mode, proposed, remembered):
    robot = Robot(mode)
    if mode is not Mode.ENFORCE:
        robot.observe(1)
        robot.loop.relayed(CONTRACT.joint_command(np.array([proposed])), stamp(1))
    robot.step(1, proposed)
    robot.observe(2)
    past_actions = robot.loop.observation().vector[8:10]
    assert past_actions.tolist() == pytest.approx([0.5 * remembered] * 2)


def test_replacement_and_held_action_land_in_the_history():
    robot = Robot(safe_below=-0.5)
    replacement = robot.step(1, 0.9).verdict.action[0]
    robot.observe(2)
    robot.loop.unreadable_proposal("garbage", stamp(2), robot.now)
    robot.tick()
    robot.observe(3)
    assert robot.loop.observation().vector[8:10].tolist() == pytest.approx([0.5 * 0.25, 0.5 * replacement])


def test_second_decision_on_a_frame_replaces_the_action_of_the_first():
    robot = Robot()
    robot.step(1, 0.5)
    robot.now += 0.5 * PERIOD
    robot.propose(-0.5, 1)
    robot.tick()
    robot.observe(2)
    assert robot.loop.observation().vector[8:10].tolist() == pytest.approx([-0.25, -0.25])


# Account and settings


def test_counts_reasons_and_ticks_add_up():
    robot = Robot(safe_below=0.0)
    for k, action in enumerate((-0.5, 0.9, -0.5, 0.8)):
        robot.step(k, action)
    robot.loop.unreadable_proposal("garbage", 0, robot.now)
    robot.tick()
    assert dict(robot.loop.counts) == {Decision.PASSED: 2, Decision.RESAMPLED: 2, Decision.HELD: 1}
    assert (robot.loop.ticks, robot.loop.last_reason) == (5, "garbage")


def test_changed_epsilon_counts_from_the_next_decision_on_and_a_wrong_one_changes_nothing():
    robot = Robot()
    robot.critic.formula = lambda actions: np.full(len(actions), -1.0)  # q_safe 0.27
    assert robot.step(1, 0.5).verdict.decision == Decision.LEAST_RISK
    robot.loop.change(epsilon=0.5)
    assert robot.step(2, 0.5).verdict.decision == Decision.PASSED
    with pytest.raises(ValueError, match="epsilon"):
        robot.loop.change(epsilon=math.nan)
    assert robot.loop.settings.epsilon == 0.5


# Time


CLOCK = 5_000_000_000_000


def clocked(**faults) -> Robot:
    """A robot whose inputs are stamped by a clock that the loop knows."""
    robot = Robot()
    robot.ahead, robot.zero, robot.still = (faults.get(name, 0) for name in ("ahead", "zero", "still"))
    return robot


def clock_of(robot: Robot) -> int:
    return CLOCK + round((robot.now - 100.0) * 1e9)


def live(robot: Robot, periods: int, roll: float = 0.0) -> list[Tick]:
    """Let the driver and the controller run for some periods."""
    ticks = []
    for _ in range(periods):
        at = 0 if robot.zero else (CLOCK if robot.still else clock_of(robot) + robot.ahead)
        for name, value in (("imu", roll), ("joints", 0.0)):
            robot.loop.read(name, at, robot.now, clock_of(robot), np.array([value]))
        robot.loop.propose(np.array([0.5]), CONTRACT.joint_command(np.array([0.5])), at, robot.now)
        end = robot.now + PERIOD
        while robot.now < end:
            if robot.due():
                ticks.append(robot.loop.tick(robot.now, clock_of(robot)))
            robot.now += min(0.001, end - robot.now)
    return ticks


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ({"zero": True}, "joint_states: header.stamp is 0.*stamps: arrival"),
        ({"ahead": 10_000_000_000}, "joint_states: stamped (10.0|9.9).. s ahead of this clock.*chrony"),
        ({"ahead": 60_000_000}, "joint_states: stamped 0.0.. s ahead of this clock"),
        ({"ahead": -60_000_000}, "0.0.. s old by stamp .limit 0.04 s.: its clock is behind this one"),
    ],
)
def test_clock_that_is_not_this_one_is_held_from_the_first_period_on_and_named(faults, reason):
    ticks = live(clocked(**faults), 10)
    assert {tick.verdict.decision for tick in ticks} == {Decision.HELD}
    assert re.search(reason, ticks[-1].verdict.reason), ticks[-1].verdict.reason


def test_stamp_that_stands_still_is_held_once_it_is_as_old_as_it_may_be():
    robot = clocked()
    assert live(robot, 10)[-1].verdict.decision == Decision.PASSED
    robot.still = True
    ticks = live(robot, 10)
    assert [tick.verdict.decision for tick in ticks[-7:]] == [Decision.HELD] * 7
    assert "observation is stale" in ticks[-1].verdict.reason


def test_simulation_that_waits_is_not_stale_and_one_without_clock_is_held():
    robot = clocked(still=True)
    robot.loop.inputs = Freshness(CONTRACT, simulated=True)
    ahead = robot.now
    for _ in range(20):
        for name in ("imu", "joints"):
            robot.loop.read(name, CLOCK, robot.now, CLOCK, np.array([0.0]))
        robot.now += PERIOD
    assert robot.loop.observation_fault(robot.now, CLOCK) == ""
    assert robot.now > ahead + 0.3
    assert "no /clock comes" in robot.loop.observation_fault(robot.now, 0)


def test_contradiction_is_held_for_a_while_with_its_words():
    robot = clocked()
    live(robot, 5)
    for value in (0.0, 1.0):
        at = clock_of(robot)
        with contextlib.suppress(ContractError):
            robot.loop.read("joints", at, robot.now, at, np.array([value]))
    robot.now += PERIOD
    tick = live(robot, 1)[0]
    assert tick.verdict.decision == Decision.HELD
    assert "contradict each other: joint0 is 0 and 1 in position" in tick.verdict.reason
    assert live(robot, 40)[-1].verdict.decision == Decision.PASSED


# What else came of other people's robots


def test_older_proposal_after_a_newer_one_is_dropped_and_counted():
    robot = Robot()
    robot.step(1, 0.1)
    robot.observe(2)
    robot.propose(0.7, 2)
    robot.propose(0.6, 1)
    assert robot.loop.dropped == 1
    assert robot.tick().proposal.tolist() == [0.7]


def test_controller_that_is_one_frame_behind_is_decided_on_as_it_comes():
    robot, complete = Robot(), []
    for k in range(1, 12):
        robot.observe(k)
        robot.now += 0.004
        robot.propose(0.5, k - 1)
        complete.append(robot.due())
        robot.run(PERIOD - 0.004)
    assert complete[-1]


def test_nothing_safe_for_long_is_a_steady_hold_until_something_is():
    robot = Robot(safe_below=-2.0)
    ticks = [robot.step(k, 0.9) for k in range(60)]
    assert ticks[0].verdict.decision == Decision.LEAST_RISK
    held = ticks[-20:]
    assert {tick.verdict.decision for tick in held} == {Decision.HELD}
    assert {tuple(tick.joint_command.tolist()) for tick in held} == {tuple(SAFE_COMMAND)}
    assert held[0].verdict.reason.startswith("nothing safe for")
    robot.critic.formula = lambda actions: np.full(len(actions), -9.0)
    assert robot.step(61, 0.5).verdict.decision == Decision.PASSED


def test_history_that_is_not_whole_is_flagged_or_held_as_the_contract_says():
    for policy, decision in (("flag", Decision.PASSED), ("hold", Decision.HELD)):
        contract = replace(CONTRACT, observed=replace(CONTRACT.observed, incomplete_history=policy))
        robot = Robot()
        robot.loop = ShieldLoop(contract, robot.critic, SETTINGS, Mode.ENFORCE)
        robot.loop.start(robot.now)
        ticks = [robot.step(k, 0.5) for k in range(10)]
        assert ticks[0].history_missing == 5
        assert ticks[0].verdict.decision == decision
        assert (ticks[-1].history_missing, ticks[-1].verdict.decision) == (0, Decision.PASSED)


def test_command_moves_no_faster_than_the_contract_says_where_its_source_changes():
    contract = replace(CONTRACT, commanded=replace(CONTRACT.commanded, max_rate=2.0))
    robot = Robot()
    robot.loop = ShieldLoop(contract, robot.critic, SETTINGS, Mode.ENFORCE)
    robot.loop.start(robot.now)
    sent = [0.0]  # where the joint is measured to be
    for k in range(60):
        if k in range(20, 30):
            robot.observe(k)
            robot.loop.unreadable_proposal("garbage", stamp(k), robot.now)
            tick = robot.tick()
            robot.now += PERIOD
        else:
            tick = robot.step(k, 0.9 if k < 40 else -0.9)
        sent.append(tick.joint_command[0])
    steps = np.abs(np.diff(sent))
    assert steps[:40].max() <= 2.0 * PERIOD + 1e-12  # activation, hold, release
    assert sent[40] == 0.1 + 0.5 * 0.9
    assert steps[40] == pytest.approx(0.9)  # the controller has it alone: its own step is its own


def test_held_pose_is_the_measured_one():
    contract = replace(CONTRACT, holds_pose=True)
    robot = Robot()
    robot.loop = ShieldLoop(contract, robot.critic, SETTINGS, Mode.ENFORCE)
    robot.loop.start(robot.now)
    assert robot.run(0.1)[-1][1].joint_command is None  # not known yet
    robot.loop.read("imu", stamp(1), robot.now, 0, np.array([0.0]))
    robot.loop.read("joints", stamp(1), robot.now, 0, np.array([0.321]))
    robot.loop.unreadable_proposal("garbage", stamp(1), robot.now)
    commands = [tick.joint_command.tolist() for _, tick in robot.run(0.1)]
    assert commands == [[0.321]] * len(commands)
