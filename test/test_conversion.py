"""From bags to transitions: against a plain reference, with what is late, lost, doubled or damaged, and end to end."""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_robot import PERIOD_NS, toy_contract

from ssql_ros.bags import BagError
from ssql_ros.bags.roles import block_reader_for
from ssql_ros.bags.alignment import LEFT_OUT, Aligner
from ssql_ros.bags.conversion import convert
from ssql_ros.bags.reader import TopicInfo
from ssql_ros.bags.roles import COMMAND, PLACE, Role, match_topics, reader_for
from ssql_ros.bench.bag import make_bag
from ssql_ros.cli.main import main
from ssql_ros.dataset import Column, DataSet, DataSetError, DataSetWriter, transition_columns
from ssql_ros.rewards import ForwardVelocity, reward_of
from ssql_ros.spec import ObservationAssembler
from ssql_ros.tasks import find_task

CONTRACT = toy_contract()
MINITAUR = find_task("minitaur").contract()
START = 100_000_000_000
Message = tuple[str, int, float]


class Way:
    """The way made, and the newest action: a reward that shows a wrong pairing."""

    input, fields = "imu", ("position.x",)

    def __call__(self, before, after, actions):
        return float(after[0] - before[0]) + float(actions[0][0])


def stream(steps: int, start: int = START, fallen: int = -1) -> list[Message]:
    messages = []
    for i in range(steps):
        stamp = start + i * PERIOD_NS
        messages += [
            (PLACE, stamp, float(i * i)),
            ("imu", stamp, 0.5 if i == fallen else 0.001 * i),
            ("joints", stamp, 0.01 * i),
            (COMMAND, stamp, 0.001 * i),
        ]
    return messages


def converted(messages: list[Message]) -> tuple[list[dict], Aligner]:
    rows: list[dict] = []
    converter = Aligner(CONTRACT, Way(), rows.append)
    for role, stamp, value in messages:
        converter.feed(role, stamp, np.array([value]))
    converter.finish()
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
        assert np.array_equal(row["following"], vectors[i + 1])
        assert row["action"][0] == 0.001 * i
        assert row["reward"] == pytest.approx((i + 1) ** 2 - i**2 + 0.001 * i)
        assert row["margin"] == pytest.approx(0.001 * i - 0.3)
    assert {row["episode"] for row in rows} == {0}
    assert converter.counts["rows"] == 39


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


def test_gaps_jumps_and_incidents_cut_episodes() -> None:
    rows, converter = converted([*stream(40), *stream(40, START + 10**10), *stream(40, START - 10**10)])
    assert [row["episode"] for row in rows] == [0] * 39 + [1] * 39 + [2] * 39
    assert converter.counts["clock_jumps"] == 1
    rows, converter = converted([*stream(40, fallen=20), *stream(40, START + 10**10)])
    assert [row["terminal"] for row in rows[:20]] == [False] * 19 + [True]
    assert rows[19]["incident"]
    assert len(rows) == 20 + 39
    assert converter.counts["after_incident"] == 19


# Files.


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bags") / "walk"
    make_bag(path, "minitaur", 1.2, 0)
    return path


def test_blocks_read_what_single_messages_say(bag: Path) -> None:
    from ssql_ros.bags import raw_messages

    reward = reward_of(MINITAUR, 0.3)
    topics = {"/joint_states": "joint_states", "/imu/data": "imu", "/joint_commands": COMMAND, "/odom": PLACE}
    data: dict[str, list[bytes]] = {topic: [] for topic in topics}
    for topic, _, _, message in raw_messages(bag, topics):
        data[topic].append(message)
    for topic, role in topics.items():
        one = _reader(role, MINITAUR, reward)
        many = (
            command_blocks(MINITAUR)
            if role == COMMAND
            else place_blocks()
            if role == PLACE
            else input_blocks(MINITAUR, MINITAUR.inputs[role])
        )
        found = many(data[topic])
        assert found is not None
        single = [one(message) for message in data[topic]]
        assert found[0].tolist() == [stamp for stamp, _ in single]
        assert np.allclose(found[1], np.array([values for _, values in single]), rtol=0, atol=1e-12)
        # One message that is not like the others, or not whole, is for the other reader.
        assert many([*data[topic], data[topic][0][:-9]]) is None
        broken = bytearray(data[topic][3])
        broken[12:16] = b"\xff\xff\xff\x7f"
        assert many([bytes(broken)]) is None


def test_a_converted_bag_is_a_data_set_that_tells_where_it_comes_from(bag: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "set"
    arguments = ["bag", "convert", str(bag), "--contract", "minitaur", "--goal", "0.3", "--out", str(out), "--quiet"]
    assert main([*arguments, "--json"]) == 0
    account = json.loads(capsys.readouterr().out)
    data = DataSet(out)
    assert len(data) == account["rows"] > 900
    assert data["observation"].shape == (len(data), 120)
    assert isinstance(data["observation"], np.memmap)
    episodes = data.episodes()
    assert len(episodes) == account["episodes"] >= 2
    assert data.manifest["contract_id"] == MINITAUR.id
    assert all(len(source["sha256"]) == 64 for source in data.manifest["sources"])
    # The same walk again and again: every episode says the same.
    first, second = episodes[0], episodes[1]
    assert np.array_equal(data["reward"][first], data["reward"][second])
    assert np.array_equal(data["following"][first][:-1], data["observation"][first][1:])
    # Never over another; nothing half written stays.
    assert main(arguments) == 2
    assert "never overwrites" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_rewards_are_those_of_the_world(bag: Path) -> None:
    rows: list[dict] = []
    convert([bag], MINITAUR, ForwardVelocity(0.3, 0.02), rows.append)
    from ssql_ros.behaviour.noisy_trot import NoiseSettings, NoisyTrot

    env = find_task("minitaur").make(goal_velocity=0.3)
    env.reset(seed=0)
    trot = NoisyTrot(NoiseSettings(sigma=0.05))
    trot.reset(0)
    for row in rows[:300]:
        _, reward, _, _, _ = env.step(trot.next())
        assert row["reward"] == pytest.approx(reward, abs=1e-6)
    env.close()


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.95])
def test_a_cut_off_bag_gives_what_is_readable_and_says_so(bag: Path, tmp_path: Path, kept: float) -> None:
    hurt = tmp_path / "hurt"
    shutil.copytree(bag, hurt)
    (file,) = hurt.glob("*.mcap")
    data = file.read_bytes()
    file.write_bytes(data[: int(kept * len(data))])
    whole: list[dict] = []
    convert([bag], MINITAUR, None, whole.append)
    rows: list[dict] = []
    counts, problems = convert([hurt], MINITAUR, None, rows.append)
    assert problems
    assert str(hurt) in problems[0]
    assert 0.5 * kept * len(whole) < counts["rows"] <= len(whole)
    for mine, its in zip(rows[:200], whole, strict=False):
        assert np.array_equal(mine["observation"], its["observation"])


def test_bags_that_do_not_serve_are_refused_with_what_they_have(bag: Path, tmp_path: Path, capsys) -> None:
    # The topics are there, but what is said on them is another robot's.
    assert main(["bag", "check", str(bag), "--contract", "spider", "--quiet"]) == 1
    assert "joint_commands lacks row_drive" in capsys.readouterr().out
    missing = "expected one topic 'joint_states' for the contract's joints, found 0; the bag has /a"
    with pytest.raises(BagError, match=missing):
        match_topics(CONTRACT, {"/a": TopicInfo("x", 1)}, None)
    kind = "sensor_msgs/msg/JointState"
    topics = {f"/robot/{name}": TopicInfo(kind, 1) for name in ("joint_states", "imu/data", "joint_commands")}
    with pytest.raises(BagError, match="/robot/imu/data: expected type sensor_msgs/msg/Imu"):
        match_topics(CONTRACT, topics, None)
    assert main(["bag", "info", str(tmp_path / "nothing")]) == 2
    assert "there is no such bag" in capsys.readouterr().err
    with pytest.raises(BagError, match="no such bag"):
        convert([tmp_path / "nothing"], MINITAUR, None, lambda row: None)
    assert main(["bag", "check", str(bag), "--contract", "minitaur", "--quiet"]) == 0
    assert "left out of" in capsys.readouterr().out
    assert main(["bag", "info", str(bag)]) == 0
    assert "/imu/data" in capsys.readouterr().out


def test_unreadable_messages_are_counted_and_the_rest_is_used(tmp_path: Path) -> None:
    rows: list[dict] = []
    converter = Aligner(CONTRACT, None, rows.append)
    assert converter.counts["unreadable"] == 0
    path = tmp_path / "broken"
    make_bag(path, "minitaur", 0.3, 0)
    (file,) = path.glob("*.mcap")
    data = bytearray(file.read_bytes())
    # A NaN in the place of one joint's position, found by its own bytes.
    import struct

    from ssql_ros.bags import raw_messages

    message = [m for t, _, _, m in raw_messages(path, ["/joint_states"])][50]
    at = data.find(message)
    assert at > 0
    position = message.find(struct.pack("<I", 8), 200)
    assert position > 0
    data[at + len(message) - 8 : at + len(message)] = struct.pack("<d", math.nan)
    file.write_bytes(bytes(data))
    counts, _ = convert([path], MINITAUR, None, rows.append)
    assert counts["rows"] > 100


# The data set itself.


def rows_of(n: int) -> Iterator[dict]:
    for i in range(n):
        yield {"a": np.full(3, i), "b": i / 2, "c": i % 7 == 0, "episode": i // 10}


COLUMNS = {"a": Column(3), "b": Column(0), "c": Column(0, "bool"), "episode": Column(0, "int64")}


@pytest.mark.parametrize("n", [0, 1, 4096, 5000])
def test_what_is_written_is_read(tmp_path: Path, n: int) -> None:
    with DataSetWriter(tmp_path / "set", COLUMNS) as writer:
        for row in rows_of(n):
            writer.add(row)
        writer.finish({"told": "so"})
    data = DataSet(tmp_path / "set")
    assert len(data) == n
    assert data.manifest["told"] == "so"
    assert data["a"].shape == (n, 3)
    assert data["b"].tolist() == [i / 2 for i in range(n)]
    assert len(data.episodes()) == math.ceil(n / 10)


def test_what_ends_early_leaves_nothing_and_damage_is_named(tmp_path: Path) -> None:
    def fail() -> None:
        with DataSetWriter(tmp_path / "set", COLUMNS) as writer:
            writer.add(next(rows_of(1)))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
    with DataSetWriter(tmp_path / "set", COLUMNS) as writer:
        for row in rows_of(10):
            writer.add(row)
        writer.finish({})
    with pytest.raises(DataSetError, match="no column 'z'"):
        DataSet(tmp_path / "set")["z"]
    file = tmp_path / "set" / "a.npy"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataSetError, match=r"a\.npy"):
        DataSet(tmp_path / "set")
    file.unlink()
    with pytest.raises(DataSetError, match=r"a\.npy: cannot be read"):
        DataSet(tmp_path / "set")
    with pytest.raises(DataSetError, match="expected a data set"):
        DataSet(tmp_path)
    assert set(transition_columns(3, 2, 4)) >= {"context", "following_context"}
