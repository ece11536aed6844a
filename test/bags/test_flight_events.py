"""Which messages are events: each incident, fault and latch; a robot that waits has none, a flickering input few."""

import math

import pytest

from ssql_ros.bags import EventRules
from ssql_ros.bags.flight_events import QUIET_SECONDS
from ssql_ros.contract.messages import fill
from ssql_ros.msg import Incident, ShieldedAction, ShieldState

SECOND = 10**9
NOW = 1_700_000_000 * SECOND
PASSED, HELD, FAULT = ShieldedAction.PASSED, ShieldedAction.HELD, ShieldedAction.FAULT


class Heard:
    """Feeds rules and keeps what they say, in order."""

    def __init__(self):
        self.rules, self.events = EventRules(), []

    def state(self, seconds=0.0, **fields):
        fields = {"mode": ShieldState.ENFORCE, "margin": math.nan, **fields}
        self._keep(self.rules.state(fill(ShieldState(), **fields), NOW + round(seconds * SECOND)))

    def incident(self, inside, published=0):
        self._keep(self.rules.incident(fill(Incident(), incident=inside, cause="roll"), NOW, published))

    def decisions(self, *decisions, reason="", seconds=0.0):
        for decision in decisions:
            message = fill(ShieldedAction(), decision=decision, reason=reason)
            self._keep(self.rules.decision(message, NOW + round(seconds * SECOND)))

    def _keep(self, events):
        self.events += [(event.kind, event.words) for event in events]

    @property
    def kinds(self):
        return [kind for kind, _ in self.events]


@pytest.fixture
def heard():
    return Heard()


def test_what_was_there_before_the_recorder_is_no_event(heard):
    heard.state(latched=True, incidents=3, fault_reason="roll")
    heard.incident(True, published=NOW - 5 * SECOND)  # latched, from before
    heard.decisions(FAULT, FAULT)
    assert heard.events == []


def test_latch_and_incidents_of_the_state_are_events_each_time_they_rise(heard):
    heard.state(incidents=1)
    heard.state(incidents=2, latched=True, fault_reason="incident: roll 0.4 rad", margin=0.1, margin_unit="rad")
    heard.state(incidents=2, latched=True)
    heard.state(incidents=2, latched=False)
    heard.state(incidents=4, latched=True)
    assert heard.kinds == ["latched", "incident", "latched", "incident"]
    assert heard.events[:2] == [
        ("latched", "latched: incident: roll 0.4 rad"),
        ("incident", "incident 2 of the shield's count, margin 0.1 rad"),
    ]


def test_shield_that_is_started_anew_counts_from_where_it_begins(heard):
    heard.state(incidents=7)
    heard.state(incidents=0)
    assert heard.events == []
    heard.state(incidents=1)
    assert heard.kinds == ["incident"]


def test_incident_message_is_an_event_when_it_becomes_true(heard):
    heard.incident(True)  # just published: nobody said that it was not so before
    heard.incident(True)
    heard.incident(False)
    heard.incident(True)
    assert heard.events == [("incident", "incident: roll")] * 2


def test_fault_is_an_event_when_decisions_become_faults(heard):
    heard.decisions(PASSED, FAULT, FAULT, PASSED, FAULT, reason="latched, hold: roll")
    assert heard.events == [("fault", "fault: latched, hold: roll")] * 2


def test_robot_that_waits_at_start_writes_nothing(heard):
    heard.state(mode=ShieldState.INACTIVE)
    for second in range(100):
        heard.decisions(HELD, reason=f"no proposal yet, for {second} s", seconds=second)
    assert heard.events == []
    heard.decisions(PASSED, HELD, reason="imu/data: no newer one for 0.041 s", seconds=101)
    assert heard.events == [("held", "held: imu/data: no newer one for 0.041 s")]


def test_shield_that_was_inactive_waits_anew(heard):
    heard.decisions(PASSED)
    heard.state(mode=ShieldState.INACTIVE)
    heard.decisions(HELD, reason="no proposal yet")
    assert heard.events == []


def test_cause_counts_once_until_it_has_been_gone_for_a_while(heard):
    heard.decisions(PASSED)
    for i in range(100):  # flickers for 50 s, with other figures each time
        heard.decisions(HELD, PASSED, reason=f"imu/data: no newer one for 0.0{i} s", seconds=i / 2)
    heard.decisions(HELD, reason="proposal is stale", seconds=50.0)
    assert heard.kinds == ["held", "held"]
    heard.decisions(HELD, reason="imu/data: no newer one for 1 s", seconds=49.5 + QUIET_SECONDS + 0.1)
    assert heard.kinds == ["held"] * 3


def test_clock_that_is_set_back_silences_nothing(heard):
    heard.decisions(PASSED, HELD, reason="a", seconds=0.0)
    heard.decisions(PASSED, HELD, reason="a", seconds=-3600.0)
    assert heard.kinds == ["held", "held"]
