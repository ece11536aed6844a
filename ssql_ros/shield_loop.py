"""When the shield decides: one command every control period, at once when a proposal answers a new observation.

Collects readings and proposals, says when a decision is due, and takes it. Knows times but reads no clock: `now` and
`arrival` are seconds of the steady clock, stamps are nanoseconds of the sender's clock.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ssql_ros.critic import SafetyCritic
from ssql_ros.shield import Decision, Observation, Proposal, ShieldSettings, Verdict, decide
from ssql_ros.spec import Contract, ObservationAssembler


class Mode(enum.IntEnum):
    """What becomes of a decision; the values are those of ShieldState.msg."""

    ENFORCE = 0
    MONITOR = 1
    DISABLED = 2
    INACTIVE = 3


# A proposal may come half a period late before the last one is used again: well inside the driver's time-out of two
# periods, and wide enough for the jitter of a controller that runs at the control period itself.
SLACK = 1.5


@dataclass(frozen=True)
class Tick:
    """One command with its account.

    Attributes:
        joint_command: (n_joint,), SI units, what goes to the robot.
        stamp: ns, of the observation decided upon; 0 before the first.
        enforced: True when `verdict.action` is what goes to the robot.
        proposal: (n_action,), empty when none was fit to be decided on.
        complete: True when a proposal for a new observation caused the tick; False when the period ran out.
        settings, bundle_id: thresholds and bundle that were decided with; others may be in force when this is told.
    """

    verdict: Verdict
    joint_command: np.ndarray
    stamp: int
    enforced: bool
    proposal: np.ndarray
    complete: bool
    settings: ShieldSettings
    bundle_id: str


class ShieldLoop:
    """Feeds `decide` once per control period.

    Attributes:
        counts: decisions so far, by `Decision`.
        missed_periods: commands that came over half a period after they were due.
    """

    def __init__(
        self, contract: Contract, critic: SafetyCritic, settings: ShieldSettings, mode: Mode, seed: int = 0
    ) -> None:
        self.contract = contract
        self.critic = critic
        self.settings = settings
        self.mode = mode
        self.counts: Counter[Decision] = Counter()
        self.missed_periods = 0
        self.ticks = 0
        self.last_reason = ""
        self.assembler = ObservationAssembler(contract)
        self._rng = np.random.default_rng(seed)
        self._proposal: Proposal | None = None
        self._proposed_joints = np.empty(0)
        self._proposal_stamp = 0
        self._fresh = False
        self._holding = False
        self._observation_fault = ""
        self._proposal_fault = ""
        self._decided_stamp: int | None = None
        self._deadline = -math.inf

    def start(self, now: float) -> None:
        """Begin: the first command is due one period from `now`."""
        self._deadline = now + self.contract.control_period
        self._fresh = False
        self._proposal = None

    def read(self, name: str, stamp: int, time: float, values: np.ndarray) -> None:
        """Take in a reading of input `name`. `time`: s, when it was measured, on the clock of `now`."""
        if self.assembler.read(name, stamp, time, values):
            self._observation_fault = ""

    def unreadable(self, fault: str) -> None:
        """Note that an input's message could not be read; nothing is decided until a whole observation comes."""
        self._observation_fault = fault

    def propose(
        self,
        action: np.ndarray,
        joint_command: np.ndarray,
        stamp: int,
        time: float,
        **distribution: Any,
    ) -> None:
        """Take in a proposal. `stamp`: ns, of the observation that it answers; 0: not stamped.

        Args:
            distribution: `mean`, `std`, `low`, `high`, `squashed` of `Proposal`, as far as they are known.
        """
        self._proposal = Proposal(action, time, **distribution)
        self._proposed_joints = joint_command
        self._proposal_stamp, self._proposal_fault, self._fresh = stamp, "", True

    def unreadable_proposal(self, fault: str, stamp: int) -> None:
        """Note that a proposal came that could not be read: the safe action follows, until a readable one comes."""
        self._proposal, self._proposal_fault = None, fault
        self._proposal_stamp, self._fresh = stamp, True

    def input_complete(self) -> bool:
        """Tell whether the newest observation is not yet decided on and a new proposal answers it.

        A proposal stamped before the newest observation answers an older one, and its successor is on the way.
        """
        stamp = self.assembler.stamp
        if not self._fresh or stamp is None or stamp == self._decided_stamp:
            return False
        return self._proposal_stamp == 0 or self._proposal_stamp >= stamp

    def wait(self, now: float) -> float:
        """Return for how many seconds nothing is due; 0 when a decision is."""
        return 0.0 if self.input_complete() else max(0.0, self._deadline - now)

    def tick(self, now: float) -> Tick:
        """Decide now and return the command."""
        complete = self.input_complete()
        period = self.contract.control_period
        if now > self._deadline + 0.5 * period:
            self.missed_periods += 1
        # A tick without news keeps the rate of one a period; one that news caused allows the next the slack.
        self._deadline = now + (SLACK * period if complete else period)
        self._fresh = self._fresh and not complete
        observation = self.observation()
        verdict = self._verdict(observation, now)
        stamp = self.assembler.stamp or 0
        self._decided_stamp = self.assembler.stamp
        usable = self._proposal is not None and verdict.decision is not Decision.HELD
        enforced = self.mode is Mode.ENFORCE or not usable
        if enforced and not (verdict.decision is Decision.PASSED and not verdict.reason):
            joint_command, executed = self.contract.joint_command(verdict.action), verdict.action
        else:
            # Unchanged to the last bit: a shield that has nothing to say leaves no trace in the command.
            joint_command, executed = self._proposed_joints, self._proposal.action if self._proposal else verdict.action
        if self.assembler.stamp is not None:
            self.assembler.executed(executed)
        self.ticks += 1
        self._holding = verdict.decision is Decision.HELD
        self.counts[verdict.decision] += 1
        if verdict.decision is not Decision.PASSED:
            self.last_reason = verdict.reason
        proposal = self._proposal.action if self._proposal is not None else np.empty(0)
        return Tick(verdict, joint_command, stamp, enforced, proposal, complete, self.settings, self.critic.id)

    @property
    def holding(self) -> bool:
        """Tell whether the last decision was to hold the safe action."""
        return self._holding

    def observation(self) -> Observation | None:
        """Return the newest whole observation, None before the first."""
        if self.assembler.stamp is None:
            return None
        # As old as its oldest part, and not younger for readings that no frame could be made of.
        return Observation(self.assembler.vector(), self.assembler.arrival)

    def _verdict(self, observation: Observation | None, now: float) -> Verdict:
        fault = self._observation_fault or self._proposal_fault
        if fault:
            return Verdict(Decision.HELD, self.contract.safe_action.copy(), reason=fault)
        if self.mode is Mode.DISABLED:
            proposal = self._proposal
            if (
                proposal is not None
                and now - proposal.time <= self.settings.max_proposal_age
                and np.isfinite(proposal.action).all()
            ):
                return Verdict(Decision.PASSED, self.contract.clip(proposal.action), reason="shield is disabled")
        try:
            return decide(observation, self._proposal, self.critic, self.contract, self.settings, now, self._rng)
        except Exception as error:  # whatever it is, the robot needs a command now
            reason = f"the decision failed: {type(error).__name__}: {error}"
            return Verdict(Decision.HELD, self.contract.safe_action.copy(), reason=reason)

    def change(self, **settings: Any) -> None:
        """Change shield settings, from the next decision on. Raises ValueError for one out of range."""
        self.settings = replace(self.settings, **settings)
