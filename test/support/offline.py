"""Runs that learn from a log, broken off and resumed; bundles of learners that no run made."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ssql_ros.algorithms.safefql import SafeFQL
from ssql_ros.contract import Contract
from ssql_ros.model.bundle import Bundle
from ssql_ros.robots.tasks import find_task
from ssql_ros.training.plan import Plan
from ssql_ros.training.result import served
from ssql_ros.training.run import run


class Stop(RuntimeError):
    """Breaks a run off."""


def whole_and_broken(kind: type, plan: Callable[[], Plan], folder: Path) -> tuple[dict, dict]:
    """Return the figures of a run in `folder`/whole, and of one in `folder`/broken that was broken off before step 25.

    Args:
        kind: the class of its learner.
    """
    whole = run(plan(), folder / "whole", {}, show=False)
    learned = kind.learn

    def killed(self, step, steps, data):
        if step == 25:
            raise Stop
        return learned(self, step, steps, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "learn", killed)
        with pytest.raises(Stop):
            run(plan(), folder / "broken", {}, show=False)
    return whole, run(plan(), folder / "broken", {}, show=False)


def bundle_of(learner: SafeFQL, contract: Contract, provenance: dict) -> Bundle:
    """Return what was learned as a bundle."""
    bundle, _ = served(contract, learner.settings, learner.networks(), {}, find_task("boat"))
    return replace(bundle, provenance=provenance)
