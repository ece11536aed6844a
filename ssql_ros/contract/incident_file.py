"""Reads the failure set of a contract from its file: limits, boxes and balls."""

from __future__ import annotations

import math

import numpy as np

from ssql_ros.contract import keys
from ssql_ros.contract.contract import Observed
from ssql_ros.contract.incident import Ball, Box, Limit
from ssql_ros.contract.schema import Section


def read_incident(top: Section, observed: Observed) -> tuple[tuple[Limit, ...], tuple[Box, ...], tuple[Ball, ...]]:
    """Return the limits, boxes and balls of a contract's `incident`.

    Raises:
        ContractError: a term that is wrong: its key, what was expected and what came.
    """
    # A derived feature is in the unit of the features that it sums.
    units = {feature.name: "1" if feature.function else feature.unit for feature in observed.frame}
    for name, row in zip(observed.derived_names, observed.derived, strict=True):
        units[name] = units[observed.frame[int(np.flatnonzero(row)[0])].name] if row.any() else ""
    limits, boxes, balls = [], [], []
    terms = [key for term in (keys.LIMIT, keys.BOX, keys.BALL) for key in term.keys]
    either = tuple(dict.fromkeys(key.name for key in terms if key.name != "unit"))
    for i, raw in enumerate(top.items("incident")):
        entry = Section(raw, f"{top.place('incident')}[{i}]", ("unit",), either)
        if entry.has("inside"):
            boxes.append(_read_box(entry, units))
        elif entry.has("within"):
            balls.append(_read_ball(entry, units))
        else:
            limits.append(_read_limit(entry, units))
    return tuple(limits), tuple(boxes), tuple(balls)


def _term_unit(entry: Section, features: tuple[str, ...], units: dict[str, str]) -> str:
    for feature in features:
        if entry.text("unit") != units[feature]:
            raise entry.error("unit", f"{feature} is in {units[feature]}, got {entry.text('unit')!r}")
    return entry.text("unit")


def _read_limit(entry: Section, units: dict[str, str]) -> Limit:
    if not entry.has("feature"):
        raise entry.error("feature", "is missing: a limit needs 'feature', a box needs 'inside', a ball needs 'within'")
    _refuse(entry, ("of",), "a limit, which has 'feature', 'above', 'below' and 'unit' only")
    feature = entry.text("feature", units)
    unit = _term_unit(entry, (feature,), units)
    if not entry.has("above") and not entry.has("below"):
        raise entry.error("above", "a limit needs 'above', 'below' or both")
    above = entry.number("above") if entry.has("above") else math.inf
    below = entry.number("below") if entry.has("below") else -math.inf
    if below >= above:
        raise entry.error("below", f"expected a number under above ({above:g}), got {below:g}")
    return Limit(feature, above, below, unit)


def _refuse(entry: Section, names: tuple[str, ...], what: str) -> None:
    for name in names:
        if entry.has(name):
            raise entry.error(name, f"is not for {what}")


def _read_ball(entry: Section, units: dict[str, str]) -> Ball:
    _refuse(entry, ("feature", "above", "below"), "a ball, which has 'within', 'of' and 'unit' only")
    if not entry.has("of"):
        raise entry.error("of", "is missing: a ball needs its centre, a mapping of features to numbers")
    centre = Section(entry.raw("of"), entry.place("of"), required=(), optional=units)
    features = tuple(name for name in units if centre.has(name))
    if not features:
        raise entry.error("of", "expected a mapping of features to numbers, got an empty one")
    radius = entry.number("within", positive=True)
    return Ball(features, tuple(centre.number(f) for f in features), radius, _term_unit(entry, features, units))


def _read_box(entry: Section, units: dict[str, str]) -> Box:
    _refuse(entry, ("feature", "above", "below", "within", "of"), "a box, which has 'inside' and 'unit' only")
    inside = Section(entry.raw("inside"), entry.place("inside"), required=(), optional=units)
    features = tuple(name for name in units if inside.has(name))
    if not features:
        raise entry.error("inside", "expected a mapping of features to [low, high], got an empty one")
    sides = []
    for feature in features:
        side = inside.numbers(feature)
        if len(side) != 2 or side[0] >= side[1]:
            raise inside.error(feature, f"expected [low, high] with low under high, got {side}")
        sides.append(side)
    low, high = zip(*sides, strict=True)
    return Box(features, low, high, _term_unit(entry, features, units))
