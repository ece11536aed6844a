"""Where a data set was: the domain of whatever is learned from it."""

from __future__ import annotations

import numpy as np

from ssql_ros.data.data_set import DataSet
from ssql_ros.data.held_out import Parts
from ssql_ros.model.domain import Domain, fitted_domain


def domain_of(data: DataSet, parts: Parts) -> Domain:
    """Return the domain of the rows that are learned from; its limit is of those held out, or of the same.

    Raises:
        ValueError: fewer than two of its observations are numbers.
    """
    observations = np.asarray(data["observation"])
    finite = np.isfinite(observations).all(axis=1)
    held = parts.held & finite
    learned = parts.learned & finite
    return fitted_domain(observations[learned], observations[held if held.any() else learned])
