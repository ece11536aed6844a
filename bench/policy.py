"""`ssql bench policy`: a decision of SafeFQL's one pass, of a multi-step flow, of a diffusion policy, timed in turn.

All in NumPy, with networks of one width and depth, so that a ratio is that of passes and candidates, not of size; the
flow has 10 Euler steps, the diffusion 5, and their N candidates are scored by the same critics (see rejection.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from ssql_ros.model.bundle import Bundle, Layer, Network
from ssql_ros.model.policy import OneStepFlow
from ssql_ros.model.rejection import by_rejection, diffusion_sampler, flow_sampler

CANDIDATES = 16
_Drawn = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def bench_policy(bundle: Bundle, repeats: int, seed: int) -> dict[str, float]:
    """Return p50 times in us and their ratios, of decisions timed in turn.

    Raises:
        ValueError: no repeats.
        BundleError: the bundle has no policy of one step, or no critics.
    """
    if repeats < 1:
        raise ValueError(f"repeats: expected at least 1, got {repeats}")
    rng = np.random.default_rng(seed)
    actor, policy = bundle.need("policy"), OneStepFlow(bundle)
    several = _like(actor, rng)
    reward, critic = bundle.need("reward"), bundle.need("critic")
    decide: dict[str, _Drawn] = {"one_step": lambda observation, rng: policy.propose(observation, rng).action}
    for name, sampler in (("flow", flow_sampler(several)), ("diffusion", diffusion_sampler(several))):
        for n in (1, CANDIDATES):
            decide[f"{name}_n{n}"] = _alone(by_rejection(sampler, reward, critic, n))
    spread = actor.observation_scale.astype(float)
    observations = actor.observation_mean + spread * rng.standard_normal((repeats, len(spread)))
    times: dict[str, list[float]] = {name: [] for name in decide}
    for i, observation in enumerate([*observations[: min(50, repeats)], *observations]):
        for name, act in decide.items():
            begun = time.perf_counter()
            act(observation, rng)
            if i >= min(50, repeats):  # the first ones warm up
                times[name].append(time.perf_counter() - begun)
    middle = {name: 1e6 * float(np.median(values)) for name, values in times.items()}
    figures = {f"{name}_us": value for name, value in middle.items()}
    figures |= {f"{name}_p99_us": 1e6 * float(np.quantile(values, 0.99)) for name, values in times.items()}
    one = middle["one_step"]
    return {
        "ratio_to_diffusion_n16": one / middle["diffusion_n16"],
        "ratio_to_flow_n1": one / middle["flow_n1"],
        "ratio_to_diffusion_n1": one / middle["diffusion_n1"],
        "ratio_to_flow_n16": one / middle["flow_n16"],
        **figures,
    }


def _alone(act: _Drawn) -> _Drawn:
    """Return a policy of many observations as one of a single one."""
    return lambda observation, rng: act(observation[np.newaxis], rng)[0]


def _like(actor: Network, rng: np.random.Generator) -> Network:
    """Return a network of random weights with the actor's layers, and one more input: time."""
    first, *others = actor.members[0]
    weight = rng.normal(0.0, 0.1, (len(first.weight) + 1, first.weight.shape[1])).astype(np.float32)
    layers = (Layer(weight, first.bias), *others)
    return Network(actor.observation_mean, actor.observation_scale, actor.observation_clip, (layers,), actor.activation)
