"""When the shield decides, on a simulated clock: one command a period, at once on an answer, safe on every fault."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_robot import PERIOD, PERIOD_NS, FormulaCritic, toy_contract

from ssql_ros.shield import Decision, ShieldSettings
from ssql_ros.shield_loop import SLACK, Mode, ShieldLoop, Tick
from ssql_ros.spec.stamped import NANOSECONDS

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
    # The next is due when the news has had half a period more than one to come.
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
            robot.loop.unreadable_proposal("garbage", stamp(k))
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
    robot.step(1, 0.5)  # at 100.0: the next is due 1.5 periods later
    robot.now = 100.0 + 2.0 * PERIOD
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
    for k in range(2, 8):
        robot.loop.read("imu", k * PERIOD_NS - 6_000_000, robot.now, np.array([0.0]))
        robot.loop.read("joints", k * PERIOD_NS, robot.now, np.array([0.0]))
        robot.propose(0.5, k)
        ticks = robot.run(PERIOD)
    assert ticks[-1][1].verdict.decision == Decision.HELD
    assert ticks[-1][1].verdict.reason.startswith("observation is stale")


def test_unreadable_proposal_is_held_at_once_with_its_fault_until_a_good_one():
    robot = Robot()
    robot.step(1, 0.5)
    robot.observe(2)
    robot.loop.unreadable_proposal("joint_commands_raw: joint0 is nan", stamp(2))
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
    robot.loop.unreadable("imu/data: roll is nan")
    robot.propose(0.5, 2)
    tick = robot.run(PERIOD)[0][1]
    assert (tick.verdict.decision, tick.verdict.reason) == (Decision.HELD, "imu/data: roll is nan")
    assert tick.joint_command.tolist() == SAFE_COMMAND
    # Half an observation is none.
    robot.loop.read("joints", 2 * PERIOD_NS, robot.now, np.array([0.0]))
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


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.MONITOR, Mode.DISABLED])
def test_safe_proposal_goes_through_bit_for_bit(mode):
    robot = Robot(mode)
    robot.observe(1)
    robot.propose(0.3, 1, joints=ODD)
    tick = robot.tick()
    assert tick.joint_command.tolist() == [ODD]
    assert (tick.verdict.decision, tick.enforced) == (Decision.PASSED, mode is Mode.ENFORCE)


@pytest.mark.parametrize("mode", [Mode.MONITOR, Mode.DISABLED])
def test_unsafe_proposal_goes_through_bit_for_bit_when_the_shield_only_watches(mode):
    robot = Robot(mode, safe_below=-0.5)
    for k, action in ((1, 0.9), (2, 7.5)):  # the second lies outside the bounds
        robot.observe(k)
        robot.propose(action, k, joints=ODD)
        tick = robot.tick()
        assert (tick.joint_command.tolist(), tick.enforced) == ([ODD], False)
        expected = Decision.RESAMPLED if mode is Mode.MONITOR else Decision.PASSED
        assert tick.verdict.decision == expected
    if mode is Mode.DISABLED:
        assert tick.verdict.reason == "shield is disabled"
        assert not robot.critic.scored


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


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.MONITOR, Mode.DISABLED])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_proposal_that_is_not_finite_reaches_the_robot_in_no_mode(mode, value):
    robot = Robot(mode)
    robot.observe(1)
    robot.propose(value, 1, joints=value)
    tick = robot.tick()
    assert (tick.verdict.decision, tick.joint_command.tolist()) == (Decision.HELD, SAFE_COMMAND)


@pytest.mark.parametrize("mode", [Mode.MONITOR, Mode.DISABLED])
def test_stale_proposal_is_held_in_every_mode(mode):
    robot = Robot(mode)
    robot.step(1, 0.9)
    robot.now += 2 * PERIOD
    robot.observe(4)
    tick = robot.run(PERIOD)[-1][1]
    assert (tick.verdict.decision, tick.joint_command.tolist(), tick.enforced) == (Decision.HELD, SAFE_COMMAND, True)


# What the history remembers


@pytest.mark.parametrize(
    ("mode", "proposed", "remembered"),
    [
        (Mode.ENFORCE, 0.3, 0.3),
        (Mode.ENFORCE, 7.5, 1.0),  # clipped
        (Mode.MONITOR, 7.5, 7.5),  # not the decision, but what the robot did
        (Mode.DISABLED, 0.9, 0.9),
    ],
)
def test_executed_action_lands_in_the_history(mode, proposed, remembered):
    robot = Robot(mode)
    robot.step(1, proposed)
    robot.observe(2)
    past_actions = robot.loop.observation().vector[8:10]
    assert past_actions.tolist() == [0.5 * remembered] * 2


def test_replacement_and_held_action_land_in_the_history():
    robot = Robot(safe_below=-0.5)
    replacement = robot.step(1, 0.9).verdict.action[0]
    robot.observe(2)
    robot.loop.unreadable_proposal("garbage", stamp(2))
    robot.tick()
    robot.observe(3)
    assert robot.loop.observation().vector[8:10].tolist() == [0.5 * 0.25, 0.5 * replacement]


def test_second_decision_on_a_frame_replaces_the_action_of_the_first():
    robot = Robot()
    robot.step(1, 0.5)
    robot.now += 0.5 * PERIOD
    robot.propose(-0.5, 1)
    robot.tick()
    robot.observe(2)
    assert robot.loop.observation().vector[8:10].tolist() == [-0.25, -0.25]


# Account and settings


def test_counts_reasons_and_ticks_add_up():
    robot = Robot(safe_below=0.0)
    for k, action in enumerate((-0.5, 0.9, -0.5, 0.8)):
        robot.step(k, action)
    robot.loop.unreadable_proposal("garbage", 0)
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
