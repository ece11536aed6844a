"""Which critic a shield serves, with which settings: its own bundle's, and those that are announced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ssql_ros.contract import Contract
from ssql_ros.model.bundle import Bundle, MarginCritic, load_bundle
from ssql_ros.model.critic import SafetyCritic, shielding_critic
from ssql_ros.model.probes import check_critic, check_probes
from ssql_ros.model.shipped import find_shipped_bundle
from ssql_ros.ros.model_receiver import rest
from ssql_ros.shield.critic_limits import CriticLimits, epsilon_of
from ssql_ros.shield.decision import ShieldSettings
from ssql_ros.shield.scoring_time import SHARE, ScoringTime


class ShieldModels:
    """Loads, checks and measures critics, by the node's parameters.

    Attributes:
        time: how long scoring takes.
        limits: what the own bundle and the parameters allow; there once `load` has been called.
    """

    limits: CriticLimits

    def __init__(self, contract: Contract, value_of: Callable[[str], Any], logger: Any) -> None:
        self._contract, self._value_of, self._logger = contract, value_of, logger
        self.time = ScoringTime(contract)

    def load(self) -> tuple[SafetyCritic, CriticLimits]:
        """Return the critic of the parameter `bundle`, measured, and what follows from it for those announced.

        Raises:
            ValueError, OSError: it cannot be loaded, or not be served here; the text says why.
        """
        path = self._value_of("bundle") or find_shipped_bundle(self._contract.robot)
        bundle = load_bundle(path, self._contract)
        critic = shielding_critic(bundle)
        check_probes(bundle)
        self._measure(critic)
        limits, own = self.limits_of(bundle), bundle.critic
        limits.check()
        if isinstance(own, MarginCritic) and not own.certified:
            self._logger.warning(f"{path}: delta {own.delta:g} is not certified; `ssql certify` does that")
        return critic, limits

    def limits_of(self, own: Bundle) -> CriticLimits:
        """Return what the parameters allow where `own` is the shield's own bundle."""
        epsilon, margin = epsilon_of(self._value_of("epsilon")), self._value_of("delta_margin")
        return CriticLimits(own, epsilon, margin, self._value_of("allow_rule_change"))

    def serve(self, bundle: Bundle) -> tuple[SafetyCritic, str]:
        """Return the critic of an announced bundle, verified and measured. In the receiver's thread."""
        limits = self.limits
        limits.check_announced(bundle)
        critic = shielding_critic(bundle)
        rest()
        check_critic(critic)
        rest()
        self._measure(critic)
        return critic, limits.capped(bundle)

    def settings(self, critic: SafetyCritic) -> ShieldSettings:
        """Return how decisions are taken with a critic."""
        contract, (epsilon, delta) = self._contract, self.limits.thresholds(critic.bundle)
        return ShieldSettings(
            epsilon=epsilon,
            delta=delta,
            # Of each input the loop knows its own.
            max_observation_age=max(contract.inputs[name].max_age for name in contract.observed_inputs),
            deadline=SHARE,
            max_proposal_age=contract.command_timeout,
            **{name: self._value_of(name) for name in ("candidates", "rounds", "growth", "spread", "nearest")},
        )

    def _measure(self, critic: SafetyCritic) -> None:
        self.time.measure(critic, self._value_of("rounds"), self._value_of("candidates"))
