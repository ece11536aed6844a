"""The contract: what a robot's observation and action vectors mean.

It is the only place that knows a robot's joints, units, limits and safe action. Networks are trained against a
contract and carry its id; a change of meaning changes the id, a change of topic names or time-outs does not.
One YAML file per robot describes it; `contract_file.load_contract` reads and checks that.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ssql_ros.contract.commanded import Commanded as Commanded
from ssql_ros.contract.fields import UNITS
from ssql_ros.contract.incident import Ball, Box, Judged, Limit
from ssql_ros.contract.reward import RewardRule
from ssql_ros.contract.schema import ContractError


@dataclass(frozen=True)
class Input:
    """One topic that the driver publishes.

    Attributes:
        max_age: s, older data is stale.
        stamps: "header": messages carry the time of measurement; "arrival": the driver sets none that can be used, and
            the time at which a message came stands in for it.
        max_speed: rad/s or m/s, how fast what it measures can move: what moves further was put elsewhere (see `leaps`);
            None: told from the velocities that are measured.
        frame_id: of a pose, the frame that it must be given in; empty: any.
    """

    name: str
    topic: str
    type: str
    max_age: float
    stamps: str = "header"
    max_speed: float | None = None
    frame_id: str = ""


@dataclass(frozen=True)
class Feature:
    """One number of a frame: `scale` x the message field in `unit`, wrapped to [-pi, pi] where `wrap`.

    With a `function` (sin, cos) it is that of the angle, and `unit` that of what comes of it.
    """

    name: str
    input: str
    field: str
    unit: str
    joint: str | None
    scale: float
    wrap: bool
    function: str = ""

    @property
    def factor(self) -> float:
        """Return what the field's SI value is multiplied by."""
        return self.scale * UNITS[self.unit][1]


@dataclass(frozen=True)
class Block:
    """One block of the observation vector: the frame, `count` past frames or actions, or the derived features."""

    kind: str
    count: int
    scale: float


@dataclass(frozen=True)
class Observed:
    """How messages become the observation vector.

    Attributes:
        trigger: input whose every new message starts a frame.
        max_skew: s, how far the other inputs' stamps may lie from the trigger's.
        episode_gap: s, a longer pause between stamps, or one back in time, starts a new history.
        incomplete_history: "flag": what is decided before the history is whole is flagged; "hold": the safe action is
            held until it is.
        derived: (n_derived, n_frame), the derived features as weighted sums of the frame's.
    """

    trigger: str
    max_skew: float
    episode_gap: float
    frame: tuple[Feature, ...]
    derived_names: tuple[str, ...]
    derived: np.ndarray
    blocks: tuple[Block, ...]
    incomplete_history: str = "flag"


@dataclass(frozen=True)
class Contract:
    """A checked contract; make one with `load_contract`.

    Attributes:
        control_period: s, one command every period.
        command_timeout: s, the driver holds the safe action when no command came for this long.
        limits, boxes, balls: the terms of the incident rule.
        safe_action: (n_action,), what the robot is told when nothing can be decided on.
        holds_pose: it is told to stay in the pose that was measured instead; `safe_action` serves before one was.
        reward: what a step is worth, where it can be taken from the topics; no part of the vectors' meaning.
        on_incident: what a shield does once the robot is inside its failure set, of `keys.ON_INCIDENT`.
        on_out_of_domain: what it does far from its critic's training data, of `keys.ON_OUT_OF_DOMAIN`.
    """

    path: str
    robot: str
    control_period: float
    command_timeout: float
    inputs: dict[str, Input]
    observed: Observed
    commanded: Commanded
    limits: tuple[Limit, ...]
    boxes: tuple[Box, ...]
    balls: tuple[Ball, ...]
    safe_action: np.ndarray
    reward: RewardRule | None = None
    holds_pose: bool = False
    on_incident: str = "continue"
    on_out_of_domain: str = "warn"

    @cached_property
    def frame_names(self) -> tuple[str, ...]:
        """Return the names of the frame's features, in order."""
        return tuple(feature.name for feature in self.observed.frame)

    @property
    def frame_size(self) -> int:
        """Return how many numbers one frame has."""
        return len(self.observed.frame)

    @property
    def action_size(self) -> int:
        """Return how many numbers an action has."""
        return len(self.commanded.names)

    @cached_property
    def observation_size(self) -> int:
        """Return how many numbers an observation has."""
        sizes = {
            "frame": self.frame_size,
            "past_frames": self.frame_size,
            "past_actions": self.action_size,
            "derived": len(self.observed.derived_names),
        }
        return sum(block.count * sizes[block.kind] for block in self.observed.blocks)

    def past(self, kind: str) -> int:
        """Return how many past frames (`past_frames`) or actions (`past_actions`) the observation reaches back."""
        return max((block.count for block in self.observed.blocks if block.kind == kind), default=0)

    @cached_property
    def observed_inputs(self) -> tuple[str, ...]:
        """Return the inputs that the frame reads, the trigger first."""
        trigger = self.observed.trigger
        return (trigger, *sorted({feature.input for feature in self.observed.frame} - {trigger}))

    def clip(self, action: np.ndarray) -> np.ndarray:
        """Return `action` (..., n_action) inside the bounds."""
        return np.minimum(np.maximum(action, self.commanded.low), self.commanded.high)

    def joint_command(self, action: np.ndarray) -> np.ndarray:
        """Return the joint command (n_joint,) in SI units that an action (n_action,) means."""
        return self.commanded.offset + self.commanded.matrix @ action

    @cached_property
    def joint_limits(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the largest joint command (n_joint,) that any action means, SI units."""
        return self.commanded.joint_range

    @cached_property
    def _measured_places(self) -> list[list[int]] | None:
        """Return where in a frame the commanded field of what each command moves is measured; None where one is not."""
        found = {
            feature.joint: i
            for i, feature in enumerate(self.observed.frame)
            if feature.joint is not None
            and feature.field == self.commanded.field
            and feature.factor
            and not feature.function
        }
        moved = self.commanded.moved
        if not all(name in found for names in moved for name in names):
            return None
        return [[found[name] for name in names] for names in moved]

    def measured_command(self, frame: np.ndarray, near: np.ndarray) -> np.ndarray | None:
        """Return the joint command (n_joint,) that holds a robot as it is in a frame (n_frame,), SI units.

        Args:
            near: (n_joint,), angles that a frame has wrapped are brought next to it.

        Returns:
            None where the frame does not measure the commanded field of every joint. Of joints that one command moves
            together it is the sum.
        """
        if self._measured_places is None:
            return None
        command = np.empty(len(near))
        for joint, places in enumerate(self._measured_places):
            features = [self.observed.frame[i] for i in places]
            command[joint] = sum(frame[i] / feature.factor for i, feature in zip(places, features, strict=True))
            if any(feature.wrap for feature in features):
                command[joint] += 2 * math.pi * round((near[joint] - command[joint]) / (2 * math.pi))
        return command

    def damped_command(self, frame: np.ndarray, near: np.ndarray) -> np.ndarray | None:
        """Return the joint command (n_joint,) that leaves the robot to its drives' damping, inside its limits.

        Of positions it is the measured pose, so that nothing pulls but the damping; of anything else zeros.

        Args:
            frame, near: as of `measured_command`.

        Returns:
            None where positions are commanded and the frame does not measure them.
        """
        low, high = self.joint_limits
        damped = self.measured_command(frame, near) if self.commanded.field == "position" else np.zeros(len(low))
        return None if damped is None else np.clip(damped, low, high)

    @property
    def measures_pose(self) -> bool:
        """Tell whether a frame measures the commanded field of whatever is commanded."""
        return self._measured_places is not None

    @cached_property
    def _action_from_joints(self) -> np.ndarray:
        return np.linalg.pinv(self.commanded.matrix)

    def action_of(self, joint_command: np.ndarray) -> np.ndarray:
        """Return the action (n_action,) that a joint command (n_joint,) in SI units means; not clipped.

        Raises:
            ContractError: no action gives this command (more joints than action elements, and they disagree).
        """
        action = self.nearest_action(joint_command)
        if len(self.commanded.joint_names) > self.action_size:
            error = np.max(np.abs(self.joint_command(action) - joint_command))
            if not error < 1e-6:
                raise ContractError(f"joint command of {self.robot}: no action gives it (off by {error:.3g} at best)")
        return action

    def nearest_action(self, joint_command: np.ndarray) -> np.ndarray:
        """Return the action (..., n_action) whose joint command is nearest to one (..., n_joint), SI units.

        Not clipped to the bounds.

        The same bits for one command and for many at once: what is executed is heard live and read from bags.
        """
        apart = joint_command - self.commanded.offset
        # In the order of rows, so that numpy adds up each in the same way.
        return np.multiply(self._action_from_joints, apart[..., np.newaxis, :], order="C").sum(axis=-1)

    @cached_property
    def _incident_terms(self) -> tuple[np.ndarray, list[tuple[Limit | Box | Ball, slice]]]:
        """Return the weights (n_judged, n_frame) that give all judged values from a frame, and each term's slice."""
        rows = dict(zip(self.frame_names, np.eye(self.frame_size), strict=True))
        rows.update(zip(self.observed.derived_names, self.observed.derived, strict=True))
        terms: list[Limit | Box | Ball] = [*self.limits, *self.boxes, *self.balls]
        weights = np.array([rows[name] for term in terms for name in term.features])
        ends = np.cumsum([len(term.features) for term in terms]).tolist()
        return weights, [(term, slice(end - len(term.features), end)) for term, end in zip(terms, ends, strict=True)]

    def margin(self, frame: np.ndarray) -> tuple[float, str]:
        """Return the signed safety margin l(s) of a frame (n_frame,) and the term that gives it, in words."""
        judged = self.judged(frame)
        return judged.margin, judged.cause

    def judged(self, frame: np.ndarray) -> Judged:
        """Return what the incident rule says of a frame (n_frame,).

        l(s) is the largest over the terms, of a limit the excess over it, of a box or a ball the depth inside it:
        negative is safe, positive is inside the failure set, I(s) = l(s) > 0.
        A value that is not finite gives +inf: what cannot be judged is not safe.
        """
        weights, terms = self._incident_terms
        judged = weights.dot(frame)
        values = judged.tolist()
        # The sum of squares is a number only where every value is, and takes a fraction of the time.
        if math.isfinite(judged.dot(judged)):
            margins = [term.margin(values[at]) for term, at in terms]
        else:
            finite = [all(map(math.isfinite, values[at])) for _, at in terms]
            margins = [
                term.margin(values[at]) if fine else math.inf for (term, at), fine in zip(terms, finite, strict=True)
            ]
        worst = max(margins)
        term, at = terms[margins.index(worst)]
        return Judged(worst, term, values[at])

    def meaning(self) -> dict[str, Any]:
        """Return what the vectors mean, as plain data: the part that a network is trained against."""
        seen, told = self.observed, self.commanded
        meaning = {
            "robot": self.robot,
            "control_period": self.control_period,
            "frame": [[f.name, f.input, f.field, f.joint, f.unit, f.scale, f.wrap] for f in seen.frame],
            "derived": [list(seen.derived_names), seen.derived.tolist()],
            "vector": [[b.kind, b.count, b.scale] for b in seen.blocks],
            "action": [list(told.names), told.low.tolist(), told.high.tolist()],
            "joints": [list(told.joint_names), told.field, told.offset.tolist(), told.matrix.tolist()],
            "incident": [[t.feature, t.below, t.above] for t in self.limits],
            "safe_action": self.safe_action.tolist(),
        }
        if functions := [[f.name, f.function] for f in seen.frame if f.function]:
            meaning["functions"] = functions
        if not told.by_joint:  # how joints are told does not change what an action means
            meaning["command"] = told.type
        if self.boxes:  # only then: a contract without any keeps the id of before there were boxes
            meaning["incident_boxes"] = [
                {name: [low, high] for name, low, high in zip(b.features, b.low, b.high, strict=True)}
                for b in self.boxes
            ]
        if told.coupled:
            meaning["coupled"] = {name: list(joints) for name, joints in told.coupled.items()}
        if frames := {name: source.frame_id for name, source in self.inputs.items() if source.frame_id}:
            meaning["frames"] = frames
        if self.balls:
            meaning["incident_balls"] = [[b.radius, dict(zip(b.features, b.centre, strict=True))] for b in self.balls]
        return meaning

    def differences(self, other: Contract) -> list[str]:
        """Return what of the vectors' meaning another contract has otherwise, but for how commands are told.

        Messages, and the names that parts of a command have in them, may be others; offsets, weights and the order are
        the same numbers, and joints are commanded in the same field.
        """
        mine, others = self.meaning(), other.meaning()
        told = [(each.pop("command", ""), each.pop("joints")) for each in (mine, others)]
        (_, (_, field, *numbers)), (_, (_, other_field, *other_numbers)) = told
        found = [name for name in sorted({*mine, *others}) if mine.get(name) != others.get(name)]
        if numbers != other_numbers:
            found.append("offset and sum of the command's parts")
        if field != other_field and self.commanded.by_joint and other.commanded.by_joint:
            found.append("the command's field")
        return found

    @cached_property
    def id(self) -> str:
        """Return the robot's name and a digest of `meaning`: equal ids mean equal vectors."""
        digest = hashlib.sha256(json.dumps(self.meaning(), sort_keys=True).encode()).hexdigest()
        return f"{self.robot}-{digest[:12]}"
