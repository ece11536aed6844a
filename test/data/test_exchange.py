"""Data sets in the formats of others: there and back, read by the peer's own reader; what is lost is known."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from ssql_ros.cli.main import main
from ssql_ros.contract import load_contract
from ssql_ros.data.data_set import DataSet, DataSetWriter, transition_columns
from ssql_ros.data.exchange import FORMATS
from ssql_ros.robots.tasks import find_task
from ssql_ros.training.log_training import training_from_log
from ssql_ros.training.plan import Plan

SIZES = (7, 1, 12)
EXACT = ("observation", "action", "reward", "next_observation", "margin", "incident", "terminal", "episode")


@pytest.fixture(scope="module")
def boat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three episodes of the boat, one of a single step; the last ends for good, in an incident."""
    rng, contract = np.random.default_rng(0), find_task("boat").contract()
    folder, rows = tmp_path_factory.mktemp("data") / "boat", sum(SIZES)
    states = rng.uniform(-2.0, 2.0, (rows + len(SIZES), 2)).astype(np.float32)
    states[-1] = (-0.5, 0.5)  # in the middle of a rock
    firsts = np.concatenate([np.arange(n) + at for n, at in zip(SIZES, (0, 8, 10), strict=True)])
    margin = np.array([contract.margin(state)[0] for state in states])
    terminal = np.arange(rows) == rows - 1
    with DataSetWriter(folder, transition_columns(2, 2)) as writer:
        writer.extend(
            {
                "observation": states[firsts],
                "action": rng.uniform(-1.0, 1.0, (rows, 2)),
                "reward": rng.standard_normal(rows),
                "next_observation": states[firsts + 1],
                "margin": margin[firsts],
                "incident": margin[firsts + 1] > 0.0,
                "terminal": terminal,
                "episode": np.repeat(np.arange(len(SIZES)), SIZES),
                "stamp": np.arange(rows) * 5_000_000,
            }
        )
        writer.finish({"contract_id": contract.id, "control_period": 0.005, "task": "boat"})
    return folder


def exported(boat: Path, tmp_path: Path, name: str) -> Path:
    out = tmp_path / f"out_{name}"
    assert main(["data", "export", str(boat), "--format", name, "--out", str(out)]) == 0
    return out


def imported(source: Path, name: str, out: Path, *more: str) -> DataSet:
    assert main(["data", "import", str(source), "--format", name, "--out", str(out), *more]) == 0
    return DataSet(out)


@pytest.mark.parametrize("name", FORMATS)
def test_there_and_back_is_the_same(boat, tmp_path, name, capsys):
    for library in FORMATS[name].needs:
        pytest.importorskip(library)
    data = imported(exported(boat, tmp_path, name), name, tmp_path / "again", "--task", "boat")
    assert f"lost: {FORMATS[name].lost_in}" in capsys.readouterr().out
    before = DataSet(boat)
    for column in EXACT:
        np.testing.assert_array_equal(data[column], before[column], err_msg=column)
    if name in ("parquet", "hdf5"):
        np.testing.assert_array_equal(data["stamp"], before["stamp"])
    data.check_contract(find_task("boat").contract().id)


def test_hdf5_is_what_its_readers_expect(boat, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(exported(boat, tmp_path, "hdf5")) as file:
        arrays = ("observations", "actions", "rewards", "next_observations", "costs", "terminals", "timeouts")
        # As DSRL and D4RL check what they read.
        assert {file[name].shape[0] for name in arrays} == {sum(SIZES)}
        assert set(np.unique(file["costs"])) <= {0.0, 1.0}
        assert np.flatnonzero(np.asarray(file["timeouts"]) | np.asarray(file["terminals"])).tolist() == [6, 7, 19]
        assert not file["timeouts"][-1]


def test_minari_reads_its_folder(boat, tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    monkeypatch.chdir(tmp_path)
    found = minari.MinariDataset(exported(boat, Path(), "minari") / "data")
    assert (found.total_episodes, found.total_steps) == (3, 20)
    for episode, size in zip(found.iterate_episodes(), SIZES, strict=True):
        assert episode.observations.shape == (size + 1, 2)
        assert episode.terminations[-1] != episode.truncations[-1]


def test_lerobot_frames_are_those_that_its_description_says(boat, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    folder = exported(boat, tmp_path, "lerobot")
    info = json.loads((folder / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_frames"]) == ("v3.0", 200, 20)
    frames = pq.read_table(folder / info["data_path"].format(chunk_index=0, file_index=0))
    assert set(frames.column_names) == set(info["features"])
    assert frames["frame_index"].to_pylist() == [*range(7), 0, *range(12)]
    episodes = pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet")
    assert episodes["dataset_to_index"].to_pylist() == [7, 8, 20]
    assert pq.read_table(folder / "meta/tasks.parquet")["task_index"].to_pylist() == [0]


def strange(path: Path, **arrays: object) -> Path:
    """A file of a stranger: 3 observations, 1 action in its own unit, no margins, incidents by costs."""
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(1)
    told = {
        "observations": rng.standard_normal((30, 3)),
        "actions": rng.uniform(-5.0, 5.0, (30, 1)),
        "rewards": rng.standard_normal(30),
        "next_observations": rng.standard_normal((30, 3)),
        "costs": (np.arange(30) % 10 == 4).astype(float),
        "terminals": np.zeros(30, bool),
        "timeouts": np.arange(30) % 10 == 9,
        **arrays,
    }
    with h5py.File(path, "w") as file:
        for name, values in told.items():
            if values is not None:
                file[name] = values
    return path


def test_a_strangers_data_set_is_learned_from_by_the_contract_that_it_gives(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = imported(strange(Path("public.hdf5")), "hdf5", Path("public"))
    said = capsys.readouterr().out
    assert "margins are -1 and 1, by the costs" in said
    assert "does not say its control period: 0.05 s" in said
    contract = load_contract("public.yaml")
    assert data["observation"].shape == (30, 4)
    assert np.abs(data["action"]).max() == pytest.approx(1.0)
    # The step after the one that cost begins inside the failure set.
    assert np.flatnonzero(data["incident"]).tolist() == [4, 14, 24]
    assert np.flatnonzero(data["margin"] > 0.0).tolist() == [5, 15, 25]
    np.testing.assert_array_equal(data["observation"][:, -1], data["margin"])
    low, high = contract.joint_limits
    assert (low[0], high[0]) == pytest.approx((-4.93, 4.76), abs=0.3)
    plan = Plan("safefql", "public.yaml", 1, 0, data="public", settings={"hidden": [8], "actor_hidden": [8]})
    training = training_from_log(plan)
    next(training.run())
    assert training.result().bundle is not None


def test_without_successors_last_steps_go_and_it_is_said(tmp_path, capsys):
    source = strange(tmp_path / "d4rl.hdf5", next_observations=None)
    data = imported(source, "hdf5", tmp_path / "public")
    assert "3 last steps of episodes are left out" in capsys.readouterr().out
    assert len(data) == 27
    assert [episode.stop - episode.start for episode in data.episodes()] == [9, 9, 9]
    np.testing.assert_array_equal(data["next_observation"][:8, :3], data["observation"][1:9, :3])


@pytest.mark.parametrize(
    ("arrays", "more", "words"),
    [
        ({"costs": None}, [], "nothing says what an incident is"),
        ({"actions": None}, [], "expected a column 'action' (or actions)"),
        ({"rewards": np.zeros(29)}, [], "reward: expected 30 rows, as the observations have, got 29"),
        ({"terminals": None, "timeouts": None}, [], "nothing says where an episode ends"),
        ({"observations": np.full((30, 3), np.nan)}, [], "observation: row 0: expected finite numbers"),
        ({}, ["--task", "boat"], "observation: expected 2 numbers a row"),
    ],
)
def test_a_wrong_file_is_told_by_its_column(tmp_path, capsys, arrays, more, words):
    source = strange(tmp_path / "wrong.hdf5", **arrays)
    out = tmp_path / "never"
    assert main(["data", "import", str(source), "--format", "hdf5", "--out", str(out), *more]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert str(source) in said
    assert not out.exists()


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_something_else_is_refused(tmp_path, name, capsys):
    for library in FORMATS[name].needs:
        pytest.importorskip(library)
    (tmp_path / "text").write_text("nothing")
    assert main(["data", "import", str(tmp_path / "text"), "--format", name, "--out", str(tmp_path / "never")]) == 2
    assert str(tmp_path / "text") in capsys.readouterr().err


@pytest.mark.parametrize("name", FORMATS)
def test_a_missing_library_is_one_line_with_the_fix(boat, tmp_path, monkeypatch, capsys, name):
    monkeypatch.setitem(sys.modules, FORMATS[name].needs[0], None)
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    assert main(["data", "export", str(boat), "--format", name, "--out", str(tmp_path / "never")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "pip install 'ssql_ros[data]'" in said
