"""Runs that learn from a log, broken off and gone on with."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ssql_ros.training.offline_runs import OfflinePlan, run_offline


class Stop(RuntimeError):
    """Breaks a run off."""


def whole_and_broken(kind: type, plan: Callable[[], OfflinePlan], folder: Path) -> tuple[dict, dict]:
    """Return the figures of a run in `folder`/whole, and of one in `folder`/broken that was broken off before step 25.

    Args:
        kind: the class of its learner.
    """
    whole = run_offline(plan(), folder / "whole", {}, show=False)
    learned = kind.learn

    def killed(self, step, steps, data):
        if step == 25:
            raise Stop
        return learned(self, step, steps, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "learn", killed)
        with pytest.raises(Stop):
            run_offline(plan(), folder / "broken", {}, show=False)
    return whole, run_offline(plan(), folder / "broken", {}, show=False)
