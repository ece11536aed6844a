"""Out of its depth: when a robot has left its critic's domain, and whether what was predicted came."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_incidents import CONTRACT, SAFE_COMMAND, UPRIGHT, Robot

from ssql_ros.model.backup import Backup
from ssql_ros.model.domain import Domain
from ssql_ros.shield.calibration_drift import STEP, CalibrationDrift, byar_interval
from ssql_ros.shield.decision import Decision, Verdict
from ssql_ros.shield.domain_watch import WINDOW, DomainWatch

N = CONTRACT.observation_size
DOMAIN = Domain(np.zeros(N, np.float32), np.ones(N, np.float32), 1.0, 0.999, 100, 50)
WORDS = "distance 9 from the critic's training data, limit 1 (0.999 of 50 observations held out)"
NEAR, FAR = np.zeros(N), np.eye(N)[0] * 9.0


# The domain


def watched(flags, watch=None):
    """What a watch says after each observation, near or far."""
    watch = watch or DomainWatch()
    out = []
    for i, far in enumerate(flags):
        watch.observe(DOMAIN, FAR if far else NEAR, i)
        out.append(watch.out)
    return out


def test_robot_has_left_with_most_of_the_newest_observations_and_is_back_with_few():
    out = watched([True] * 30 + [False] * 40)
    assert out.index(True) == 12  # 13 of 25
    assert out[30:].index(False) == 22  # 2 of 25 left
    assert not any(watched([True, False, False] * 30))


@given(st.lists(st.booleans(), max_size=80))
def test_single_observations_beyond_the_limit_never_are_out_of_the_domain(flags):
    out = watched(flags)
    for i, now in enumerate(out):
        share = sum(flags[max(0, i + 1 - WINDOW) : i + 1]) / WINDOW
        assert now == (share > (0.1 if i and out[i - 1] else 0.5))


def test_the_same_observation_counts_once_and_another_critic_begins_anew():
    watch = DomainWatch()
    assert [watch.observe(DOMAIN, FAR, 7) for _ in range(40)] == [False] * 40
    watched([True] * 30, watch)
    assert watch.out
    assert watch.words() == WORDS
    watch.observe(None, FAR, 99)
    assert (watch.out, math.isnan(watch.distance), math.isnan(watch.limit)) == (False, True, True)


BACKUP = Backup((-1.0,))


def robot_of(response, backup=BACKUP):
    robot = Robot("continue", on_out_of_domain=response)
    robot.loop.critic.backup, robot.loop.critic.domain = backup, replace(DOMAIN, limit=5.0)
    return robot


def far(robot, periods, joint=9.0):
    return [robot.step(UPRIGHT, joint=joint) for _ in range(periods)]


def test_by_default_it_is_told_and_decisions_go_on():
    robot = robot_of("warn")
    assert {tick.verdict.decision for tick in far(robot, 40)} == {Decision.PASSED}
    assert robot.loop.supervision.domain.out
    assert robot.loop.supervision.warning().startswith("out of domain: distance ")
    assert robot.loop.supervision.faults.history[0].ended == "only told"


@pytest.mark.parametrize(("backup", "kind", "command"), [(BACKUP, 4, [0.1 - 0.5]), (None, 3, SAFE_COMMAND)])
def test_backup_has_the_robot_outside_and_the_controller_once_it_is_back(backup, kind, command):
    robot = robot_of("backup", backup)
    tick = far(robot, 40)[-1]
    assert (tick.verdict.decision, tick.joint_command.tolist()) == (kind, command)
    assert tick.verdict.reason.startswith("out of domain: distance ")
    assert math.isnan(tick.verdict.q_action)
    assert far(robot, 40, joint=0.0)[-1].verdict.decision is Decision.PASSED
    assert robot.loop.supervision.latched is None


def test_stop_latches_until_the_robot_is_back_and_somebody_has_looked():
    robot = robot_of("stop")
    tick = far(robot, 40)[-1]
    assert (tick.verdict.decision, tick.joint_command.tolist()) == (Decision.FAULT, SAFE_COMMAND)
    assert tick.verdict.reason.startswith("latched, hold: out of domain: distance ")
    with pytest.raises(ValueError, match="still latched: out of domain"):
        robot.reset()
    assert far(robot, 40, joint=0.0)[-1].verdict.decision is Decision.FAULT
    assert robot.reset().startswith("out of domain")
    assert far(robot, 1, joint=0.0)[0].verdict.decision is Decision.PASSED


def test_rates_are_of_the_newest_decisions_and_a_share_of_them_is_worth_a_warning():
    robot = robot_of("warn", backup=None)
    robot.loop.critic.domain = None
    supervision = robot.loop.supervision
    far(robot, 89)
    robot.loop.critic.formula = lambda actions: np.full(len(actions), 9.0)
    far(robot, 10)
    assert supervision.warning() == ""  # 99 decisions are too few
    far(robot, 1)
    assert supervision.rate(Decision.LEAST_RISK) == 0.11
    assert supervision.warning().startswith("of the last 100 decisions 11% found nothing safe, 0% had the backup")


# Calibration


GAMMA, EPSILON, PERIOD = 0.9, 0.05, 10
HORIZON = 44  # 0.9^44 is below 0.01


@dataclass
class Served:
    """A critic that is followed through a run, one decision a period."""

    drift: CalibrationDrift = field(default_factory=lambda: CalibrationDrift(PERIOD))
    now: int = 0
    begin: int = 1

    def __post_init__(self):
        self.drift.follow("critic", GAMMA, EPSILON)

    def run(self, periods, q, watching=False, decision=Decision.PASSED):
        for _ in range(periods):
            self.now += PERIOD
            self.drift.observe(self.now, self.begin, inside=False)
            self.drift.decided(Verdict(decision, np.zeros(1), q_action=q), self.now, watching)

    def fall(self):
        self.now += PERIOD
        self.drift.observe(self.now, self.begin, inside=True)
        self.begin = self.now + 1


def test_incident_counts_discounted_for_each_decision_before_it():
    served = Served()
    served.run(3, 0.04)
    assert served.drift.settled == 0
    assert served.drift.words() == served.drift.warning() == ""
    served.fall()
    drift = served.drift
    assert (drift.settled, drift.predicted) == (3, pytest.approx(0.04))
    assert drift.observed == pytest.approx((1.0 + GAMMA + GAMMA**2) / 3)
    moved = STEP * (1.0 - GAMMA) * (3 * 0.04 - (1.0 + GAMMA + GAMMA**2))
    assert drift.adaptive == pytest.approx(EPSILON + moved)


def test_decision_without_an_incident_within_the_horizon_counts_as_none_and_one_that_was_cut_short_not_at_all():
    served = Served()
    served.run(HORIZON + 1, 0.04)
    assert served.drift.settled == 0
    served.run(1, 0.04)
    assert (served.drift.settled, served.drift.observed) == (1, 0.0)
    served.begin += 1  # the history ended, and nobody knows how it went on
    served.run(HORIZON + 1, 0.04)
    assert served.drift.settled == 1


def test_only_what_was_judged_safe_and_sent_is_counted():
    for decision, watching, counted in (
        (Decision.PASSED, True, 3),
        (Decision.RESAMPLED, False, 3),
        (Decision.RESAMPLED, True, 0),
        (Decision.LEAST_RISK, False, 0),
        (Decision.BACKUP, False, 0),
        (Decision.HELD, False, 0),
    ):
        served = Served()
        served.run(3, 0.01, watching, decision)
        served.fall()
        assert served.drift.settled == counted


def test_incidents_as_often_as_predicted_are_no_news_and_more_often_are():
    # One incident in 1,000 decisions discounts to 10 of them.
    for q, warned in ((0.01, False), (0.5, False), (0.001, True)):
        served = Served()
        for _ in range(5):
            served.run(1000, q)
            served.fall()
        low, high = served.drift.interval
        assert low < 0.01 < high
        assert bool(served.drift.warning()) is warned
    assert served.drift.warning() == (
        "incidents come more often than the critic predicts: observed 0.00991 (0.00317 to 0.0232), predicted 0.001, "
        "over 5000 decisions judged safe"
    )


def test_another_critic_begins_anew():
    served = Served()
    served.run(3, 0.04)
    served.fall()
    served.drift.follow("another", GAMMA, 0.2)
    assert (served.drift.settled, served.drift.adaptive) == (0, 0.2)


@given(st.integers(0, 200))
def test_interval_of_a_count_is_near_the_exact_one(count):
    low, high = byar_interval(count)
    assert low <= count < high

    def at_most(k, mean):
        return math.exp(-mean) * math.fsum(math.exp(i * math.log(mean) - math.lgamma(i + 1)) for i in range(k + 1))

    # Exact limits leave 2.5 % on each side.
    assert at_most(count, high) == pytest.approx(0.025, abs=0.004)
    if count:
        assert 1.0 - at_most(count - 1, low) == pytest.approx(0.025, abs=0.013)
