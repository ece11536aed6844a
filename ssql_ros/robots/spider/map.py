"""The drunk spider's map: which way does a policy go, over the bridge or round the pools?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssql_ros.robots.tasks import Task
from ssql_sim import spider
from ssql_sim.spider_grid import exact_ways


class SpiderMap:
    """Axes are the rows' and the columns' numbers."""

    size = (float(spider.ROWS), float(spider.COLUMNS))
    hazards = spider.LAVA

    def judged(self, path: np.ndarray) -> dict[str, float]:
        """Return whether a path (T, 2) went round the pools, and whether it ended in an incident."""
        # Between the pits runs the bridge; whoever is ever beside them in the pits' rows went round.
        return {"round the pits": spider.goes_round(path), "incidents": spider.is_incident(*path[-1])}

    def best(
        self, task: Task, phase: str, thresholds: Sequence[float], gamma_safe: float, episodes: int, seed: int
    ) -> dict[float, list[np.ndarray]]:
        """Return the best paths that these thresholds leave open, solved on a grid: nothing is learned."""
        return exact_ways(task.world("pretrain"), task.world(phase), thresholds, gamma_safe, episodes, seed)
