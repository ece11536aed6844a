"""A mixture of safe trots with bounded noise: the Minitaur's safe-support behaviour policy.

Each episode draws one gait, and how its noise goes on in time: drawn anew every so many steps, or locked to the gait's
phase, which is another trot of the family. The context is the bare trot's action of the moment, which tells gait and
phase; the support is the box of half-width `bound` about it. Given the context b counts as uniform in that box: the
episodes differ in how their noise goes on, so that states are met which only persistent choices lead to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssql_ros.behaviour.policy import BehaviourPolicy
from ssql_ros.behaviour.support import Support, boxes
from ssql_ros.robots.minitaur.trot import CONTROL_PERIOD, GAITS, LEG_PHASE

N_ACTION = 8


class TrotMixture(BehaviourPolicy):
    """The policy.

    Args:
        gaits: names in `trot.GAITS`.
        weights: of the gaits, above or equal to 0; normalised.
        bound: largest deviation from the trot, action units: the support.
        holds: steps for which the noise is held, of which each episode draws one; 0: locked to the gait's phase.

    Raises:
        ValueError: an unknown gait, weights that do not fit, or a bound or a hold not above 0.
    """

    n_context = N_ACTION

    def __init__(
        self,
        gaits: Sequence[str] = ("A", "G4", "G5"),
        weights: Sequence[float] | None = None,
        bound: float = 0.1,
        holds: Sequence[int] = (1, 4, 16, 0, 0, 0),
    ) -> None:
        if unknown := [gait for gait in gaits if gait not in GAITS]:
            raise ValueError(f"gait {unknown[0]!r} is unknown; known: {', '.join(GAITS)}")
        given = np.ones(len(gaits)) if weights is None else np.asarray(weights, float)
        if len(given) != len(gaits) or not ((given >= 0.0).all() and 0.0 < given.sum() < np.inf):
            raise ValueError(f"weights: expected {len(gaits)} numbers from 0 on, not all 0; got {list(given)}")
        if not 0.0 < bound <= 2.0 or not len(holds) or not all(type(hold) is int and hold >= 0 for hold in holds):
            raise ValueError(f"expected 0 < bound <= 2 and holds of at least 0 steps, got {bound} and {list(holds)}")
        self.gaits, self.weights, self.bound = tuple(gaits), given / given.sum(), float(bound)
        self.holds = tuple(holds)
        self.promise = f"actions within {bound:g} of the trots {', '.join(gaits)}; no state of an incident"
        self.gait = self.gaits[0]
        self._step, self._hold, self._noise = 0, 1, np.zeros(N_ACTION)
        self._shape = np.zeros((3, 2))

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode: draw its gait, and how long its noise is held."""
        self.gait = self.gaits[int(rng.choice(len(self.gaits), p=self.weights))]
        self._hold = self.holds[int(rng.integers(len(self.holds)))]
        # Of the phase-locked noise: offset, sine and cosine for swings and for extensions, the same for all legs.
        self._shape = rng.normal(0.0, 1.0, (3, 2))
        self._step = 0

    def context(self) -> np.ndarray:
        """Return the bare trot's action (8,) of this step."""
        return GAITS[self.gait].action(self._step)

    def advance(self) -> None:
        """Move on by one step."""
        self._step += 1

    def starts(self) -> np.ndarray:
        """Return what each gait begins with (M, 8)."""
        return np.array([GAITS[gait].action(0) for gait in self.gaits])

    def start_weights(self) -> np.ndarray:
        """Return the weights (M,) of the gaits."""
        return self.weights

    def start_names(self) -> tuple[str, ...]:
        """Return the names of the gaits."""
        return self.gaits

    def with_start_weights(self, weights: np.ndarray) -> TrotMixture:
        """Return the same mixture with other weights (M,) of the gaits."""
        return TrotMixture(self.gaits, weights.tolist(), self.bound, self.holds)

    def act(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the trot's action with noise (8,), and move on by one step."""
        if self._hold == 0:
            angle = 2.0 * math.pi * GAITS[self.gait].frequency * self._step * CONTROL_PERIOD + LEG_PHASE
            offset, sine, cosine = self._shape
            locked = [np.tanh(offset[i] + sine[i] * np.sin(angle) + cosine[i] * np.cos(angle)) for i in range(2)]
            # Half of it is drawn anew at each step: what one action alone does must show too.
            self._noise = 0.5 * (np.concatenate(locked) + rng.uniform(-1.0, 1.0, N_ACTION))
        elif self._step % self._hold == 0:
            self._noise = rng.uniform(-1.0, 1.0, N_ACTION)
        action = np.clip(self.context() + self.bound * self._noise, -1.0, 1.0)
        self.advance()
        return action

    def support(self, states: np.ndarray) -> Support:
        """Return b(.|s) for states (N, n_observation + 8)."""
        trot = states[:, np.newaxis, -N_ACTION:]
        low, high = np.clip(trot - self.bound, -1.0, 1.0), np.clip(trot + self.bound, -1.0, 1.0)
        return boxes(np.ones(trot.shape[:2]), low, high)

    def describe(self) -> dict[str, Any]:
        """Return what `make_behaviour` makes the same policy from."""
        return {
            "kind": "trot_mixture",
            "gaits": list(self.gaits),
            "weights": self.weights.tolist(),
            "bound": self.bound,
            "holds": list(self.holds),
            "context": N_ACTION,
        }
