"""The terms of an incident rule: each gives a margin, positive inside the failure set, and says in words why."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Limit:
    """One term of the incident rule: `feature` outside [below, above] is an incident."""

    feature: str
    above: float
    below: float
    unit: str

    @property
    def features(self) -> tuple[str, ...]:
        """Return the names of the features that the term judges."""
        return (self.feature,)

    def margin(self, values: list[float]) -> float:
        """Return the excess over the nearer limit, in `unit`, of the feature's value (1)."""
        (value,) = values
        return max(value - self.above, self.below - value)

    def words(self, values: list[float]) -> str:
        """Say which limit the value (1) stands against."""
        (value,) = values
        bound = self.above if value - self.above >= self.below - value else self.below
        return f"{self.feature} {value:.3f} {self.unit} (limit {bound:g})"


@dataclass(frozen=True)
class Box:
    """One term of the incident rule: all `features` strictly between their `low` and `high` are an incident."""

    features: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    unit: str

    def margin(self, values: list[float]) -> float:
        """Return min over the features of min(x - low, high - x), in `unit`, of their values (n_feature).

        Inside, the distance to the nearest face; outside, minus the largest of the distances along the axes, which
        is at most the distance to the box.
        """
        return min(min(value - low, high - value) for value, low, high in zip(values, self.low, self.high, strict=True))

    def words(self, values: list[float]) -> str:
        """Say where the values (n_feature) stand and where the box lies."""
        at = ", ".join(f"{name} {value:.3f}" for name, value in zip(self.features, values, strict=True))
        box = ", ".join(
            f"{name} {low:g} to {high:g}" for name, low, high in zip(self.features, self.low, self.high, strict=True)
        )
        return f"{at} {self.unit} (box {box})"


@dataclass(frozen=True)
class Ball:
    """One term of the incident rule: nearer than `radius` to `centre` is an incident; a disc where features are two."""

    features: tuple[str, ...]
    centre: tuple[float, ...]
    radius: float
    unit: str

    def margin(self, values: list[float]) -> float:
        """Return radius - distance to the centre, in `unit`, of the features' values (n_feature)."""
        return self.radius - math.dist(values, self.centre)

    def words(self, values: list[float]) -> str:
        """Say how far the values (n_feature) are from the centre."""
        at = ", ".join(f"{name} {value:g}" for name, value in zip(self.features, self.centre, strict=True))
        return f"{math.dist(values, self.centre):.3f} {self.unit} from {at} (radius {self.radius:g})"


class Judged(NamedTuple):
    """What an incident rule says of one frame. Words are made when they are asked for: it is judged in every tick.

    Attributes:
        margin: l(s) in `unit`, positive inside the failure set, +inf where it cannot be judged.
        term: that gives it; values: of its features.
    """

    margin: float
    term: Limit | Box | Ball
    values: list[float]

    @property
    def unit(self) -> str:
        """Return the unit of the margin."""
        return self.term.unit

    @property
    def cause(self) -> str:
        """Return in words where the frame stands against the term."""
        return self.term.words(self.values)

    def words(self) -> str:
        """Return cause and margin."""
        return f"{self.cause}, margin {self.margin:.3g} {self.unit}"
