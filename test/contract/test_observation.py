"""Observations: assembled as the contract says, whatever is lost, late, told twice or out of order."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import Imu, JointState

from ssql_ros.contract import ContractError, ObservationAssembler, find_contract, load_contract, messages
from ssql_ros.robots.noise import Noise, blind_actions
from ssql_ros.robots.tasks import find_task
from ssql_sim.minitaur import MinitaurEnv
from support.toy_robot import (
    ACTION_SCALE,
    EPISODE_GAP_NS,
    MAX_SKEW_NS,
    PAST_ACTIONS,
    PAST_FRAMES,
    PERIOD_NS,
    toy_contract,
)

CONTRACT = toy_contract()
MS = 1_000_000


class Reference:
    """What the words of `contract.frames` say, found by looking through all that ever came."""

    def __init__(self):
        self.readings: dict[str, dict[int, float]] = {"joints": {}, "imu": {}}
        self.actions: dict[int, float] = {}

    def frames(self) -> list[tuple[int, int, list[float] | None]]:
        """(stamp, control periods since the one before, values) of each frame; 0 periods: a new history."""
        found, due, taken, before = [], 0, None, None
        for stamp in sorted(self.readings["joints"]):
            fresh = taken is None or stamp - taken > EPISODE_GAP_NS
            if not fresh:
                # Half of the interval to the trigger before is what a trigger may come too early by.
                if due - stamp > min(stamp - before, PERIOD_NS) / 2:
                    before = stamp
                    continue
                steps = 1 + max(0, math.floor((stamp - due) / PERIOD_NS + 0.5))
                on_grid = due + (steps - 1) * PERIOD_NS
                due = on_grid + PERIOD_NS + (stamp - on_grid) // 8
            else:
                steps, due = 0, stamp + PERIOD_NS
            found.append((stamp, steps, self.values(stamp)))
            taken = before = stamp
        return found

    def values(self, stamp: int) -> list[float] | None:
        imu = self.readings["imu"]
        within = [at for at in imu if stamp - MAX_SKEW_NS <= at <= stamp]
        after = [at for at in imu if stamp < at <= stamp + MAX_SKEW_NS]
        held = [at for at in imu if stamp - 2 * PERIOD_NS <= at <= stamp]
        for choice in (max(within, default=None), min(after, default=None), max(held, default=None)):
            if choice is not None:
                return [imu[choice], self.readings["joints"][stamp]]
        return None

    def newest(self) -> tuple[int, list[float]] | None:
        """Stamp and vector of the newest whole frame."""
        frames = self.frames()
        while frames and frames[-1][2] is None:
            frames.pop()
        if not frames:
            return None
        now, steps, values = frames.pop()
        whole, begin = now, now
        past: list[tuple[int, list[float] | None]] = []  # one entry a control period, newest first
        while frames and steps and whole - frames[-1][0] <= EPISODE_GAP_NS:
            stamp, before, there = frames.pop()
            past += [(now - lost * PERIOD_NS, None) for lost in range(1, steps)]
            past.append((stamp, there))
            now, steps = stamp, before
            if there is not None:
                whole = begin = stamp
        return self.frames_newest(), self.vector(values, past, begin)

    def frames_newest(self) -> int:
        return next(stamp for stamp, _, values in reversed(self.frames()) if values is not None)

    def vector(self, values, past, begin) -> list[float]:
        past = [entry for entry in past if entry[0] >= begin]
        there = [entry[1] for entry in past]
        oldest = next((v for v in reversed(there) if v is not None), values)
        frames = [values]
        for k in range(PAST_FRAMES):
            frames.append(next((v for v in there[k:] if v is not None), oldest))
        mine = sorted(stamp for stamp in self.actions if stamp >= begin)
        half = PERIOD_NS // 2
        first = 0.0
        if mine and mine[0] < self.frames_newest() - half:
            first = self.actions[max(at for at in mine if at <= mine[0] + half and at < self.frames_newest())]
        actions, next_stamp = [], self.frames_newest()
        for k in range(PAST_ACTIONS):
            now, next_stamp = next_stamp, past[k][0] if k < len(past) else 0
            done = [at for at in mine if at <= next_stamp + half and at < now] if k < len(past) else []
            actions.append(self.actions[max(done)] if done else first)
        scaled = [ACTION_SCALE * action for action in actions]
        roll, position = values
        return [*(value for frame in frames for value in frame), *scaled, 2.0 * roll - position]


@st.composite
def streams(draw) -> list[tuple[str, int, float]]:
    """Messages and actions in their order of arrival: (name, stamp, value)."""
    period = st.sampled_from([20, 20, 20, 20, 40, 60, 100, 101, 300, 8, 4, 2, 16, 19, 21])
    offset, jitter = draw(st.sampled_from([0, 0, 1, -1, 5, -5, 8, -8, 30])), st.sampled_from([0, 0, 0, 1, -1])
    events, now, place = [], draw(st.integers(1, 10)) * 1000, 0
    for _ in range(draw(st.integers(1, 25))):
        now += draw(period)
        for name in draw(st.permutations(["joints", "imu"])):
            stamp = (now + (offset + draw(jitter) if name == "imu" else 0)) * MS
            for _ in range(draw(st.sampled_from([1, 1, 1, 1, 0, 2]))):  # lost: 0, duplicated: 2
                place += 1
                delay = draw(st.sampled_from([0, 0, 0, 0, 0, 1.5, 2.5, 6.5]))  # late by so many messages
                events.append((place + delay, name, stamp, 1e-3 * (stamp // MS) + (0.5 if name == "imu" else 0.0)))
        for late in draw(st.sampled_from([(0,), (0,), (), (0, 3), (15,)])):
            place += 1
            events.append((place + draw(st.sampled_from([0, 0, 3.5])), "act", (now + late) * MS, float(place)))
    return [event[1:] for event in sorted(events, key=lambda event: event[0])]


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(streams())
def test_stream_gives_the_frames_and_histories_of_the_reference(stream):
    assembler, reference = ObservationAssembler(CONTRACT), Reference()
    newest = 0
    for name, stamp, value in stream:
        if name == "act":
            reference.actions[stamp] = value
            assembler.executed(np.array([value]), stamp)
        elif name == "imu" or stamp > newest - 400 * MS:
            reference.readings[name][stamp] = value
            assembler.read(name, stamp, 0.0, np.array([value]))
            newest = max(newest, stamp) if name == "joints" else newest
        expected = reference.newest()
        assert assembler.stamp == (expected[0] if expected else None)
        if expected:
            assert assembler.vector().tolist() == expected[1]


def fed(steps: int, act: bool = True) -> ObservationAssembler:
    """`steps` whole frames: roll 10, 11, ..., joint 0, 1, ..., action 100, 101, ... after each but the last."""
    assembler = ObservationAssembler(CONTRACT)
    for i in range(steps):
        assembler.read("imu", i * PERIOD_NS, i * 0.02, np.array([10.0 + i]))
        assert assembler.read("joints", i * PERIOD_NS, i * 0.02, np.array([float(i)]))
        if act and i < steps - 1:
            assembler.executed(np.array([100.0 + i]))
    return assembler


def test_before_the_first_frame_there_is_no_observation():
    assembler = ObservationAssembler(CONTRACT)
    assert (assembler.stamp, assembler.episode, assembler.arrival) == (None, 0, -math.inf)
    assert np.isnan(assembler.vector()[: CONTRACT.frame_size]).all()
    assert not assembler.read("joints", 0, 0.0, np.array([1.0]))
    assert assembler.stamp is None


def test_history_is_newest_first_and_holds_as_many_as_the_contract_asks():
    expected = [17, 7, 16, 6, 15, 5, 14, 4, 0.5 * 106, 0.5 * 105, 2 * 17 - 7]
    assert fed(8).vector().tolist() == expected


def test_first_frame_and_first_action_stand_in_for_those_before_them():
    assert fed(1).vector().tolist() == [10, 0] * 4 + [0, 0, 20]
    assert fed(2).vector().tolist() == [11, 1] + [10, 0] * 3 + [50, 50, 21]
    assert fed(3, act=False).vector().tolist() == [12, 2, 11, 1] + [10, 0] * 2 + [0, 0, 22]


def test_second_action_for_a_frame_replaces_the_first_and_counts_from_the_next_frame_on():
    assembler = fed(3)
    before = assembler.vector().tolist()
    assembler.executed(np.array([7.0]))
    assembler.executed(np.array([8.0]))
    assert assembler.vector().tolist() == before
    assembler.read("imu", 3 * PERIOD_NS, 0.0, np.array([0.0]))
    assembler.read("joints", 3 * PERIOD_NS, 0.0, np.array([0.0]))
    assert assembler.vector()[8:10].tolist() == [0.5 * 8, 0.5 * 101]


def test_action_is_kept_as_it_was_when_it_was_executed():
    assembler, action = fed(1), np.array([5.0])
    assembler.executed(action)
    action[0] = 6.0
    assembler.read("imu", PERIOD_NS, 0.0, np.array([0.0]))
    assembler.read("joints", PERIOD_NS, 0.0, np.array([0.0]))
    assert assembler.vector()[8:10].tolist() == [2.5, 2.5]


@pytest.mark.parametrize("skew_ns", [5 * MS, -5 * MS, 0])
def test_other_input_may_lie_max_skew_from_the_trigger(skew_ns):
    assembler = fed(1)
    assembler.read("imu", PERIOD_NS + skew_ns, 0.0, np.array([7.0]))
    assert assembler.read("joints", PERIOD_NS, 0.0, np.array([0.0]))
    assert assembler.frame[0] == 7.0


@pytest.mark.parametrize(("skew_ns", "held"), [(5 * MS + 1, 10.0), (-5 * MS - 1, 7.0)])
def test_what_lies_further_off_is_held_over_or_belongs_to_the_next(skew_ns, held):
    assembler = fed(1)
    assembler.read("imu", PERIOD_NS + skew_ns, 0.0, np.array([7.0]))
    assert assembler.read("joints", PERIOD_NS, 0.0, np.array([0.0]))
    assert assembler.frame[0] == held


def test_nothing_is_held_longer_than_its_max_age():
    assembler = fed(1)
    for k in (1, 2, 3):
        assert assembler.read("joints", k * PERIOD_NS, 0.0, np.array([0.0])) == (k < 3)
    assert assembler.frames.missing(3 * PERIOD_NS) == {"imu": ["roll"]}


@pytest.mark.parametrize(("gap_ns", "episodes"), [(EPISODE_GAP_NS, 1), (EPISODE_GAP_NS + 1, 2)])
def test_longer_pause_begins_a_new_history(gap_ns, episodes):
    assembler = fed(6)
    stamp = 5 * PERIOD_NS + gap_ns
    assembler.read("imu", stamp, 0.0, np.array([3.0]))
    assembler.read("joints", stamp, 0.0, np.array([4.0]))
    assert assembler.episode == episodes
    assert (assembler.vector().tolist() == [3, 4] * 4 + [0, 0, 2]) == (episodes == 2)


def test_a_clock_that_is_set_back_begins_a_new_history_and_a_late_message_does_not():
    assembler = fed(200)
    for stamp in (199 * PERIOD_NS - 15 * MS, 100 * PERIOD_NS):  # in time to be sorted in; too late for that
        assert not assembler.read("joints", stamp, 0.0, np.array([4.0]))
    assert (assembler.episode, assembler.stamp) == (1, 199 * PERIOD_NS)
    for name in ("imu", "joints"):
        assembler.read(name, PERIOD_NS, 0.0, np.array([3.0]))
    assert (assembler.episode, assembler.stamp) == (2, PERIOD_NS)


def test_a_clock_that_is_set_back_a_little_begins_a_new_history_once_it_is_seen_to_go_on():
    assembler = fed(60)
    for k in range(8):
        for name in ("imu", "joints"):
            assembler.read(name, 10 * MS + k * PERIOD_NS, 0.0, np.array([3.0]))
    assert assembler.episode == 2
    assert assembler.stamp == 10 * MS + 7 * PERIOD_NS


def test_observation_is_as_old_as_its_oldest_reading_and_not_younger_when_that_is_told_again():
    assembler = ObservationAssembler(CONTRACT)
    assembler.read("imu", 0, 0.25, np.array([0.0]))
    assembler.read("joints", 0, 0.5, np.array([0.0]))
    assert assembler.arrival == 0.25
    assert not assembler.read("imu", 0, 1.0, np.array([0.0]))
    assert assembler.arrival == 0.25
    # But where time stands still, as in a simulation that waits.
    assembler.repeat("imu", 0, 1.0)
    assert assembler.arrival == 0.5


def test_halves_of_a_robot_are_merged_by_joint_and_foreign_joints_are_ignored():
    contract, nan = toy_contract(n_action=2), math.nan
    for order in ((0, 1), (1, 0)):
        assembler = ObservationAssembler(contract)
        halves = [np.array([1.0, nan]), np.array([nan, 2.0])]
        for k in range(3):
            assembler.read("imu", k * PERIOD_NS, 0.0, np.array([0.5]))
            assert not assembler.read("joints", k * PERIOD_NS, 0.0, np.full(2, nan))
            assembler.read("joints", k * PERIOD_NS, 0.0, halves[order[0]])
            assert not (assembler.ready and assembler.stamp == k * PERIOD_NS)
            assembler.read("joints", k * PERIOD_NS, 0.0, halves[order[1]])
            assert assembler.ready
            assert assembler.stamp == k * PERIOD_NS
            assert assembler.frame.tolist() == [0.5, 1.0, 2.0]
    # The half that falls silent is held for its age.
    for k in (3, 4, 5):
        assembler.read("imu", k * PERIOD_NS, 0.0, np.array([0.5]))
        assert assembler.read("joints", k * PERIOD_NS, 0.0, halves[0]) == (k < 5)


@pytest.mark.parametrize("parts", [False, True])
def test_what_contradicts_itself_at_one_stamp_is_an_error_and_is_not_used(parts):
    contract = toy_contract(n_action=2)
    assembler = ObservationAssembler(contract)
    first, second = np.array([1.0, 2.0]), np.array([0.0, math.nan if parts else 2.0])
    assembler.read("imu", 0, 0.0, np.array([0.5]))
    assembler.read("joints", 0, 0.0, first)
    assembler.read("joints", 0, 0.0, first.copy())
    assert assembler.stamp == 0
    with pytest.raises(ContractError, match="joint0 is 1 and 0 in position"):
        assembler.read("joints", 0, 0.0, second)
    assert assembler.stamp is None


def test_a_history_that_is_not_whole_says_how_much_of_it_stands_in():
    assembler = fed(8)
    assert assembler.missing() == 0
    assert fed(1).missing() == PAST_FRAMES + PAST_ACTIONS
    # A period is lost: the frame before stands in for it, and what was executed is not known.
    for stamp in (9 * PERIOD_NS,):
        assembler.read("imu", stamp, 0.0, np.array([0.0]))
        assembler.read("joints", stamp, 0.0, np.array([0.0]))
    assert assembler.vector()[2:8].tolist() == [17, 7, 17, 7, 16, 6]
    assert assembler.missing() == 3


def test_input_that_the_frame_does_not_read_is_refused():
    with pytest.raises(KeyError, match="odometry"):
        ObservationAssembler(CONTRACT).read("odometry", 0, 0.0, np.zeros(1))


# Against the simulated robot


@pytest.fixture
def env():
    env = MinitaurEnv(max_steps=120)
    yield env
    env.close()


def test_minitaur_s_observation_comes_out_of_its_sensors_over_episodes_and_resets(env):
    contract = load_contract(find_contract("minitaur"))
    assembler = ObservationAssembler(contract)
    readers = {name: messages.InputReader(contract, contract.inputs[name]) for name in contract.observed_inputs}
    controller = find_task("minitaur").controller(Noise("A", sigma=0.5, rho=0.85))
    stamp, lengths = 0, []

    def publish() -> None:
        sensors, imu = env.sensors(), Imu()
        messages.set_stamp(imu, stamp)
        messages.fill_quaternion(imu.orientation, sensors.orientation)
        messages.fill_vector3(imu.angular_velocity, sensors.angular_velocity)
        joints = messages.fill_joint_state(JointState(), stamp, sensors.joint_names, position=sensors.joint_position)
        assert not assembler.read("imu", messages.stamp_of(imu), 0.0, readers["imu"](imu))
        assert assembler.read("joint_states", messages.stamp_of(joints), 0.0, readers["joint_states"](joints))

    for episode in range(1, 4):
        observation, _ = env.reset(seed=episode)
        actions = blind_actions(controller, episode)
        stamp += 1_000_000_000
        publish()
        assert assembler.episode == episode
        np.testing.assert_array_equal(assembler.vector(), observation)
        ended, steps, action = False, 0, np.zeros(8)
        while not ended:
            # Now and then nothing is decided within a period: the driver goes on with the command before.
            if steps == 0 or steps % 7:
                action = next(actions)
                assembler.executed(np.full(8, np.nan))
                assembler.executed(action)
            command = contract.joint_command(action)
            observation, _, terminated, truncated, info = env.step_joint_positions(command)
            stamp, steps, ended = stamp + PERIOD_NS, steps + 1, terminated or truncated
            publish()
            np.testing.assert_allclose(assembler.vector(), observation, rtol=0, atol=1e-15)
            margin, _ = contract.margin(assembler.frame)
            assert margin == pytest.approx(info["margin"], abs=1e-15)
        lengths.append(steps)
    assert min(lengths) > 5  # longer than the history


# Actions that are heard of late, as by a node beside the shield


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["in time", "late", "twice", "never"]), min_size=1, max_size=12))
def test_action_that_is_heard_of_after_the_next_frame_leaves_the_same_history(told):
    prompt, late = ObservationAssembler(CONTRACT), ObservationAssembler(CONTRACT)
    pending = None
    for k, how in enumerate(told, start=1):
        for assembler in (prompt, late):
            assembler.read("imu", k * PERIOD_NS, 0.0, np.array([0.1 * k]))
            assembler.read("joints", k * PERIOD_NS, 0.0, np.array([0.2 * k]))
        if pending is not None:
            assert not late.followed
            late.executed(*pending)
            assert late.followed
        np.testing.assert_array_equal(late.vector(), prompt.vector())
        action, pending = np.array([float(k)]), None
        if how == "never":
            continue
        prompt.executed(action)
        if how == "late":
            pending = (action, k * PERIOD_NS)
        else:
            late.executed(action if how == "in time" else -action, k * PERIOD_NS)
            late.executed(action, k * PERIOD_NS + 1)


def test_action_of_another_episode_changes_nothing():
    assembler = fed(4)
    for name in ("imu", "joints"):
        assembler.read(name, 10**12, 0.0, np.zeros(1))
    fresh = assembler.vector()
    assembler.executed(np.array([9.0]), 3 * PERIOD_NS)
    np.testing.assert_array_equal(assembler.vector(), fresh)
    assert assembler.followed
