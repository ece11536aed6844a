"""Who hears of a run beside TensorBoard; those of other makers where they are installed."""

from contextlib import contextmanager
from pathlib import Path

import pytest

from ssql_ros.cli.main import main
from ssql_ros.training import trackers
from ssql_ros.training.plan import Plan
from ssql_ros.training.run import run

PLAN = Plan("sqrl", "spider", 300, 0)


def test_an_unknown_one_is_refused_before_anything_is_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    told = ["train", "sqrl", "--task", "spider", "--steps", "300", "--out", str(out), "--track", "neptune:walk"]
    assert main(told) == 2
    assert "--track neptune:walk: expected wandb, mlflow, trackio" in capsys.readouterr().err
    assert not out.exists()


def test_one_that_is_not_installed_is_named_with_what_brings_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "no_such_tracker", None)
    told = ["train", "sqrl", "--task", "spider", "--out", str(tmp_path / "run"), "--track", "no_such_tracker"]
    assert main(told) == 2
    assert "no_such_tracker, which is not installed" in capsys.readouterr().err


def test_all_hear_the_same_and_one_that_fails_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[str, float, int]] = []

    @contextmanager
    def fails(project, folder, facts):
        def tell(name, value, step):
            heard.append((name, value, step))
            if len(heard) == 3:
                raise ConnectionError("the server is away")

        assert (project, folder, facts["settings.gamma"]) == ("walk", tmp_path / "run", 0.99)
        yield tell

    monkeypatch.setitem(trackers.TRACKERS, "json", fails)  # a module that is there
    assert run(PLAN, tmp_path / "run", {}, show=False, trackers=["json:walk"])
    assert len(heard) == 3
    assert "warning: --track json: hears no more from step" in capsys.readouterr().err


def test_one_that_cannot_begin_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def refuses(project, folder, facts):
        raise PermissionError("log in first")
        yield

    monkeypatch.setitem(trackers.TRACKERS, "json", refuses)
    with pytest.raises(ValueError, match="--track json: it cannot begin: log in first"):
        run(PLAN, tmp_path / "run", {}, show=False, trackers=["json"])


def test_mlflow_has_one_run_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file://{tmp_path}/mlflow")
    for _ in range(2):
        run(PLAN, tmp_path / "run", {}, show=False, trackers=["mlflow:walk"])
    (found,) = mlflow.search_runs(experiment_names=["walk"], output_format="list")
    assert found.data.params["plan.task"] == "spider"
    assert any(name.startswith("collect/") for name in found.data.metrics)
