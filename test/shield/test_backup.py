"""The backup: when it takes over from a controller, how long it stays, and what the account says of it."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssql_ros.model.backup import Backup
from ssql_ros.model.bundle import BundleError, load_bundle, save_bundle
from ssql_ros.model.critic import SafetyCritic
from ssql_ros.model.probes import check_critic
from ssql_ros.model.proposal import Proposal
from ssql_ros.robots.tasks import find_task
from ssql_ros.shield.backup import SafetyFilter
from ssql_ros.shield.decision import Decision, Observation, ShieldSettings, Verdict, decide
from ssql_ros.shield.loop import ShieldLoop
from ssql_ros.shield.tick import Mode
from ssql_ros.training.critic_training import TrainingPlan, train_critic
from support.toy_robot import FormulaCritic, toy_contract

CONTRACT = toy_contract(3, low=-2.0, high=1.0)
VECTOR = np.zeros(CONTRACT.observation_size)
SETTINGS = ShieldSettings(epsilon=0.1, max_observation_age=0.04, max_proposal_age=0.04, candidates=20, rounds=2)
BACKUP = Backup((-1.0, 0.0, 0.5), window=10, most=3, dwell=4)
GOOD, BAD = np.zeros(3), np.full(3, 0.9)


def critic(logits, backup: Backup | None = BACKUP) -> FormulaCritic:
    made = FormulaCritic(logits)
    made.backup = backup
    return made


# What is near BAD is safe, BAD itself is not.
SPOT = critic(lambda a: np.where((a == BAD).all(axis=1), 9.0, -9.0))
# Nothing above 0.5 is safe, and candidates near BAD do not get below it.
WALL = critic(lambda a: np.where(a[:, 0] > -1.5, np.where(a[:, 0] > 0.5, 9.0, -9.0), -9.0))


def run(judge, proposals, settings=SETTINGS, seed=0):
    filtered, rng = SafetyFilter(CONTRACT), np.random.default_rng(seed)
    return [filtered.decide(Observation(VECTOR, 0.0), Proposal(a, 0.0), judge, settings, 0.0, rng) for a in proposals]


def test_isolated_unsafe_proposals_are_replaced_by_what_is_near():
    verdicts = run(SPOT, [GOOD, BAD, GOOD, GOOD, GOOD, BAD, GOOD])
    assert [v.decision for v in verdicts] == [0, 1, 0, 0, 0, 1, 0]


def test_frequent_ones_bring_the_backup_which_stays_until_proposals_have_been_safe():
    verdicts = run(SPOT, [BAD] * 5 + [GOOD] * 6)
    kinds = [v.decision for v in verdicts]
    assert kinds[:3] == [Decision.RESAMPLED] * 3
    assert kinds[3:5] == [Decision.BACKUP] * 2
    # Four safe ones in a row, the last of which has the robot again.
    assert kinds[5:] == [Decision.BACKUP] * 3 + [Decision.PASSED] * 3
    taken = verdicts[3]
    assert taken.action.tolist() == [-1.0, 0.0, 0.5]
    assert taken.q_action < 0.1 < taken.q_proposal
    assert taken.reason.startswith("backup, decision 1: q_safe 1 of the proposal is above epsilon 0.1")
    assert "3 of the last 3" not in taken.reason
    assert "4 of the last 4 proposals were unsafe" in taken.reason
    assert verdicts[7].reason == "backup, decision 5: proposals must be safe for 1 more decisions"


def test_a_controller_that_is_unsafe_again_and_again_waits_longer_each_time():
    judge = critic(SPOT.formula, dataclasses.replace(BACKUP, history=60))
    unsafe_then_safe = [BAD] * 4 + [GOOD] * 36
    waits = []
    filtered, rng = SafetyFilter(CONTRACT), np.random.default_rng(0)
    for _ in range(3):
        kinds = [
            filtered.decide(Observation(VECTOR, 0.0), Proposal(a, 0.0), judge, SETTINGS, 0.0, rng).decision
            for a in unsafe_then_safe
        ]
        waits.append(sum(kind is Decision.BACKUP for kind in kinds[4:]))
    # 4 of 3: once its dwell. The oldest are forgotten: then twice, whatever came before.
    assert waits == [3, 7, 7]
    steady = run(SPOT, unsafe_then_safe * 3)
    assert sum(v.decision is Decision.BACKUP for v in steady) == 3 * 4


def test_where_nothing_near_is_safe_it_is_one_more_candidate():
    judge = critic(lambda a: np.where(np.abs(a - BACKUP.action).max(axis=1) < 1e-6, -9.0, 9.0))
    alone, after, *often = run(judge, [BAD, GOOD, BAD, BAD, BAD])
    assert [v.decision for v in (alone, after, *often)] == [Decision.BACKUP] * 5
    assert alone.scored > 2  # it was searched for
    assert alone.reason.startswith("backup, one decision: q_safe 1 of the proposal is above epsilon 0.1; no safe one")
    assert alone.action.tolist() == [-1.0, 0.0, 0.5]
    assert alone.q_action < 0.1
    # It has the robot once unsafe proposals come often, and then nothing is searched for any more.
    assert [v.scored > 1 for v in often] == [True, False, False]
    assert often[-1].reason.startswith("backup, decision 2: ")


def test_a_backup_that_is_worse_than_what_was_found_is_not_taken():
    judge = critic(lambda a: np.where(np.abs(a - BACKUP.action).max(axis=1) < 1e-6, 9.0, 3.0))
    assert run(judge, [BAD])[0].decision is Decision.LEAST_RISK


def test_a_fault_is_held_and_what_is_remembered_is_forgotten_at_a_reset():
    filtered, rng = SafetyFilter(CONTRACT), np.random.default_rng(0)
    seen = Observation(VECTOR, 0.0)
    for _ in range(4):
        filtered.decide(seen, Proposal(BAD, 0.0), SPOT, SETTINGS, 0.0, rng)
    assert filtered.steps == 1
    assert filtered.decide(None, Proposal(BAD, 0.0), SPOT, SETTINGS, 0.0, rng).decision is Decision.HELD
    filtered.reset()
    assert filtered.decide(seen, Proposal(GOOD, 0.0), SPOT, SETTINGS, 0.0, rng).decision is Decision.PASSED


def test_another_critic_begins_anew():
    filtered, rng, seen = SafetyFilter(CONTRACT), np.random.default_rng(0), Observation(VECTOR, 0.0)
    for _ in range(4):
        verdict = filtered.decide(seen, Proposal(BAD, 0.0), SPOT, SETTINGS, 0.0, rng)
    assert verdict.decision is Decision.BACKUP
    other = critic(SPOT.formula)
    assert filtered.decide(seen, Proposal(BAD, 0.0), other, SETTINGS, 0.0, rng).decision is Decision.RESAMPLED


def test_its_pose_is_approached_no_faster_than_the_contract_lets_a_source_change():
    slow = toy_contract(3, low=-2.0, high=1.0)
    slow = dataclasses.replace(slow, commanded=dataclasses.replace(slow.commanded, max_rate=5.0))
    loop = ShieldLoop(slow, WALL, SETTINGS, Mode.ENFORCE)
    loop.source.sent(np.full(len(slow.commanded.joint_names), 0.8), arrived=True)
    verdict = Verdict(Decision.BACKUP, np.array([-1.0, 0.0, 0.5]))
    wanted, step = slow.joint_command(verdict.action), 5.0 * slow.control_period
    before, commands = loop.source.last, []
    while not commands or not np.array_equal(commands[-1], wanted):
        commands.append(loop._command(verdict, None, wanted, 0))
        assert (np.abs(commands[-1] - before) <= step + 1e-12).all()
        before = commands[-1]
        assert len(commands) < 100
    assert len(commands) > 2
    loop.propose(GOOD, slow.joint_command(GOOD), 1, 0.0)
    back = loop._command(Verdict(Decision.PASSED, GOOD), None, slow.joint_command(GOOD), 0)
    assert (np.abs(back - before) <= step + 1e-12).all()


# In training.


def test_a_task_without_a_backup_says_so():
    with pytest.raises(ValueError, match="--backup: task 'spider' has no backup"):
        train_critic(find_task("spider"), TrainingPlan(backup=True), 0, {}, show=False)


@pytest.mark.long
def test_a_critic_of_the_backup_is_trained_and_says_what_it_is_of():
    plan = TrainingPlan(8, 1, 2, 20, 2, backup=True, steps=60)
    bundle = train_critic(find_task("minitaur"), plan, 0, {}, show=False)
    assert bundle.critic.backup == find_task("minitaur").backup
    assert bundle.provenance["policy"] == "backup"
    assert sum(count["incidents"] for count in bundle.provenance["data"]) > 0
    domain = bundle.critic.domain
    assert domain.rows == sum(count["steps"] for count in bundle.provenance["data"])
    assert domain.held_out == sum(figures["n"] for figures in bundle.provenance["held_out"].values())
    check_critic(SafetyCritic(bundle))


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 12), st.integers(0, 6), st.integers(1, 6))
def test_what_goes_to_the_robot_is_safe_or_the_backup_and_no_backup_ends_early(unsafe, window, most, dwell):
    judge = critic(SPOT.formula, Backup(BACKUP.action, window, most, dwell))
    verdicts = run(judge, [BAD if bad else GOOD for bad in unsafe])
    since_unsafe = 0
    for i, (bad, verdict) in enumerate(zip(unsafe, verdicts, strict=True)):
        assert verdict.q_action <= 0.1
        assert (verdict.decision is Decision.PASSED) <= (not bad)
        entered = i and verdicts[i - 1].decision is Decision.BACKUP
        since_unsafe = 0 if bad else since_unsafe + 1
        if entered and verdict.decision is not Decision.BACKUP:
            assert since_unsafe >= dwell
        if not entered and verdict.decision is Decision.BACKUP:
            assert sum(unsafe[max(0, i - window) : i]) >= most


def test_without_a_backup_decisions_are_those_of_the_search():
    judge, rng = critic(SPOT.formula, None), np.random.default_rng(3)
    for verdict in run(judge, [BAD] * 8, seed=3):
        plain = decide(Observation(VECTOR, 0.0), Proposal(BAD, 0.0), judge, CONTRACT, SETTINGS, 0.0, rng)
        assert (verdict.decision, verdict.action.tolist()) == (plain.decision, plain.action.tolist())


# In the file.


def test_a_bundle_keeps_it(tmp_path):
    task = find_task("minitaur")
    bundle = load_bundle(task.bundle_path(), task.contract())
    backup = Backup(tuple(np.linspace(-1.0, 1.0, 8).tolist()), dwell=7)
    changed = dataclasses.replace(bundle, critic=dataclasses.replace(bundle.critic, backup=backup))
    path = save_bundle(changed, tmp_path / "with.safetensors").path
    assert load_bundle(path, task.contract()).critic.backup == backup
    assert SafetyCritic(load_bundle(path, task.contract())).backup == backup


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"action": [0.0]}, "backup.action: expected 8 numbers, got"),
        ({"action": [float("nan")] * 8}, "backup.action: expected finite numbers"),
        ({"dwell": 0}, "backup.dwell: expected a whole number of at least 1, got 0"),
        ({"most": -1}, "backup.most: expected a whole number of at least 0"),
        ({"window": 2.5}, "backup.window: expected a whole number"),
        ({"more": 1}, "backup: expected action, window, most, dwell, history, got"),
    ],
)
def test_a_wrong_one_is_refused_by_name(tmp_path, monkeypatch, change, text):
    task = find_task("minitaur")
    bundle = load_bundle(task.bundle_path(), task.contract())
    header = {**Backup((0.0,) * 8).header(), **change}
    monkeypatch.setattr(Backup, "header", lambda _: header)
    changed = dataclasses.replace(bundle, critic=dataclasses.replace(bundle.critic, backup=Backup((0.0,) * 8)))
    path = save_bundle(changed, tmp_path / "wrong.safetensors").path
    with pytest.raises(BundleError, match=text):
        load_bundle(path, task.contract())
