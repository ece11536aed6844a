"""SSQL over its temperature on grid worlds, seed by seed, beside the exact optimum and unsafe Q-learning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from ssql_ros.algorithms.tabular import collect, fitted_ssql, q_learning
from ssql_ros.data.random_streams import Stream
from ssql_ros.report.figures import save
from ssql_sim.grid import GRIDS
from ssql_sim.soft_dp import (
    EpisodicMDP,
    expected_return,
    induced_policy,
    safe_actions,
    soft_optimum,
    uniform_over,
)

GAMMA = 0.95
TEMPERATURES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
EXPERIMENT = "ssql_lambda_grid"


def study(task: str, steps: int, seeds: int, show: bool) -> list[list[str]]:
    """Return rows for summary.csv: experiment, method, task, seed, figure, value.

    For each temperature the return of the induced policy from the start, learned from `steps` steps of the safe
    behaviour policy, and the exact one's as seed "exact"; for Q-learning, free to visit any cell, the same steps.
    """
    from ssql_sim.grid import GridEnv

    env = GridEnv(layout=GRIDS[task])
    mdp = EpisodicMDP(env.transitions, env.reward, env.terminal, env.unsafe, GAMMA)
    behaviour = uniform_over(safe_actions(mdp))
    rows = []

    def add(method: str, seed: int | str, figure: str, value: float) -> None:
        rows.append([EXPERIMENT, method, task, str(seed), figure, f"{value:.6g}"])

    for temperature in TEMPERATURES:
        exact, _ = soft_optimum(mdp, behaviour, temperature)
        policy = induced_policy(exact, behaviour, temperature)
        add(f"lambda {temperature:g}", "exact", "return_mean", expected_return(mdp, policy)[env.start])
    add("behaviour", "exact", "return_mean", expected_return(mdp, behaviour)[env.start])
    for seed in tqdm(range(seeds), unit="seed", disable=not show):
        seen = collect(env, behaviour, behaviour, steps, Stream.GRID_STUDY_SSQL.generator(seed))
        for temperature in TEMPERATURES:
            exact, _ = soft_optimum(mdp, behaviour, temperature)
            q, policy = fitted_ssql(seen, behaviour, temperature, GAMMA, tolerance=1e-9)
            name = f"lambda {temperature:g}"
            # Where a state was never seen there is nothing to act by: the behaviour policy goes on.
            met = seen.transitions.sum(axis=(1, 2)) > 0
            acting = np.where(met[:, np.newaxis], policy, behaviour)
            add(name, seed, "return_mean", expected_return(mdp, acting)[env.start])
            known = (seen.transitions.sum(axis=2) > 0) & ~mdp.terminal[:, np.newaxis] & (behaviour > 0.0)
            add(name, seed, "q_bias", float((q - exact)[known].mean()))
            add(name, seed, "training_incidents", seen.incidents)
        free = q_learning(env, steps, GAMMA, Stream.GRID_STUDY_Q_LEARNING.generator(seed))
        greedy = np.eye(free.q.shape[1])[free.q.argmax(axis=1)]
        add("q_learning", seed, "return_mean", expected_return(mdp, greedy)[env.start])
        add("q_learning", seed, "training_incidents", free.incidents)
    return rows


def plot(rows: list[list[str]], path: Path) -> None:
    """Write a PNG: return against lambda, mean and standard deviation over seeds, beside the exact line."""
    tasks = list(dict.fromkeys(row[2] for row in rows))
    figure = Figure(figsize=(4.6 * len(tasks), 3.6), layout="constrained")
    for axes, task in zip(np.atleast_1d(figure.subplots(1, len(tasks))), tasks, strict=True):
        found = {(row[1], row[3]): float(row[5]) for row in rows if row[2] == task and row[4] == "return_mean"}
        seeds = sorted({seed for method, seed in found if seed != "exact"})
        exact = [found[f"lambda {t:g}", "exact"] for t in TEMPERATURES]
        learned = np.array([[found[f"lambda {t:g}", seed] for seed in seeds] for t in TEMPERATURES])
        axes.plot(TEMPERATURES, exact, color="0.6", label="exact")
        axes.errorbar(
            TEMPERATURES, learned.mean(axis=1), learned.std(axis=1), fmt="o", capsize=3, color="#0072b2", label="SSQL"
        )
        axes.axhline(found["behaviour", "exact"], color="#d55e00", linestyle=":", label="behaviour policy")
        axes.set_xscale("log")
        axes.set_xlabel("λ")
        axes.set_ylabel("return from the start")
        axes.set_title(task, fontsize=10)
        axes.legend(fontsize="small")
    save(figure, path)
