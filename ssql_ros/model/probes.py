"""Probes: inputs that a bundle carries with what its networks made of them, so that whoever serves it can compare.

A hash tells that the file is the one that was announced. Probes tell that what is served is what was saved: that this
machine, with its versions of the libraries, computes the same critic and the same policy.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from ssql_ros.contract.contract import Contract
from ssql_ros.model.bundle import Bundle, BundleError
from ssql_ros.model.critic import SafetyCritic
from ssql_ros.model.domain import Domain
from ssql_ros.model.policy import make_policy

PROBES = 16
# float32 sums in another order differ by about 1e-5 of what they add up; another network differs by far more.
TOLERANCE = 1e-3


def with_probes(bundle: Bundle, contract: Contract, seed: int = 0) -> Bundle:
    """Return `bundle` with probes of its critic and its policy, as they are served here.

    Observations are drawn from N(mean, scale^2) of the bundle's own standardisation, every fourth with eight times
    the scale, so that the clip is probed too; actions uniformly from the contract's bounds. A network of a kind that
    is not served here gets none: nobody could compare.

    Raises:
        ValueError: a network gives what is not finite.
    """
    rng, n, told = np.random.default_rng(seed), contract.observation_size, contract.commanded
    network = bundle.critic or bundle.policy or bundle.reward
    # A behaviour policy alone has no network, and tells nothing of the observations that it expects.
    mean, scale = (network.observation_mean, network.observation_scale) if network else (np.zeros(n), np.ones(n))
    wide = np.where(np.arange(PROBES) % 4 == 3, 8.0, 1.0)[:, np.newaxis]
    spread = wide * scale[:n] * rng.standard_normal((PROBES, n))
    probes = {
        "observation": (mean[:n] + spread).astype(np.float32),
        "action": rng.uniform(told.low, told.high, (PROBES, contract.action_size)).astype(np.float32),
    }
    with suppress(ValueError):
        critic = SafetyCritic(bundle)
        probes["critic"] = _critic_outputs(critic, probes)[0].astype(np.float32)
    if bundle.critic is not None and bundle.critic.domain is not None:
        probes["domain"] = _distances(bundle.critic.domain, probes).astype(np.float32)
    with suppress(ValueError):
        policy = make_policy(bundle)
        probes["policy"] = _policy_outputs(policy, probes).astype(np.float32)
    for name, array in probes.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{bundle.path or 'bundle'}: the {name} of a probe is not finite")
    served = {"critic", "policy"} & set(probes)
    return replace(bundle, probes=probes if served else {})


def check_probes(bundle: Bundle) -> None:
    """Compare what a bundle's networks do here with its probes, as far as it has any: the way in of every file.

    Raises:
        BundleError: outputs differ, as `check_critic` says.
    """
    if "critic" in bundle.probes:
        check_critic(SafetyCritic(bundle))
    if "policy" in bundle.probes:
        check_policy(make_policy(bundle), bundle)


def check_critic(critic: SafetyCritic) -> None:
    """Compare a served critic with its bundle's probes: every observation with all actions, with one alone, its domain.

    Raises:
        BundleError: no probes, or outputs that differ by more than `TOLERANCE` (of the value, where that is above 1).
    """
    bundle = critic.bundle
    expected = _expected(bundle, "critic")
    many, alone = _critic_outputs(critic, bundle.probes)
    _compare(bundle, "critic", many, expected)
    _compare(bundle, "critic of one action", alone, np.diagonal(expected))
    if critic.domain is not None:
        _compare(bundle, "domain", _distances(critic.domain, bundle.probes), _expected(bundle, "domain"))


def check_policy(policy: Any, bundle: Bundle) -> None:
    """Compare a served policy with its bundle's probes. Leaves the policy in the middle of an episode: reset it.

    Raises:
        BundleError: no probes, or outputs that differ, as `check_critic` says.
    """
    expected = _expected(bundle, "policy")
    _compare(bundle, "policy", _policy_outputs(policy, bundle.probes), expected)


def _expected(bundle: Bundle, name: str) -> np.ndarray:
    if name not in bundle.probes:
        raise BundleError(f"{bundle.path}: has no probes of its {name}, so that it cannot be verified; save it anew")
    return bundle.probes[name]


def _critic_outputs(critic: SafetyCritic, probes: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (n, n) of every observation with all actions, and (n,) of each with its own alone."""
    observations, actions = (probes[name].astype(float) for name in ("observation", "action"))
    many = np.array([critic.logits(observation, actions).tolist() for observation in observations])
    pairs = zip(observations, actions, strict=True)
    alone = [float(critic.logits(observation, action[np.newaxis])[0]) for observation, action in pairs]
    return many, np.array(alone)


def _distances(domain: Domain, probes: dict[str, np.ndarray]) -> np.ndarray:
    """Return the distance (n, 1) of every observation."""
    return np.array([[domain.distance(observation)] for observation in probes["observation"].astype(float)])


def _policy_outputs(policy: Any, probes: dict[str, np.ndarray]) -> np.ndarray:
    """Return what the policy says of each observation, in an episode of them all: best action, mean and std."""
    rng = np.random.default_rng(0)
    policy.reset(rng)
    rows = []
    for observation in probes["observation"].astype(float):
        # Not the draw itself: which numbers a generator gives is no promise of NumPy's from version to version.
        best, proposal = policy.best(observation), policy.propose(observation, rng)
        rows.append(np.concatenate([part for part in (best, proposal.mean, proposal.std) if part is not None]))
    return np.array(rows, float)


def _compare(bundle: Bundle, name: str, got: np.ndarray, expected: np.ndarray) -> None:
    if got.shape != expected.shape:
        raise BundleError(f"{bundle.path}: probes of the {name}: expected {expected.shape} outputs, got {got.shape}")
    # What is not finite compares false, so it is never within.
    within = np.abs(got - expected) <= TOLERANCE * np.maximum(1.0, np.abs(expected))
    if not within.all():
        worst = np.unravel_index(np.argmax(np.where(within, 0.0, _distance(got, expected))), got.shape)
        raise BundleError(
            f"{bundle.path}: the {name} gives {got[worst]:.6g} where the bundle's probe {worst[0]} says "
            f"{expected[worst]:.6g} (tolerance {TOLERANCE:g}); {np.count_nonzero(~within)} of {within.size} differ"
        )


def _distance(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    distance = np.abs(got - expected)
    return np.where(np.isfinite(distance), distance, np.inf)
