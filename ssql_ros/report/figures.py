"""Figures of matplotlib as files and as parts of a page, in one resolution."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssql_ros.processes.files import write_atomically
from ssql_ros.report.plots import GRID, INK, MUTED


def drawn(figure: Figure, kind: str = "png") -> bytes:
    """Return a figure as an image."""
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, dpi=110)
    return stream.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write a figure complete or not at all, as the kind of image that the path ends with. Raises WriteError."""
    write_atomically(path, drawn(figure, path.suffix[1:] or "png"))


def inline(png: bytes) -> str:
    """Return an image as an address that holds it, for a page that needs no other file."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


@contextmanager
def panels(path: Path, titles: Sequence[str], width: float, height: float) -> Iterator[Sequence[Axes]]:
    """Give axes side by side in the look of the results, one for each title; write them to `path` in the end."""
    with mpl.rc_context({"font.size": 9, "axes.edgecolor": MUTED, "text.color": INK, "axes.labelcolor": INK}):
        figure = Figure(figsize=(width, height), layout="constrained")
        places = np.atleast_1d(figure.subplots(1, len(titles)))
        for axes, title in zip(places, titles, strict=True):
            axes.set_title(title, loc="left", fontsize=9)
            axes.grid(color=GRID)
            axes.spines[["top", "right"]].set_visible(False)
        yield list(places)
        save(figure, path)


def plot_reliability(figures: Mapping[str, Any], path: Path, title: str) -> None:
    """Draw what `calibrate_q` found: mean return against mean Q, by decile of Q; on the diagonal Q is what it says."""
    deciles = np.array(figures["q_deciles"])
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.subplots()
    ends = [deciles[:, :2].min(), deciles[:, :2].max()]
    axes.plot(ends, ends, color="0.7", linewidth=1.0)
    axes.plot(deciles[:, 0], deciles[:, 1], "o-", color="#0072b2")
    axes.set_xlabel("Q, mean of its decile")
    axes.set_ylabel("regularised return, mean")
    axes.set_title(f"{title}\nbias {figures['q_bias']:+.3g}, rank correlation {figures['q_rank']:.2f}", fontsize=10)
    save(figure, path)
