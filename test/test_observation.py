"""Observations: assembled as the contract says, whatever is lost, late, told twice or out of order."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import Imu, JointState
from toy_robot import ACTION_SCALE, EPISODE_GAP_NS, MAX_SKEW_NS, PAST_ACTIONS, PAST_FRAMES, PERIOD_NS, toy_contract

from ssql_ros.behaviour.noisy_trot import NoiseSettings, NoisyTrot
from ssql_ros.spec import ObservationAssembler, find_contract, load_contract, messages
from ssql_sim.minitaur import MinitaurEnv

CONTRACT = toy_contract()
MS = 1_000_000


class Reference:
    """What the contract's words say, told by looking through everything that ever came."""

    def __init__(self):
        self.readings: list[tuple[str, int, float, float]] = []
        self.episodes: list[list[dict]] = []

    def latest(self, name: str, stamp: int | None = None) -> tuple[str, int, float, float] | None:
        found = [r for r in self.readings if r[0] == name and stamp in (None, r[1])]
        return found[-1] if found else None

    def read(self, name: str, stamp: int, arrival: float, value: float) -> bool:
        self.readings.append((name, stamp, arrival, value))
        joints, imu = self.latest("joints"), self.latest("imu")
        if joints is None or imu is None or abs(imu[1] - joints[1]) > MAX_SKEW_NS:
            return False
        last = self.episodes[-1][-1]["stamp"] if self.episodes else None
        if joints[1] == last:
            return False
        if last is None or joints[1] < last or joints[1] - last > EPISODE_GAP_NS:
            self.episodes.append([])
        frame = {"stamp": joints[1], "imu_stamp": imu[1], "values": [imu[3], joints[3]], "action": None}
        self.episodes[-1].append(frame)
        return True

    def act(self, action: float) -> None:
        if self.episodes:
            self.episodes[-1][-1]["action"] = action

    def arrival(self) -> float:
        frame = self.episodes[-1][-1]
        return min(self.latest("joints", frame["stamp"])[2], self.latest("imu", frame["imu_stamp"])[2])

    def vector(self) -> list[float]:
        episode = self.episodes[-1]
        now = len(episode) - 1
        frames = [episode[max(0, now - i)]["values"] for i in range(1 + PAST_FRAMES)]
        done: list[float] = []  # oldest first; a frame without a decision went on with the action before
        for frame in episode[:now]:
            if frame["action"] is not None:
                done.append(frame["action"])
            elif done:
                done.append(done[-1])
        actions = [done[max(0, len(done) - i)] if done else 0.0 for i in range(1, 1 + PAST_ACTIONS)]
        roll, position = frames[0]
        scaled = [ACTION_SCALE * action for action in actions]
        return [*(value for frame in frames for value in frame), *scaled, 2.0 * roll - position]


@st.composite
def streams(draw) -> list[tuple]:
    """Events in their order of arrival: (name, stamp), or ("act",)."""
    period = st.sampled_from([20, 20, 20, 20, 20, 40, 100, 101, 1000, 0, -20, -500])
    jitter = st.sampled_from([0, 0, 0, 1, -1, 4, -4, 5, -5, 6, -6])
    events, now, place = [], draw(st.integers(0, 10)) * 1000, 0
    for _ in range(draw(st.integers(1, 25))):
        now += draw(period)
        for name in draw(st.permutations(["joints", "imu"])):
            stamp = now + (draw(jitter) if name == "imu" else 0)
            for _ in range(draw(st.sampled_from([1, 1, 1, 1, 0, 2]))):  # lost: 0, duplicated: 2
                place += 1
                delay = draw(st.sampled_from([0, 0, 0, 0, 0, 1.5, 2.5, 6.5]))  # late by so many messages
                events.append((place + delay, name, stamp * MS))
        for _ in range(draw(st.sampled_from([1, 1, 0, 2]))):
            place += 1
            events.append((place, "act"))
    return [event[1:] for event in sorted(events, key=lambda event: event[0])]


@settings(max_examples=400, deadline=None)
@given(streams())
def test_stream_gives_the_frames_and_histories_of_the_reference(stream):
    assembler, reference = ObservationAssembler(CONTRACT), Reference()
    for i, event in enumerate(stream):
        value = 1.0 + i  # of its own, so that nothing can be mistaken for another
        if event == ("act",):
            reference.act(value)
            assembler.executed(np.array([value]))
        else:
            name, stamp = event
            completes = reference.read(name, stamp, 0.1 * i, value)
            assert assembler.read(name, stamp, 0.1 * i, np.array([value])) == completes
        assert assembler.episode == len(reference.episodes)
        if reference.episodes:
            assert assembler.stamp == reference.episodes[-1][-1]["stamp"]
            assert assembler.vector().tolist() == reference.vector()
            assert assembler.arrival == reference.arrival()


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


@pytest.mark.parametrize(
    ("skew_ns", "whole"), [(5 * MS, True), (-5 * MS, True), (5 * MS + 1, False), (-5 * MS - 1, False)]
)
def test_other_input_may_lie_max_skew_from_the_trigger_and_no_further(skew_ns, whole):
    assembler = fed(1)
    assert not assembler.read("imu", PERIOD_NS + skew_ns, 0.0, np.array([0.0]))
    assert assembler.read("joints", PERIOD_NS, 0.0, np.array([0.0])) == whole


@pytest.mark.parametrize(
    ("gap_ns", "episodes"), [(EPISODE_GAP_NS, 1), (EPISODE_GAP_NS + 1, 2), (-1, 2), (-PERIOD_NS, 2), (1, 1)]
)
def test_longer_pause_or_a_step_back_in_time_begins_a_new_history(gap_ns, episodes):
    assembler = fed(6)
    stamp = 5 * PERIOD_NS + gap_ns
    assembler.read("imu", stamp, 0.0, np.array([3.0]))
    assembler.read("joints", stamp, 0.0, np.array([4.0]))
    assert assembler.episode == episodes
    assert (assembler.vector().tolist() == [3, 4] * 4 + [0, 0, 2]) == (episodes == 2)


def test_readings_that_make_no_frame_do_not_make_the_observation_younger():
    # An inertial unit whose clock has drifted: every message is fresh, yet no frame was whole for a second.
    assembler = fed(1)
    for i in range(1, 50):
        assembler.read("imu", i * PERIOD_NS - 6 * MS, i * 0.02, np.array([0.0]))
        assert not assembler.read("joints", i * PERIOD_NS, i * 0.02, np.array([0.0]))
    assert (assembler.stamp, assembler.arrival) == (0, 0.0)


def test_observation_is_as_old_as_its_oldest_reading_and_younger_when_that_is_told_again():
    assembler = ObservationAssembler(CONTRACT)
    assembler.read("imu", 0, 0.25, np.array([0.0]))
    assembler.read("joints", 0, 0.5, np.array([0.0]))
    assert assembler.arrival == 0.25
    assert not assembler.read("joints", 0, 0.75, np.array([0.0]))
    assert assembler.arrival == 0.25
    assert not assembler.read("imu", 0, 1.0, np.array([0.0]))
    assert assembler.arrival == 0.75


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
    controller = NoisyTrot(NoiseSettings(sigma=0.5, rho=0.85))
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
        controller.reset(episode)
        stamp += 1_000_000_000
        publish()
        assert assembler.episode == episode
        np.testing.assert_array_equal(assembler.vector(), observation)
        ended, steps, action = False, 0, np.zeros(8)
        while not ended:
            # Now and then nothing is decided within a period: the driver goes on with the command before.
            if steps == 0 or steps % 7:
                action = controller.next()
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


def test_action_for_a_frame_of_long_ago_or_of_another_episode_changes_nothing():
    assembler = ObservationAssembler(CONTRACT)

    def frame(stamp):
        assembler.read("imu", stamp, 0.0, np.zeros(1))
        assembler.read("joints", stamp, 0.0, np.zeros(1))

    for k in (1, 2, 3):
        frame(k * PERIOD_NS)
        assembler.executed(np.array([float(k)]))
    before = assembler.vector()
    assembler.executed(np.array([9.0]), PERIOD_NS)
    np.testing.assert_array_equal(assembler.vector(), before)
    frame(10**12)
    fresh = assembler.vector()
    assembler.executed(np.array([9.0]), 3 * PERIOD_NS)
    np.testing.assert_array_equal(assembler.vector(), fresh)
    assert assembler.followed
