"""What the live learner keeps: whose it is, how much of it, and what becomes of it on a full disk and when damaged."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file
from test_live_worker import SIZES, SMALL, SOURCE, TASK, Worker, prepare, walked

from ssql_ros.data.rewards import reward_of
from ssql_ros.live.buffer import LiveBuffer, differences, recorded_from
from ssql_ros.live.checkpoints import LiveCheckpoints
from ssql_ros.live.learner import LiveLearner
from ssql_ros.live.offers import answers_path, in_service, offered_rounds
from ssql_ros.live.settings import claim, read_settings
from ssql_ros.live.writer import CHUNK, LiveWriter
from ssql_ros.model.bundle import save_bundle
from ssql_ros.robots.tasks import find_task


def rows(count: int, number: int = 0) -> list[dict]:
    rng = np.random.default_rng(number)
    names = {"observation": 120, "next_observation": 120, "context": 8, "next_context": 8, "action": 8, "proposal": 8}
    return [
        {
            **{name: rng.normal(size=size) for name, size in names.items()},
            "stamp": number * 10**12 + i,
            "reward": float(i),
            "incident": False,
            "first": i == 0,
        }
        for i in range(count)
    ]


# Whose it is.


def test_a_folder_of_another_contract_behaviour_or_reward_is_refused_with_what_differs(tmp_path: Path) -> None:
    LiveBuffer(tmp_path, SIZES, SOURCE).append(rows(3))
    LiveBuffer(tmp_path, SIZES, SOURCE).claim()
    contract, behaviour = TASK.contract(), TASK.behaviour_policy()
    faster = recorded_from(contract, behaviour, reward_of(contract, 0.6))
    with pytest.raises(ValueError, match=r"reward\.goal is 0\.4 there, 0\.6 here; give another folder"):
        LiveBuffer(tmp_path, SIZES, faster).claim()
    narrow = {**SOURCE, "behaviour": {**SOURCE["behaviour"], "bound": 0.1}}
    with pytest.raises(ValueError, match=r"behaviour\.bound is 0\.15 there, 0\.1 here"):
        LiveBuffer(tmp_path, SIZES, narrow).claim()
    with pytest.raises(ValueError, match=r"contract is .* there"):
        LiveBuffer(tmp_path, SIZES, {**SOURCE, "contract": "other"}).claim()
    # A chunk that was copied there later is left out all the same.
    LiveBuffer(tmp_path / "other", SIZES, faster).append(rows(3))
    shutil.copy(tmp_path / "other" / "chunk_000000.safetensors", tmp_path / "chunk_000001.safetensors")
    reader = LiveBuffer(tmp_path, SIZES, SOURCE)
    assert [chunk.number for chunk in reader.unread()] == [0]
    assert "recorded from something else" in reader.refused["chunk_000001.safetensors"]


def test_a_chunk_with_the_former_names_of_its_columns_is_read(tmp_path: Path) -> None:
    LiveBuffer(tmp_path, SIZES, SOURCE).append(rows(3))
    path = tmp_path / "chunk_000000.safetensors"
    with safe_open(path, "np") as file:
        words = file.metadata()
        columns = {name.replace("next_observation", "following"): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    columns["following_context"] = columns.pop("next_context")
    save_file(columns, path, words)
    (chunk,) = LiveBuffer(tmp_path, SIZES, SOURCE).unread()
    assert np.array_equal(chunk.next_observation, columns["following"])
    assert np.array_equal(chunk.next_context, columns["following_context"])


def test_how_episodes_begin_is_no_other_behaviour() -> None:
    behaviour, contract = TASK.behaviour_policy(), TASK.contract()
    leaning = behaviour.with_start_weights(np.array([0.8, 0.1, 0.1]))
    assert recorded_from(contract, leaning, reward_of(contract, 0.4)) == SOURCE
    assert differences(SOURCE, SOURCE) == []


def test_one_folder_has_one_learner(tmp_path: Path) -> None:
    held = claim(tmp_path / "learner.lock", wait=False)
    with pytest.raises(BlockingIOError):
        claim(tmp_path / "learner.lock", wait=False)
    held.close()
    claim(tmp_path / "learner.lock", wait=False).close()


# How much of it.


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12), limit=st.integers(0, 60_000))
def test_the_oldest_whole_chunks_go_first_and_the_newest_never(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], limit: int
) -> None:
    folder = tmp_path_factory.mktemp("buffer")
    writer = LiveWriter(LiveBuffer(folder, SIZES, SOURCE), limit, CHUNK)
    for number, size in enumerate(sizes):
        for row in rows(size, number):
            writer.add(row)
        writer.write(everything=True)
    left = sorted(folder.glob("chunk_*"))
    assert [path.name for path in left] == [f"chunk_{i:06d}.safetensors" for i in range(writer.retired, len(sizes))]
    assert len(left) >= 1
    total = sum(path.stat().st_size for path in left)
    assert total <= limit or len(left) == 1
    assert (writer.unwritten, writer.lost, writer.fault) == (0, 0, "")
    # A new writer goes on behind the newest, whatever went.
    again = LiveBuffer(folder, SIZES, SOURCE)
    again.append(rows(2))
    assert again.newest == len(sizes)
    assert [chunk.number for chunk in again.unread()] == list(range(writer.retired, len(sizes) + 1))


@pytest.mark.slow
def test_what_was_held_out_stays_so_when_the_oldest_go(tmp_path: Path, episodes: list) -> None:
    buffer = prepare(tmp_path)
    for episode in episodes:
        buffer.append(episode)

    def held_out() -> list[int]:
        learner = LiveLearner(tmp_path, read_settings(tmp_path / "live.json"), print)
        learner.take_in()
        return [chunk.number for chunk in learner.judge.held_out]

    assert held_out() == [3]
    (tmp_path / "buffer" / "chunk_000000.safetensors").unlink()
    assert held_out() == [3]


# A full disk.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 600 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("a file system of its own cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_told_bounded_and_survived(small_disk: Path) -> None:
    writer = LiveWriter(LiveBuffer(small_disk / "buffer", SIZES, SOURCE), 10**9, CHUNK)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(500_000))
    for number in range(30):
        for row in rows(100, number):
            writer.add(row)
        writer.write()
    writer.write(everything=True)
    assert "cannot be written: No space left on device" in writer.fault
    assert writer.unwritten <= CHUNK
    written = sum(len(chunk) for chunk in LiveBuffer(small_disk / "buffer", SIZES, SOURCE).unread())
    # Nothing is unaccounted for, and nothing half.
    assert written + writer.unwritten + writer.lost == 3000
    assert writer.lost > 0
    ballast.unlink()
    before = writer.unwritten
    writer.write(everything=True)
    assert writer.unwritten < before
    reader = LiveBuffer(small_disk / "buffer", SIZES, SOURCE)
    assert sum(len(chunk) for chunk in reader.unread()) + writer.unwritten + writer.lost == 3000
    assert reader.refused == {}


def write_for_ever(folder: Path, sender: Connection) -> None:
    buffer, chunk = LiveBuffer(folder, SIZES, SOURCE), rows(300)
    while True:
        buffer.append(chunk)
        sender.send("written")


def test_a_write_that_was_killed_leaves_whole_chunks(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for _ in range(3):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=write_for_ever, args=(tmp_path, sender))
        process.start()
        for _ in range(5):
            assert receiver.poll(60.0)
            assert receiver.recv() == "written"
        process.kill()
        process.join()
    buffer = LiveBuffer(tmp_path, SIZES, SOURCE)
    (tmp_path / ".chunk_000099.safetensors.left").write_bytes(b"half")
    buffer.claim()
    assert list(tmp_path.glob(".chunk_*")) == []
    found = [len(chunk) for chunk in buffer.unread()]
    assert len(found) >= 15
    assert set(found) == {300}
    assert buffer.refused == {}


@settings(max_examples=40, deadline=None)
@given(at=st.floats(0.0, 0.999), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_chunk_is_never_learned_from(
    tmp_path_factory: pytest.TempPathFactory, at: float, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("buffer")
    LiveBuffer(folder, SIZES, SOURCE).append(rows(5))
    path = folder / "chunk_000000.safetensors"
    (whole,) = LiveBuffer(folder, SIZES, SOURCE).unread()
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 1 << bit
    path.write_bytes(bytes(data))
    for chunk in LiveBuffer(folder, SIZES, SOURCE).unread():
        np.testing.assert_array_equal(chunk.observation, whole.observation)
        np.testing.assert_array_equal(chunk.reward, whole.reward)


# Checkpoints.


def state(value: float) -> dict:
    return {
        "algorithm": {"networks": [torch.full((40,), value)]},
        "counts": {"rounds": 0 if value != value else int(value)},
    }


@settings(max_examples=40, deadline=None)
@given(at=st.floats(0.0, 0.999), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_gone_on_from(
    tmp_path_factory: pytest.TempPathFactory, at: float, bit: int, cut: bool
) -> None:
    folder, told, taken = tmp_path_factory.mktemp("learner"), list[str](), list[dict]()
    checkpoints = LiveCheckpoints(folder, {"algorithm": "ssql"}, told.append)
    checkpoints.save(state(1.0))
    checkpoints.save(state(2.0))
    data = bytearray(checkpoints.newest.read_bytes())
    place = int(at * len(data))
    data[place] ^= 1 << bit
    checkpoints.newest.write_bytes(bytes(data[:place] if cut else data))
    assert LiveCheckpoints(folder, {"algorithm": "ssql"}, told.append).load(taken.append)
    rounds = taken[-1]["counts"]["rounds"]
    assert float(taken[-1]["algorithm"]["networks"][0][0]) == rounds
    if rounds == 1:
        assert (folder / "unusable_1_checkpoint.safetensors").exists()
        assert "set aside as unusable_1_checkpoint.safetensors" in told[0]
        assert told[-1] == "goes on from checkpoint_before.safetensors"
    else:
        assert not cut  # the bit was one that says nothing


def test_a_checkpoint_of_other_settings_is_named_and_what_is_not_finite_never_written(tmp_path: Path) -> None:
    told: list[str] = []
    LiveCheckpoints(tmp_path, {"hidden": [32]}, told.append).save(state(1.0))
    assert not LiveCheckpoints(tmp_path, {"hidden": [64]}, told.append).load(lambda state: None)
    assert "is of other settings: hidden is [32] there, [64] here" in told[0]
    assert "from scratch" in told[1]
    with pytest.raises(ValueError, match="not finite"):
        LiveCheckpoints(tmp_path, {}, told.append).save(state(float("nan")))


@pytest.fixture(scope="module")
def episodes() -> list[list[dict]]:
    return walked(2000, 0, TASK.behaviour_policy())


def next_round(learner: LiveLearner) -> int:
    """Learn until a round has come to its gates; return its number."""
    before = learner.counts["rounds"]
    learner.take_in()
    for _ in range(10):
        learner.step()
        if learner.counts["rounds"] > before:
            return learner.counts["rounds"]
    raise AssertionError(learner.progress())


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncated", "flipped", "settings"])
def test_rounds_that_were_offered_are_never_written_over(tmp_path: Path, episodes: list, damage: str) -> None:
    buffer = prepare(tmp_path, round_updates=50, first_steps=100)
    for episode in episodes:
        buffer.append(episode)
    offered = tmp_path / "offered" / "round_004.safetensors"
    older = save_bundle(replace(bundle_of_task(), provenance={"round": 4}), offered)
    learner = LiveLearner(tmp_path, read_settings(tmp_path / "live.json"), print)
    assert next_round(learner) == 5
    learner.save()
    checkpoint = tmp_path / "checkpoint.safetensors"
    (tmp_path / "checkpoint_before.safetensors").unlink(missing_ok=True)
    data = bytearray(checkpoint.read_bytes())
    data[len(data) // 2] ^= 64
    if damage == "settings":
        prepare(tmp_path, round_updates=50, first_steps=100, settings={**SMALL, "hidden": [16, 16]})
    else:
        checkpoint.write_bytes(bytes(data[:1000] if damage == "truncated" else data))
    told: list[str] = []
    learner = LiveLearner(tmp_path, read_settings(tmp_path / "live.json"), told.append)
    assert "set aside as unusable_1_checkpoint.safetensors" in told[0]
    assert "from scratch" in told[1]
    assert next_round(learner) == 5
    assert (tmp_path / "unusable_1_checkpoint.safetensors").exists()
    assert offered.read_bytes() == Path(older.path).read_bytes()


@pytest.mark.slow
def test_a_worker_whose_parent_was_killed_saves_and_the_next_waits_for_it(tmp_path: Path, episodes: list) -> None:
    buffer = prepare(tmp_path, shadow_steps=1)
    for episode in episodes:
        buffer.append(episode)
    worker = Worker(tmp_path)
    worker.until("progress")
    while worker.until("progress")["updates"] < 100:
        pass
    os.kill(worker.process.pid, signal.SIGSTOP)
    next_one = Worker(tmp_path)
    # As when who started it was killed: nobody reads, nobody writes.
    assert worker.process.stdin is not None
    assert worker.process.stdout is not None
    worker.process.stdin.close()
    worker.process.stdout.close()
    os.kill(worker.process.pid, signal.SIGCONT)
    assert worker.process.wait(60) == 0
    assert next_one.until("progress")["updates"] >= 100
    assert next_one.stop() == 0


# What was offered.


def bundle_of_task():
    from ssql_ros.model.bundle import load_bundle

    return load_bundle(TASK.bundle_path(), TASK.contract())


def test_what_policies_servers_have_refused_is_not_in_service(tmp_path: Path) -> None:
    assert in_service(tmp_path) is None
    (tmp_path / "offered").mkdir()
    for number in (1, 2, 10):
        (tmp_path / "offered" / f"round_{number:03d}.safetensors").write_bytes(b"")
    assert list(offered_rounds(tmp_path)) == [1, 2, 10]
    newest = tmp_path / "offered" / "round_010.safetensors"
    assert in_service(tmp_path) == newest
    answers = answers_path(newest)
    answers.parent.mkdir()
    answers.write_text(json.dumps({"refused": True}))
    assert in_service(tmp_path) == tmp_path / "offered" / "round_002.safetensors"
    answers.write_text("{")
    assert in_service(tmp_path) == newest


def test_the_task_of_another_robot_has_another_source() -> None:
    boat = find_task("boat").contract()
    found = differences(recorded_from(boat, TASK.behaviour_policy(), reward_of(boat)), SOURCE)
    assert any(words.startswith("contract is") for words in found)
    assert any(words.startswith("reward.kind is") for words in found)
