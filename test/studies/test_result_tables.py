"""The tables of results: what stands for what, and an experiment of one phase from its runs to its tables."""

import csv
from pathlib import Path

import pytest

from ssql_ros.report.results import over_lambda, read_summary, write_results
from studies import experiments, result_tables
from studies.experiments import Experiment, Method, run_trials, trials_of
from studies.result_tables import add_rows, collect


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]


def test_new_rows_stand_for_those_of_the_same_experiment_method_task_and_seed_alone(tmp_path: Path) -> None:
    old = [["e", "m", task, seed, "figure", "1"] for task in ("a", "b") for seed in ("0", "1")]
    add_rows(tmp_path, [*old, ["e", "m", "a", "0", "gone", "1"]])
    add_rows(tmp_path, [["e", "m", "a", "0", "figure", "2"]])
    assert rows_of(tmp_path / "summary.csv") == [
        ["e", "m", "a", "0", "figure", "2"],
        ["e", "m", "a", "1", "figure", "1"],
        ["e", "m", "b", "0", "figure", "1"],
        ["e", "m", "b", "1", "figure", "1"],
    ]


def test_tasks_of_one_experiment_are_told_apart_in_the_report(tmp_path: Path) -> None:
    two = [["e", f"lambda {t}", task, "0", "return_mean", t] for t in ("10", "0.5") for task in ("a", "b")]
    add_rows(tmp_path, [*two, ["e", "lambda 0.5", "a", "exact", "return_mean", "7"]])
    (tmp_path / "curves.csv").write_text("experiment,method,seed,step,reward,incidents,episodes\n")
    summary = read_summary(tmp_path / "summary.csv")
    assert set(summary) == {"e, a", "e, b"}
    assert list(over_lambda(summary["e, a"])) == [0.5, 10.0]
    assert over_lambda({"sac": {}}) == over_lambda({}) == {}
    written = {path.name for path in write_results(tmp_path)}
    assert written == {"e, a.png", "e, b.png", "tables.md"}
    assert "| lambda 0.5 | 1 | - | 0.500 |" in (tmp_path / "tables.md").read_text()


@pytest.mark.long
def test_an_experiment_of_one_phase_trains_calibrates_and_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"final_updates": 5, "extraction_updates": 5, "hidden": [8], "batch": 16, "warm_up": 16}
    made = Experiment("spider_timeless", "w", {"ssql": Method("ssql")}, 300, 0, seeds=1, pretrain=small)
    monkeypatch.setitem(experiments.EXPERIMENTS, "one", made)
    monkeypatch.setattr(experiments, "JUDGED", 2)
    trials, runs = trials_of(["one"], [], None), tmp_path / "runs"
    assert trials[0].ended(runs) == (False, False)
    assert run_trials(trials, runs, 1, show=False) == []
    assert trials[0].ended(runs) == (True, True)
    collect(trials, runs, tmp_path)
    found = {row[4]: float(row[5]) for row in rows_of(tmp_path / "summary.csv")}
    assert found["training_steps"] == 300
    assert found["training_incidents"] == found["incidents"] == found["q_incident_rate"] == 0.0
    assert {"q_bias", "q_rank", "final_success"} <= set(found)
    assert {row[0] for row in rows_of(tmp_path / "curves.csv")} == {"one"}
    # What has ended is not run again: a command that was would fail here.
    monkeypatch.setattr(experiments, "_run", lambda arguments: "was run again")
    assert run_trials(trials, runs, 1, show=False) == []


@pytest.mark.long
def test_final_policies_are_judged_by_their_draws_where_asked_for_behind_the_mask_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"hidden": [8], "batch": 16, "warm_up": 16}
    methods = {"sqrl": Method("sqrl", pretrain={"safety_updates": 1}), "sac": Method("sac")}
    made = Experiment("spider", "w", methods, 200, 100, 1, pretrain=small, finetune=small, drawn=True)
    monkeypatch.setitem(experiments.EXPERIMENTS, "two", made)
    monkeypatch.setattr(result_tables, "DRAWN", 4)
    trials, runs = trials_of(["two"], [], None), tmp_path / "runs"
    assert run_trials(trials, runs, 1, show=False) == []
    collect(trials, runs, tmp_path)
    rows = rows_of(tmp_path / "summary.csv")
    for method in methods:
        found = {row[4]: float(row[5]) for row in rows if row[1] == method}
        assert found["drawn_length"] >= 1.0
        assert 0.0 <= found["drawn_incident_rate"] <= 1.0
        assert {"drawn_reward", "pretrain_incidents", "incidents"} <= set(found)
