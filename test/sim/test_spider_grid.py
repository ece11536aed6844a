"""The spider solved on a grid: against the world itself, and what the two thresholds come to."""

import json
from functools import lru_cache

import numpy as np
import pytest

from ssql_ros.cli.main import main
from ssql_sim.spider import SpiderEnv, goes_round
from ssql_sim.spider_grid import LEARNED_AT, SpiderGrid

NOISE, GOAL = 0.2, (6.5, 3.5)


@lru_cache(maxsize=2)
def grid(goal: tuple[float, float] = GOAL) -> SpiderGrid:
    return SpiderGrid(goal, NOISE, cells=5)


def world(goal: tuple[float, float] = GOAL) -> SpiderEnv:
    return SpiderEnv(goal=goal, action_noise=NOISE, noise="normal")


@pytest.fixture(scope="module")
def risk() -> tuple[np.ndarray, float]:
    """Q_safe of the masked policy of pre-training, which the experiment's critics learn."""
    return grid((7.5, 3.5)).risk(LEARNED_AT, 0.65)


@pytest.mark.parametrize(
    ("position", "action"),
    [((0.5, 3.5), (-0.6, 0.4)), ((2.1, 3.3), (1.0, -0.2)), ((3.5, 1.7), (0.8, 0.6)), ((7.7, 6.5), (1.0, 0.0))],
)
def test_a_step_on_the_grid_is_a_step_of_the_world(position, action):
    g, env, n = grid(), world(), 4000
    cell = g.cell(position)
    pair = tuple(int(np.argmin(np.abs(g.actions - a))) for a in action)
    risk = g.expected(g.incident.astype(float))[(*cell, *pair)]
    row = g.expected(np.where(g.incident, 0.0, g.at(np.broadcast_to(g.rows[:, None], g.incident.shape[:2]))))
    env.reset(seed=0)
    incidents, rows = 0, 0.0
    for _ in range(n):
        env.position, env._steps = position, 0
        after, _, _, _, info = env.step(np.array(action))
        incidents += info["incident"]
        rows += 0.0 if info["incident"] else after[0]
    # Four standard deviations of the draws, and half a cell of rounding in the noise.
    assert risk == pytest.approx(incidents / n, abs=4.0 * np.sqrt(0.25 / n) + 0.02)
    assert row[(*cell, *pair)] == pytest.approx(rows / n, abs=0.02 * (1.0 + position[0]))


def test_best_way_does_in_the_world_what_it_does_on_the_grid():
    chosen = grid().best(0.99)
    expected = grid().way(chosen)
    assert expected.success + expected.incident + expected.time_out == pytest.approx(1.0)
    ways = grid().walk(chosen, world(), 400, seed=0)
    reached = [np.hypot(*(way[-1] - GOAL)) <= 1.0 for way in ways]
    assert np.mean(reached) == pytest.approx(expected.success, abs=0.04)
    assert np.mean([goes_round(way) for way in ways]) == pytest.approx(expected.round, abs=0.06)
    assert np.mean([len(way) - 1 for way in ways]) == pytest.approx(expected.length, abs=0.3)


def test_risk_solves_the_masked_policys_equation(risk):
    q, left = risk
    assert 0.0 <= q.min() <= q.max() <= 1.0
    assert left < 0.01
    # Into the lava from beside it; and beside the goal an episode ends before anything happens.
    assert q[grid().cell((3.5, 3.9))][5, -1] > 0.9
    assert q[grid().cell((6.3, 3.5))].min() < 0.01


def test_epsilon_005_goes_round_and_02_crosses_the_bridge(risk):
    q, _ = risk
    found = {epsilon: grid().way(grid().best(0.9, grid().mask(q, epsilon))) for epsilon in (0.05, 0.2)}
    assert found[0.05].round > 0.99
    assert found[0.05].incident < 0.02
    assert found[0.2].round < 0.01
    assert 0.03 < found[0.2].incident < 0.07
    assert min(way.success for way in found.values()) > 0.9
    # On the bridge Q_safe of whoever goes on lies between the two, beside the pools far below both.
    for row in (2.5, 3.5, 4.5):
        assert 0.05 < q[grid().cell((row, 3.5))][-3:].min() < 0.2
        assert q[grid().cell((row, 1.0))][-3:].min() < 0.025


@pytest.mark.long
def test_exact_ways_are_a_command(tmp_path, capsys):
    picture = tmp_path / "ways.png"
    exact = ["report", "--task", "spider_threshold", "--exact"]
    assert main([*exact, "0.05", "0.2", "--episodes", "50", "--out", str(picture), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert picture.stat().st_size > 5000
    assert figures["exact, epsilon 0.05: round the pits"] > 0.9
    assert figures["exact, epsilon 0.2: round the pits"] < 0.15
    assert main([*exact, "2"]) == 2
    assert "epsilon: expected a number between 0 and 1, got 2" in capsys.readouterr().err
    assert main(["report", "--exact", "0.2", "--task", "spider"]) == 2
    assert "expected a world of normal noise, got uniform" in capsys.readouterr().err


def test_grid_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="expected an odd number of cells per metre and noise above 0, got 4"):
        SpiderGrid(GOAL, 0.2, cells=4)
