"""Which thresholds a shield holds a critic's scores against, and which announced critic may take another's place.

What the shield was started with is the limit: an announced critic is never held against a larger epsilon or delta.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ssql_ros.model.bundle import Bundle, BundleError, MarginCritic, ProbabilityCritic, Rule
from ssql_ros.shield.decision import ShieldSettings


def epsilon_of(value: Any) -> float | None:
    """Return the parameter `epsilon`: a number, also as a text, as launch files give it; None: not set, or empty.

    Raises:
        ValueError: it is none, or not above 0 and below 1.
    """
    if value is None or value == "":
        return None
    try:
        epsilon = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        epsilon = math.nan
    if not 0.0 < epsilon < 1.0:
        hint = " (-1 was the bundle's own once)" if epsilon == -1.0 else ""
        raise ValueError(f"epsilon: expected above 0 and below 1, or none for the bundle's own; got {value!r}{hint}")
    return epsilon


def in_words(settings: ShieldSettings) -> str:
    """Return the threshold in force, with its name."""
    return f"epsilon {settings.epsilon:g}" if settings.delta is None else f"delta {settings.delta:g}"


@dataclass(frozen=True)
class CriticLimits:
    """What a shield's parameters say, and the bundle that it was configured with.

    Attributes:
        own: the bundle that the parameter `bundle` names. Every other one was announced.
        epsilon: in its place, threshold on Q_safe, 0 < epsilon < 1; None: the bundle's own.
        delta_margin: subtracted from every delta, in the margin's unit, at least 0.
        other_rule: a critic of the other rule may take the place of the own one.
    """

    own: Bundle
    epsilon: float | None = None
    delta_margin: float = 0.0
    other_rule: bool = False

    def check(self) -> None:
        """Raise ValueError where a parameter is given that would have no effect."""
        if self.other_rule:
            return
        if self.own.rule is Rule.MARGIN and self.epsilon is not None:
            raise ValueError(
                f"parameter epsilon: {self.epsilon:g}: the bundle's critic is one of margins; leave epsilon out, "
                "and tighten its delta with delta_margin"
            )
        if self.own.rule is Rule.PROBABILITY and self.delta_margin:
            raise ValueError(
                f"parameter delta_margin: {self.delta_margin:g}: the bundle's critic is one of probabilities; leave "
                "delta_margin out, and choose epsilon"
            )

    def thresholds(self, bundle: Bundle) -> tuple[float | None, float | None]:
        """Return epsilon and delta for a bundle's critic, of which one is None.

        Raises:
            BundleError: it has no critic, or no certified delta where the calibration found none.
        """
        critic, own, announced = bundle.safety_critic(), self.own.critic, bundle.id != self.own.id
        if isinstance(critic, ProbabilityCritic):
            if not announced:
                return critic.epsilon if self.epsilon is None else self.epsilon, None
            limits = (self.epsilon, own.epsilon if isinstance(own, ProbabilityCritic) else None)
            return min(critic.epsilon, next((limit for limit in limits if limit is not None), critic.epsilon)), None
        if critic.delta is None:
            raise BundleError(f"{bundle.path}: certificate: expected a certified delta, got none")
        delta = critic.delta
        if announced and isinstance(own, MarginCritic) and own.delta is not None:
            delta = min(delta, own.delta)
        return None, delta - self.delta_margin

    def check_announced(self, bundle: Bundle) -> None:
        """Raise BundleError unless an announced bundle's critic may take the place of what is in force."""
        critic = bundle.safety_critic()
        self.check_rule(bundle)
        if isinstance(critic, MarginCritic) and not critic.certified:
            raise BundleError(
                f"{bundle.path}: certificate: expected one for delta {critic.delta}, got none; run ssql certify"
            )

    def check_rule(self, bundle: Bundle) -> None:
        """Raise BundleError where a bundle's critic is of another rule than the shield's own, and may not be."""
        found, own = bundle.rule.name.lower(), self.own.rule.name.lower()
        if found != own and not self.other_rule:
            raise BundleError(
                f"{bundle.path}: its critic is of rule {found}, this shield was configured with one of rule {own}; "
                "the parameter allow_rule_change lets it change"
            )

    def capped(self, bundle: Bundle) -> str:
        """Return in words that an announced critic's own threshold is not the one in force, or an empty text."""
        critic, (epsilon, delta) = bundle.safety_critic(), self.thresholds(bundle)
        if isinstance(critic, ProbabilityCritic):
            same = epsilon == critic.epsilon
            return "" if same else f"epsilon {epsilon:g} in force: its own, {critic.epsilon:g}, is more than is allowed"
        return "" if delta == critic.delta else f"delta {delta:g} in force: its own is {critic.delta:g}"
