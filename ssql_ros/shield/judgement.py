"""A decision and all that it is taken from: while a robot runs, and again from a record of it, bit for bit.

What a decision depends on is its `Basis`, the critic and the contract. Nothing else: what decisions remember of those
before is part of it, and candidates are drawn from a place of their own in one stream of random numbers. So any one of
a run can be taken again without the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ssql_ros.contract import Contract
from ssql_ros.model.proposal import Proposal
from ssql_ros.shield.backup import SafetyFilter
from ssql_ros.shield.decision import Critic, Decision, Observation, ShieldSettings, Verdict
from ssql_ros.shield.faults import Fault
from ssql_ros.shield.least_risk import LeastRisk


@dataclass(frozen=True)
class Memory:
    """What decisions remember of those before.

    Attributes:
        unsafe: of the newest proposals, oldest first, which were unsafe (see `SafetyFilter`).
        dwell: proposals that must still be safe before the backup lets go; 0: it does not have the robot.
        steps: decisions since the backup took over.
        nothing_safe_for: s, how long the least risky action has gone on; None: it does not.
        least_risky: (n_action,), that action; empty: none.
    """

    unsafe: tuple[bool, ...] = ()
    dwell: int = 0
    steps: int = 0
    nothing_safe_for: float | None = None
    least_risky: np.ndarray = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class Basis:
    """What one decision is taken from.

    Attributes:
        now: s, on the clock of the observation's and the proposal's times.
        observation, proposal: as they are judged; None: there is none.
        settings: thresholds, and how candidates are drawn.
        memory: of the decisions before.
        draw: which one it is: candidates are drawn from `Draws.at(draw)`.
        fault: why nothing can be decided on, in words; empty: it can.
        disabled: the shield is taken out.
        latched: the fault in force, None where there is none.
        outside: how far the robot is from the critic's training data, in words, where the contract has the backup take
            over for it; empty: it does not.
    """

    now: float
    observation: Observation | None
    proposal: Proposal | None
    settings: ShieldSettings
    memory: Memory
    draw: int
    fault: str = ""
    disabled: bool = False
    latched: Fault | None = None
    outside: str = ""


class Draws:
    """Random numbers with a place for each decision, 2**64 of PCG64 apart."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._bits = np.random.PCG64(seed)
        self._begin = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def at(self, draw: int) -> np.random.Generator:
        """Return the generator at the place of decision `draw`; the next call moves it."""
        self._bits.state = self._begin
        self._bits.advance(draw << 64)
        return self._generator


class Judge:
    """Takes decisions in their order, or one that was taken before (see `recall`)."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._filter, self._least_risk = SafetyFilter(contract), LeastRisk(contract)

    def reset(self) -> None:
        """Begin anew: nothing is known of the proposals before."""
        self._filter.reset()

    def memory(self, critic: Critic, now: float) -> Memory:
        """Return what the next decision remembers. `critic`: in force, `now`: s, as of that decision."""
        unsafe, dwell, steps = self._filter.memory(critic)
        return Memory(unsafe, dwell, steps, *self._least_risk.memory(now))

    def recall(self, memory: Memory, critic: Critic, now: float) -> None:
        """Remember what a decision of before did."""
        self._filter.recall(memory.unsafe, memory.dwell, memory.steps, critic)
        self._least_risk.recall(memory.nothing_safe_for, memory.least_risky, now)

    def judge(
        self, basis: Basis, critic: Any, rng: np.random.Generator, late: Callable[[], bool] | None = None
    ) -> Verdict:
        """Decide on the action for one control period.

        Args:
            critic: in force.
            rng: draws the candidates.
            late: tells whether the time for this decision is over (see `decide`).
        """
        if basis.latched is not None and not basis.disabled:
            fault = basis.latched
            _, action = response_of(fault, self._contract, critic)
            return Verdict(Decision.FAULT, action, reason=f"latched, {fault.response}: {fault.words}")
        verdict = self._verdict(basis, critic, rng, late)
        if not basis.outside or basis.disabled or verdict.decision is Decision.HELD:
            return verdict
        backup = getattr(critic, "backup", None)
        decision = Decision.HELD if backup is None else Decision.BACKUP
        action = self._contract.safe_action.copy() if backup is None else self._contract.clip(np.array(backup.action))
        # Scored where the critic knows nothing: no number is better than that one.
        reason = f"out of domain: {basis.outside}"
        return replace(verdict, decision=decision, action=action, q_action=np.nan, reason=reason)

    def _verdict(self, basis: Basis, critic: Any, rng: np.random.Generator, late: Callable[[], bool] | None) -> Verdict:
        safe, now, proposal = self._contract.safe_action, basis.now, basis.proposal
        if basis.disabled:
            self._filter.reset()
            if proposal is None or not now - proposal.time <= basis.settings.max_proposal_age:
                reason = basis.fault or "no proposal: shield is disabled, and commands nothing"
                return Verdict(Decision.HELD, safe.copy(), reason=reason)
            return Verdict(Decision.PASSED, self._contract.clip(proposal.action), reason="shield is disabled")
        if basis.fault:
            self._least_risk.end()
            return Verdict(Decision.HELD, safe.copy(), reason=basis.fault)
        try:
            verdict = self._filter.decide(basis.observation, proposal, critic, basis.settings, now, rng, late)
            return self._least_risk.kept(verdict, critic, basis.observation, now)
        except Exception as error:  # whatever it is, the robot needs a command now
            reason = f"the decision failed: {type(error).__name__}: {error}"
            return Verdict(Decision.HELD, safe.copy(), reason=reason)


def response_of(fault: Fault, contract: Contract, critic: Any) -> tuple[str, np.ndarray]:
    """Return what goes to the robot while a fault is latched: how, and the action (n_action,) for the account."""
    backup = getattr(critic, "backup", None)
    if fault.response == "backup" and backup is not None:
        return "backup", contract.clip(np.array(backup.action))
    return "damp" if fault.response == "damp" else "hold", contract.safe_action.copy()


class _Counting:
    """A critic that counts what it scores."""

    def __init__(self, critic: Any) -> None:
        self._critic, self.scored = critic, 0
        self.id, self.rule, self.backup = critic.id, critic.rule, getattr(critic, "backup", None)

    def logits(self, observation: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return the scores (k,) of actions (k, n_action)."""
        self.scored += len(actions)
        return self._critic.logits(observation, actions)


def judged_again(basis: Basis, contract: Contract, critic: Any, seed: int, scored: int) -> Verdict:
    """Return the verdict that was given on a basis.

    Args:
        critic: of the bundle that was in force.
        seed: of the shield.
        scored: how many candidates were scored then: a search that time had ended is ended there.
    """
    judge, counting = Judge(contract), _Counting(critic)
    judge.recall(basis.memory, counting, basis.now)
    return judge.judge(basis, counting, Draws(seed).at(basis.draw), lambda: counting.scored >= scored)
