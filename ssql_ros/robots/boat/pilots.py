"""Pilots of the boat, of several skills: what a mixed log of it is made of. Vectorised: many boats at once.

wanderer  holds a random heading for a while, then another
seeker    steers to the goal and sees no rock
careful   steers to the goal, and away from a rock as it comes near
visitor   steers to a random place, then to another

Each boat has an error of its own on its heading, drawn anew whenever it decides; in between it holds its heading.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssql_ros.contract import Contract
from ssql_ros.contract.reward import DistanceRule
from ssql_ros.robots.noise import Scripted

PILOTS = ("wanderer", "seeker", "careful", "visitor")
# m, corners of the box, as its world has them.
LOW, HIGH = (-3.0, -2.0), (2.0, 2.0)


@dataclass(frozen=True)
class Chart:
    """What a pilot knows: the goal, and centre and radius of each rock, m."""

    goal: tuple[float, ...]
    rocks: tuple[tuple[tuple[float, ...], float], ...]

    @classmethod
    def of(cls, contract: Contract) -> Chart:
        """Return the chart that the boat's contract draws."""
        assert isinstance(contract.reward, DistanceRule)
        return cls(contract.reward.goal, tuple((rock.centre, rock.radius) for rock in contract.balls))


class Pilots:
    """One pilot for each of N boats.

    Args:
        kinds: (N,) index into PILOTS.
        rng: draws skills, errors and headings.

    Attributes:
        error: (N,) standard deviation of the heading's error, rad.
        look_out: (N,) m from a rock's edge at which a careful pilot turns away.
        hold: least and most control periods between decisions.
    """

    def __init__(
        self, chart: Chart, kinds: np.ndarray, rng: np.random.Generator, hold: tuple[int, int] = (30, 150)
    ) -> None:
        count, self.hold = len(kinds), hold
        self._chart, self._kinds, self._rng = chart, kinds, rng
        self.error = rng.choice([0.1, 0.3, 0.6, 1.0], count)
        self.look_out = rng.uniform(0.05, 0.6, count)
        self._left = np.zeros(count, int)
        self._target = self._places(count)
        self._action = np.zeros((count, 2))

    def act(self, position: np.ndarray) -> np.ndarray:
        """Return actions (N, 2) in [-1, 1] at positions (N, 2); the next control period of every boat."""
        due = self._left == 0
        if due.any():
            self._action[due] = self._decided(position)[due]
            self._left[due] = self._rng.integers(*self.hold, int(due.sum()))
        self._left -= 1
        return self._action

    def _decided(self, position: np.ndarray) -> np.ndarray:
        count, rng = len(position), self._rng
        arrived = np.linalg.norm(self._target - position, axis=1) < 0.3
        self._target[arrived] = self._places(int(arrived.sum()))
        to_goal, to_place = np.array(self._chart.goal) - position, self._target - position
        angle = _angle(to_goal)
        angle = np.where(self._kinds == PILOTS.index("careful"), self._away(position, angle), angle)
        angle = np.where(self._kinds == PILOTS.index("visitor"), _angle(to_place), angle)
        angle = angle + self.error * rng.standard_normal(count)
        angle = np.where(self._kinds == PILOTS.index("wanderer"), rng.uniform(-np.pi, np.pi, count), angle)
        # A command's length means nothing to the boat; what learns from the log must see that.
        length = rng.uniform(0.5, 1.4, count)
        return np.clip(length[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1), -1.0, 1.0)

    def _away(self, position: np.ndarray, angle: np.ndarray) -> np.ndarray:
        """Return the angles, those of boats near a rock turned away from it."""
        for centre, radius in self._chart.rocks:
            outwards = position - centre
            near = np.linalg.norm(outwards, axis=1) < radius + self.look_out
            angle = np.where(near, _angle(outwards), angle)
        return angle

    def _places(self, count: int) -> np.ndarray:
        return self._rng.uniform(LOW, HIGH, (count, 2))


def _angle(vector: np.ndarray) -> np.ndarray:
    return np.arctan2(vector[:, 1], vector[:, 0])


class Pilot(Scripted):
    """One boat's pilot as a controller.

    Args:
        kind: name in PILOTS; empty: another one with each episode, in turn.
    """

    def __init__(self, kind: str, contract: Contract) -> None:
        self._kinds = [PILOTS.index(kind)] if kind else list(range(len(PILOTS)))
        self._chart, self._episodes = Chart.of(contract), 0

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode with a skill and errors of its own."""
        kind = self._kinds[self._episodes % len(self._kinds)]
        self._episodes += 1
        self._pilots = Pilots(self._chart, np.array([kind]), rng)

    def best(self, observation: np.ndarray) -> np.ndarray:
        """Return the action (2,) at a position (2,)."""
        return self._pilots.act(observation[np.newaxis])[0].copy()
