"""What a shield knows beside its decisions, for its state and /diagnostics: incidents and faults."""

from __future__ import annotations

import math
from typing import Any

from ssql_ros.contract.health import fallen
from ssql_ros.contract.stamped import NANOSECONDS
from ssql_ros.nodes.shield_control import ShieldControl
from ssql_ros.ros.graph_watch import GraphWatch
from ssql_ros.shield.decision import Decision
from ssql_ros.shield.loop import ShieldLoop


def supervised_fields(loop: ShieldLoop) -> dict[str, Any]:
    """Return the fields of ShieldState.msg that are no decision's."""
    supervision = loop.supervision
    latched, judged, domain, drift = (
        supervision.latched,
        supervision.incidents.newest,
        supervision.domain,
        supervision.drift,
    )
    low, high = drift.interval
    return {
        "latched": latched is not None,
        "fault_reason": "" if latched is None else latched.words,
        "incidents": supervision.incidents.incidents,
        "taken_over": loop.taken_over,
        "margin": math.nan if judged is None else judged.margin,
        "margin_unit": "" if judged is None else judged.unit,
        "out_of_domain": domain.out,
        "domain_distance": domain.distance,
        "domain_limit": domain.limit,
        "least_risk_rate": supervision.rate(Decision.LEAST_RISK),
        "backup_rate": supervision.rate(Decision.BACKUP),
        "incident_predicted": drift.predicted,
        "incident_observed": drift.observed,
        "incident_low": low,
        "incident_high": high,
        "epsilon_adaptive": drift.adaptive,
    }


def supervised_values(loop: ShieldLoop) -> dict[str, str]:
    """Return the same for /diagnostics, with the history of faults, newest first."""
    supervision = loop.supervision
    judged = supervision.incidents.newest
    values = {
        "taken_over": str(loop.taken_over).lower(),
        "overridden_proposals": str(loop.takeover.overridden),
        "on_incident": loop.contract.on_incident,
        "incidents": str(supervision.incidents.incidents),
        "margin": "not known" if judged is None else f"{judged.margin:.4g} {judged.unit}",
        "on_out_of_domain": loop.contract.on_out_of_domain,
        "domain": supervision.domain.words(),
        "least_risk_rate": f"{supervision.rate(Decision.LEAST_RISK):.4g}",
        "backup_rate": f"{supervision.rate(Decision.BACKUP):.4g}",
        "calibration": supervision.drift.words() or "not known",
        "epsilon_adaptive": f"{supervision.drift.adaptive:.4g}",
    }
    for i, fault in enumerate(supervision.faults.history):
        ended = fault.ended or f"latched, {fault.response}"
        values[f"fault {i}"] = f"{fault.stamp / NANOSECONDS:.3f} {fault.words}; {ended}"
    return values


def graph_watch(node: Any, control: ShieldControl) -> GraphWatch:
    """Return what looks at the topics of a shield's control for others that must not be there."""
    contract, loop = control.loop.contract, control.loop
    inputs = {name: contract.inputs[name].topic for name in contract.observed_inputs}
    return GraphWatch(
        node,
        contract.commanded.topics,
        control.proposals,
        inputs,
        control.qos,
        lambda name: loop.assembler.frames.told_apart(name),
        control.takeover_topics,
    )


def fallen_at(control: ShieldControl) -> str:
    """Return that the robot stands inside its failure set, and what that may come of, or an empty text."""
    loop = control.loop
    with control.lock:  # looking makes frames anew that messages have come for
        newest = loop.assembler.newest
        values = None if newest is None else newest.values
    return "" if values is None else fallen(loop.contract, values)
