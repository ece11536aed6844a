"""From bags to transitions, end to end: rewards of the world, contexts, damage, what does not serve."""

import json
import math
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.bag import make_bag
from ssql_ros.bags import BagError, BagWriter, open_bag, qos_profile, raw_messages
from ssql_ros.bags.conversion import convert
from ssql_ros.bags.data_set import Source, data_set_of
from ssql_ros.bags.reader import TopicInfo
from ssql_ros.bags.roles import Role, block_reader_for, match_topics, reader_for
from ssql_ros.cli.main import main
from ssql_ros.data.data_set import DataSet, DataSetError, DataSetWriter, transition_columns
from ssql_ros.data.rewards import ForwardVelocity, reward_of
from ssql_ros.robots.tasks import find_task
from support.toy_robot import toy_contract

CONTRACT = toy_contract()
MINITAUR = find_task("minitaur").contract()


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bags") / "walk"
    make_bag(path, "minitaur", 1.2, 0)
    return path


def test_blocks_read_what_single_messages_say(bag: Path) -> None:
    reward = reward_of(MINITAUR, 0.3)
    data: dict[str, list[bytes]] = {}
    with open_bag(bag) as opened:
        roles = match_topics(MINITAUR, opened.topics, reward)
    assert set(roles) == {"/joint_states", "/imu/data", "/joint_commands", "/odom"}
    for topic, _, _, message in raw_messages(bag, roles):
        data.setdefault(topic, []).append(message)
    for topic, found_roles in roles.items():
        for role in found_roles:
            one, many = (make(role, MINITAUR, reward) for make in (reader_for, block_reader_for))
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
    assert "intervention" not in data.names  # nobody could have taken it over
    assert isinstance(data["observation"], np.memmap)
    episodes = data.episodes()
    assert len(episodes) == account["episodes"] >= 2
    assert data.manifest["contract_id"] == MINITAUR.id
    assert all(len(source["sha256"]) == 64 for source in data.manifest["sources"])
    # The same walk again and again: every episode says the same.
    first, second = episodes[0], episodes[1]
    assert np.array_equal(data["reward"][first], data["reward"][second])
    assert np.array_equal(data["next_observation"][first][:-1], data["observation"][first][1:])
    # Never over another; nothing half written stays.
    assert main(arguments) == 2
    assert "never overwrites" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_rewards_are_those_of_the_world(bag: Path) -> None:
    rows: list[dict] = []
    convert([bag], MINITAUR, ForwardVelocity(0.3, 0.02), rows.append)

    from ssql_ros.robots.noise import Noise, blind_actions

    env = find_task("minitaur").make(goal_velocity=0.3)
    env.reset(seed=0)
    trot = blind_actions(find_task("minitaur").controller(Noise("A", sigma=0.05)), 0)
    for row in rows[:300]:
        _, reward, _, _, _ = env.step(next(trot))
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
    outcome = convert([hurt], MINITAUR, None, rows.append)
    assert str(hurt) in outcome.problems[0]
    assert 0.5 * kept * len(whole) < outcome.counts["rows"] <= len(whole)
    for mine, its in zip(rows[:200], whole, strict=False):
        assert np.array_equal(mine["observation"], its["observation"])


def test_bags_that_do_not_serve_are_refused_with_what_they_have(bag: Path, tmp_path: Path, capsys) -> None:
    # The topics are there, but what is said on them is another robot's.
    assert main(["bag", "check", str(bag), "--contract", "spider", "--quiet"]) == 1
    assert "joint_commands lacks row_drive" in capsys.readouterr().out
    missing = "has no topic /imu/data, /joint_commands, /joint_states, which the contract needs; the bag has /a"
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
    assert "periods no transition begins in" in capsys.readouterr().out
    assert main(["bag", "info", str(bag)]) == 0
    assert "/imu/data" in capsys.readouterr().out


def test_unreadable_messages_are_counted_and_the_rest_is_used(tmp_path: Path) -> None:
    path = tmp_path / "broken"
    make_bag(path, "minitaur", 0.3, 0)
    (file,) = path.glob("*.mcap")
    data = bytearray(file.read_bytes())
    # A NaN in the place of the last joint's position, the first of three arrays of the same length.
    message = [m for t, _, _, m in raw_messages(path, ["/joint_states"])][50]
    at = data.find(message)
    assert at > 0
    n = len(MINITAUR.commanded.joint_names)
    end = at + len(message) - 2 * (8 + 8 * n)  # velocity and effort: a count, four bytes of padding, numbers
    data[end - 8 : end] = struct.pack("<d", math.nan)
    file.write_bytes(bytes(data))
    rows: list[dict] = []
    outcome = convert([path], MINITAUR, None, rows.append)
    assert outcome.counts["unreadable"] == 1
    assert [problem for problem in outcome.problems if "/joint_states" in problem and "nan" in problem]
    assert len(rows) == 500 - 1 - 2


def test_context_of_proposals_becomes_columns(bag: Path, tmp_path: Path, capsys) -> None:
    from support.bags import make_store

    store, kind, told = make_store(), "ssql_ros/msg/Proposal", tmp_path / "told"
    with open_bag(bag) as opened:
        kinds = {topic: info.type for topic, info in opened.topics.items()}
    read = reader_for(Role("command", kinds["/joint_commands"]), MINITAUR, None)
    context_of = {}
    with BagWriter(told) as writer:
        for topic, its in {**kinds, "/joint_proposals": kind}.items():
            writer.add_topic(topic, its, [qos_profile()])
        for topic, _, time, data in raw_messages(bag, kinds):
            writer.write(topic, time, data)
            stamp = read(data)[0] if topic == "/joint_commands" else 0
            # Every tenth proposal was lost.
            if stamp and stamp // 20_000_000 % 10:
                context_of[stamp] = np.array([stamp * 1e-9, -1.0, 2.0])
                at = store.types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
                header = store.types["std_msgs/msg/Header"](stamp=at, frame_id="")
                empty = np.zeros(8)
                proposal = store.types[kind](
                    header, MINITAUR.id, "test", empty, empty, empty, context_of[stamp], empty, empty, False
                )
                writer.write("/joint_proposals", time, bytes(store.serialize_cdr(proposal, kind)))
    out = tmp_path / "set"
    command = ["bag", "convert", str(told), "--contract", "minitaur", "--out", str(out), "--quiet"]
    assert main(command) == 0
    assert "problem" not in capsys.readouterr().out
    data = DataSet(out)
    assert data["context"].shape == data["next_context"].shape == (len(data), 3)
    unknown = np.full(3, np.nan)
    for row, stamp in enumerate(data["stamp"].tolist()):
        expected = context_of.get(stamp, unknown)
        assert np.array_equal(data["context"][row], expected.astype("float32"), equal_nan=True)
        expected = context_of.get(stamp + 20_000_000, unknown)
        assert np.array_equal(data["next_context"][row], expected.astype("float32"), equal_nan=True)


@pytest.mark.parametrize("enforced", [True, False])
def test_where_no_command_was_recorded_the_shield_s_account_says_what_was_executed(
    bag: Path, tmp_path: Path, enforced: bool
) -> None:
    from support.bags import SHIELDED, make_store

    store, told = make_store(), tmp_path / "told"
    with open_bag(bag) as opened:
        kinds = {topic: info.type for topic, info in opened.topics.items()}
    read, other = reader_for(Role("command", kinds["/joint_commands"]), MINITAUR, None), np.full(8, 0.7)
    with BagWriter(told) as writer:
        for topic, its in kinds.items():
            if topic != "/joint_commands":
                writer.add_topic(topic, its, [qos_profile()])
        writer.add_topic("/shield_node/shielded_action", SHIELDED, [qos_profile()])
        for topic, _, time, data in raw_messages(bag, kinds):
            if topic != "/joint_commands":
                writer.write(topic, time, data)
                continue
            stamp, action = read(data)
            at = store.types["builtin_interfaces/msg/Time"](stamp // 10**9, stamp % 10**9)
            header = store.types["std_msgs/msg/Header"](at, "")
            pair = (other, action) if enforced else (action, other)
            scores = (1, 0.1, 0.1, 0.2, math.nan, 1, 1, 0, False, 1e-5, "0" * 16, "")
            account = store.types[SHIELDED](header, 0, enforced, *pair, *scores)
            writer.write("/shield_node/shielded_action", time, bytes(store.serialize_cdr(account, SHIELDED)))
    rows: list[dict] = []
    expected: list[dict] = []
    outcome = convert([told], MINITAUR, reward_of(MINITAUR), rows.append)
    convert([bag], MINITAUR, reward_of(MINITAUR), expected.append)
    assert outcome.problems == []
    assert len(rows) == len(expected) > 900
    for mine, its in zip(rows, expected, strict=True):
        assert np.allclose(mine["action"], its["action"], atol=1e-12)
        assert mine["reward"] == pytest.approx(its["reward"])


def test_a_bag_in_which_nothing_can_be_used_makes_no_data_set(bag: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "set"
    command = ["bag", "convert", str(bag), "--contract", "spider", "--out", str(out), "--quiet"]
    assert main(command) == 1
    assert "joint_commands lacks row_drive" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("blocks", [0, 1])
def test_a_conversion_that_is_killed_leaves_no_data_set_and_runs_again(bag: Path, tmp_path: Path, blocks: int) -> None:
    out = tmp_path / "set"
    code = textwrap.dedent("""
        import os, signal, sys
        from ssql_ros.data import data_set as dataset
        from ssql_ros.cli.main import main
        def killed(*arguments):
            os.kill(os.getpid(), signal.SIGKILL)
        if sys.argv[1] == "0":
            dataset.os.fsync = killed
        else:
            dataset.DataSetWriter.add = killed
        main(sys.argv[2:])
    """)
    command = ["bag", "convert", str(bag), "--contract", "minitaur", "--out", str(out), "--quiet"]
    done = subprocess.run([sys.executable, "-c", code, str(blocks), *command], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    assert [path.name.endswith(".partial") for path in tmp_path.iterdir()] == [True]
    # Of another writer that lives nothing is taken.
    with DataSetWriter(out, transition_columns(1, 1)):
        assert main(command) == 0
        assert len(DataSet(out)) > 900
        assert len(list(tmp_path.glob(".set.*"))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_the_data_set_of_a_bag_is_made_once_and_never_mistaken_for_another(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, source = tmp_path / "set", Source((bag,), MINITAUR, reward_of(MINITAUR))
    made = data_set_of(source, out, {})
    before = (out / "manifest.json").stat().st_mtime_ns
    assert len(data_set_of(source, out, {})) == len(made) > 900
    assert (out / "manifest.json").stat().st_mtime_ns == before
    # The same bag, from where one stands in its folder.
    monkeypatch.chdir(bag.parent)
    assert len(data_set_of(replace(source, bags=(Path(bag.name),)), out, {})) == len(made)
    for changed, what in (({"reward": None}, "reward"), ({"recovery": 1.0}, "recovery")):
        with pytest.raises(DataSetError, match=f"holds a data set with another {what}"):
            data_set_of(replace(source, **changed), out, {})
    other = tmp_path / "other"
    make_bag(other, "minitaur", 0.3, 1)
    with pytest.raises(DataSetError, match="holds a data set of other bags than"):
        data_set_of(replace(source, bags=(other,)), out, {})
    with pytest.raises(BagError, match=r"no transition comes of \d+ periods"):
        data_set_of(Source((bag,), find_task("spider").contract(), None), tmp_path / "none", {})
    with pytest.raises(BagError, match="there is no such bag"):
        Source((tmp_path / "nothing",), MINITAUR, None)
