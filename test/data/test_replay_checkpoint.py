"""Replay and checkpoints: what is kept, what is drawn, and that a file is whole or refused."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ssql_ros.data.replay import Batch, Replay, Transition, joined
from ssql_ros.nn.adam import Adam
from ssql_ros.nn.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

CPU = torch.device("cpu")


def transition(i: int, incident: bool = False) -> Transition:
    """The i-th one: every column says so, each in its own way."""
    observation, next_observation = np.array([i, -i]), np.array([i + 1, 3 * i])
    return Transition(observation, np.array([0.5 * i]), i + 0.25, next_observation, incident, i % 3 == 0)


def filled(capacity: int, added: int, incidents: tuple[int, ...] = ()) -> Replay:
    replay = Replay(capacity, 2, 1)
    for i in range(added):
        replay.add(transition(i, i in incidents))
    return replay


def numbers(batch: Batch) -> list[int]:
    """Which transitions a batch holds; their columns must be those of one transition each."""
    i = batch.observation[:, 0]
    assert torch.equal(batch.observation, torch.stack([i, -i], dim=1))
    assert torch.equal(batch.next_observation, torch.stack([i + 1, 3 * i], dim=1))
    assert torch.equal(batch.action, 0.5 * i.unsqueeze(1))
    assert torch.equal(batch.reward, i + 0.25)
    assert torch.equal(batch.terminal, (i % 3 == 0).float())
    return [int(x) for x in i]


# Replay


@settings(deadline=None)
@given(capacity=st.integers(1, 12), added=st.integers(1, 40), asked=st.integers(1, 20), seed=st.integers(0, 99))
def test_ring_holds_the_newest_and_draws_nothing_else(capacity, added, asked, seed):
    replay = filled(capacity, added)
    held = list(range(max(added - capacity, 0), added))
    assert len(replay) == len(held)
    assert numbers(replay.newest(asked, CPU)) == held[-asked:]
    drawn = numbers(replay.draw(asked, torch.Generator().manual_seed(seed), CPU))
    assert len(drawn) == asked
    assert set(drawn) <= set(held)


def test_draw_is_uniform_also_once_the_ring_has_wrapped():
    n, held = 20_000, 10
    drawn = numbers(filled(held, 37).draw(n, torch.Generator().manual_seed(0), CPU))
    counts = np.bincount(np.array(drawn) - 27, minlength=held)
    # Chi-squared with 9 degrees of freedom is above 27.9 in one of a thousand trials.
    assert ((counts - n / held) ** 2 / (n / held)).sum() < 27.9


def test_drawn_near_takes_the_steps_before_an_incident_and_no_other():
    replay = filled(60, 50, incidents=(9, 30))
    drawn = numbers(replay.batch(replay.drawn_near(4000, 4, torch.Generator().manual_seed(0)), CPU))
    counts = np.bincount(drawn, minlength=50)
    expected = np.zeros(50)
    expected[[6, 7, 8, 9, 27, 28, 29, 30]] = 500
    np.testing.assert_allclose(counts, expected, atol=4 * np.sqrt(500))
    assert (counts[expected == 0] == 0).all()
    assert filled(60, 50).drawn_near(8, 4, torch.Generator()) is None


def test_columns_of_flags_and_joined_batches():
    first, second = filled(4, 2, incidents=(1,)).newest(2, CPU), filled(4, 3).newest(1, CPU)
    both = joined(first, second)
    assert numbers(both) == [0, 1, 2]
    assert (both.incident.tolist(), both.terminal.tolist()) == ([0.0, 1.0, 0.0], [1.0, 0.0, 0.0])


def test_empty_replay_and_capacity_are_refused_in_words():
    with pytest.raises(ValueError, match="replay is empty"):
        Replay(3, 2, 1).draw(1, torch.Generator(), CPU)
    with pytest.raises(ValueError, match="capacity: expected at least 1, got 0"):
        Replay(0, 2, 1)


@settings(deadline=None)
@given(capacity=st.integers(1, 8), added=st.integers(0, 20), more=st.integers(0, 10))
def test_restored_replay_goes_on_as_the_first_would(capacity, added, more):
    replay, restored = filled(capacity, added), Replay(capacity, 2, 1)
    restored.restore(copy.deepcopy(replay.state()))
    for i in range(added, added + more):
        replay.add(transition(i))
        restored.add(transition(i))
    assert (restored.added, len(restored)) == (replay.added, len(replay))
    if len(replay):
        assert numbers(restored.newest(9, CPU)) == numbers(replay.newest(9, CPU))


def test_replay_of_another_robot_is_refused():
    with pytest.raises(ValueError, match=r"expected at most 3 rows of 8, got \(4, 8\)"):
        Replay(3, 2, 1).restore(filled(4, 4).state())
    with pytest.raises(ValueError, match=r"expected at most 9 rows of 10, got \(4, 8\)"):
        Replay(9, 2, 3).restore(filled(4, 4).state())


# Checkpoints

plain = st.none() | st.booleans() | st.integers(-(2**127), 2**127) | st.floats(allow_nan=False) | st.text()
tensors = st.sampled_from([torch.float32, torch.float64, torch.int64, torch.uint8]).flatmap(
    lambda kind: st.lists(st.integers(0, 200), max_size=4).map(lambda values: torch.tensor(values, dtype=kind))
)
keys = st.text().filter(lambda key: key != "__tensor__")  # the one name that a checkpoint keeps for itself
parts = st.recursive(plain | tensors, lambda part: st.lists(part, max_size=3) | st.dictionaries(keys, part, max_size=3))
trees = st.dictionaries(keys, parts, max_size=4)


def same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@settings(deadline=None)
@given(tree=trees)
def test_trees_come_back_as_they_were(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("checkpoint") / "new" / "run.safetensors"
    save_checkpoint(path, tree)
    assert same(load_checkpoint(path), tree)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_restored_generators_and_optimisers_go_on_as_the_first_would(tmp_path):
    rng, generator = np.random.default_rng(3), torch.Generator().manual_seed(3)
    parameters = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.zeros(2))]
    optimiser = Adam(parameters, 0.1)

    def moved() -> list[float]:
        slope = torch.randn(3, generator=generator) + float(rng.normal())
        optimiser.descend((parameters[0] * slope).sum() + parameters[1].square().sum())
        return parameters[0].tolist()

    moved()
    tree = {
        "rng": rng.bit_generator.state,
        "generator": generator.get_state(),
        "parameter": parameters[0],
        "optimiser": optimiser.state(),
    }
    save_checkpoint(tmp_path / "c", tree)
    expected = [moved() for _ in range(3)]
    loaded = load_checkpoint(tmp_path / "c")
    rng.bit_generator.state = loaded["rng"]
    generator.set_state(loaded["generator"])
    with torch.no_grad():
        parameters[0].copy_(loaded["parameter"])
    optimiser = Adam(parameters, 0.1)
    optimiser.restore(loaded["optimiser"])
    assert [moved() for _ in range(3)] == expected


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.999])
def test_truncated_checkpoint_is_refused_by_name(tmp_path, kept):
    path = tmp_path / "run.safetensors"
    save_checkpoint(path, {"weights": torch.arange(100.0)})
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(CheckpointError, match=r"run\.safetensors: is not a whole checkpoint"):
        load_checkpoint(path)


def test_missing_and_foreign_files_are_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone\.safetensors: is not a whole checkpoint: .*[Nn]o such file"):
        load_checkpoint(tmp_path / "gone.safetensors")
    with pytest.raises(CheckpointError, match="is not a whole checkpoint"):
        load_checkpoint(tmp_path)
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"\x00" * 500)
    with pytest.raises(CheckpointError, match=r"other\.safetensors: is not a whole checkpoint"):
        load_checkpoint(other)
    save_file({"a": torch.ones(2)}, other)
    with pytest.raises(CheckpointError, match=r"other\.safetensors: is a safetensors file, but not a checkpoint"):
        load_checkpoint(other)
    for document in ("{", '{"a": {"__tensor__": "/b"}}', '{"a": {"__tensor__": []}}', "[" * 5000 + "]" * 5000):
        save_file({"a": torch.ones(2)}, other, metadata={"ssql_ros_checkpoint": document})
        with pytest.raises(CheckpointError, match=r"other\.safetensors: is damaged"):
            load_checkpoint(other)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from ssql_ros.nn.checkpoint import CheckpointError, save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    save_checkpoint(Path(sys.argv[1]), {"weights": torch.zeros(100_000)})
except CheckpointError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 100, 4096, 399_999])
def test_disk_that_fills_while_saving_leaves_the_last_checkpoint_whole_and_nothing_else(tmp_path, limit):
    path = tmp_path / "run.safetensors"
    save_checkpoint(path, {"weights": torch.ones(5)})
    command = [sys.executable, "-c", FULL_DISK, str(path), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path}: cannot be written: ")
    assert "the checkpoint before it is unharmed" in done.stdout
    assert load_checkpoint(path)["weights"].tolist() == [1.0] * 5
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def numbered(
    step: int, *, next_observation: int | None = None, incident: bool = False, terminal: bool = False
) -> Transition:
    """A transition from state `step` to the next one, its action the state's number too."""
    to = step + 1 if next_observation is None else next_observation
    return Transition(np.array([step]), np.array([step]), 0.0, np.array([to]), incident, terminal)


def test_unrolled_stretches_end_with_the_episode_the_incident_or_the_record():
    replay = Replay(20, 1, 1)
    for step in range(5):  # 0 .. 5, then time runs out
        replay.add(numbered(step))
    for step in (10, 11):  # ends in an incident that ends the episode
        replay.add(numbered(step, incident=step == 11, terminal=step == 11))
    for step in (12, 13):  # numbered on, yet another episode
        replay.add(numbered(step))
    rows = replay.unrolled(torch.arange(9), 3, CPU)
    assert rows.steps.tolist() == [3, 3, 3, 2, 1, 2, 1, 2, 1]
    assert rows.next_observation[:, 0].tolist() == [3, 4, 5, 5, 5, 12, 12, 14, 14]
    # What was done in s_(t+k) is known only where the record goes on.
    assert rows.recorded.tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert rows.next_action[:2, 0].tolist() == [3, 4]
    assert rows.incident.tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 0]
    assert rows.terminal.tolist() == rows.incident.tolist()
    one = replay.unrolled(torch.arange(9), 1, CPU)
    assert one.steps.tolist() == [1] * 9
    assert one.recorded.tolist() == [1, 1, 1, 1, 0, 1, 0, 1, 0]


def test_unrolled_stretches_cross_the_seam_of_a_full_ring_but_not_the_newest_row():
    replay = Replay(6, 1, 1)
    for step in range(9):  # rows hold 6 7 8 3 4 5
        replay.add(numbered(step))
    rows = replay.unrolled(torch.arange(6), 4, CPU)
    assert rows.observation[:, 0].tolist() == [6, 7, 8, 3, 4, 5]
    assert rows.next_observation[:, 0].tolist() == [9, 9, 9, 7, 8, 9]
    assert rows.steps.tolist() == [3, 2, 1, 4, 4, 4]
    assert rows.recorded.tolist() == [0, 0, 0, 1, 1, 0]
