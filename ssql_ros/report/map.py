"""Trajectories over a robot's map: which way does a policy go?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from ssql_ros.report.figures import save
from ssql_ros.report.plots import INK, MUTED

HAZARD, SAFE, GOAL = "#c8602b", "#1f6fae", "#5b8c3e"


def draw_trajectories(
    groups: Mapping[str, Sequence[np.ndarray]],
    hazards: Sequence[tuple[tuple[float, float], tuple[float, float]]],
    size: tuple[float, float],
    goal: tuple[float, float],
    names: Sequence[str],
    path: Path,
) -> None:
    """Draw the paths (T, 2) of each group over the map, the first axis upwards.

    Args:
        hazards: ((low, high), (low, high)) of each, by axis.
        size: of the map along both axes.
        goal: its centre; reached within 1.
        names: of both axes.
    """
    figure = Figure(figsize=(3.4 * len(groups), 4.0), layout="constrained")
    for axes, (title, paths) in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True):
        for rows, columns in hazards:
            low = (columns[0], rows[0])
            axes.add_patch(Rectangle(low, columns[1] - columns[0], rows[1] - rows[0], color=HAZARD, alpha=0.55))
        axes.add_patch(Circle((goal[1], goal[0]), 1.0, color=GOAL, alpha=0.3))
        for line in paths:
            axes.plot(line[:, 1], line[:, 0], color=SAFE, alpha=0.35, linewidth=1.0)
        axes.set(xlim=(0, size[1]), ylim=(0, size[0]), aspect="equal", xlabel=names[1], ylabel=names[0])
        axes.set_title(title, fontsize=9, color=INK)
        axes.tick_params(colors=MUTED)
    save(figure, path)
