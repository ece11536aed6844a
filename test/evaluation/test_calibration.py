"""Predicted against observed: the figures of a calibration against their definitions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssql_ros.evaluation.calibration import SHOWN, calibration


@given(st.integers(0, 2**32), st.integers(20, 300))
def test_figures_are_their_definitions(seed, n):
    rng = np.random.default_rng(seed)
    observed = np.where(rng.random(n) < 0.2, rng.random(n), 0.0)
    observed[:2] = 0.0, 0.5
    predicted = rng.random(n)
    figures = calibration(predicted, observed)
    assert set(SHOWN) < set(figures)
    assert figures["base_rate"] == pytest.approx(observed.mean())
    assert figures["bias"] == pytest.approx(predicted.mean() - figures["base_rate"])
    assert figures["pessimism"] == pytest.approx(predicted.mean() / observed.mean())
    assert figures["brier"] == pytest.approx(np.mean((predicted - observed) ** 2))
    # Each step's own outcome has skill 1, the base rate has none.
    assert calibration(observed, observed)["skill"] == 1.0
    assert calibration(np.full(n, observed.mean()), observed)["skill"] == pytest.approx(0.0, abs=1e-9)


def test_where_nothing_was_observed_there_is_no_skill_and_no_pessimism():
    figures = calibration(np.full(40, 0.01), np.zeros(40))
    assert figures["base_rate"] == 0.0
    assert all(math.isnan(figures[name]) for name in ("pessimism", "skill", "auc"))
