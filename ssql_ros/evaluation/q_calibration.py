"""Is Q what it says it is? Q(s,a) against the Monte-Carlo return of the objective that it stands for.

    Q(s_t, a_t)  against  r_t + sum_{k >= 1} gamma^k (r_{t+k} - price * cost_{t+k}),   actions drawn from the policy

    SSQL            price lambda, cost KL(pi* || b) of the induced policy pi*, which draws M actions of b and keeps one
                    by softmax(Q / lambda). The KL of a step is that of its own weights w against 1/M,
                    sum_j w_j log(M w_j): the M-sample policy's own, and what V's M-sample estimate has in it.
    SAC, SQRL, CQL  price alpha, cost log pi(a|s), the policy alone, as their targets have it
    IQL             price 0

Only steps count that see all but a stated share of their discounted rest before their episode is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssql_ros.behaviour.policy import BehaviourPolicy
from ssql_ros.data.random_streams import Stream
from ssql_ros.evaluation.intervals import rank_correlation
from ssql_ros.evaluation.judged_policies import JudgedEpisode, JudgedGaussian, JudgedInduced, roll_out
from ssql_ros.model.bundle import Bundle, BundleError, Network
from ssql_ros.model.policy import InducedPolicy
from ssql_ros.model.served_network import q_values
from ssql_ros.robots.tasks import Task

DECILES = 10
# Share of a step's discounted rest that may lie beyond the end of its episode.
UNSEEN = 0.02
# Whose Q is that of r - alpha log pi under their own policy; RS prices risk in its reward, WCPG has a distribution.
GAUSSIAN = ("sac", "sqrl", "esac", "cql", "iql")
# V's bias is taken against this many draws of b, in this many states.
MANY_DRAWS, VALUE_STATES = 4096, 64
VALUE_DRAWS = (1, 4, 16, 64, 256)


def regularised_returns(rollout: JudgedEpisode, gamma: float, price: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the right-hand side above (T,), and which steps (T,) see enough of their rest."""
    n = len(rollout.reward)
    found, running = np.zeros(n), 0.0
    for t in range(n - 1, -1, -1):
        found[t] = rollout.reward[t] + gamma * running
        running = found[t] - price * rollout.cost[t]
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


def compared(rollouts: Sequence[JudgedEpisode], gamma: float, price: float) -> dict[str, Any]:
    """Return `q_figures` of all steps that see enough of their rest, and `q_share`, their share of all steps."""
    pairs = [regularised_returns(rollout, gamma, price) for rollout in rollouts]
    whole = np.concatenate([part for _, part in pairs])
    q = np.concatenate([rollout.q for rollout in rollouts])[whole]
    returns = np.concatenate([found for found, _ in pairs])[whole]
    return {**q_figures(q, returns), "q_share": float(whole.mean())}


def value_bias(
    critics: Network,
    behaviour: BehaviourPolicy,
    states: np.ndarray,
    temperature: float,
    counts: Sequence[int],
    rng: np.random.Generator,
) -> dict[int, float]:
    """Return by how much V of M draws of b differs from V of `MANY_DRAWS`, in the mean: below 0, less with more draws.

    Args:
        states: (N, n_state).
        counts: M, up to `MANY_DRAWS`.
    """
    found = dict.fromkeys(counts, 0.0)
    for state in states:
        actions = behaviour.support(state[np.newaxis]).sample(MANY_DRAWS, rng)[0]
        q = q_values(critics, np.broadcast_to(state, (MANY_DRAWS, len(state))), actions).mean(axis=0, dtype=float)

        def value(count: int, q: np.ndarray = q) -> float:
            parts = q[: len(q) // count * count].reshape(-1, count)
            top = parts.max(axis=1)
            means = np.exp((parts - top[:, np.newaxis]) / temperature).mean(axis=1)
            return float((top + temperature * np.log(means)).mean())

        exact = value(MANY_DRAWS)
        for count in counts:
            found[count] += (value(count) - exact) / len(states)
    return found


def has_objective(bundle: Bundle) -> bool:
    """Return whether a bundle's Q can be held against a return: its behaviour policy or alpha is known."""
    return bundle.reward is not None and (bool(bundle.behaviour) or _alpha_of(bundle) is not None)


def _alpha_of(bundle: Bundle) -> float | None:
    """Return alpha of a run of one of `GAUSSIAN`; None where the bundle does not tell, or Q is of something else."""
    plan, figures, settings = (bundle.provenance.get(name) for name in ("plan", "figures", "settings"))
    if not (isinstance(plan, dict) and isinstance(figures, dict) and isinstance(settings, dict)):
        return None
    alpha = figures.get("alpha")
    # There, Q is of the masked policy.
    masked = bool(settings.get("masked_value")) and plan.get("phase") == "finetune"
    known = plan.get("algorithm") in GAUSSIAN and isinstance(alpha, (int, float)) and bundle.policy is not None
    return float(alpha) if known and not masked else None  # type: ignore[arg-type]


def calibrate_q(
    task: Task, bundle: Bundle, world: dict[str, Any], episodes: int, seed: int, show: bool
) -> dict[str, Any]:
    """Return the figures of a bundle's Q for its own objective, with the settings that it was trained with.

    Besides `compared`'s: q_return_mean and q_incident_rate of the judged episodes; of SSQL, kl_mean and V's bias at
    its M (v_bias) and at others (v_bias_by_samples).

    Raises:
        ValueError: its provenance does not tell them, or no step sees enough of its rest.
        BundleError: it has no objective that is known (see `has_objective`).
    """
    if not has_objective(bundle):
        raise BundleError(f"{bundle.path}: expected a behaviour policy, or the alpha of a run of {', '.join(GAUSSIAN)}")
    env = task.make(**{**world, **task.judged})
    try:
        if bundle.behaviour:
            return _calibrated_induced(bundle, env, episodes, seed, show)
        return _calibrated_gaussian(bundle, env, episodes, seed, show)
    finally:
        env.close()


def _settings(bundle: Bundle, *names: str) -> list[Any]:
    settings = bundle.provenance.get("settings", {})
    if missing := [name for name in names if not isinstance(settings, dict) or name not in settings]:
        raise ValueError(f"{bundle.path}: its provenance does not tell the setting {missing[0]!r} of its training")
    return [settings[name] for name in names]


def _calibrated_induced(bundle: Bundle, env: Any, episodes: int, seed: int, show: bool) -> dict[str, Any]:
    temperature, gamma, samples = _settings(bundle, "temperature", "gamma", "samples")
    policy = JudgedInduced(InducedPolicy(bundle, temperature, samples))
    rollouts, totals = roll_out(policy, env, episodes, seed, show)
    spread = np.linspace(0, len(policy.states) - 1, VALUE_STATES).astype(int)
    bias = value_bias(
        bundle.need("reward"),
        policy.behaviour,
        np.array(policy.states)[spread],
        temperature,
        sorted({*VALUE_DRAWS, samples}),
        Stream.VALUE_BIAS.generator(seed),
    )
    return {
        **compared(rollouts, gamma, temperature),
        **_outcomes(rollouts, totals),
        "temperature": temperature,
        "gamma": gamma,
        "samples": samples,
        "kl_mean": float(np.concatenate([rollout.cost for rollout in rollouts]).mean()),
        "v_bias": bias[samples],
        "v_bias_by_samples": [[count, value] for count, value in bias.items()],
    }


def _calibrated_gaussian(bundle: Bundle, env: Any, episodes: int, seed: int, show: bool) -> dict[str, Any]:
    (gamma,), alpha = _settings(bundle, "gamma"), _alpha_of(bundle)
    assert alpha is not None
    rollouts, totals = roll_out(JudgedGaussian(bundle.need("policy"), bundle.need("reward")), env, episodes, seed, show)
    return {**compared(rollouts, gamma, alpha), **_outcomes(rollouts, totals), "alpha": alpha, "gamma": gamma}


def _outcomes(rollouts: Sequence[JudgedEpisode], totals: Sequence[float]) -> dict[str, float]:
    return {
        "q_return_mean": float(np.mean(totals)),
        "q_incident_rate": float(np.mean([rollout.incident for rollout in rollouts])),
    }
