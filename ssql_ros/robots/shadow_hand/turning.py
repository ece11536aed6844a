"""In-hand turning with feedback on the cube's pose: the hand's safe behaviour policy that gets somewhere.

A clock runs with the episode. While the cube is not turned as the goal has it, fingers and wrist follow the goal's
motions by the clock, out of the cup and back into it; as soon as it is, they are the cup. So the bare action is a
function of the observation and the clock, and the support is a box about it. For a goal without a motion that is safe
enough the cube is held.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssql_ros.behaviour.policy import BehaviourPolicy
from ssql_ros.behaviour.support import Support, boxes
from ssql_ros.robots.shadow_hand.cup import CUP
from ssql_ros.robots.shadow_hand.motions import MOTIONS

# Where an observation has the cube's roll, pitch and yaw, and the goal's.
CUBE, GOAL = slice(27, 30), slice(30, 33)
GOALS = ("x+", "x-", "z+", "z-")
YAWS = 2  # from here on goals are turns about z
YAW_LEFT = 0.2  # rad


def quaternions(angles: np.ndarray) -> np.ndarray:
    """Return unit quaternions (N, 4), w last, of roll, pitch and yaw (N, 3), rad."""
    (sr, cr), (sp, cp), (sy, cy) = ((np.sin(part), np.cos(part)) for part in 0.5 * angles.T)
    return np.stack(
        [
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
            cr * cp * cy + sr * sp * sy,
        ],
        axis=1,
    )


def turn_left(cube: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Return the angle (N,), rad, between two orientations, each roll, pitch and yaw (N, 3)."""
    alike = np.abs(np.sum(quaternions(cube) * quaternions(goal), axis=1))
    return 2.0 * np.arccos(np.minimum(alike, 1.0))


def goal_of(goal: np.ndarray) -> np.ndarray:
    """Return which of GOALS the goals (N, 3) are, (N,): the larger of roll and yaw, and its sign."""
    yawed = np.abs(goal[:, 2]) > np.abs(goal[:, 0])
    turned = np.where(yawed, goal[:, 2], goal[:, 0])
    return 2 * yawed + (turned < 0.0)


class CubeTurning(BehaviourPolicy):
    """The policy. Its context is the clock, in control steps of the episode.

    Args:
        bound: largest deviation from the bare action, action units: the support.
        reached: rad, nearer than this to the goal the cube is held.

    Raises:
        ValueError: a bound or an angle that is not above 0.
    """

    n_context = 1

    def __init__(self, bound: float = 0.05, reached: float = 0.3) -> None:
        if not 0.0 < bound <= 2.0 or not 0.0 < reached < np.pi:
            raise ValueError(f"expected 0 < bound <= 2 and 0 < reached < pi, got {bound} and {reached}")
        self.bound, self.reached = float(bound), float(reached)
        # Drops that were seen: 2 of 100 episodes within 0.05, 0 of 40 within 0.1, 2 of 40 within 0.2.
        self.promise = f"actions within {bound:g} of the turning; the cube is hardly ever dropped"
        held = np.zeros((1, len(CUP)))
        tracks = [np.concatenate([motion.track() for motion in MOTIONS[goal]] or [held]) for goal in GOALS]
        self._lengths = np.array([len(track) for track in tracks])
        self._tracks = np.zeros((len(GOALS), self._lengths.max(), len(CUP)))
        for i, track in enumerate(tracks):
            self._tracks[i, : len(track)] = track
        self._step = 0

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode: the clock stands at 0."""
        self._step = 0

    def context(self) -> np.ndarray:
        """Return the clock (1,)."""
        return np.array([float(self._step)])

    def advance(self) -> None:
        """Move on by one step."""
        self._step += 1

    def starts(self) -> np.ndarray:
        """Return the clock that an episode begins with, (1, 1)."""
        return np.zeros((1, 1))

    def act(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a draw from b(.|s), and move on by one step."""
        state = np.concatenate([observation, self.context()])
        self.advance()
        return self.support(state[np.newaxis]).sample(1, rng)[0, 0]

    def bare(self, states: np.ndarray) -> np.ndarray:
        """Return the actions (N, 20) without noise, for states (N, 86 + 1)."""
        goals = goal_of(states[:, GOAL])
        steps = states[:, -1].astype(int) % self._lengths[goals]
        there = turn_left(states[:, CUBE], states[:, GOAL]) < self.reached
        # A cube that is tilted may have yawed far enough, or too far: in the cup it lies down again.
        yawed = np.remainder(states[:, GOAL][:, 2] - states[:, CUBE][:, 2] + np.pi, 2 * np.pi) - np.pi
        there |= (goals >= YAWS) & (np.sign(states[:, GOAL][:, 2]) * yawed < YAW_LEFT)
        offset = np.where(there[:, np.newaxis], 0.0, self._tracks[goals, steps])
        return np.clip(CUP + offset, -1.0, 1.0)

    def support(self, states: np.ndarray) -> Support:
        """Return b(.|s) for states (N, 86 + 1)."""
        bare = self.bare(states)[:, np.newaxis]
        low, high = np.clip(bare - self.bound, -1.0, 1.0), np.clip(bare + self.bound, -1.0, 1.0)
        return boxes(np.ones(bare.shape[:2]), low, high)

    def describe(self) -> dict[str, Any]:
        """Return what `make_behaviour` makes the same policy from."""
        return {"kind": "cube_turning", "bound": self.bound, "reached": self.reached, "context": 1}
