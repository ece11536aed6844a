"""The Minitaur's scripted trot: legs swing and stretch sinusoidally, diagonal pairs in phase."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ssql_ros.contract import Contract
from ssql_ros.robots.noise import Scripted

CONTROL_PERIOD = 0.02  # s
RAMP_STEPS = 25
# Front left, back left, front right, back right: the diagonals move together.
LEG_PHASE = np.array([0.0, math.pi, math.pi, 0.0])


@dataclass(frozen=True)
class Trot:
    """One gait of the family.

    Attributes:
        frequency: Hz.
        swing_amplitude, extension_amplitude: rad, of the leg model.
        phase_lag: rad, of the extension's cosine against the swing's sine.
        swing_offset, extension_offset: rad, added to the standing pose.
    """

    frequency: float
    swing_amplitude: float
    extension_amplitude: float
    phase_lag: float
    swing_offset: float
    extension_offset: float

    def action(self, step: int) -> np.ndarray:
        """Return the action (8,) in [-1, 1] at control step `step` of the episode, counted from 0.

        swing = s0 + ramp A_s sin(2 pi f t + phase), extension = e0 + ramp A_e cos(2 pi f t + phase + d), both halved
        into action units; the amplitudes ramp up over the first half second.
        """
        ramp = min(1.0, step / RAMP_STEPS)
        angle = 2.0 * math.pi * self.frequency * step * CONTROL_PERIOD + LEG_PHASE
        swing = self.swing_offset + ramp * self.swing_amplitude * np.sin(angle)
        extension = self.extension_offset + ramp * self.extension_amplitude * np.cos(angle + self.phase_lag)
        return np.clip(np.concatenate([swing, extension]) / 0.5, -1.0, 1.0)


# Gaits that were not seen to fall under bounded independent noise: A up to 0.3 (60 episodes), G4 up to 0.2
# (100 episodes); G5 is faster (0.43 m/s without noise) and little tested.
GAITS = {
    "A": Trot(2.821, 0.192, 0.217, -0.271, 0.069, -0.157),
    "G4": Trot(3.5345, 0.1781, 0.1901, -0.7784, 0.088, -0.1326),
    "G5": Trot(2.4548, 0.2703, 0.1497, -0.8456, 0.0845, -0.1963),
}


class ScriptedTrot(Scripted):
    """One gait of the family as a controller.

    Args:
        gait: name in `GAITS`.
    """

    def __init__(self, gait: str, _: Contract) -> None:
        self.gait, self._step = GAITS[gait], 0

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""
        self._step = 0

    def best(self, observation: np.ndarray) -> np.ndarray:
        """Return the trot's action (8,), whatever is observed, and move on by one step."""
        self._step += 1
        return self.gait.action(self._step - 1)
