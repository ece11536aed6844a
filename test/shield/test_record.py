"""Any decision of a run can be taken again from its record alone, bit for bit, whatever came before it."""

import math
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_incidents import CONTRACT

from ssql_ros.contract.messages import fill
from ssql_ros.model.backup import Backup
from ssql_ros.model.bundle import Rule
from ssql_ros.model.domain import Domain
from ssql_ros.msg import DecisionRecord
from ssql_ros.shield.decision import Decision, ShieldSettings, Verdict
from ssql_ros.shield.judgement import Draws, Judge, judged_again
from ssql_ros.shield.loop import ShieldLoop
from ssql_ros.shield.record import differences, record_fields, recorded
from ssql_ros.shield.tick import Mode
from support.toy_robot import PERIOD, PERIOD_NS

N = CONTRACT.observation_size


@dataclass
class Critic:
    """Risk grows with the action's distance from a place that the observation moves; sometimes it has no number."""

    backup: Backup | None = None
    domain: Domain | None = None
    id: str = "critic"
    rule: Rule = Rule.PROBABILITY
    lost: bool = False
    called: list[int] = field(default_factory=list)

    def logits(self, observation, actions):
        self.called.append(len(actions))
        place = 0.3 * np.sin(40.0 * observation.sum())
        scores = 12.0 * np.abs(actions - place).sum(axis=1) - 4.0
        return np.full(len(actions), np.nan, np.float32) if self.lost else scores.astype(np.float32)


SETTINGS = ShieldSettings(0.1, 0.04, 0.04, candidates=20, rounds=2)
BACKUP = Backup((0.1,), window=6, most=2, dwell=3)
NEAR = Domain(np.zeros(N, np.float32), np.full(N, 0.02, np.float32), 1.0, 0.999, 100, 50)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["step"] * 3 + ["silent", "unread", "unheard", "late", "swap", "mode", "lost", "reset"]),
        st.floats(-0.5, 0.5),
        st.floats(-1.2, 1.2),
        st.booleans(),
    ),
    min_size=1,
    max_size=60,
)


def run(events, contract, critics, mode):
    """Drive a loop through events; return each tick, the critic in force, and whether it had no number."""
    loop, now, ticks, time = ShieldLoop(contract, critics[0], SETTINGS, mode, seed=5), 100.0, [], [0.0]
    loop._timer = lambda: time[0]
    loop.start(now)
    for k, (event, roll, action, known) in enumerate(events, 1):
        stamp = 10**9 + k * PERIOD_NS
        critic = loop.critic
        critic.lost = event == "lost"
        if event == "swap":
            loop.critic = critics[1] if critic is critics[0] else critics[0]
        if event == "mode":
            loop.mode = Mode.DISABLED if known else mode
        if event == "reset" and loop.supervision.latched is not None and abs(roll) < 0.25:
            loop.supervision.faults.release("test")
        if event == "silent":
            now += 3 * PERIOD
        else:
            loop.read("imu", stamp, now, 0, np.array([math.nan if event == "unread" else roll]))
            loop.read("joints", stamp, now, 0, np.array([0.1 * action]))
        if event != "unheard":
            distribution = {"mean": np.array([0.5 * action]), "std": np.array([0.3])} if known else {}
            wanted = contract.clip(np.array([action]))
            loop.propose(np.array([action]), contract.joint_command(wanted), stamp, now, **distribution)
        if event == "late":
            # Time runs out after the second batch of candidates.
            batches = len(loop.critic.called) + 2
            loop._timer = lambda batches=batches: 1.0 if len(loop.critic.called) >= batches else 0.0
        ticks.append((loop.tick(now), loop.critic, loop.critic.lost))
        loop._timer = lambda: 0.0
        now += PERIOD
    return ticks


@settings(max_examples=60)
@given(
    EVENTS,
    st.sampled_from(["continue", "hold", "backup"]),
    st.sampled_from(["warn", "backup"]),
    st.booleans(),
    st.sampled_from([Mode.ENFORCE, Mode.MONITOR]),
)
def test_every_decision_is_the_same_when_it_is_taken_again_alone(events, on_incident, on_out_of_domain, backed, mode):
    contract = replace(CONTRACT, on_incident=on_incident, on_out_of_domain=on_out_of_domain)
    backup = BACKUP if backed else None
    critics = [Critic(backup, NEAR), Critic(backup, id="other")]
    for tick, critic, lost in run(events, contract, critics, mode):
        message = fill(DecisionRecord(), **record_fields(tick, contract.id))
        record = recorded(message)
        critic.lost = lost
        again = judged_again(record.basis, contract, critic, record.seed, record.verdict.scored)
        assert differences(record.verdict, again) == []
        # And what is recorded is what was decided.
        assert differences(tick.verdict, record.verdict) == []
        assert (record.bundle_id, record.contract_id) == (critic.id, contract.id)


def test_the_runs_above_have_every_kind_of_decision():
    rng = np.random.default_rng(0)
    kinds = ["step"] * 12 + ["silent", "unheard", "late", "swap", "reset"]
    events = [
        (str(rng.choice(kinds)), float(rng.uniform(-0.32, 0.32)), float(rng.uniform(-1.2, 1.2)), bool(rng.integers(2)))
        for _ in range(400)
    ]
    contract = replace(CONTRACT, on_incident="hold")
    seen = {tick.verdict.decision for tick, *_ in run(events, contract, [Critic(BACKUP), Critic()], Mode.ENFORCE)}
    assert seen == set(Decision)


def test_a_decision_has_its_own_random_numbers():
    draws = Draws(3)
    first = draws.at(7).standard_normal(5)
    draws.at(8).standard_normal(100)
    assert draws.at(7).standard_normal(5).tolist() == first.tolist()
    assert Draws(3).at(8).standard_normal(5).tolist() != first.tolist()
    assert Draws(4).at(7).standard_normal(5).tolist() != first.tolist()


def test_what_differs_is_told():
    then = Verdict(Decision.PASSED, np.array([0.5]), 0.1, 0.1, 1, 1)
    assert differences(then, replace(then, reason="other words")) == []
    assert differences(then, replace(then, q_action=math.nan)) == ["score of the action: 0.1 then, nan now"]
    now = Verdict(Decision.BACKUP, np.array([0.25]), 0.1, 0.1, 9, 1)
    assert differences(then, now) == [
        "decision PASSED then, BACKUP now",
        "action: off by 0.25",
        "candidates scored: 1 then, 9 now",
    ]


def test_memory_is_of_the_critic_that_judged():
    judge = Judge(CONTRACT)
    first, second = Critic(BACKUP), Critic(BACKUP)
    judge.recall(replace(judge.memory(first, 0.0), unsafe=(True,) * 6, dwell=2, steps=4), first, 0.0)
    assert judge.memory(first, 0.0).unsafe == (True,) * 6
    assert judge.memory(second, 0.0).unsafe == ()


def test_a_record_that_is_none_is_refused():
    fields = record_fields(run([("step", 0.0, 0.1, False)], CONTRACT, [Critic()], Mode.ENFORCE)[0][0], CONTRACT.id)
    for name, value in (("epsilon", 2.0), ("candidates", 0), ("decision", 17)):
        with pytest.raises(ValueError, match=f"{name}|{value}"):
            recorded(SimpleNamespace(**{**fields, name: value}))
