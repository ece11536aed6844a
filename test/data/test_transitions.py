"""Alignment to the control period: against a plain reference, with what is late, lost, doubled, too fast or fallen."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ssql_ros.contract import Contract, ObservationAssembler
from ssql_ros.data.transitions import COMMAND, CONTEXT, ENDING, LEFT_OUT, PLACE, RECOVERY, TransitionAssembler
from support.toy_robot import EPISODE_GAP_NS, PERIOD_NS, toy_contract

CONTRACT = toy_contract()
SLOW = replace(CONTRACT, inputs={name: replace(one, max_speed=20.0) for name, one in CONTRACT.inputs.items()})
START = 100_000_000_000
Message = tuple[str, int, float]


class Way:
    """The way made, and the newest action: a reward that shows a wrong pairing."""

    input, fields = "imu", ("position.x",)

    def __call__(self, before, after, actions):
        return float(after[0] - before[0]) + float(actions[0][0])


def stream(steps: int, start: int = START, fallen: tuple[int, ...] = ()) -> list[Message]:
    messages = []
    for i in range(steps):
        stamp = start + i * PERIOD_NS
        messages += [
            (PLACE, stamp, float(i * i)),
            ("imu", stamp, 0.5 if i in fallen else 0.001 * i),
            ("joints", stamp, 0.01 * i),
            (COMMAND, stamp, 0.001 * i),
        ]
    return messages


def converted(
    messages: list[Message], n_context: int = 0, contract: Contract = CONTRACT
) -> tuple[list[dict], TransitionAssembler]:
    rows: list[dict] = []
    converter = TransitionAssembler(contract, Way(), rows.append, n_context)
    for role, stamp, value in messages:
        converter.feed(role, stamp, np.full(n_context, value) if role == CONTEXT else np.array([value]))
    converter.finish()
    # Nothing is left out without a reason.
    left_out = sum(converter.counts[name] for name in LEFT_OUT)
    assert converter.counts["periods"] == converter.counts["rows"] + left_out
    assert converter.counts["rows"] == len(rows)
    return rows, converter


def test_every_step_becomes_a_row_with_the_right_parts() -> None:
    rows, converter = converted(stream(40))
    reference, vectors = ObservationAssembler(CONTRACT), []
    for i in range(40):
        stamp = START + i * PERIOD_NS
        reference.read("imu", stamp, 0.0, np.array([0.001 * i]))
        reference.read("joints", stamp, 0.0, np.array([0.01 * i]))
        vectors.append(reference.vector())
        reference.executed(np.array([0.001 * i]))
    assert [row["stamp"] for row in rows] == [START + i * PERIOD_NS for i in range(39)]
    for i, row in enumerate(rows):
        assert np.array_equal(row["observation"], vectors[i])
        assert np.array_equal(row["next_observation"], vectors[i + 1])
        assert row["action"][0] == 0.001 * i
        assert row["reward"] == pytest.approx((i + 1) ** 2 - i**2 + 0.001 * i)
        assert row["margin"] == pytest.approx(0.001 * i - 0.3)
    assert {row["episode"] for row in rows} == {0}
    assert converter.counts["rows"] == 39


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    rate=st.sampled_from([50, 60, 100, 125, 250, 333, 500, 1000]),
    offset=st.integers(-8_000_000, 8_000_000),
    lost=st.floats(0.0, 0.1),
    twice=st.floats(0.0, 0.2),
    late=st.floats(0.0, 0.02),
    seed=st.integers(0, 2**32 - 1),
    leaps=st.lists(st.integers(0, 1000), max_size=3),
)
def test_live_and_from_the_bag_the_same_messages_give_the_same_observations(
    rate, offset, lost, twice, late, seed, leaps
):
    """The shield's assembler, asked when all that belongs to a frame has come, against the rows of a bag."""
    rng, every = np.random.default_rng(seed), round(1e9 / rate)
    sent: list[tuple[float, str, int, float]] = []  # arrival, role, stamp, value
    for i in range(rate):  # of one second
        stamp = START + i * every
        for role, at in (("joints", stamp), ("imu", stamp + offset), (PLACE, stamp)):
            if rng.random() >= lost:
                arrivals = [at + rng.uniform(0.0, late) * 1e9 for _ in range(1 + (rng.random() < twice))]
                # At each leap the robot is put elsewhere.
                leapt = sum(1000 * i >= leap * rate for leap in leaps) if role == "joints" else 0
                value = float(i) * 1e-3 + 2.5 * leapt
                sent += [(arrival, role, at, value) for arrival in arrivals]
    sent += [(START + i * PERIOD_NS + 3e6, COMMAND, START + i * PERIOD_NS, 0.001 * i) for i in range(50)]
    arrived = [message[1:] for message in sorted(sent)]
    stored = [arrived[i] for i in np.argsort(np.arange(len(arrived)) + rng.uniform(0.0, 20.0, len(arrived)))]
    rows, _ = converted(stored, contract=SLOW)
    assert rows or lost > 0.05 or rate == 60
    live = ObservationAssembler(SLOW)
    for role, stamp, value in arrived:
        if role == COMMAND:
            live.executed(np.array([value]), stamp)
        elif role != PLACE:
            live.read(role, stamp, 0.0, np.array([value]))
    frames = {frame.stamp: frame for frame in live.frames.frames}
    for row in rows:
        assert np.array_equal(live.vector(frames[row["stamp"]]), row["observation"])
        # Neither a row nor a history spans a leap.
        for measured in (row["observation"][1:8:2], row["next_observation"][1:8:2]):
            assert np.ptp(measured) < 1.0
        assert abs(row["next_observation"][1] - row["observation"][1]) < 1.0


@pytest.mark.parametrize("rate", [50, 125, 250, 500, 1000])
@pytest.mark.parametrize("offset", [0, 1_000_000, -1_000_000, 8_000_000])
def test_each_observation_is_there_at_once_and_its_history_is_one_entry_a_period(rate, offset):
    """Live, message by message: what is asked for when a frame is ready is what it remains."""
    every, asked = round(1e9 / rate), {}
    live = ObservationAssembler(CONTRACT)
    messages = [(START + i * every, "joints") for i in range(rate)]
    messages += [(stamp + offset, "imu") for stamp, _ in messages]
    for stamp, role in sorted(messages):
        live.read(role, stamp, 0.0, np.array([stamp * 1e-9 if role == "joints" else 0.0]))
        if live.ready:
            asked.setdefault(live.stamp, (live.vector(), stamp, live.missing()))
    assert len(asked) >= 49
    for frame in live.frames.frames:
        if frame.stamp not in asked:
            continue
        vector, when, missing = asked[frame.stamp]
        # Within the skew, or a trigger's interval: nothing waits for a period.
        assert when - frame.stamp <= 5_000_000 + every
        assert np.array_equal(vector, live.vector(frame))
        now, *past = vector[1 : 2 * (1 + 3) : 2]
        for k, position in enumerate(past, start=1):
            if missing <= 2:  # of actions alone
                assert abs(now - position - k * 0.02) <= 0.5 / rate + 1e-6 + (0.004 if rate == 125 else 0.0)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), twice=st.floats(0.0, 0.5))
def test_another_order_and_duplicates_change_nothing(seed: int, twice: float) -> None:
    rng = np.random.default_rng(seed)
    messages = stream(60)
    # Up to eight periods late, well inside the window.
    order = np.argsort(np.arange(len(messages)) + rng.uniform(0.0, 8 * 4, len(messages)))
    shuffled = [messages[i] for i in order for _ in range(1 + (rng.random() < twice))]
    expected, (found, converter) = converted(messages)[0], converted(shuffled)
    assert len(found) == len(expected)
    for mine, its in zip(found, expected, strict=True):
        for name, value in its.items():
            assert np.array_equal(mine[name], value), name
    assert converter.counts["late"] == converter.counts["unanswered"] == converter.counts["unobserved"] == 0


@settings(max_examples=50, deadline=None)
@given(lost=st.sets(st.integers(0, 119), max_size=15))
def test_periods_whose_trigger_is_lost_cost_their_rows_and_no_other(lost: set[int]) -> None:
    messages = stream(120)
    kept = [m for i, m in enumerate(messages) if not (m[0] == "joints" and i // 4 in lost)]
    rows, _ = converted(kept)
    there = {row["stamp"] for row in rows}
    for i in range(119):
        assert ((START + i * PERIOD_NS) in there) == (i not in lost and i + 1 not in lost)


def test_what_is_missing_is_held_no_longer_than_the_contract_allows() -> None:
    # An imu of max_age 0.04 s may be held over one period and a second, not over a third.
    for gap, unobserved in ((1, 0), (2, 0), (3, 1), (5, 3)):
        silent = {("imu", START + (10 + i) * PERIOD_NS) for i in range(gap)}
        rows, converter = converted([m for m in stream(60) if (m[0], m[1]) not in silent])
        assert converter.counts["unobserved"] == unobserved
        assert len(rows) == 59 - (unobserved + 1 if unobserved else 0)
    # A command is held up to the driver's time-out of 0.04 s.
    for gap, unanswered in ((1, 0), (2, 0), (3, 1)):
        silent = {(COMMAND, START + (10 + i) * PERIOD_NS) for i in range(gap)}
        _, converter = converted([m for m in stream(60) if (m[0], m[1]) not in silent])
        assert converter.counts["unanswered"] == unanswered


def test_gaps_and_clock_jumps_cut_episodes() -> None:
    rows, converter = converted([*stream(40), *stream(40, START + 10**10), *stream(40, START - 10**10)])
    assert [row["episode"] for row in rows] == [0] * 39 + [1] * 39 + [2] * 39
    assert converter.counts["clock_jumps"] == 1
    assert not any(row["terminal"] for row in rows)


RECOVERING = round(RECOVERY * 1e9) // PERIOD_NS


@pytest.mark.parametrize("fallen", [(20,), (20, 21, 22), (20, 23, 31)])
def test_after_a_tilt_an_episode_begins_when_the_state_was_safe_for_long_enough(fallen: tuple[int, ...]) -> None:
    rows, converter = converted(stream(100, fallen=fallen))
    begun = fallen[-1] + RECOVERING
    stamps = [START + i * PERIOD_NS for i in (*range(20), *range(begun, 99))]
    assert [row["stamp"] for row in rows] == stamps
    assert [row["episode"] for row in rows] == [0] * 20 + [1] * (99 - begun)
    assert [i for i, row in enumerate(rows) if row["terminal"]] == [19]
    assert [i for i, row in enumerate(rows) if row["incident"]] == [19]
    counts = converter.counts
    assert (counts["incidents"], counts["inside"]) == (1, len(fallen))
    assert counts["recovering"] == begun - 20 - len(fallen)
    # What follows is what it would have been without the fall: the history is over it.
    undisturbed = converted(stream(100))[0]
    for mine, its in zip(rows[20:], undisturbed[begun:], strict=False):
        assert np.array_equal(mine["observation"], its["observation"])


def test_after_an_incident_a_reset_begins_an_episode_at_once() -> None:
    # Whoever ran it says that the episode has ended: history and recovery begin anew.
    told = [*stream(40, fallen=(20,)), (ENDING, START + 20 * PERIOD_NS, 0.0)]
    rows, converter = converted(sorted(told, key=lambda message: message[1]))
    assert [row["stamp"] for row in rows] == [START + i * PERIOD_NS for i in (*range(20), *range(21, 39))]
    assert [row["episode"] for row in rows] == [0] * 20 + [1] * 18
    first = rows[20]["observation"]
    assert np.array_equal(first[2:4], first[:2])  # past frames are the first one
    assert converter.counts["recovering"] == 0
    # So does a pause longer than the contract's gap.
    pause = EPISODE_GAP_NS + PERIOD_NS
    rows, _ = converted([*stream(21, fallen=(20,)), *stream(10, START + 20 * PERIOD_NS + pause)])
    assert [row["episode"] for row in rows] == [0] * 20 + [1] * 9


def test_an_episode_that_was_ended_is_not_joined_to_the_next() -> None:
    told = [*stream(40), (ENDING, START + 19 * PERIOD_NS, 0.0)]
    rows, _ = converted(sorted(told, key=lambda message: message[1]))
    assert [row["stamp"] for row in rows] == [START + i * PERIOD_NS for i in (*range(19), *range(20, 39))]
    assert [row["episode"] for row in rows] == [0] * 19 + [1] * 19
    assert not any(row["terminal"] for row in rows)


@settings(max_examples=40, deadline=None)
@given(every=st.integers(1_000_000, 19_000_000), jitter=st.floats(0.0, 0.3), seed=st.integers(0, 2**32 - 1))
def test_a_faster_trigger_gives_transitions_of_one_control_period(every: int, jitter: float, seed: int) -> None:
    # Else a control period may have no trigger in it.
    assume((0.5 + jitter) * every < 0.45 * PERIOD_NS)
    rng = np.random.default_rng(seed)
    end = START + 60 * PERIOD_NS
    stamps = np.arange(START, end, every)
    stamps = (stamps + jitter * every * rng.uniform(-0.5, 0.5, len(stamps))).astype(int).tolist()
    messages = [("joints", stamp, stamp * 1e-12) for stamp in stamps]
    messages += [message for message in stream(60) if message[0] != "joints"]
    rows, converter = converted(sorted(messages, key=lambda message: message[1]))
    apart = np.diff([row["stamp"] for row in rows])
    # Half a trigger's own period, and its jitter, is as near to the grid as a frame can be at either end.
    assert np.abs(apart - PERIOD_NS).max() <= (1.0 + 2 * jitter) * every + 1
    for row in rows:
        # The newest command until half a period after the frame: that which most of the period was driven by.
        newest = (row["stamp"] + PERIOD_NS // 2 - START) // PERIOD_NS
        assert row["action"][0] == pytest.approx(0.001 * newest)
    assert {row["episode"] for row in rows} == {0}
    assert len(rows) >= 60 * PERIOD_NS / apart.mean() - 3
    counts = converter.counts
    assert counts["between"] + counts["periods"] - counts["lost"] == len(stamps)


def test_a_trigger_of_500_hz_says_the_same_as_one_at_the_control_rate() -> None:
    slow = stream(60)
    fast = [
        ("joints", stamp + i * 2_000_000, value if i == 0 else -1.0)
        for role, stamp, value in slow
        if role == "joints"
        for i in range(10 if stamp < slow[-1][1] else 1)
    ]
    others = [message for message in slow if message[0] != "joints"]
    rows, converter = converted(sorted([*others, *fast], key=lambda message: message[1]))
    expected, _ = converted(slow)
    assert converter.counts["between"] == 59 * 9
    assert len(rows) == len(expected) == 59
    for mine, its in zip(rows, expected, strict=True):
        assert all(np.array_equal(mine[name], value) for name, value in its.items())


def test_a_trigger_slower_than_the_control_period_gives_no_transition_and_says_so() -> None:
    messages = [message for i, message in enumerate(stream(60)) if message[0] != "joints" or i // 4 % 2 == 0]
    rows, converter = converted(messages)
    assert rows == []
    assert (converter.counts["unfollowed"], converter.counts["lost"], converter.counts["periods"]) == (30, 29, 59)


def test_context_is_that_of_the_proposal_that_answers_the_frame() -> None:
    messages = [*stream(40), *((CONTEXT, START + i * PERIOD_NS, float(i)) for i in range(40) if i not in (10, 39))]
    rows, _ = converted(sorted(messages, key=lambda message: message[1]), n_context=3)
    for i, row in enumerate(rows):
        for name, at in (("context", i), ("next_context", i + 1)):
            assert np.array_equal(row[name], np.full(3, np.nan if at in (10, 39) else at), equal_nan=True)


def test_commands_without_a_stamp_answer_the_newest_frame() -> None:
    messages = [(role, 0 if role == COMMAND else stamp, value) for role, stamp, value in stream(40)]
    rows, converter = converted(messages)
    assert [row["action"][0] for row in rows] == [0.001 * i for i in range(39)]
    assert converter.counts["unstamped"] == 0
    messages = [(role, 0 if role == "imu" else stamp, value) for role, stamp, value in stream(40)]
    rows, converter = converted(messages)
    assert (rows, converter.counts["unstamped"], converter.counts["unobserved"]) == ([], 40, 40)


def test_memory_does_not_grow_with_what_is_fed() -> None:
    converter = TransitionAssembler(CONTRACT, Way(), lambda row: None)
    held = 0
    for i in range(20_000):
        stamp = START + i * PERIOD_NS
        # No trigger comes: nothing of this will ever be asked for.
        converter.feed("imu", stamp, np.zeros(1))
        converter.feed(COMMAND, stamp, np.zeros(1))
        assembler = converter._assembler
        buffers = [*converter._held.values(), assembler._actions, assembler.frames.sources("imu")[0].readings]
        held = max(held, *(len(buffer.stamps) for buffer in buffers))
    assert held < 500
