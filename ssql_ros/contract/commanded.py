"""What a contract says of commands: what an action means, and in which messages, on which topics, it is told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field

import numpy as np

from ssql_ros.contract.fields import BY_JOINT, FLOAT, JOINT_STATE, RAW_JOINT_COMMANDS, TWIST_STAMPED

RELIABILITIES = ("reliable", "best_effort")
JOINT_PLACES = ("{joint}", "{joint_lower}")  # in a command's topic


@dataclass(frozen=True)
class Commanded:
    """How an action vector becomes a joint command: joint command = offset + matrix @ action, in SI units.

    Attributes:
        topic: of the driver's messages; where each joint has its own, with `{joint}` or `{joint_lower}` in place of its
            name (see `topics`).
        type: of the driver's messages; where they do not name joints, `joint_names` are parts of the message
            (linear.x), or names for its numbers in their order.
        low, high: (n_action,), bounds of the action vector in its own units.
        offset, matrix: (n_joint,), (n_joint, n_action).
        max_rate: SI unit of the field per s: how fast a joint's command may move where its source changes: on
            activation, towards the safe action and back, at a swap; inf: not bounded.
        coupled: by command, the joints whose sum it moves where one motor drives several; others move the joint of
            their own name.
        reliability: of `RELIABILITIES`, what is asked of those who propose commands; no part of the vectors' meaning.
        velocity, acceleration, effort: (n_joint,), limits of what is commanded, rad/s, rad/s^2 and N m; inf: not told.
            Where its source changes, no command moves faster than its velocity, nor changes its speed faster.
    """

    names: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    topic: str
    field: str
    joint_names: tuple[str, ...]
    offset: np.ndarray
    matrix: np.ndarray
    max_rate: float = math.inf
    coupled: dict[str, tuple[str, ...]] = dataclass_field(default_factory=dict)
    velocity: np.ndarray = dataclass_field(default_factory=lambda: np.array(math.inf))
    acceleration: np.ndarray = dataclass_field(default_factory=lambda: np.array(math.inf))
    effort: np.ndarray = dataclass_field(default_factory=lambda: np.array(math.inf))
    type: str = JOINT_STATE
    reliability: str = RELIABILITIES[0]

    @property
    def moved(self) -> tuple[tuple[str, ...], ...]:
        """Return the joints that each command moves, as the robot measures them."""
        return tuple(self.coupled.get(name, (name,)) for name in self.joint_names)

    @property
    def joint_range(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the largest command (n_joint,) that any action inside its bounds means."""
        ends = np.stack([self.matrix * self.low, self.matrix * self.high])
        return self.offset + ends.min(axis=0).sum(axis=1), self.offset + ends.max(axis=0).sum(axis=1)

    @property
    def fastest(self) -> np.ndarray:
        """Return how fast each command may move where its source changes, (n_joint,), SI unit of the field per s."""
        return np.minimum(np.broadcast_to(self.velocity, len(self.joint_names)), self.max_rate)

    @property
    def apart(self) -> bool:
        """Tell whether each joint is commanded on a topic of its own."""
        return joint_has_topic(self.type, self.topic)

    @property
    def by_joint(self) -> bool:
        """Tell whether commands name joints, and no parts of a message."""
        return names_joints(self.type, self.topic)

    @property
    def stamped(self) -> bool:
        """Tell whether commands say which observation they answer."""
        return self.type in (JOINT_STATE, TWIST_STAMPED)

    @property
    def topics(self) -> tuple[str, ...]:
        """Return where the driver is told: one topic, or one for each of `joint_names`."""
        return self._expanded(self.topic)

    @property
    def raw_topic(self) -> str:
        """Return where a controller's plain commands are heard, before the shield; see `raw_topics`."""
        return RAW_JOINT_COMMANDS if self.type == JOINT_STATE else f"{self.topic}_raw"

    @property
    def raw_topics(self) -> tuple[str, ...]:
        """Return the same as `topics` has it."""
        return self._expanded(self.raw_topic)

    @property
    def takeover_topic(self) -> str:
        """Return where an operator's commands are heard, which come before the controller's; see `takeover_topics`."""
        return f"{self.topic}_takeover"

    @property
    def takeover_topics(self) -> tuple[str, ...]:
        """Return the same as `topics` has it."""
        return self._expanded(self.takeover_topic)

    def _expanded(self, topic: str) -> tuple[str, ...]:
        return expanded(topic, self.joint_names) if self.apart else (topic,)


def joint_has_topic(kind: str, topic: str) -> bool:
    """Tell whether commands of a type (`kind`) go to as many topics as there are joints."""
    return kind == FLOAT and any(place in topic for place in JOINT_PLACES)


def names_joints(kind: str, topic: str) -> bool:
    """Tell whether commands of a type (`kind`) on `topic` are of joints, and not of parts of a message."""
    return kind in BY_JOINT or joint_has_topic(kind, topic)


def expanded(topic: str, joints: Sequence[str]) -> tuple[str, ...]:
    """Return `topic` for each of `joints`: their names in place of `{joint}`, in small letters of `{joint_lower}`."""
    return tuple(topic.replace("{joint}", joint).replace("{joint_lower}", joint.lower()) for joint in joints)
