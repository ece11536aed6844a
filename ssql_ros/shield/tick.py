"""One tick of a shield: what it decided, in which mode, and what goes to the robot."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from ssql_ros.shield.decision import Verdict
from ssql_ros.shield.judgement import Basis


class Mode(enum.IntEnum):
    """What becomes of a decision; the values are those of ShieldState.msg."""

    ENFORCE = 0
    MONITOR = 1
    DISABLED = 2
    INACTIVE = 3


@dataclass(frozen=True)
class Tick:
    """One decision with its account.

    Attributes:
        joint_command: (n_joint,), SI units, what goes to the robot; None: nothing does, as the shield only watches.
        stamp: ns, of the observation decided upon; 0 before the first.
        enforced: True when `verdict.action` is what goes to the robot.
        proposal: (n_action,), empty when none was fit to be decided on.
        complete: True when a proposal for a new observation caused the tick; False when the period ran out.
        bundle_id: of the critic that judged; another may be in force when this is told.
        fresh: True when a proposal has come since the tick before.
        history_missing: how many entries of the observation's history stand in for what was not measured.
        taken_over: an operator had the robot.
        basis, seed: what it was taken from, thresholds included (see `judgement`).
    """

    verdict: Verdict
    joint_command: np.ndarray | None
    stamp: int
    enforced: bool
    proposal: np.ndarray
    complete: bool
    fresh: bool
    bundle_id: str
    history_missing: int
    basis: Basis
    seed: int
    taken_over: bool
