"""Finite MDPs in which Q_safe is solved exactly, to check what masking by a safety critic does and does not promise.

After SQRL (Srinivasan et al. 2020), eq. 2, 3, Lemma 1 and Theorem 1. Q_safe is in this house's form,

    Q(s, a) = sum_s' P(s'|s, a) [I(s') + (1 - I(s')) gamma_safe sum_a' pi(a'|s') Q(s', a')],

in which an incident at the very next step weighs 1. The paper's eq. 2 weighs it gamma_safe: in safe states its value is
gamma_safe Q. The same epsilon is therefore stricter here, by 1 / gamma_safe.

Write T^pi q for the right-hand side and m for `masked(pi, q, epsilon)`. What holds, tested in test_finite_mdp.py, in
every safe state s with some q(s, a) <= epsilon (for others nothing is promised):

    1. If q >= T^m q everywhere, then q >= Q^m: actions taken in s have Q^m <= epsilon, and V^m(s) <= epsilon.
       Proof: T^m is monotone and a contraction to Q^m, so q >= T^m q >= T^m T^m q >= ... -> Q^m.
    2. q = Q^pi, exact, of the very policy that is masked, fulfils (1): what is kept has q <= epsilon < q of what is
       removed, so in every state the mean of q under m is at most that under pi, and T^m q <= T^pi q = q. No other
       assumption is used; m is nowhere riskier than pi. This is appendix D's critic, exact and of the current policy.
    3. q = Q^m, the masked policy's own (Lemma 1), where it exists: see `masked_fixed_point`.
    4. q = Q of the riskiest policy fulfils (1) for every pi.
    5. q = Q^mu, exact, of any mu, masking any other pi: if every safe state has some q <= epsilon, the incident
       probability is at most epsilon at EACH step, and V^m <= `accumulated_bound`. If besides every action's incident
       probability is 0 or above epsilon (assumption 2, in this house's units), there is never an incident.

What does not hold, each with a counterexample there: Theorem 1 as stated, that all policies masked by one critic have
V <= epsilon, be the critic that of another masked policy or of the safest one. Risk adds up over steps: each kept
action is judged as if mu took over after it. Assumption 4 (some action may reach a safe state) allows states without
any safe action. A critic that errs on the high side only may remove the safer actions. And V is discounted:
V <= epsilon bounds the probability of an incident within n steps by epsilon / gamma_safe^(n-1) only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# How far a row of probabilities may be from a sum of 1.
ROUNDING = 1e-9


class NoFixedPoint(RuntimeError):
    """The iteration of `masked_fixed_point` came back to an earlier policy, or did not settle."""


@dataclass(frozen=True, eq=False)
class FiniteMDP:
    """An MDP of S states and A actions. Incident states are terminal: their rows of `transitions` are never used.

    Attributes:
        transitions: (S, A, S), P(s'|s, a).
        incident: (S,) bool, I(s).
        reward: (S, A), or None where only safety is of interest.
        gamma: discount of the reward, 0 <= gamma <= 1.
    """

    transitions: np.ndarray
    incident: np.ndarray
    reward: np.ndarray | None = None
    gamma: float = 0.99

    def __post_init__(self) -> None:
        """Check every field. Raises ValueError with the name, what was expected and what came."""
        shape = self.transitions.shape
        if len(shape) != 3 or shape[0] != shape[2] or 0 in shape:
            raise ValueError(f"transitions: expected shape (S, A, S), none of them 0; got {shape}")
        _check_distributions("transitions", self.transitions)
        if self.incident.shape != shape[:1] or self.incident.dtype != np.bool_:
            got = f"{self.incident.dtype} {self.incident.shape}"
            raise ValueError(f"incident: expected bool of shape {shape[:1]}; got {got}")
        if self.reward is not None:
            if self.reward.shape != shape[:2]:
                raise ValueError(f"reward: expected shape {shape[:2]}; got {self.reward.shape}")
            if not np.isfinite(self.reward).all():
                raise ValueError("reward: expected finite values; got NaN or infinity")
        if not 0.0 <= self.gamma <= 1.0:
            raise ValueError(f"gamma: expected 0 <= gamma <= 1; got {self.gamma!r}")


def bellman(mdp: FiniteMDP, policy: np.ndarray, gamma_safe: float, q: np.ndarray) -> np.ndarray:
    """Return T^pi q (S, A), the right-hand side of the equation above, for any q (S, A); 1 in incident states (eq. 2).

    Raises ValueError for a policy (S, A) or q of the wrong shape or values, or gamma_safe outside [0, 1).
    """
    _check_policy(mdp, policy)
    _check_gamma(gamma_safe)
    if q.shape != policy.shape or not np.isfinite(q).all():
        raise ValueError(f"q: expected finite values of shape {policy.shape}; got shape {q.shape}")
    return _lookahead(mdp, gamma_safe, (policy * q).sum(axis=1))


def q_safe(mdp: FiniteMDP, policy: np.ndarray, gamma_safe: float) -> np.ndarray:
    """Return Q_safe^pi (S, A) of `policy` (S, A), the one solution of q = T^pi q; 1 in incident states (eq. 2).

    Raises ValueError for a policy of the wrong shape or values, or gamma_safe outside [0, 1).
    """
    _check_policy(mdp, policy)
    _check_gamma(gamma_safe)
    # In V(s) = sum_a pi Q_safe there are S unknowns, not S A.
    step = _step(mdp, policy)
    onward = np.where(mdp.incident, 0.0, step)
    value = np.linalg.solve(np.eye(len(step)) - gamma_safe * onward, step @ mdp.incident)
    return _lookahead(mdp, gamma_safe, value)


def discounted_incident(mdp: FiniteMDP, policy: np.ndarray, gamma_safe: float) -> np.ndarray:
    """Return V_safe (S,) = sum_a pi(a|s) Q_safe^pi(s, a) = sum_n gamma_safe^(n-1) Pr(first incident after n steps).

    1 in incident states. Raises ValueError as `q_safe`.
    """
    return (policy * q_safe(mdp, policy, gamma_safe)).sum(axis=1)


def incident_probability(mdp: FiniteMDP, policy: np.ndarray, horizon: int | None = None) -> np.ndarray:
    """Return the probability (S,), undiscounted, of an incident within `horizon` steps; None: ever.

    Raises ValueError for a policy (S, A) of the wrong shape or values, or a negative horizon.
    """
    _check_policy(mdp, policy)
    step = _step(mdp, policy)
    if horizon is None:
        return _ever(mdp, step)
    if horizon < 0:
        raise ValueError(f"horizon: expected at least 0; got {horizon}")
    probability = mdp.incident.astype(float)
    for _ in range(horizon):
        probability = np.where(mdp.incident, 1.0, step @ probability)
    return probability


def masked(policy: np.ndarray, q: np.ndarray, epsilon: float) -> np.ndarray:
    """Return the masked policy (S, A), eq. 3: pi(a|s) where q(s, a) <= epsilon, 0 elsewhere, renormalised.

    Where no action is kept, or pi gives those kept no probability, all of it goes to the action of least q.

    Args:
        policy: (S, A), pi.
        q: (S, A), the critic's. A score that is not finite is never kept and never the least.

    Raises:
        ValueError: shapes that differ, a policy that is none, epsilon outside (0, 1), a state without a finite score.
    """
    if policy.ndim != 2 or policy.shape != q.shape:
        raise ValueError(f"policy and q: expected one shape (S, A); got {policy.shape} and {q.shape}")
    _check_distributions("policy", policy)
    if not 0.0 < epsilon < 1.0:
        raise ValueError(f"epsilon: expected 0 < epsilon < 1; got {epsilon!r}")
    finite = np.isfinite(q)
    if not finite.any(axis=1).all():
        raise ValueError(f"q: no finite score in state {int(np.argmin(finite.any(axis=1)))}")
    kept = np.where(finite & (q <= epsilon), policy, 0.0)
    total = kept.sum(axis=1, keepdims=True)
    least = np.eye(q.shape[1])[np.where(finite, q, np.inf).argmin(axis=1)]
    return np.where(total > 0.0, kept / np.where(total > 0.0, total, 1.0), least)


def masked_fixed_point(
    mdp: FiniteMDP, policy: np.ndarray, gamma_safe: float, epsilon: float, start: np.ndarray, limit: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """Return the policy (S, A) masked by its own Q_safe, and that Q_safe (S, A): the paper's pi-bar (eq. 5, 6).

    Iterates m <- masked(pi, q), q <- Q^m until m stays. On return m = masked(pi, Q^m) exactly, so in every safe state
    with some Q^m <= epsilon the actions taken have Q^m <= epsilon and V^m <= epsilon (Lemma 1); no assumption is used.

    pi-bar need not exist: if an action is above epsilon only while it is kept, no mask agrees with itself, and eq. 5
    and 6 define nothing. Then the iteration cycles; that it cycles from one start does not prove that none exists.

    Args:
        start: (S, A), the first q; Q^pi is appendix D's.
        limit: iterations at most.

    Raises:
        NoFixedPoint: an earlier policy came back, or the limit was reached.
        ValueError: as `masked` and `q_safe`.
    """
    mask = masked(policy, start, epsilon)
    seen: dict[bytes, int] = {}
    for i in range(limit):
        q = q_safe(mdp, mask, gamma_safe)
        next_observation = masked(policy, q, epsilon)
        if np.array_equal(next_observation, mask):
            return mask, q
        seen[mask.tobytes()] = i
        if next_observation.tobytes() in seen:
            period = i + 1 - seen[next_observation.tobytes()]
            raise NoFixedPoint(f"the mask cycles with period {period}: try another start, or mask by Q^pi")
        mask = next_observation
    raise NoFixedPoint(f"the mask did not settle within {limit} iterations")


def accumulated_bound(epsilon: float, gamma_safe: float) -> float:
    """Return epsilon / (1 - gamma_safe (1 - epsilon)), the largest V_safe of a policy that risks epsilon at each step.

    Q^mu(s, a) <= epsilon bounds the incident probability of the next step alone, whatever mu is. It is attained.
    """
    return epsilon / (1.0 - gamma_safe * (1.0 - epsilon))


def _step(mdp: FiniteMDP, policy: np.ndarray) -> np.ndarray:
    """Return P_pi (S, S)."""
    return np.einsum("sa,sat->st", policy, mdp.transitions)


def _ever(mdp: FiniteMDP, step: np.ndarray) -> np.ndarray:
    """Return the probability (S,) of ever reaching an incident under `step` (S, S)."""
    # Safe states are eliminated one by one, without subtraction (Grassmann, Taksar and Heyman 1985): to solve
    # (I - P) x = b would lose a probability of 1e-17 to leave a state, and is singular where one is safe for ever.
    step = step.copy()
    for i in np.flatnonzero(~mdp.incident):
        step[i, i] = 0.0
        leaves = step[i].sum()
        if leaves > 0.0:  # else it stays in i for ever, and what enters i is dropped
            step[i] /= leaves
        enters = step[:, i].copy()
        step[:, i] = 0.0
        step += np.outer(enters, step[i])
    return np.where(mdp.incident, 1.0, step[:, mdp.incident].sum(axis=1))


def _lookahead(mdp: FiniteMDP, gamma_safe: float, value: np.ndarray) -> np.ndarray:
    """Return sum_s' P(s'|s, a) [I(s') + (1 - I(s')) gamma_safe value(s')] (S, A); 1 in incident states."""
    q = mdp.transitions @ np.where(mdp.incident, 1.0, gamma_safe * value)
    return np.where(mdp.incident[:, np.newaxis], 1.0, q)


def _check_policy(mdp: FiniteMDP, policy: np.ndarray) -> None:
    if policy.shape != mdp.transitions.shape[:2]:
        raise ValueError(f"policy: expected shape {mdp.transitions.shape[:2]}; got {policy.shape}")
    _check_distributions("policy", policy)


def _check_gamma(gamma_safe: float) -> None:
    # At 1 the equation has many solutions where the robot can stay safe for ever.
    if not 0.0 <= gamma_safe < 1.0:
        raise ValueError(f"gamma_safe: expected 0 <= gamma_safe < 1; got {gamma_safe!r}")


def _check_distributions(name: str, rows: np.ndarray) -> None:
    """Raise ValueError unless the last axis holds probabilities."""
    if not np.isfinite(rows).all():
        raise ValueError(f"{name}: expected finite values; got NaN or infinity")
    if (rows < 0.0).any():
        raise ValueError(f"{name}: expected values of at least 0; got {rows.min()}")
    off = np.abs(rows.sum(axis=-1) - 1.0).max()
    if off > ROUNDING:
        raise ValueError(f"{name}: expected rows that sum to 1; one is off by {off:.3g}")
