"""From a log to a shield without a simulator: the stages of `ssql learn`, each finished once.

FOLDER/data/        the data set that is made of the bags
FOLDER/behaviour/   what was done: a density with a support
FOLDER/critic/      the risk of what was done, where the log has incidents
FOLDER/policy/      what would be better: SafeFQL, or SSQL within that support
FOLDER/bundle.safetensors   what a shield loads
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ssql_ros.data.data_set import DataSet
from ssql_ros.evaluation.evidence import Evidence
from ssql_ros.evaluation.logged_calibration import calibrate_on_log
from ssql_ros.model.bundle import Bundle, load_bundle, save_bundle
from ssql_ros.model.probes import with_probes
from ssql_ros.robots.tasks import Task
from ssql_ros.training.plan import Plan
from ssql_ros.training.run import run

STEPS = {"behaviour": 2000, "critic": 2000, "policy": 6000}
# s: about how far ahead the critic looks, whatever the control period, within these discounts.
AHEAD, DISCOUNTS = 0.6, (0.7, 0.98)
# Networks that a processor without a graphics card trains in minutes: a log of an hour asks for no larger ones.
SMALL: dict[str, dict[str, Any]] = {
    "behaviour": {},
    "critic": {"hidden": [64, 64]},
    "safefql": {"hidden": [128, 128], "actor_hidden": [128, 128], "actor_batch": 256},
    "ssql": {"hidden": [128, 128], "extraction_updates": 3000},
}
POLICIES = ("safefql", "ssql", "none")
BUNDLE = "bundle.safetensors"


@dataclass(frozen=True)
class Stages:
    """What is learned from one data set.

    Attributes:
        data: the data set's folder.
        policy: of `POLICIES`.
        steps: updates by stage, those that differ from `STEPS`.
        settings: by stage, of its algorithm.
        held_out: share of the episodes that nothing learns from.
    """

    task: Task
    folder: Path
    data: Path
    policy: str = "safefql"
    seed: int = 0
    held_out: float = 0.2
    steps: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what can be checked at once. Raises ValueError."""
        if self.policy not in POLICIES:
            raise ValueError(f"policy: expected one of {', '.join(POLICIES)}, got {self.policy!r}")
        if unknown := sorted({*self.steps, *self.settings} - set(STEPS)):
            raise ValueError(f"stage {unknown[0]!r} is unknown; known: {', '.join(STEPS)}")

    def plans(self, evidence: Evidence) -> dict[str, Plan]:
        """Return the plan of each stage that the log can teach, in their order. Raises ValueError: a wrong setting."""
        algorithms = {"behaviour": "behaviour"}
        if evidence.teaches_risk:
            algorithms["critic"] = "critic"
        if self.policy != "none":
            algorithms["policy"] = self.policy
        behaviour = str(self.folder / "behaviour" / BUNDLE)
        return {
            stage: Plan(
                algorithm,
                self.task.name,
                self.steps.get(stage, STEPS[stage]),
                self.seed,
                data=str(self.data),
                behaviour=behaviour if algorithm == "ssql" else "",
                settings={**self._defaults(algorithm), **self.settings.get(stage, {})},
                checkpoint_every=1000,
                held_out=self.held_out,
            )
            for stage, algorithm in algorithms.items()
        }

    def _defaults(self, algorithm: str) -> dict[str, Any]:
        if algorithm != "critic":
            return dict(SMALL[algorithm])
        ahead = 1.0 - self.task.contract().control_period / AHEAD
        return {**SMALL["critic"], "gamma_safe": round(min(max(ahead, DISCOUNTS[0]), DISCOUNTS[1]), 3)}

    def run(
        self, evidence: Evidence, facts: dict[str, Any], show: bool, told: Callable[[str], None]
    ) -> dict[str, dict[str, float]]:
        """Make the stages that are left; return the figures of all.

        Args:
            facts: what else is written beside the results (command, versions).
            told: called with a line for each stage.

        Raises:
            ValueError: the data set does not fit, or the folder holds other runs (a CheckpointError).
            Interrupted: a signal came; the same call goes on.
        """
        figures: dict[str, dict[str, float]] = {}
        for stage, plan in self.plans(evidence).items():
            folder = self.folder / stage
            found = finished(plan, folder)
            told(f"{stage}: {'was finished before' if found else f'{plan.algorithm}, {plan.steps} updates'}")
            figures[stage] = found if found is not None else run(plan, folder, facts, show)
        return figures

    def serve(self, data: DataSet, evidence: Evidence) -> tuple[Bundle, dict[str, Any]]:
        """Write what a shield loads, with its figures on held-out episodes in it; return both.

        It is the critic of probabilities where the log has incidents, else what the policy's stage made; where that has
        no critic either, nothing is written, and the behaviour policy is returned.
        """
        contract = self.task.contract()
        stage = "critic" if evidence.teaches_risk else "policy" if self.policy != "none" else "behaviour"
        bundle = load_bundle(self.folder / stage / BUNDLE, contract)
        if bundle.critic is None:
            return bundle, {}
        figures = calibrate_on_log(bundle, data, contract)
        told = {**bundle.provenance, "logged_calibration": figures, "evidence": list(evidence.words)}
        made = with_probes(replace(bundle, provenance=told), contract)
        return save_bundle(made, self.folder / BUNDLE), figures


def finished(plan: Plan, folder: Path) -> dict[str, float] | None:
    """Return the figures of a run that has ended with the same plan; None where there is none, or another."""
    try:
        told = json.loads((folder / "figures.json").read_text())
    except (OSError, ValueError):
        return None
    same = told.get("plan") == json.loads(json.dumps(asdict(plan)))
    return {name: float(value) for name, value in told["figures"].items()} if same else None
