"""Transitions from messages that come late, twice, never, or in another order."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_robot import PERIOD_NS, toy_contract

from ssql_ros.rewards import ForwardVelocity
from ssql_ros.spec import ObservationAssembler
from ssql_ros.tasks import find_task
from ssql_ros.transitions import LiveTransition, TransitionAssembler

CONTRACT = toy_contract()
START = 100_000_000_000
Message = tuple[str, int, float]


class Displacement:
    """The way made, and the newest action: a reward that shows a wrong pairing."""

    input, fields = "odometry", ("position.x",)

    def __call__(self, before: np.ndarray, after: np.ndarray, actions: Sequence[np.ndarray]) -> float:
        return float(after[0] - before[0]) + float(actions[0][0])


def stream(steps: int, start: int = START, roll: Callable[[int], float] = lambda i: 0.0) -> list[Message]:
    """All messages of `steps` periods, in the order in which they are sent."""
    messages = []
    for i in range(steps):
        stamp = start + i * PERIOD_NS
        messages += [
            ("place", stamp, float(i * i)),
            ("imu", stamp, roll(i)),
            ("joints", stamp, 0.01 * i),
            ("propose", stamp, 100.0 + i),
            ("execute", stamp, 0.001 * i),
        ]
    return messages


def feed(assembler: TransitionAssembler, messages: Sequence[Message]) -> list[LiveTransition]:
    made = []
    for kind, stamp, value in messages:
        values = np.array([value])
        if kind == "place":
            assembler.locate(stamp, values)
        elif kind == "propose":
            assembler.propose(stamp, values - 1.0, values)
        elif kind == "execute":
            assembler.execute(stamp, values)
        else:
            assembler.read(kind, stamp, values)
        made += assembler.take()
    return made


def assembler() -> TransitionAssembler:
    return TransitionAssembler(CONTRACT, Displacement(), n_context=1)


def test_in_order_every_step_becomes_a_transition_with_the_right_parts() -> None:
    made = feed(one := assembler(), stream(20))
    assert [t.stamp for t in made] == [START + i * PERIOD_NS for i in range(19)]
    reference = ObservationAssembler(CONTRACT)
    vectors = []
    for i in range(20):
        stamp = START + i * PERIOD_NS
        reference.read("imu", stamp, 0.0, np.array([0.0]))
        reference.read("joints", stamp, 0.0, np.array([0.01 * i]))
        vectors.append(reference.vector())
        reference.executed(np.array([0.001 * i]))
    for i, t in enumerate(made):
        assert np.array_equal(t.observation, vectors[i])
        assert np.array_equal(t.following, vectors[i + 1])
        assert (t.action[0], t.context[0], t.following_context[0]) == (0.001 * i, 100.0 + i, 101.0 + i)
        assert t.reward == pytest.approx((i + 1) ** 2 - i**2 + 0.001 * i)
        assert t.proposal[0] == 99.0 + i
        assert t.first == (i == 0)
        assert not t.incident
    assert one.counts == {"made": 19, "episodes": 1}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), twice=st.floats(0.0, 0.5))
def test_another_order_and_duplicates_change_nothing(seed: int, twice: float) -> None:
    rng = np.random.default_rng(seed)
    messages = stream(30)
    # Nothing comes more than four periods later than what was sent after it.
    sent = np.arange(len(messages)) + rng.uniform(0.0, 4 * 5, len(messages))
    # The first period comes whole: what is before it is not known to be the beginning.
    sent[:5] = np.arange(5) - 10.0
    shuffled = [messages[i] for i in np.argsort(sent)]
    shuffled = [m for m in shuffled for _ in range(1 + (rng.random() < twice))]
    expected, found = feed(assembler(), stream(30)), feed(one := assembler(), shuffled)
    # The newest periods may still wait for what could come.
    assert len(found) >= len(expected) - 10
    for mine, its in zip(found, expected, strict=False):
        for name, value in vars(its).items():
            assert np.array_equal(getattr(mine, name), value), name
    assert one.counts["dropped"] == one.counts["incomplete"] == 0


@settings(max_examples=60, deadline=None)
@given(lost=st.sets(st.integers(5, 30 * 5 - 1), max_size=12))
def test_what_is_lost_drops_its_transitions_and_no_other(lost: set[int]) -> None:
    messages = stream(60)
    kept = [message for i, message in enumerate(messages) if i not in lost]
    found = feed(one := assembler(), kept)
    expected = {t.stamp: t for t in feed(assembler(), messages)}
    hurt = {messages[i][1] for i in lost}
    newest = messages[-1][1]
    for t in found:
        assert t.stamp not in hurt
        assert (t.action, t.context, t.following_context) == (
            expected[t.stamp].action,
            expected[t.stamp].context,
            expected[t.stamp].following_context,
        )
        assert t.reward == pytest.approx(expected[t.stamp].reward)
    # A whole step with a whole successor is there, unless it may still wait.
    for stamp in expected:
        if not {stamp, stamp + PERIOD_NS} & hurt and stamp < newest - 12 * PERIOD_NS:
            assert stamp in {t.stamp for t in found}
    # A period of which nothing came is only seen as a longer step.
    assert one.counts["incomplete"] == len(hurt & {message[1] for message in kept})


def test_late_messages_are_counted_and_ignored() -> None:
    one = assembler()
    feed(one, stream(30))
    before = dict(one.counts)
    assert feed(one, [("imu", START, 9.0), ("execute", START + PERIOD_NS, 9.0)]) == []
    assert one.counts["late"] == before.get("late", 0) + 2
    assert feed(one, stream(5, START + 30 * PERIOD_NS))[-1].action[0] == 0.003


def test_a_gap_and_a_clock_that_jumps_back_begin_a_new_episode() -> None:
    one = assembler()
    first = feed(one, stream(20))
    second = feed(one, stream(20, START + 10**9))
    assert len(first) == len(second) == 19
    assert second[0].first
    # Ten seconds back: the simulation was begun anew.
    third = feed(one, stream(60, START - 10**10))
    assert len(third) == 59
    assert third[0].first
    assert one.counts["episodes"] == 3


def test_an_incident_ends_the_episode_and_needs_no_proposal() -> None:
    messages = list(stream(10, roll=lambda i: 0.5 if i == 9 else 0.0))
    messages = [m for m in messages if not (m[1] == START + 9 * PERIOD_NS and m[0] in ("propose", "execute"))]
    made = feed(one := assembler(), [*messages, *stream(20, START + 10**9)])
    fallen = [t for t in made if t.incident]
    assert [t.stamp for t in fallen] == [START + 8 * PERIOD_NS]
    assert fallen[0].following_context[0] == 0.0
    assert one.counts["incomplete"] == 0
    assert len(made) == 9 + 19


def test_the_reward_is_the_simulated_worlds() -> None:
    task = find_task("minitaur")
    env = task.make(goal_velocity=0.4, max_steps=60)
    env.reset(seed=0)
    reward, behaviour, rng = ForwardVelocity(0.4, 0.02), task.behaviour_policy(), np.random.default_rng(0)
    behaviour.reset(rng)
    place, actions = env.sensors().base_position[0], []
    for _ in range(60):
        action = behaviour.act(np.zeros(120), rng)
        _, given_reward, _, _, _ = env.step(action)
        actions = [action, *actions][:3]
        now = env.sensors().base_position[0]
        assert reward(np.array([place]), np.array([now]), actions) == pytest.approx(given_reward, abs=1e-9)
        place = now
    env.close()
