"""Controllers that know nothing of the robot: what a shield must hold against, and what its critic learns from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssql_ros.model.proposal import Proposal
from ssql_ros.robots.noise import Noise, NoisyController

KINDS = ("uniform", "mixed", "corner", "constant", "waves", "noise")


@dataclass(frozen=True)
class Adversary:
    """What proposes, blindly, in the range [-1, 1] of every element.

    Attributes:
        kind: "uniform": drawn anew every `hold` steps; "mixed": the same, a drawn share of the
            elements at a bound, the others at 0 or uniform; "corner": one corner of the range for the whole episode;
            "constant": `action`; "waves": every element a sine of its own amplitude, frequency (0.2 to 4 Hz at
            50 Hz) and phase; "noise": `noise` on a scripted controller.
        hold: steps.
        action: (n_action,) of "constant".
        noise: of "noise".
        burst, rest: steps of it, and then of `Takeover`'s other action, in turn; rest 0: never.
    """

    kind: str
    hold: int = 1
    action: tuple[float, ...] = ()
    noise: Noise | None = None
    burst: int = 0
    rest: int = 0

    def __post_init__(self) -> None:
        """Check the choices. Raises ValueError."""
        if self.kind not in KINDS:
            raise ValueError(f"adversary: kind {self.kind!r} is unknown; known: {', '.join(KINDS)}")
        if (
            self.hold < 1
            or (self.kind == "constant") != bool(self.action)
            or (self.kind == "noise") != bool(self.noise)
        ):
            raise ValueError(f"adversary {self.kind}: hold, action or noise do not fit it: {self}")


class Takeover:
    """An adversary, and what takes over from it.

    Args:
        base: the noisy controller of kind "noise"; None: the kind needs none.
        after: (n_action,), what takes over; `mean` of every proposal, as the critic's policy that follows.
    """

    def __init__(self, adversary: Adversary, base: NoisyController | None, after: np.ndarray) -> None:
        self.adversary, self._base, self._after = adversary, base, after
        self._step = 0
        self._action = after

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""
        self._step, n = 0, len(self._after)
        kind = self.adversary.kind
        if self._base is not None:
            self._base.reset(rng)
        elif kind == "corner":
            self._action = rng.choice([-1.0, 1.0], n)
        elif kind == "constant":
            self._action = np.array(self.adversary.action)
        elif kind == "waves":
            self._amplitude, self._phase = rng.uniform(0.0, 1.0, n), rng.uniform(0.0, 2.0 * np.pi, n)
            self._rate = 2.0 * np.pi * rng.uniform(0.004, 0.08, n)  # rad a step

    def context(self) -> np.ndarray:
        """Return nothing: nobody else needs to know what it remembers."""
        return np.zeros(0)

    def best(self, observation: np.ndarray) -> np.ndarray:
        """Return what takes over (n_action,)."""
        return self._after

    def propose(self, observation: np.ndarray, rng: np.random.Generator) -> Proposal:
        """Return the next action in [-1, 1]; `mean` is what takes over."""
        adversary, step = self.adversary, self._step
        self._step += 1
        proposed = self._next(observation, step, rng)
        if adversary.rest and step % (adversary.burst + adversary.rest) >= adversary.burst:
            proposed = self._after
        return Proposal(proposed, 0.0, self._after)

    def _next(self, observation: np.ndarray, step: int, rng: np.random.Generator) -> np.ndarray:
        if self._base is not None:
            return self._base.propose(observation, rng).action
        kind, n = self.adversary.kind, len(self._after)
        if kind in ("uniform", "mixed") and step % self.adversary.hold == 0:
            self._action = rng.uniform(-1.0, 1.0, n)
            if kind == "mixed":
                # From none at a bound to all: what lies at many bounds does the most harm.
                bound = rng.random()
                ways = [np.zeros(n), rng.choice([-1.0, 1.0], n), self._action]
                part = 0.5 * (1.0 - bound)
                self._action = np.choose(rng.choice(3, n, p=[part, bound, part]), ways)
        elif kind == "waves":
            return self._amplitude * np.sin(self._rate * step + self._phase)
        return self._action


# Of draws, in training; 10 is for judging. Those that are held for long do the most harm.
HOLDS = (1, 2, 4, 7, 15, 25, 40, 40, 1000, 1000, 1000)
CORRELATIONS = (0.0, 0.5, 0.85, 0.95)


def drawn(rng: np.random.Generator, controllers: tuple[str, ...], rest: int) -> Adversary:
    """Return one that a critic learns from.

    Waves, draws held for 10 steps and noise above 0.8 are never drawn: those are left for judging. Corners are, among
    the mixed ones, and the constants of the judging only by a chance of one in thousands.

    Args:
        controllers: names of the robot's scripted controllers; empty: none, and no noise on one.
        rest: see `Adversary`.
    """
    # Short ones end before the fall that a long one leads to: what takes over then is seen to save the robot, or not.
    burst = int(rng.integers(3, 15) if rng.random() < 0.5 else rng.integers(15, 60))
    kind = rng.choice(["noise", "uniform", "mixed"], p=[0.35, 0.2, 0.45])
    if kind == "noise" and controllers:
        sigma, rho = float(rng.uniform(0.05, 0.8)), float(rng.choice(CORRELATIONS))
        return Adversary("noise", noise=Noise(str(rng.choice(controllers)), sigma, rho), burst=burst, rest=rest)
    return Adversary("uniform" if kind == "uniform" else "mixed", hold=int(rng.choice(HOLDS)), burst=burst, rest=rest)
