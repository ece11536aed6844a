"""The streams of random numbers that a seed has, by name, so that no two purposes share one unawares.

A stream's number is part of what a seed means: another number is another run. Where two names have one number they
have always had it; they are drawn from by commands that have nothing to do with each other.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What numbers are drawn for."""

    COLLECTION = 0
    CERTIFIED_SEQUENCE = 0  # states that fix the sequence of thresholds
    SAFETY_ROLLOUTS = 1
    CERTIFIED_STATES = 1
    SHIELDED_CONTROLLER = 1  # the shield's candidates in an episode of a worker
    EVALUATION = 2
    STANDARDISATION = 3
    SUPPORT_DRAWS = 4  # of b, while SSQL or IQL within a support learns
    CALIBRATION = 4
    TRAJECTORIES = 5
    LIVE_ACCEPTANCE = 6
    Q_CALIBRATION = 7
    BOAT_LOG = 7
    COMPARISON = 8
    PILOT_NODE = 8
    BEHAVIOUR_EVALUATION = 9
    RIVALS = 9
    PROMISE = 10
    GRID_PROMISE = 11
    GRID_STUDY_SSQL = 12
    GRID_STUDY_Q_LEARNING = 13
    VALUE_BIAS = 14
    DENSITY_SPLIT = 15
    BEHAVIOUR_LOG = 16
    GRID_COLLECTION = 17
    GRID_EVALUATION = 18
    HELD_OUT = 19  # which episodes of a log nothing learns from

    def generator(self, seed: int) -> np.random.Generator:
        """Return this stream of a seed."""
        return np.random.default_rng([seed, int(self)])
