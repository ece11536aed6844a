"""What a run does: one plan, whether it learns in a world, on a grid or from a data set."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ssql_ros.algorithms.discrete import DiscreteSettings, DiscreteSSQLSettings, DQNSettings
from ssql_ros.robots.tasks import find_task
from ssql_ros.training.registry import FROM_BEHAVIOUR
from ssql_ros.training.settings import checked_settings, settings_of
from ssql_sim.grid import GRIDS

ON_GRIDS: dict[str, type[DiscreteSettings]] = {"ssql": DiscreteSSQLSettings, "dqn": DQNSettings}
LOG_ONLY = ("safefql", "iql_lagrangian", "behaviour", "critic")
FROM_LOGS = (*FROM_BEHAVIOUR, *LOG_ONLY)


@dataclass(frozen=True)
class Plan:
    """What a run does. What its kind has no use for keeps its default.

    Attributes:
        steps: of collection; from a data set updates, of SSQL those of stage 1, before `extraction_updates`.
        phase: pretrain or finetune in a world; log, from a data set.
        source: to fine-tune from: a bundle, or the folder of a run, which has the reward critics of every algorithm and
            the temperature too; empty: begin from nothing.
        data: folder of the data set; empty: what is learned from is collected.
        behaviour: bundle that tells b of SSQL from a data set, such as one learned from it; empty: the task's own.
        settings: of the algorithm, by name, that differ from its robot's.
        checkpoint_every: steps between checkpoints, at least.
        evaluation: episodes of the final policy.
        held_out: share of a data set's episodes that nothing learns from, and everything is judged on.
    """

    algorithm: str
    task: str
    steps: int
    seed: int
    phase: str = "pretrain"
    source: str = ""
    data: str = ""
    behaviour: str = ""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    checkpoint_every: int = 25_000
    evaluation: int = 0
    held_out: float = 0.0

    @classmethod
    def told(cls, plan: dict[str, Any]) -> dict[str, Any]:
        """Return the plan of a run's configuration with what was not written into it when there was no choice yet."""
        first = {"algorithm": "safefql", "phase": "log"} if plan.get("data") else {}
        defaults = {field.name: field.default for field in dataclasses.fields(cls) if field.name != "settings"}
        return {name: v for name, v in {**defaults, **first, **plan}.items() if v is not dataclasses.MISSING}

    @property
    def on_grid(self) -> bool:
        """Return whether the world is a grid."""
        return self.task in GRIDS or self.algorithm == "dqn"

    def __post_init__(self) -> None:
        """Check what can be checked at once. Raises ValueError."""
        if self.on_grid:
            self._check_grid()
        elif self.data or self.algorithm in LOG_ONLY:
            self._check_log()
        else:
            self._check_world()
        self.checked_settings()
        for name, least in (("steps", 1), ("checkpoint_every", 1), ("evaluation", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if not 0.0 <= self.held_out <= 0.9:
            raise ValueError(f"held_out: expected a share from 0 to 0.9, got {self.held_out}")

    def _check_grid(self) -> None:
        if self.phase != "pretrain" or self.source:
            raise ValueError("--phase and --from: on a grid everything is learned from nothing")
        if self.data:
            raise ValueError("--data and --bag: on a grid everything is learned in the world")
        if self.algorithm not in ON_GRIDS:
            raise ValueError(f"{self.algorithm} does not learn on a grid; these do: {', '.join(ON_GRIDS)}")
        if self.task not in GRIDS:
            raise ValueError(f"task {self.task!r} is no grid; these are: {', '.join(GRIDS)}")

    def _check_log(self) -> None:
        if self.algorithm not in FROM_LOGS:
            raise ValueError(f"{self.algorithm} does not learn from a log; these do: {', '.join(FROM_LOGS)}")
        if not self.data:
            raise ValueError(f"{self.algorithm} learns from a log alone: name it with --data or --bag")
        if self.phase == "finetune" or self.source:
            raise ValueError("--phase and --from: a log is learned from as it is, from nothing")
        if self.behaviour and self.algorithm != "ssql":
            raise ValueError(f"behaviour: {self.algorithm} keeps to no behaviour policy")
        object.__setattr__(self, "phase", "log")

    def _check_world(self) -> None:
        task = find_task(self.task)
        if task.contract_file:
            raise ValueError(f"{self.algorithm}: {task.contract_file} has no world to learn in: give --data or --bag")
        task.world(self.phase)
        if self.behaviour:
            raise ValueError("--behaviour is for learning from a log: name it with --data or --bag")
        if self.phase == "finetune" and not self.source:
            raise ValueError("fine-tuning begins from a pre-trained bundle: name it with --from")
        if self.phase == "pretrain" and self.source:
            raise ValueError("pre-training begins from nothing: --from is for --phase finetune")

    def checked_settings(self, default: bool = False) -> Any:
        """Return the algorithm's settings; `default`: the robot's, without what the plan changes.

        Raises:
            ValueError: no such algorithm or setting, or a value of another type.
        """
        changed = {} if default else self.settings
        if self.on_grid:
            return checked_settings(self.algorithm, ON_GRIDS[self.algorithm](), {}, changed)
        return settings_of(self.algorithm, find_task(self.task).robot, changed, self.task)
