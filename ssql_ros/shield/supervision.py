"""What a shield does where decisions are no longer the point: an incident has happened, or it is out of its depth.

Beside the decisions, not in them: every tick the newest frame is judged by the contract's incident rule, and what the
contract says follows (`on_incident`). A fault that is latched is released by ~/reset_fault alone, and only outside of
the failure set. One exception: where time is simulated, a new history that begins outside of the failure set releases
it, as the simulator has put the robot elsewhere, which is how its episodes end. A robot's pause is no such thing.

The observation is scored by how far it lies from the critic's training data (`on_out_of_domain`), decisions are
counted, and what was predicted is held against what happened.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from ssql_ros.contract import Contract, ObservationAssembler
from ssql_ros.contract.readings import Frame
from ssql_ros.contract.stamped import NANOSECONDS
from ssql_ros.shield.calibration_drift import CalibrationDrift
from ssql_ros.shield.command_source import CommandSource
from ssql_ros.shield.decision import Decision, ShieldSettings, Verdict
from ssql_ros.shield.domain_watch import DomainWatch
from ssql_ros.shield.faults import Fault, FaultLatch
from ssql_ros.shield.incidents import IncidentWatch
from ssql_ros.shield.judgement import response_of

WINDOW = 500  # decisions that the rates are of
# From so many decisions on, and this share of them with nothing safe or with the backup, it is worth a warning.
ENOUGH, OFTEN = 100, 0.1


class Supervision:
    """Watches what happens while a shield decides, and takes over where the contract says so.

    Args:
        simulated: the node's clock is /clock.

    Attributes:
        faults: what is latched, and what was.
        incidents: the contract's rule, frame by frame.
        domain: how far the robot is from the critic's training data.
        drift: what the critic predicted, and what happened.
    """

    def __init__(self, contract: Contract, simulated: bool = False) -> None:
        self._contract, self._simulated = contract, simulated
        self.faults, self.incidents, self.domain = FaultLatch(), IncidentWatch(contract), DomainWatch()
        self.drift = CalibrationDrift(round(contract.control_period * NANOSECONDS))
        self._begin = 0  # ns, of the history in which the fault in force was latched
        self._decisions: deque[Decision] = deque(maxlen=WINDOW)

    @property
    def latched(self) -> Fault | None:
        """Return the fault in force, None where there is none."""
        return self.faults.latched

    @property
    def acts(self) -> bool:
        """Tell whether the contract has anything follow from what is watched."""
        return self._contract.on_incident != "continue" or self._contract.on_out_of_domain != "warn"

    def look(self, frame: Frame, assembler: ObservationAssembler, critic: Any, latching: bool) -> None:
        """Judge and score the newest whole frame; arguments as of `observe` and `score`."""
        self.observe(frame, latching)
        self.score(frame, assembler, critic, latching)

    def observe(self, frame: Frame, latching: bool) -> None:
        """Judge the newest whole frame. `latching`: False while the shield is taken out: it is only told."""
        response, incidents = self._contract.on_incident, self.incidents
        if incidents.observe(frame) or (latching and self._left_unlatched):
            assert incidents.newest is not None
            self._note(frame, f"incident: {incidents.newest.words()}", response, latching and response != "continue")
        elif self.latched is not None and self._simulated and frame.begin != self._begin and not incidents.inside:
            self.faults.release("the simulation began anew")
        self.drift.observe(frame.stamp, frame.begin, incidents.inside)

    def score(self, frame: Frame, assembler: ObservationAssembler, critic: Any, latching: bool) -> None:
        """Score the observation of the newest frame. `critic`: in force; `latching`: as of `observe`."""
        domain = getattr(critic, "domain", None)
        if domain is None and self.domain.domain is None:
            return
        left = self.domain.observe(domain, assembler.vector(), frame.stamp)
        stops = self._contract.on_out_of_domain == "stop"
        if left or (latching and stops and self.domain.out and self.latched is None):
            words = f"out of domain: {self.domain.words()}"
            self._note(frame, words, "hold" if stops else self._contract.on_out_of_domain, latching and stops)

    def _note(self, frame: Frame, words: str, response: str, latch: bool) -> None:
        if self.latched is None:
            self._begin = frame.begin
        self.faults.note(frame.stamp, words, response, latch)

    @property
    def _left_unlatched(self) -> bool:
        """Tell whether the robot is inside its failure set and nothing is latched, though the contract says so."""
        return self.incidents.inside and self.latched is None and self._contract.on_incident != "continue"

    @property
    def outside(self) -> str:
        """Return how far the robot is from the critic's training data, where the backup takes over for it; or ""."""
        takes_over = self._contract.on_out_of_domain == "backup" and self.domain.out
        return self.domain.words() if takes_over else ""

    def decided(self, verdict: Verdict, stamp: int, critic: Any, settings: ShieldSettings, watching: bool) -> None:
        """Take in a decision on the observation of `stamp` ns, and what it was taken with.

        Args:
            watching: the proposal goes to the robot, whatever was decided.
        """
        self._decisions.append(verdict.decision)
        bundle = getattr(critic, "bundle", None)
        if bundle is None or settings.epsilon is None or not stamp:
            return
        self.drift.follow(critic.id, bundle.critic.gamma_safe, settings.epsilon)
        if not self.incidents.inside:
            self.drift.decided(verdict, stamp, watching)

    def rate(self, decision: Decision) -> float:
        """Return the share of a decision among the newest, 0 before the first."""
        newest = tuple(self._decisions)  # another thread may be adding to it
        return newest.count(decision) / len(newest) if newest else 0.0

    def warning(self) -> str:
        """Return why the shield may be out of its depth, or an empty text."""
        if self.domain.out:
            return f"out of domain: {self.domain.words()}"
        if drift := self.drift.warning():
            return drift
        least, backed = self.rate(Decision.LEAST_RISK), self.rate(Decision.BACKUP)
        if len(self._decisions) < ENOUGH or least + backed < OFTEN:
            return ""
        return (
            f"of the last {len(self._decisions)} decisions {least:.0%} found nothing safe, {backed:.0%} had the "
            "backup: the controller is unsafe, or the critic does not know where it is"
        )

    def command(self, frame: np.ndarray | None, source: CommandSource, critic: Any) -> np.ndarray | None:
        """Return the joint command (n_joint,) of the fault in force; None: the pose to hold is not known.

        Args:
            frame: (n_frame,), the newest; None before the first.
        """
        fault, contract = self.latched, self._contract
        assert fault is not None
        response, action = response_of(fault, contract, critic)
        if response == "hold":
            return source.held(frame)
        wanted: np.ndarray | None = contract.joint_command(action)
        if response == "damp":
            assert wanted is not None
            near = source.last if source.last is not None else wanted
            # Where nothing is measured any more, what it was told last.
            wanted = contract.damped_command(frame, near) if frame is not None else source.last
        return None if wanted is None else source.towards(wanted)

    def reset(self, fault: str) -> str:
        """Release the fault in force; return what it was.

        Args:
            fault: why the robot is not observed now; empty: it is.

        Raises:
            ValueError: nothing is latched, or the robot is still inside its failure set, or not observed.
        """
        latched, judged = self.latched, self.incidents.newest
        if latched is None:
            raise ValueError("no fault is latched")
        if fault or judged is None:
            raise ValueError(f"still latched: the robot is not observed, so nobody knows where it is: {fault}")
        if judged.margin > 0.0:
            raise ValueError(
                f"still latched: the robot is inside its failure set: {judged.words()}; bring it out, then call again"
            )
        if self.domain.out and self._contract.on_out_of_domain == "stop":
            raise ValueError(f"still latched: out of domain: {self.domain.words()}; ~/enable takes the shield out")
        self.faults.release("~/reset_fault")
        return latched.words
