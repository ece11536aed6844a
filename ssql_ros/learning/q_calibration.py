"""Is Q what it says it is? Q(s,a) of SSQL against the Monte-Carlo return of the objective that it stands for.

    Q(s_t, a_t)  against  r_t + sum_{k >= 1} gamma^k (r_{t+k} - lambda KL(pi*(.|s_{t+k}) || b(.|s_{t+k})))

under the induced policy pi*, which draws M actions of b and keeps one by softmax(Q / lambda). The KL of a step is that
of its own weights w against 1/M, sum_j w_j log(M w_j): the M-sample policy's own, and what V's M-sample estimate has in
it. Only steps count that see all but a stated share of their discounted rest before their episode is cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ssql_ros.bundle import Bundle, write_whole
from ssql_ros.policy import InducedPolicy
from ssql_ros.statistics import rank_correlation
from ssql_ros.tasks import Task

DECILES = 10
# Share of a step's discounted rest that may lie beyond the end of its episode.
UNSEEN = 0.02


@dataclass(frozen=True)
class Rollout:
    """One episode, step by step: q (T,) of what was done, reward (T,), kl (T,); `ended`: by the task, not by time."""

    q: np.ndarray
    reward: np.ndarray
    kl: np.ndarray
    ended: bool


def roll_out(
    policy: InducedPolicy, env: Any, episodes: int, seed: int, show: bool
) -> tuple[list[Rollout], list[float]]:
    """Return episodes of the induced policy, and their undiscounted returns."""
    rng = np.random.default_rng([seed, 7])
    rollouts, totals = [], []
    for _ in tqdm(range(episodes), unit="episode", disable=not show):
        observation, _ = env.reset(seed=int(rng.integers(2**31)))
        policy.reset(rng)
        q, reward, kl = [], [], []
        terminated = truncated = False
        while not (terminated or truncated):
            actions, values, weights = policy.weigh(observation, rng)
            chosen = int(rng.choice(len(actions), p=weights))
            policy.behaviour.advance()
            observation, r, terminated, truncated, _ = env.step(actions[chosen])
            q.append(values[chosen])
            reward.append(float(r))
            positive = weights[weights > 0.0]
            kl.append(float((positive * np.log(len(weights) * positive)).sum()))
        rollouts.append(Rollout(np.array(q), np.array(reward), np.array(kl), terminated))
        totals.append(float(np.sum(reward)))
    return rollouts, totals


def regularised_returns(rollout: Rollout, gamma: float, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the right-hand side above (T,), and which steps (T,) see enough of their rest."""
    n = len(rollout.reward)
    found, running = np.zeros(n), 0.0
    for t in range(n - 1, -1, -1):
        found[t] = rollout.reward[t] + gamma * running
        running = found[t] - temperature * rollout.kl[t]
    whole = np.full(n, True) if rollout.ended else gamma ** np.arange(n, 0, -1) <= UNSEEN
    return found, whole


def q_figures(q: np.ndarray, returns: np.ndarray) -> dict[str, Any]:
    """Return bias, RMSE over the returns' range, rank correlation, and the mean of either by decile of Q.

    Args:
        q, returns: (N,), N >= 1.

    Raises:
        ValueError: nothing to compare.
    """
    if not len(q):
        raise ValueError("no step sees enough of its discounted rest: longer episodes are needed, or a shorter horizon")
    span = max(float(np.ptp(returns)), 1e-12)
    parts = np.array_split(np.argsort(q, kind="stable"), min(DECILES, len(q)))
    return {
        "q_bias": float((q - returns).mean()),
        "q_rmse": float(np.sqrt(np.square(q - returns).mean())) / span,
        "q_rank": rank_correlation(q, returns),
        "q_range": span,
        "q_steps": len(q),
        "q_deciles": [[float(q[part].mean()), float(returns[part].mean()), len(part)] for part in parts],
    }


def calibrate_q(
    task: Task, bundle: Bundle, world: dict[str, Any], episodes: int, seed: int, show: bool
) -> dict[str, Any]:
    """Return the figures for a bundle of SSQL, with lambda, gamma and M as it was trained with.

    Raises:
        ValueError: its provenance does not tell them, or no step sees enough of its rest.
        BundleError: no reward critics, or no behaviour policy.
    """
    settings = bundle.provenance.get("settings", {})
    try:
        temperature, gamma, samples = (settings[name] for name in ("temperature", "gamma", "samples"))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{bundle.path}: its provenance does not tell the setting {error} of its training") from error
    env = task.make(**world)
    try:
        rollouts, totals = roll_out(InducedPolicy(bundle, temperature, samples), env, episodes, seed, show)
    finally:
        env.close()
    pairs = [regularised_returns(rollout, gamma, temperature) for rollout in rollouts]
    whole = np.concatenate([part for _, part in pairs])
    q = np.concatenate([rollout.q for rollout in rollouts])[whole]
    returns = np.concatenate([found for found, _ in pairs])[whole]
    kl = np.concatenate([rollout.kl for rollout in rollouts])
    return {
        **q_figures(q, returns),
        "temperature": temperature,
        "gamma": gamma,
        "samples": samples,
        "kl_mean": float(kl.mean()),
        "induced_return_mean": float(np.mean(totals)),
    }


def plot_reliability(figures: dict[str, Any], path: Path, title: str) -> None:
    """Write a PNG: mean return against mean Q, by decile of Q; on the diagonal Q is what it says."""
    import io

    from matplotlib.figure import Figure

    deciles = np.array(figures["q_deciles"])
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.subplots()
    ends = [deciles[:, :2].min(), deciles[:, :2].max()]
    axes.plot(ends, ends, color="0.7", linewidth=1.0)
    axes.plot(deciles[:, 0], deciles[:, 1], "o-", color="#0072b2")
    axes.set_xlabel("Q, mean of its decile")
    axes.set_ylabel("regularised return, mean")
    axes.set_title(f"{title}\nbias {figures['q_bias']:+.3g}, rank correlation {figures['q_rank']:.2f}", fontsize=10)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    write_whole(path, stream.getvalue())
