"""Behaviour policies: where data comes from, each with its promise.

A behaviour policy b says for every state which actions it may take (`support`), and in words what it promises of the
states that follow. A state is the observation, joined with a context where b has a memory of its own, such as a gait's
phase: b(.|s) is then a function of the state alone, as Safe-Support Q-Learning needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ssql_ros.behaviour.support import Support, boxes
from ssql_ros.contract.plugs import plugs


class BehaviourPolicy:
    """A policy with a stated support. Actions are in [-1, 1]. As it is here it has no memory, and so no context.

    Attributes:
        n_context: how many numbers it adds to the observation.
        promise: of states and actions, in words.
    """

    n_context = 0
    promise: str

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""

    def context(self) -> np.ndarray:
        """Return the context (n_context,) of this moment."""
        return np.zeros(0)

    def advance(self) -> None:
        """Move on by one step."""

    def act(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return an action (n_action,) for an observation (n_observation,), and move on by one step: a draw from b."""
        return self.support(observation[np.newaxis]).sample(1, rng)[0, 0]

    def starts(self) -> np.ndarray:
        """Return the contexts (M, n_context) that an episode may begin with, each as likely as `start_weights` says."""
        return np.zeros((1, 0))

    def start_weights(self) -> np.ndarray:
        """Return the probabilities (M,) of the contexts that an episode begins with."""
        return np.ones(1)

    def start_names(self) -> tuple[str, ...]:
        """Return the names of what an episode begins with, one for each context of `starts`; none where it is one."""
        return ()

    def with_start_weights(self, weights: np.ndarray) -> BehaviourPolicy:
        """Return the same policy with other probabilities (M,) of how an episode begins."""
        return self

    def support(self, states: np.ndarray) -> Support:
        """Return b(.|s) for states (N, n_observation + n_context)."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Return what `make_behaviour` makes the same policy from, in JSON's types."""
        raise NotImplementedError


class UniformBox(BehaviourPolicy):
    """Uniform over one box of actions, the same in every state.

    Args:
        low, high: of the box, each n_action numbers in [-1, 1].

    Raises:
        ValueError: not a box inside the action bounds.
    """

    def __init__(self, low: Sequence[float], high: Sequence[float]) -> None:
        self.low, self.high = _box(low, high)
        self.promise = "actions uniform in a box; of states nothing"

    def support(self, states: np.ndarray) -> Support:
        """Return b(.|s) for states (N, n_observation)."""
        shape = (len(states), 1, len(self.low))
        return boxes(np.ones(shape[:2]), np.broadcast_to(self.low, shape), np.broadcast_to(self.high, shape))

    def describe(self) -> dict[str, Any]:
        """Return what `make_behaviour` makes the same policy from."""
        return {"kind": "uniform", "low": self.low.tolist(), "high": self.high.tolist(), "context": 0}


class Gaussian(BehaviourPolicy):
    """Normal about one action, the same in every state, cut off at so many standard deviations and at the bounds.

    Args:
        mean, std: n_action numbers each.
        cut: where it ends, in standard deviations.

    Raises:
        ValueError: the mean is outside of the action bounds, or std or cut not above 0.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], cut: float = 2.0) -> None:
        self.mean, self.std, self.cut = np.asarray(mean, float), np.asarray(std, float), float(cut)
        if self.mean.shape != self.std.shape or not ((self.std > 0.0).all() and 0.0 < self.cut < np.inf):
            raise ValueError(f"gaussian: expected mean and std of one length, std and cut above 0; got {std}, {cut}")
        if not (np.abs(self.mean) <= 1.0).all():
            raise ValueError(f"gaussian: expected a mean in [-1, 1], got {list(mean)}")
        self.promise = f"actions within {self.cut:g} standard deviations of one action; of states nothing"

    def support(self, states: np.ndarray) -> Support:
        """Return b(.|s) for states (N, n_observation)."""
        shape = (len(states), 1, len(self.mean))
        low, high = (np.clip(self.mean + side * self.cut * self.std, -1.0, 1.0) for side in (-1.0, 1.0))
        parts = (np.broadcast_to(part, shape) for part in (low, high, self.mean, self.std))
        return Support(np.ones(shape[:2]), *parts)

    def describe(self) -> dict[str, Any]:
        """Return what `make_behaviour` makes the same policy from."""
        return {
            "kind": "gaussian",
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "cut": self.cut,
            "context": 0,
        }


class Mixture(BehaviourPolicy):
    """One of several memoryless policies at each step, drawn by weight.

    Args:
        weights: above 0; normalised.

    Raises:
        ValueError: not one weight above 0 for each policy, or a policy with a context.
    """

    def __init__(self, policies: Sequence[BehaviourPolicy], weights: Sequence[float]) -> None:
        given = np.asarray(weights, float)
        if len(given) != len(policies) or not len(given) or not (given > 0.0).all():
            raise ValueError(f"mixture: expected {len(policies)} weights above 0, got {list(weights)}")
        if any(policy.n_context for policy in policies):
            raise ValueError("mixture: a policy with a context cannot be drawn anew at every step")
        self.policies, self.weights = list(policies), given / given.sum()
        self.promise = "; or ".join(policy.promise for policy in policies)

    def support(self, states: np.ndarray) -> Support:
        """Return b(.|s) for states (N, n_observation)."""
        parts = [policy.support(states) for policy in self.policies]
        weight = np.concatenate([w * part.weight for w, part in zip(self.weights, parts, strict=True)], axis=1)
        others = (
            np.concatenate([getattr(part, name) for part in parts], axis=1) for name in ("low", "high", "mean", "std")
        )
        return Support(weight, *others)

    def describe(self) -> dict[str, Any]:
        """Return what `make_behaviour` makes the same policy from."""
        parts = [policy.describe() for policy in self.policies]
        return {"kind": "mixture", "policies": parts, "weights": self.weights.tolist(), "context": 0}


def _box(low: Sequence[float], high: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    lower, upper = np.asarray(low, float), np.asarray(high, float)
    if lower.shape != upper.shape or lower.ndim != 1 or not ((lower >= -1.0) & (lower <= upper) & (upper <= 1.0)).all():
        raise ValueError(f"box of actions: expected -1 <= low <= high <= 1, got {low} and {high}")
    return lower, upper


def make_behaviour(description: dict[str, Any]) -> BehaviourPolicy:
    """Return the behaviour policy that `description` (see `BehaviourPolicy.describe`) tells of.

    Its kind is one of this package's, or one that an installed robot brings along.

    Raises:
        ValueError: an unknown kind, or arguments that do not fit it; the text names the kind.
    """
    from ssql_ros.behaviour.learned import LearnedDensity
    from ssql_ros.behaviour.rooms import Rooms

    makers: dict[str, Callable[..., BehaviourPolicy]] = {
        "uniform": UniformBox,
        "gaussian": Gaussian,
        "mixture": lambda policies, weights: Mixture([make_behaviour(part) for part in policies], weights),
        "rooms": Rooms,
        "learned": LearnedDensity,
    }
    for plug in plugs().values():
        makers |= plug.behaviours
    arguments = {name: value for name, value in description.items() if name not in ("kind", "context")}
    kind = description.get("kind")
    if kind not in makers:
        raise ValueError(f"behaviour policy {kind!r} is unknown; known: {', '.join(makers)}")
    try:
        made = makers[kind](**arguments)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"behaviour policy {kind!r}: {error}") from error
    if made.n_context != description.get("context", 0):
        raise ValueError(
            f"behaviour policy {kind!r}: expected a context of {made.n_context}, got {description.get('context')}"
        )
    return made
