"""The learned feasible set over the true one: where does a critic say that the boat can stay safe, and is it so?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from ssql_ros.report.figures import save
from ssql_ros.report.plots import INK, MUTED

ROCK, TRUE, LEARNED, FALSE_SAFE = "#8a8a8a", "#c8602b", "#1f6fae", "#b3001b"


def draw_feasible_sets(
    axes_points: tuple[np.ndarray, np.ndarray],
    true_margin: np.ndarray,
    learned: np.ndarray,
    delta: float,
    rocks: Sequence[tuple[tuple[float, float], float]],
    paths: Sequence[np.ndarray],
    file: Path,
) -> None:
    """Draw the edge of the true set {W <= 0}, that of the learned one {V_c < delta}, and where the latter errs.

    Args:
        axes_points: x (X,) and y (Y,) of the grid.
        true_margin, learned: (X, Y) W and V_c.
        rocks: centre and radius of each.
        paths: (T, 2) episodes to show.
    """
    x, y = axes_points
    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    axes = figure.subplots()
    for centre, radius in rocks:
        axes.add_patch(Circle(centre, radius, color=ROCK, alpha=0.5, linewidth=0))
    wrong = (learned < delta) & (true_margin > 0.0)
    axes.contourf(x, y, wrong.T.astype(float), levels=[0.5, 1.5], colors=[FALSE_SAFE])
    axes.contour(x, y, true_margin.T, levels=[0.0], colors=[TRUE], linewidths=1.8)
    axes.contour(x, y, learned.T, levels=[delta], colors=[LEARNED], linewidths=1.4, linestyles="solid")
    axes.contour(x, y, learned.T, levels=[0.0], colors=[LEARNED], linewidths=0.8, linestyles="dotted")
    for path in paths:
        axes.plot(path[:, 0], path[:, 1], color=MUTED, alpha=0.45, linewidth=0.8)
    handles = [
        Line2D([], [], color=TRUE, label="can stay safe, true (outside)"),
        Line2D([], [], color=LEARNED, label=f"V_c = delta = {delta:.3f} (safe outside)"),
        Line2D([], [], color=LEARNED, linestyle="dotted", label="V_c = 0"),
        Line2D([], [], color=FALSE_SAFE, linewidth=5, label="said to be safe, is not"),
        Line2D([], [], color=MUTED, label="episodes of the policy"),
    ]
    axes.legend(handles=handles, fontsize=8, loc="upper right", frameon=True)
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), aspect="equal", xlabel="x [m], downstream", ylabel="y [m]")
    axes.set_title("Learned feasible set over the true one", fontsize=10, color=INK)
    axes.tick_params(colors=MUTED)
    save(figure, file)
