"""Adversaries: what they propose, what takes over, and that judging keeps families of its own."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssql_ros.cli.main import main as ssql
from ssql_ros.evaluation.matrix import Cell, controllers_of, evaluate_matrix, matrix_figures
from ssql_ros.robots.adversaries import HOLDS, KINDS, Adversary, drawn
from ssql_ros.robots.noise import Noise
from ssql_ros.robots.tasks import find_task

TASK = find_task("minitaur")
AFTER = np.array(TASK.backup.action)
BLIND = [
    Adversary("uniform"),
    Adversary("uniform", hold=10),
    Adversary("corner"),
    Adversary("mixed", hold=3),
    Adversary("constant", action=(0.5,) * 8),
    Adversary("waves"),
]


def proposals(adversary: Adversary, seed: int, steps: int = 60) -> np.ndarray:
    controller, rng = TASK.controller(adversary), np.random.default_rng(seed)
    controller.reset(rng)
    drawn_now = [controller.propose(np.zeros(120), rng) for _ in range(steps)]
    assert all(np.array_equal(proposal.mean, AFTER) for proposal in drawn_now)
    return np.array([proposal.action for proposal in drawn_now])


@settings(max_examples=30)
@given(st.sampled_from([*BLIND, Adversary("noise", noise=TASK.noisy_controller())]), st.integers(0, 2**32))
def test_it_keeps_to_the_range_and_to_its_seed(adversary, seed):
    actions = proposals(adversary, seed)
    assert np.abs(actions).max() <= 1.0
    assert np.array_equal(actions, proposals(adversary, seed))


@settings(max_examples=30)
@given(st.sampled_from(BLIND), st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32))
def test_the_backup_takes_over_after_each_burst(adversary, burst, rest, seed):
    actions = proposals(dataclasses.replace(adversary, burst=burst, rest=rest), seed)
    resting = np.arange(60) % (burst + rest) >= burst
    assert (actions[resting] == AFTER).all()
    assert not (actions[~resting] == AFTER).all(axis=1).any()


def test_draws_are_held_and_the_others_stay():
    held = proposals(Adversary("uniform", hold=10), 0)
    assert len(np.unique(held, axis=0)) == 6
    assert (held.reshape(6, 10, 8) == held[::10, np.newaxis]).all()
    (corner,) = np.unique(proposals(Adversary("corner"), 1), axis=0)
    assert set(np.abs(corner)) == {1.0}
    mixed = proposals(Adversary("mixed"), 1)
    assert {-1.0, 0.0, 1.0} < set(mixed.ravel())


@given(st.integers(0, 2**32))
def test_what_is_left_for_judging_is_never_learned_from(seed):
    for controllers in (tuple(TASK.plug.controllers), ()):
        adversary = drawn(np.random.default_rng(seed), controllers, 20)
        assert adversary.kind in set(KINDS) - {"corner", "waves"}
        assert adversary.hold in HOLDS
        assert adversary.hold != 10
        assert adversary.noise is None or adversary.noise.sigma <= 0.8
    judging = [who for who in controllers_of(TASK).values() if isinstance(who, Adversary)]
    assert {who.kind for who in judging} >= {"corner", "waves"}


@pytest.mark.parametrize(
    "wrong", [{"kind": "sly"}, {"kind": "constant"}, {"kind": "noise"}, {"kind": "uniform", "hold": 0}]
)
def test_choices_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match="adversary"):
        Adversary(**wrong)
    with pytest.raises(ValueError, match="hold, action or noise do not fit"):
        Adversary("uniform", noise=Noise("A"))


# The matrix.


def test_figures_of_a_matrix():
    cells = [
        Cell("wild", "here", 20, 19, 1, 0.3, 5.0, 40.0),
        Cell("wild", "there", 20, 20, 3, 0.3, 5.0, 40.0),
        Cell("safe", "here", 20, 0, 0, 0.0, 50.0, 49.0),
        Cell("safe but worth nothing", "here", 20, 0, 0, 0.5, -3.0, -20.0),
    ]
    figures = matrix_figures(cells)
    assert (figures["cells"], figures["falls_worst"], figures["falls_mean"], figures["cells_over_2"]) == (4, 3, 1.0, 1)
    assert (figures["falls_without"], figures["falls_with"]) == (39, 4)
    assert figures["return_kept_min"] == pytest.approx(0.98)
    assert matrix_figures(cells[:2])["return_kept_min"] is None


@pytest.mark.long
def test_the_matrix_of_short_episodes(monkeypatch, tmp_path, capfd):
    task = dataclasses.replace(
        TASK, worlds={"short": {"max_steps": 30}, "slippery": {"foot_friction": 0.5, "max_steps": 30}}
    )
    cells = evaluate_matrix(task, None, 1, 0, show=False)
    assert [cell.world for cell in cells] == ["short"] * (len(cells) // 2) + ["slippery"] * (len(cells) // 2)
    assert {cell.controller for cell in cells} == set(controllers_of(TASK))
    assert all(0 <= cell.falls_with <= 1 and 0.0 <= cell.changed <= 1.0 for cell in cells)
    monkeypatch.setattr("ssql_ros.evaluation.matrix.evaluate_matrix", lambda *_: cells)
    assert ssql(["eval", "matrix", "--out", str(tmp_path / "cells.csv"), "--json"]) == 0
    figures = json.loads(capfd.readouterr().out.splitlines()[-1])["figures"]
    assert figures["cells"] == len(cells) == len((tmp_path / "cells.csv").read_text().splitlines()) - 1
