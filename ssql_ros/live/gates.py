"""What a policy must pass before it is announced to a robot: calibration, support, shadow evaluation, return.

Calibration: what can be said before the policy has acted once. Its Q is held against two bounds that every Q of the
regularised objective keeps, and against its own Bellman equation, on data that it did not learn from:

    E_b[return] <= E_b[Q] (up to `slack` of the range): the optimum is at least as good as b itself,
    |E[Q - (r + gamma V(s'))]| <= `slack` of the range, and Q's rank correlation with b's return is not negative.

Support: draws of the policy in every state are inside b's support. Shadow: the shield decides on the policy's proposals
in states that the robot meets now, without acting, as in its monitor mode; it must not find more to mask than in what
the robot does anyway, by more than `allowed`. Return: see `return_gate`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ssql_ros.behaviour.policy import BehaviourPolicy
from ssql_ros.contract import Contract
from ssql_ros.evaluation.intervals import rank_correlation
from ssql_ros.live.buffer import Chunk
from ssql_ros.model.policy import SupportedPolicy
from ssql_ros.model.proposal import Proposal
from ssql_ros.shield.decision import Critic, Decision, Observation, ShieldSettings, decide


@dataclass(frozen=True)
class Gate:
    """One check: whether it has passed, its figures, and why in words."""

    name: str
    passed: bool
    words: str
    figures: dict[str, float] = field(default_factory=dict)


def returns_of(reward: np.ndarray, first: np.ndarray, incident: np.ndarray, gamma: float) -> np.ndarray:
    """Return the discounted return (N,) from each step to the end of its episode, steps in order.

    Args:
        first: (N,), 1 where an episode begins.
        incident: (N,), 1 where it ends by an incident; other ends are not known and count as the end too.
    """
    returns = np.zeros(len(reward))
    running = 0.0
    for i in range(len(reward) - 1, -1, -1):
        ends = i + 1 == len(reward) or first[i + 1] > 0 or incident[i] > 0
        running = reward[i] + (0.0 if ends else gamma * running)
        returns[i] = running
    return returns


def calibration_gate(
    q: np.ndarray, target: np.ndarray, returns: np.ndarray, whole: np.ndarray, slack: float = 0.1
) -> Gate:
    """Judge Q on held-out steps of b.

    Args:
        q, target: (N,), Q(s,a) and r + gamma V(s').
        returns: (N,), b's own discounted return of the episode's rest.
        whole: (N,) bool, where enough of the rest was seen for it to count as the whole return.
    """
    if not whole.any():
        return Gate("calibration", False, "no step with a whole return to hold Q against yet")
    span = max(float(np.ptp(returns[whole])), 0.1 * float(np.abs(returns[whole]).mean()), 1e-6)
    residual = float((q - target).mean())
    excess = float((q - returns)[whole].mean())
    correlation = rank_correlation(q[whole], returns[whole])
    figures = {
        "bellman_bias": residual,
        "above_behaviour": excess,
        "range": span,
        "rank_correlation": correlation,
        "n": float(whole.sum()),
    }
    fine = np.isfinite(q).all() and abs(residual) <= slack * span and excess >= -slack * span and correlation > 0.0
    words = (
        f"Q is {excess:+.3g} against b's return (range {span:.3g}), off its own equation by {residual:+.3g}, "
        f"rank correlation {correlation:.2f}"
    )
    return Gate("calibration", bool(fine), words, figures)


def support_gate(policy: SupportedPolicy, behaviour: BehaviourPolicy, chunk: Chunk, rng: np.random.Generator) -> Gate:
    """Draw from the policy in each state of `chunk`; no draw may leave b's support."""
    states = np.concatenate([chunk.observation, chunk.context], axis=1).astype(float)
    size = chunk.action.shape[1]
    actions = np.array(
        [
            policy.at(observation, context, 3.0 * rng.standard_normal((size,))).action
            for observation, context in zip(chunk.observation, chunk.context, strict=True)
        ]
    )
    inside = behaviour.support(states).contains(actions[:, np.newaxis])[:, 0]
    outside = int((~inside).sum())
    return Gate(
        "support", outside == 0, f"{outside} of {len(actions)} draws outside of b's support", {"outside": outside}
    )


def shadow_gate(
    policy: SupportedPolicy,
    chunk: Chunk,
    critic: Critic,
    contract: Contract,
    settings: ShieldSettings,
    rng: np.random.Generator,
    allowed: float = 0.05,
) -> Gate:
    """Let the shield decide on the policy's proposals, and on what was executed, in the states of `chunk`."""
    masked = np.zeros(2)
    for observation, context, action in zip(chunk.observation, chunk.context, chunk.action, strict=True):
        seen = Observation(observation.astype(float), 0.0)
        proposed = policy.at(observation, context, rng.standard_normal((len(action),)))
        for i, proposal in enumerate((proposed, Proposal(action.astype(float), 0.0))):
            verdict = decide(seen, proposal, critic, contract, settings, 0.0, rng)
            masked[i] += verdict.decision is not Decision.PASSED
    share, before = masked / max(len(chunk), 1)
    words = f"the shield would mask {share:.1%} of its proposals, and {before:.1%} of what the robot does now"
    fine = len(chunk) > 0 and share <= before + allowed
    return Gate("shadow", bool(fine), words, {"masked": float(share), "masked_before": float(before)})


def return_gate(
    candidate: float, service: float, returns: np.ndarray, margin: float = 0.05, slack: float = 0.3
) -> Gate:
    """Hold the candidate's estimated return against the recorded ones of the policy in service.

    Both values are fitted in the same way, on the same data and states (see policy_value). That of the policy in
    service is known from its recorded returns too, so the fit's error there is taken off the candidate's:

        estimate = mean(returns) + candidate - service >= mean(returns) - `margin` of the range

    Where the fit of the policy in service is off by more than `slack` of the range, nothing is known.

    Args:
        candidate, service: fitted values v of either.
        returns: (N,), discounted, recorded while the policy in service acted; whole ones alone.
    """
    if not len(returns):
        return Gate("return", False, "no whole return of the policy in service is recorded yet")
    recorded = float(returns.mean())
    span = max(float(np.ptp(returns)), 0.1 * abs(recorded), 1e-6)
    estimate, off = recorded + candidate - service, service - recorded
    figures = {"estimate": estimate, "recorded": recorded, "range": span, "fit_error": off, "n": float(len(returns))}
    fine = np.isfinite(estimate) and abs(off) <= slack * span and estimate >= recorded - margin * span
    words = (
        f"estimated return {estimate:.3g}, recorded {recorded:.3g} of the policy in service (range {span:.3g}), whose "
        f"own estimate is off by {off:+.3g}"
    )
    return Gate("return", bool(fine), words, figures)
