"""Exact dynamic programming of the KL-regularised objective on a finite MDP: the ground truth of SSQL.

    Q(s,a) = R(s,a) + gamma sum_s' P(s'|s,a) V(s'),  V(s) = lambda log sum_a b(a|s) exp(Q(s,a) / lambda);  V = 0 at ends

and which actions are safe for good, which is what a safe behaviour policy may be uniform over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class EpisodicMDP:
    """A finite MDP whose `terminal` states are worth nothing.

    Attributes:
        transitions: (S, A, S), P(s'|s,a).
        reward: (S, A), the mean.
        terminal: (S,) bool.
        incident: (S,) bool, among them.
        gamma: discount, below 1.
    """

    transitions: np.ndarray
    reward: np.ndarray
    terminal: np.ndarray
    incident: np.ndarray
    gamma: float = 0.95

    def __post_init__(self) -> None:
        """Check shapes and the discount. Raises ValueError."""
        shape = self.transitions.shape
        if self.reward.shape != shape[:2] or self.terminal.shape != shape[:1] or self.incident.shape != shape[:1]:
            raise ValueError(f"expected reward {shape[:2]}, terminal and incident {shape[:1]} for transitions {shape}")
        if not np.allclose(self.transitions.sum(axis=2), 1.0, atol=1e-9) or not 0.0 <= self.gamma < 1.0:
            raise ValueError("expected transitions that sum to 1, and 0 <= gamma < 1")


def safe_actions(mdp: EpisodicMDP) -> np.ndarray:
    """Return which actions (S, A) never lead to an incident, now or later: the greatest such set.

    An action is safe if all of its outcomes are, and a state if it ends safely or has a safe action.
    """
    possible = mdp.transitions > 0.0
    safe = ~mdp.incident
    while True:
        allowed = ~(possible & ~safe).any(axis=2) & ~mdp.incident[:, np.newaxis]
        now = safe & (mdp.terminal | allowed.any(axis=1))
        if (now == safe).all():
            return allowed & safe[:, np.newaxis]
        safe = now


def uniform_over(allowed: np.ndarray) -> np.ndarray:
    """Return the behaviour policy (S, A) that is uniform over allowed actions (S, A); over all where there is none."""
    some = np.where(allowed.any(axis=1, keepdims=True), allowed, True)
    return some / some.sum(axis=1, keepdims=True)


def soft_optimum(mdp: EpisodicMDP, behaviour: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the exact Q (S, A) and V (S,) of max E sum gamma^t [r - lambda KL(pi || b)], by policy iteration.

    Policy iteration, so that this shares no code with what it judges: evaluate pi exactly by linear equations, take
    the policy that is best against its Q, until nothing changes.

    Args:
        behaviour: b (S, A), rows that sum to 1.
        temperature: lambda; 0 and inf are the limits.
    """
    policy, supported = behaviour.copy(), behaviour > 0.0
    going = ~mdp.terminal
    while True:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(policy > 0.0, np.log(policy / np.where(supported, behaviour, 1.0)), 0.0)
        cost = 0.0 if temperature == 0.0 or math.isinf(temperature) else temperature * (policy * ratio).sum(axis=1)
        gain = (policy * mdp.reward).sum(axis=1) - cost
        step = np.einsum("sa,sat->st", policy, mdp.transitions) * (going[:, np.newaxis] & going[np.newaxis])
        value = np.linalg.solve(np.eye(len(going)) - mdp.gamma * step, np.where(going, gain, 0.0))
        q = mdp.reward + mdp.gamma * mdp.transitions @ np.where(going, value, 0.0)
        better = induced_policy(q, behaviour, temperature)
        if np.abs(better - policy).max() < 1e-13:
            return q, value
        policy = better


def induced_policy(q: np.ndarray, behaviour: np.ndarray, temperature: float) -> np.ndarray:
    """Return pi* (S, A) ~ b exp(Q / lambda); exactly 0 outside of b's support."""
    supported = behaviour > 0.0
    if math.isinf(temperature):
        return behaviour.copy()
    masked = np.where(supported, q, -np.inf)
    gap = masked - masked.max(axis=1, keepdims=True)
    if temperature == 0.0:
        # What differs by rounding alone is equally good.
        weight = np.where(gap > -1e-9, behaviour, 0.0)
    else:
        weight = behaviour * np.exp(np.where(supported, gap, -np.inf) / temperature)
    return weight / weight.sum(axis=1, keepdims=True)


def expected_return(mdp: EpisodicMDP, policy: np.ndarray) -> np.ndarray:
    """Return V (S,) of a policy (S, A), without regularisation."""
    going = ~mdp.terminal
    step = np.einsum("sa,sat->st", policy, mdp.transitions) * (going[:, np.newaxis] & going[np.newaxis])
    gain = np.where(going, (policy * mdp.reward).sum(axis=1), 0.0)
    return np.linalg.solve(np.eye(len(going)) - mdp.gamma * step, gain)
