"""When the shield decides: one command every control period, at once when a proposal answers a new observation.

Collects readings and proposals, says when a decision is due, and takes it. Knows times but reads no clock: `now` and
`arrival` are seconds of the steady clock, `clock` and stamps are nanoseconds of the node's and the sender's clock.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ssql_ros.contract import Contract, ContractError, ObservationAssembler
from ssql_ros.contract.health import Freshness
from ssql_ros.contract.readings import Frame
from ssql_ros.contract.stamped import JUMP
from ssql_ros.model.critic import SafetyCritic
from ssql_ros.model.proposal import Proposal
from ssql_ros.shield.command_source import CommandSource
from ssql_ros.shield.decision import ROUNDING, Decision, Observation, ShieldSettings, Verdict
from ssql_ros.shield.judgement import Basis, Draws, Judge
from ssql_ros.shield.supervision import Supervision
from ssql_ros.shield.takeover import Takeover
from ssql_ros.shield.tick import Mode, Tick

# A proposal may come a quarter of a period late before the last one is used again: well inside the driver's time-out of
# two periods, and wide enough for the jitter of a controller that runs at the control period itself.
SLACK = 1.25
# s, how long nothing is believed of inputs that have contradicted each other: they go on to do so, now one first, now
# the other.
CONTRADICTED = 0.5
# Proposals in a row that answer the frame before the newest: then the controller is one behind, and stays so.
LAGGING = 3


class ShieldLoop:
    """Feeds `decide` once per control period.

    Args:
        simulated: the node's clock is /clock.
        timer: s on the steady clock, for the deadline of a decision; None: it has none.
        takeover_timeout: s, see `Takeover`.

    Attributes:
        counts: decisions so far, by `Decision`.
        missed_periods: commands that came over half a period after they were due.
        dropped: proposals that came after a newer one.
        inputs: how the inputs come, and what is wrong with them.
        supervision: incidents and faults, beside the decisions.
        takeover: whether an operator has the robot, and `taken_over`: whether the newest proposal was to be theirs.
    """

    def __init__(
        self,
        contract: Contract,
        critic: SafetyCritic,
        settings: ShieldSettings,
        mode: Mode,
        seed: int = 0,
        simulated: bool = False,
        timer: Callable[[], float] | None = None,
        takeover_timeout: float = 0.5,
    ) -> None:
        self.contract = contract
        self.critic = critic
        self.settings = settings
        self.mode = mode
        self.counts: Counter[Decision] = Counter()
        self.missed_periods = self.ticks = self.dropped = 0
        self.last_reason = ""
        self.assembler = ObservationAssembler(contract)
        self.inputs = Freshness(contract, simulated)
        self.source = CommandSource(contract)
        self.supervision = Supervision(contract, simulated)
        self._owner: Decision | None = None  # BACKUP or FAULT, while it has the robot
        self._timer = timer
        self.takeover, self.taken_over = Takeover(takeover_timeout), False
        self._judge, self._draws = Judge(contract), Draws(seed)
        self._proposal: Proposal | None = None
        self._proposed_joints = np.empty(0)
        self._proposal_stamp = 0
        self._lag = 0
        self._fresh = self._heard = False
        self._holding = False
        self._unreadable: dict[str, str] = {}  # what is wrong with an input's newest message
        self._contradiction = ("", -math.inf)
        self._proposal_fault = ""
        self._decided_stamp: int | None = None
        # Of the newest tick, until it is settled: the frame, the verdict, whether the shield was taken out.
        self._pending: tuple[Frame | None, Verdict, bool] | None = None
        self._deadline = -math.inf

    def start(self, now: float) -> None:
        """Begin: the first command is due one period from `now`."""
        self._deadline = now + self.contract.control_period
        self._fresh = False
        self._proposal = None
        self._judge.reset()
        self.source.start()

    # What comes in.

    def read(self, name: str, stamp: int, now: float, clock: int, values: np.ndarray) -> None:
        """Take in a reading of input `name`.

        Args:
            stamp: ns, the message's own, or of its arrival where the contract says so.
            now: s on the steady clock, when it came; clock: ns on the node's clock, 0: it is not set.

        Raises:
            ContractError: it contradicts another of the same stamp; the safe action follows for a while.
        """
        health = self.inputs.inputs[name]
        if not np.isnan(values).all():
            self._unreadable.pop(name, None)
            again = stamp == health.stamp
            health.hear(stamp, now, clock)
            if again and self.inputs.simulated and clock <= stamp:
                # A simulation that waits tells again where the robot is: its time stands still, and nothing ages.
                self.assembler.repeat(name, stamp, now)
        if stamp == 0:
            return  # not stamped: `inputs` says so
        try:
            self.assembler.take(name, stamp, now, values)
        except ContractError as error:
            self._contradiction = (str(error), now + CONTRADICTED)
            raise

    def unreadable(self, name: str, fault: str) -> None:
        """Note that a message of an input could not be read; nothing is decided until one of it can be."""
        self._unreadable[name] = fault

    def propose(
        self,
        action: np.ndarray,
        joint_command: np.ndarray,
        stamp: int,
        time: float,
        operator: bool = False,
        **distribution: Any,
    ) -> bool:
        """Take in a proposal; return False where it is dropped: a newer one was there, or another has the robot.

        Args:
            stamp: ns, of the observation that it answers; 0: not stamped.
            time: s on the steady clock, when it was made.
            operator: an operator's, not the controller's.
            distribution: `mean`, `std`, `low`, `high`, `squashed` of `Proposal`, as far as they are known.
        """
        if operator:
            self.takeover.hear(time)
        self._hand_over(time)
        if operator is not self.taken_over:
            self.takeover.overridden += not operator
            return False
        if 0 < stamp < self._proposal_stamp and self._proposal_stamp - stamp < JUMP:
            self.dropped += 1
            return False
        self._note_lag(stamp)
        self._proposal = Proposal(action, time, **distribution)
        # What is approached is what could be let through.
        outside = (np.abs(action - (clipped := self.contract.clip(action))) > ROUNDING).any()
        self._proposed_joints = self.contract.joint_command(clipped) if outside else joint_command
        self.source.aim(self._proposed_joints)
        self._proposal_stamp, self._proposal_fault, self._fresh = stamp, "", True
        self._heard = True
        return True

    def _hand_over(self, now: float) -> None:
        """Forget what was proposed and how it was judged where an operator has taken over, or given back."""
        if self.taken_over is (has := self.takeover.has(now)):
            return
        self.taken_over = has
        self._proposal, whom = None, "taken over: no command of the operator yet"
        self._proposal_fault = whom if self.taken_over else "no new command of the controller"
        self._proposal_stamp, self._fresh, self._lag = 0, False, 0
        self.source.change()
        self._judge.reset()

    def _note_lag(self, stamp: int) -> None:
        newest = self.assembler.newest
        before = self.assembler.before(newest) if newest is not None else None
        self._lag = self._lag + 1 if before is not None and stamp == before.stamp else 0

    def unreadable_proposal(self, fault: str, stamp: int, time: float, operator: bool = False) -> None:
        """Note that a proposal came that could not be read: the safe action follows, until a readable one comes."""
        if operator:
            self.takeover.hear(time)
        self._hand_over(time)
        if operator is not self.taken_over:
            return
        self._proposal, self._proposal_fault = None, fault
        self._proposal_stamp, self._fresh = stamp, True

    def relayed(self, joint_command: np.ndarray, stamp: int) -> np.ndarray:
        """Return what goes to the robot of a proposal while the shield only watches: the proposal, inside the limits.

        Nothing but the contract's joint limits stands between: to the last bit the same where it keeps to them.
        """
        low, high = self.contract.joint_limits
        allowed = 1e-9 * (high - low)
        if (joint_command < low - allowed).any() or (joint_command > high + allowed).any():
            joint_command = np.clip(joint_command, low, high)
        self.assembler.executed(self.contract.clip(self.contract.nearest_action(joint_command)), stamp)
        self.source.sent(joint_command, arrived=True)
        return joint_command

    # When a decision is due.

    @property
    def watching(self) -> bool:
        """Tell whether proposals go to the robot as they come, whatever is decided."""
        return self.mode is not Mode.ENFORCE

    def input_complete(self) -> bool:
        """Tell whether the newest observation is not yet decided on and a new proposal answers it.

        A proposal stamped before the newest observation answers an older one, and its successor is on the way; but of
        a controller that is one frame behind all the time, none comes that is not.
        """
        if not self._fresh:
            return False
        newest = self.assembler.newest
        if newest is None or newest.stamp == self._decided_stamp or not self.assembler.ready:
            return False
        return self._proposal_stamp == 0 or self._proposal_stamp >= newest.stamp or self._lag >= LAGGING

    def wait(self, now: float) -> float:
        """Return for how many seconds nothing is due; 0 when a decision is."""
        return 0.0 if self.input_complete() else max(0.0, self._deadline - now)

    # The decision.

    def tick(self, now: float, clock: int = 0, settle: bool = True) -> Tick:
        """Decide now and return the command.

        Args:
            clock: ns on the node's clock; 0: it is not set.
            settle: False: the caller sends the command first, and then calls `settle`.
        """
        self._hand_over(now)
        complete, period = self.input_complete(), self.contract.control_period
        if now > self._deadline + 0.5 * period:
            self.missed_periods += 1
        # A tick without news keeps the rate of one a period; one that news caused allows the next the slack.
        self._deadline = now + (SLACK * period if complete else period)
        fresh, self._fresh = self._fresh, self._fresh and not complete
        heard, self._heard = self._heard, False
        newest = self.assembler.newest
        missing, disabled = 0 if newest is None else self.assembler.missing(), self.mode is Mode.DISABLED
        if newest is not None and newest.values is not None:
            self.source.measured(newest.values)
            if self.supervision.acts:
                self.supervision.look(newest, self.assembler, self.critic, not disabled)
        fault = self._fault(now, clock) or self._history_fault(missing)
        proposal, joints = self._proposal, self._proposed_joints
        if not self.watching and not fault and proposal is not None:
            proposal, joints = self._approached(proposal, joints)
        memory, supervision, settings = self._judge.memory(self.critic, now), self.supervision, self.settings
        observation, draw = self.observation(), self.ticks
        if self.taken_over:  # an operator's commands come more slowly than a controller's
            settings = replace(settings, max_proposal_age=self.takeover.timeout)
        latched, outside = supervision.latched, supervision.outside
        basis = Basis(now, observation, proposal, settings, memory, draw, fault, disabled, latched, outside)
        verdict = self._judged(basis)
        self._decided_stamp = newest.stamp if newest is not None else None
        stamp = self._decided_stamp or 0
        joint_command = None if self.watching else self._command(verdict, proposal, joints, clock or stamp)
        self.ticks += 1
        self._holding = verdict.decision is Decision.HELD
        self.counts[verdict.decision] += 1
        if verdict.decision is not Decision.PASSED:
            self.last_reason = verdict.reason
        proposed = self._proposal.action if self._proposal is not None else np.empty(0)
        self._pending = newest, verdict, disabled
        if settle:
            self.settle()
        return Tick(
            verdict,
            joint_command,
            stamp,
            not self.watching,
            proposed,
            complete,
            fresh or heard,
            self.critic.id,
            missing,
            basis,
            self._draws.seed,
            self.taken_over,
        )

    def settle(self) -> None:
        """Take in the newest decision, and what no rule of the contract acts on: no command waits for that."""
        if self._pending is None:
            return
        (newest, verdict, disabled), self._pending = self._pending, None
        if newest is not None and newest.values is not None and not self.supervision.acts:
            self.supervision.look(newest, self.assembler, self.critic, not disabled)
        if not disabled:
            self.supervision.decided(verdict, newest.stamp if newest else 0, self.critic, self.settings, self.watching)

    def _approached(self, proposal: Proposal, joints: np.ndarray) -> tuple[Proposal, np.ndarray]:
        """Return a proposal that goes no further from what the robot was told before than its source may change it."""
        limited = self.source.limited(joints)
        if limited is joints:
            return proposal, joints
        action = self.contract.clip(near := self.contract.nearest_action(limited))
        # Joints that share elements may be where no action leads: what is judged is what is sent.
        limited = limited if (near == action).all() else self.contract.joint_command(action)
        # What it was drawn from is where it wants to go, not where it may be yet.
        return Proposal(action, proposal.time), limited

    def _command(
        self, verdict: Verdict, proposal: Proposal | None, joints: np.ndarray, stamp: int
    ) -> np.ndarray | None:
        """Return the joint command that a verdict means, and remember what was executed."""
        decision = verdict.decision
        owner = decision if decision in (Decision.BACKUP, Decision.FAULT) else None
        if owner is not self._owner and decision is not Decision.HELD:
            self.source.change()  # its pose is approached, and left, no faster than the safe action
            self._owner = owner
        if decision in (Decision.HELD, Decision.FAULT):
            frame = self.assembler.frame if self.assembler.newest is not None else None
            fault = decision is Decision.FAULT
            held = self.supervision.command(frame, self.source, self.critic) if fault else self.source.held(frame)
            if held is None:
                return None
            action = self.contract.clip(self.contract.nearest_action(held))
            self.assembler.executed(action, stamp)
            return held
        if verdict.decision is Decision.PASSED and not verdict.reason and proposal is not None:
            # Unchanged to the last bit: a shield that has nothing to say leaves no trace in the command.
            command = joints
        else:
            command = self.contract.joint_command(verdict.action)
        wanted = command if owner is Decision.BACKUP else self._proposed_joints
        # What was limited once is on its way, and is not to be braked for.
        if command is not joints or joints is self._proposed_joints:
            command = self.source.limited(command)
        self.source.sent(command, arrived=self.source.limited(wanted) is wanted)
        # As whoever hears the command has it, so that a bag and the policy have the same history to the last bit.
        self.assembler.executed(self.contract.clip(self.contract.nearest_action(command)))
        return command

    def reset_fault(self, now: float, clock: int = 0) -> str:
        """Release the fault in force, judged by the newest frame; return what it was. Raises ValueError: why not."""
        newest = self.assembler.newest
        if newest is not None and newest.values is not None:
            self.supervision.observe(newest, latching=False)
        released = self.supervision.reset(self.observation_fault(now, clock))
        self._judge.reset()
        return released

    @property
    def holding(self) -> bool:
        """Tell whether the last decision was to hold the safe action."""
        return self._holding

    def observation(self) -> Observation | None:
        """Return the newest whole observation, None before the first."""
        newest = self.assembler.newest
        # As old as its oldest part, and not younger for readings that no frame could be made of.
        return None if newest is None else Observation(self.assembler.vector(), newest.time)

    def observation_fault(self, now: float, clock: int = 0) -> str:
        """Return why nothing can be decided on what is observed, or an empty text."""
        if now < self._contradiction[1]:
            return self._contradiction[0]
        if self._unreadable:
            return next(iter(self._unreadable.values()))
        return self.inputs.fault(self.assembler.frames, self.assembler.newest, now, clock)

    def _fault(self, now: float, clock: int) -> str:
        disabled = self.mode is Mode.DISABLED
        return ("" if disabled else self.observation_fault(now, clock)) or self._proposal_fault

    def _history_fault(self, missing: int) -> str:
        if not missing or self.mode is Mode.DISABLED or self.contract.observed.incomplete_history != "hold":
            return ""
        total = self.contract.past("past_frames") + self.contract.past("past_actions")
        return f"history is not whole: {missing} of {total} entries were not measured"

    def _judged(self, basis: Basis) -> Verdict:
        limit = math.inf
        if self._timer is not None:
            limit = self._timer() + basis.settings.deadline * self.contract.control_period
        late = None if self._timer is None else lambda: self._timer() > limit  # type: ignore[misc]
        verdict = self._judge.judge(basis, self.critic, self._draws.at(basis.draw), late)
        if verdict.reason.startswith("proposal is stale") and (why := self.inputs.jitter_of_answers()):
            verdict = replace(verdict, reason=f"{verdict.reason}: {why}")
        return verdict

    def change(self, **settings: Any) -> None:
        """Change shield settings, from the next decision on. Raises ValueError for one out of range."""
        self.settings = replace(self.settings, **settings)
