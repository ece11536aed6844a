"""Topics whose QoS the parameters `qos_overrides.TOPIC.subscription.POLICY` (or `publisher`) change at start."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from rclpy.exceptions import ParameterException
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from ssql_ros.contract import Contract
from ssql_ros.ros.process import COMMAND

PREFIX = "qos_overrides."


def proposal_qos(contract: Contract) -> QoSProfile:
    """Return what a contract asks of those who propose commands."""
    qos = copy.copy(COMMAND)
    if contract.commanded.reliability == "best_effort":
        qos.reliability = ReliabilityPolicy.BEST_EFFORT
    return qos


def subscribe(node: Any, kind: Any, topic: str, receive: Callable[..., Any], qos: QoSProfile, raw: bool = False) -> Any:
    """Return a subscription. Raises ValueError where a parameter would give it a QoS that there is not."""
    own = copy.copy(qos)  # rclpy writes into it what parameters say
    options = QoSOverridingOptions.with_default_policies()
    try:
        return node.create_subscription(kind, topic, receive, own, raw=raw, qos_overriding_options=options)
    except (RuntimeError, ParameterException, TypeError, AttributeError) as error:
        raise _refusal(node, topic, "subscription", error) from error


def publish_on(node: Any, kind: Any, topic: str, qos: QoSProfile) -> Any:
    """Return a publisher. Raises ValueError as `subscribe` does."""
    own = copy.copy(qos)
    options = QoSOverridingOptions.with_default_policies()
    try:
        return node.create_publisher(kind, topic, own, qos_overriding_options=options)
    except (RuntimeError, ParameterException, TypeError, AttributeError) as error:
        raise _refusal(node, topic, "publisher", error) from error


def override(full_topic: str, end: str, policy: str = "reliability") -> str:
    """Return the parameter that changes a policy of a topic; `end`: subscription or publisher."""
    return f"{PREFIX}{full_topic}.{end}.{policy}"


def unused_overrides(node: Any) -> list[str]:
    """Return the parameters of that kind that were given and are of no topic of this node."""
    given = [name for name in node._parameter_overrides if name.startswith(PREFIX)]
    return sorted(name for name in given if not node.has_parameter(name))


def _refusal(node: Any, topic: str, end: str, error: Exception) -> ValueError:
    where = override(node.resolve_topic_name(topic), end, "*")
    if not any(name.startswith(where.removesuffix("*")) for name in node._parameter_overrides):
        raise error
    return ValueError(
        f"parameter {where}: {error}; expected reliability: reliable or best_effort, history: keep_last or keep_all, "
        "depth: a whole number"
    )
