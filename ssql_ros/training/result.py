"""What a run comes to: figures, the log of its episodes, and the bundle that serves what was learned."""

from __future__ import annotations

import csv
import io
from dataclasses import astuple, dataclass, field, fields, replace
from typing import Any

import numpy as np

from ssql_ros.algorithms.safefql import SafeFQLSettings
from ssql_ros.algorithms.ssql import SSQLSettings, policy_kind
from ssql_ros.contract import Contract
from ssql_ros.data.rollout import EpisodeRow
from ssql_ros.evaluation.intervals import wilson_interval
from ssql_ros.model.bundle import Bundle, MarginCritic, Network, ProbabilityCritic, load_bundle
from ssql_ros.robots.tasks import Task


@dataclass(frozen=True)
class Result:
    """What a run comes to.

    Attributes:
        bundle: without provenance; None: nothing that a robot is served by.
        facts: what else the configuration beside the figures says.
        provenance: what else the bundle says of its making.
        learned: what another run can begin from, more than a bundle holds.
        files: further files, by name.
    """

    figures: dict[str, float]
    bundle: Bundle | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    learned: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


def served(
    contract: Contract, settings: Any, networks: dict[str, Network], behaviour: dict[str, Any], task: Task
) -> tuple[Bundle, dict[str, Any]]:
    """Return what was learned as a bundle, and what the configuration says of the safety critic put behind it.

    Args:
        behaviour: that the policy keeps to, or is where nothing else was learned (see `Learner`); empty: none.
    """
    if isinstance(settings, SafeFQLSettings):
        # It asks for margins below 0, until `ssql certify` has moved the threshold.
        margins = MarginCritic.of(networks["critic"], 0.0, settings.gamma_safe)
        kind, policy, reward = "one_step_flow", networks["policy"], networks["reward"]
        return Bundle(contract.id, margins, policy=policy, reward=reward, policy_kind=kind), {}
    if isinstance(settings, SSQLSettings):
        kind = policy_kind(settings)
    else:
        kind = "behaviour" if behaviour else "squashed_gaussian"
    critic = networks.get("critic")
    backup = task.backup if getattr(settings, "mask_backup", False) else None
    bundle = Bundle(
        contract.id,
        None if critic is None else ProbabilityCritic.of(critic, settings.epsilon, settings.gamma_safe, backup),
        policy=networks.get("policy"),
        reward=networks.get("reward"),
        policy_kind=kind,
        behaviour=behaviour,
    )
    if not (behaviour and task.bundle):
        return bundle, {}
    # The policy has learned no safety critic; the one that its task ships stands behind it.
    shield = load_bundle(task.bundle_path(), contract)
    return replace(bundle, critic=shield.critic), {"safety_critic": shield.id}


def as_csv(rows: list[EpisodeRow]) -> str:
    """Return the log of episodes, one line each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(EpisodeRow)])
    for row in rows:
        values = astuple(row)
        writer.writerow([int(v) if isinstance(v, bool) else f"{v:.6g}" if isinstance(v, float) else v for v in values])
    return text.getvalue()


def figures_of(rows: list[EpisodeRow], evaluated: list[EpisodeRow]) -> dict[str, float]:
    """Return what a run comes to.

    Returns:
        episodes, incidents, incident_rate (with its 95 % interval): of collection; extra_incidents: of the safety
        critic's own rollouts; last_*: of the last tenth of collection's episodes; final_*: of the evaluated policy.
    """
    collected = [row for row in rows if row.kind == "collect"]
    rolled = [row for row in rows if row.kind == "rollout"]
    incidents = sum(row.incident for row in collected)
    low, high = wilson_interval(incidents, len(collected)) if collected else (0.0, 1.0)
    figures: dict[str, float] = {
        "episodes": len(collected),
        "incidents": incidents,
        "incident_rate": incidents / max(len(collected), 1),
        "incident_rate_low": low,
        "incident_rate_high": high,
        "intervened_per_step": sum(r.intervened for r in collected) / max(sum(r.length for r in collected), 1),
        "extra_episodes": len(rolled),
        "extra_incidents": sum(row.incident for row in rolled),
    }
    for name, part in (("last", collected[-max(len(collected) // 10, 1) :]), ("final", evaluated)):
        if part:
            figures |= {
                f"{name}_reward": float(np.mean([row.total_reward for row in part])),
                f"{name}_success": float(np.mean([row.success for row in part])),
                f"{name}_incident_rate": float(np.mean([row.incident for row in part])),
                f"{name}_velocity": float(np.mean([row.velocity for row in part])),
                f"{name}_length": float(np.mean([row.length for row in part])),
            }
    return {name: value for name, value in figures.items() if value == value}
