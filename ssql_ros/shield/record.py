"""A decision's record as the fields of DecisionRecord.msg, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssql_ros.model.proposal import Proposal
from ssql_ros.shield.decision import Decision, Observation, ShieldSettings, Verdict
from ssql_ros.shield.faults import Fault
from ssql_ros.shield.judgement import Basis, Memory
from ssql_ros.shield.tick import Tick

_EMPTY = np.empty(0)


@dataclass(frozen=True)
class Recorded:
    """One decision as it was recorded.

    Attributes:
        bundle_id: of the critic that judged.
        contract_id: that was in force.
        seed: of the shield.
        verdict: what came of it; `reason` is not recorded here.
    """

    bundle_id: str
    contract_id: str
    seed: int
    basis: Basis
    verdict: Verdict


def record_fields(tick: Tick, contract_id: str) -> dict[str, Any]:
    """Return the fields of DecisionRecord.msg but for its header."""
    basis, verdict = tick.basis, tick.verdict
    seen, proposal, settings, memory, fault = (
        basis.observation,
        basis.proposal,
        basis.settings,
        basis.memory,
        basis.latched,
    )
    drawn = ("mean", "std", "low", "high")
    return {
        "bundle_id": tick.bundle_id,
        "contract_id": contract_id,
        "observation": _EMPTY if seen is None else seen.vector,
        "observation_age": math.nan if seen is None else basis.now - seen.time,
        "proposal": _EMPTY if proposal is None else proposal.action,
        "proposal_age": math.nan if proposal is None else basis.now - proposal.time,
        **{name: _EMPTY if (part := getattr(proposal, name, None)) is None else part for name in drawn},
        "squashed": proposal is not None and proposal.squashed,
        "fault": basis.fault,
        "disabled": basis.disabled,
        "latched": "" if fault is None else fault.response,
        "latched_words": "" if fault is None else fault.words,
        "out_of_domain": basis.outside,
        "epsilon": math.nan if settings.epsilon is None else settings.epsilon,
        "delta": math.nan if settings.delta is None else settings.delta,
        "candidates": settings.candidates,
        "rounds": settings.rounds,
        "growth": settings.growth,
        "spread": settings.spread,
        "nearest": settings.nearest,
        "max_observation_age": settings.max_observation_age,
        "max_proposal_age": settings.max_proposal_age,
        "seed": tick.seed,
        "draw": basis.draw,
        "unsafe": memory.unsafe,
        "dwell": memory.dwell,
        "backup_steps": memory.steps,
        "nothing_safe_for": math.nan if memory.nothing_safe_for is None else memory.nothing_safe_for,
        "least_risky": memory.least_risky,
        "decision": verdict.decision,
        "action": verdict.action,
        "q_safe_proposal": verdict.q_proposal,
        "q_safe_action": verdict.q_action,
        "candidates_scored": verdict.scored,
        "candidates_safe": verdict.safe,
    }


def recorded(message: Any) -> Recorded:
    """Return what a DecisionRecord says. `message`: of rclpy or of a bag.

    Raises:
        ValueError: a setting is out of its range, or the decision is none.
    """

    def known(value: float) -> float | None:
        return None if math.isnan(value) else float(value)

    def array(name: str) -> np.ndarray | None:
        values = np.array(getattr(message, name), float)
        return values if values.size else None

    vector, action = array("observation"), array("proposal")
    seen = None if vector is None else Observation(vector, -float(message.observation_age))
    parts = [array(name) for name in ("mean", "std", "low", "high")]
    proposal = None
    if action is not None:
        mean, std, low, high = parts
        proposal = Proposal(action, -float(message.proposal_age), mean, std, bool(message.squashed), low, high)
    settings = ShieldSettings(
        known(message.epsilon),
        float(message.max_observation_age),
        float(message.max_proposal_age),
        int(message.candidates),
        int(message.rounds),
        float(message.growth),
        float(message.spread),
        bool(message.nearest),
        delta=known(message.delta),
    )
    memory = Memory(
        tuple(map(bool, message.unsafe)),
        int(message.dwell),
        int(message.backup_steps),
        known(message.nothing_safe_for),
        np.array(message.least_risky, float),
    )
    latched = Fault(0, str(message.latched_words), str(message.latched)) if message.latched else None
    basis = Basis(
        0.0,
        seen,
        proposal,
        settings,
        memory,
        int(message.draw),
        str(message.fault),
        bool(message.disabled),
        latched,
        str(message.out_of_domain),
    )
    verdict = Verdict(
        Decision(int(message.decision)),
        np.array(message.action, float),
        float(message.q_safe_proposal),
        float(message.q_safe_action),
        int(message.candidates_scored),
        int(message.candidates_safe),
    )
    return Recorded(str(message.bundle_id), str(message.contract_id), int(message.seed), basis, verdict)


def differences(then: Verdict, now: Verdict) -> list[str]:
    """Return what differs between two verdicts, to the last bit, in words; reasons are not compared."""
    found = []
    if then.decision is not now.decision:
        found.append(f"decision {then.decision.name} then, {now.decision.name} now")
    for name, what in (
        ("action", "action"),
        ("q_proposal", "score of the proposal"),
        ("q_action", "score of the action"),
        ("scored", "candidates scored"),
        ("safe", "candidates safe"),
    ):
        before, after = (np.asarray(getattr(verdict, name), float) for verdict in (then, now))
        if before.shape != after.shape:
            found.append(f"{what}: {before.size} numbers then, {after.size} now")
        elif not np.array_equal(before, after, equal_nan=True):
            off = f"off by {np.abs(before - after).max():.3g}" if before.ndim else f"{before:.9g} then, {after:.9g} now"
            found.append(f"{what}: {off}")
    return found
