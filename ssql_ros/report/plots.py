"""The report's plots, as SVG: one look, one colour for each mode and for each decision."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from ssql_ros.report.records import EpisodeRecord, RunRecord, Summary
from ssql_ros.shield.decision import Decision

INK, MUTED, GRID = "#1f2933", "#67737f", "#e6e9ec"
COLOURS = {"monitor": "#c8602b", "enforce": "#1f6fae"}
NAMES = {"monitor": "without the shield", "enforce": "with the shield"}
# The more the shield interferes, the darker.
DECISION_COLOURS = {
    Decision.PASSED: "#cdd5dc",
    Decision.RESAMPLED: "#a58fd0",
    Decision.LEAST_RISK: "#6a47a8",
    Decision.BACKUP: "#43287d",
    Decision.HELD: "#2c1a52",
    Decision.FAULT: "#b3262e",
}
DECISION_NAMES = {
    Decision.PASSED: "passed",
    Decision.RESAMPLED: "resampled",
    Decision.LEAST_RISK: "least-risk",
    Decision.BACKUP: "backup",
    Decision.HELD: "held",
    Decision.FAULT: "fault latched",
}
SIDE = {"monitor": -1, "enforce": 1}  # of a seed's place, so that points of equal length do not hide each other
LEAST_Q_SAFE = 1e-4  # what is below is drawn there
NOT_RECORDED = "not recorded"
WIDTH = 9.6  # in; drawn at the width of the page
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": "#b4bcc4",
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": "#b4bcc4",
    "ytick.color": "#b4bcc4",
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "lines.linewidth": 1.4,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "figure.facecolor": "white",
}


@contextmanager
def _figure(name: str, height: float) -> Iterator[tuple[Figure, Callable[[], str]]]:
    """Give a figure in the report's look and a function that returns it as SVG."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, lambda: _svg(figure, name)


def _svg(figure: Figure, name: str) -> str:
    """Return a figure as an SVG element whose ids cannot clash with those of another in the same page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", text)


def _legend(axes: Axes, handles: list[Line2D]) -> None:
    """Put a legend over the axes, where it covers no data."""
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=len(handles),
        handlelength=1.6,
        columnspacing=1.8,
        borderaxespad=0.2,
    )


def _dot(colour: str, label: str, marker: str = "o", hollow: bool = False) -> Line2D:
    face = "white" if hollow else colour
    return Line2D([], [], linestyle="", marker=marker, markersize=6, color=colour, markerfacecolor=face, label=label)


def _line(colour: str, label: str) -> Line2D:
    return Line2D([], [], color=colour, linewidth=2, label=label)


def percent(fraction: float, digits: int = 0) -> str:
    """Return a fraction as text; what is above 0 never reads as 0."""
    if np.isnan(fraction):
        return NOT_RECORDED
    least = 10.0**-digits
    if 0.0 < 100.0 * fraction < least:
        return f"<{least:g} %"
    return f"{100.0 * fraction:.{digits}f} %"


def percentiles(times: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the 50th and the 99th percentile, in µs, of decision times in s; NaN where there are none."""
    together = np.concatenate(list(times))
    if not together.size:
        return np.nan, np.nan
    p50, p99 = 1e6 * np.percentile(together, [50, 99])
    return float(p50), float(p99)


def falls_plot(summaries: Mapping[str, Summary]) -> str:
    """Return bars of the fraction of episodes that ended in a fall, with their 95 % intervals."""
    with _figure("falls", 0.75 + 0.5 * len(summaries)) as (figure, svg):
        axes = figure.subplots()
        for row, (mode, summary) in enumerate(summaries.items()):
            fraction = summary.falls / summary.episodes
            low, high = summary.fall_interval
            axes.barh(row, fraction, height=0.5, color=COLOURS[mode])
            axes.plot([low, high], [row, row], color=INK, linewidth=1.2, marker="|", markersize=7)
            axes.text(high + 0.012, row, f"{summary.falls} of {summary.episodes}", va="center", fontsize=10.5)
        axes.set_yticks(range(len(summaries)), [NAMES[mode] for mode in summaries])
        axes.tick_params(axis="y", labelcolor=INK, labelsize=10.5)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.1)
        axes.set_xticks(np.linspace(0, 1, 6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.0f} %"))
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("episodes that ended in a fall (line: 95 % interval)")
        return svg()


def pair_plot(episodes: Mapping[str, EpisodeRecord], threshold: float, margin_unit: str, margins: bool = False) -> str:
    """Return scores of the proposal over time and the safety margin below them, of episodes of one seed by mode.

    Args:
        threshold: epsilon, or delta of a critic of margins.
        margins: the scores are Q_c, and not Q_safe.
    """
    with _figure("pair", 5.0) as (figure, svg):
        risk, margin = figure.subplots(2, sharex=True, height_ratios=[1.15, 1])
        for mode, episode in episodes.items():
            q_safe = episode.q_safe if margins else np.maximum(episode.q_safe, LEAST_Q_SAFE)
            risk.plot(episode.time, q_safe, color=COLOURS[mode])
            margin.plot(episode.time, episode.margin, color=COLOURS[mode])
            if episode.incident:
                for axes, values in ((risk, q_safe), (margin, episode.margin)):
                    known = np.flatnonzero(np.isfinite(values))
                    if known.size:
                        end = known[-1]
                        axes.plot(
                            episode.time[end], values[end], "X", color=COLOURS[mode], markersize=9, clip_on=False,
                            markeredgecolor="white", zorder=5,
                        )  # fmt: skip
        handles = [_line(COLOURS[mode], NAMES[mode]) for mode in episodes]
        if any(episode.incident for episode in episodes.values()):
            handles.append(_dot(MUTED, "fall", "X"))
        if "enforce" in episodes:
            handles += _mark_interventions(risk, episodes["enforce"])
        end = max(episode.time[-1] for episode in episodes.values())
        if margins:
            risk.set(xlim=(0, end * 1.005), ylabel=f"Q_c of the proposal, {margin_unit}")
        else:
            risk.set(yscale="log", xlim=(0, end * 1.005), ylabel="q_safe of the proposal")
            risk.set_ylim(0.35 * LEAST_Q_SAFE, 1.5)
            risk.set_yticks([LEAST_Q_SAFE * 10**k for k in range(5)])
            risk.yaxis.set_major_formatter(FuncFormatter(lambda q, _: f"{q:g}"))
            risk.yaxis.set_minor_locator(NullLocator())
        _level(risk, threshold, f"{'δ' if margins else 'ε'} = {threshold:g}")
        _legend(risk, handles)
        _level(margin, 0.0, "fall")
        margin.set(ylabel=f"safety margin l(s), {margin_unit}", xlabel="time since the start of the episode, s")
        margin.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        figure.align_ylabels()
        return svg()


def _level(axes: Axes, value: float, label: str) -> None:
    """Draw a level that counts, with its name at the right, outside the data."""
    axes.axhline(value, color=INK, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1.5)
    axes.annotate(
        label, (1.0, value), xycoords=("axes fraction", "data"), xytext=(5, 0), textcoords="offset points", va="center"
    )


def _mark_interventions(axes: Axes, episode: EpisodeRecord) -> list[Line2D]:
    """Mark interventions under the curve, in their decision's colour; return their legend entries."""
    handles = []
    for kind in (Decision.RESAMPLED, Decision.LEAST_RISK, Decision.BACKUP, Decision.HELD, Decision.FAULT):
        times = episode.time[episode.decisions == kind]
        if times.size:
            axes.plot(
                times, np.full(times.shape, 0.045), linestyle="", marker="|", markersize=7, markeredgewidth=1.2,
                color=DECISION_COLOURS[kind], transform=axes.get_xaxis_transform(),
            )  # fmt: skip
            handles.append(_dot(DECISION_COLOURS[kind], f"intervention: {DECISION_NAMES[kind]}", "|"))
            handles[-1].set_markeredgewidth(2.0)
    return handles


def lengths_plot(runs: Mapping[str, RunRecord], period: float) -> str:
    """Return the length of every episode, those of one seed on one line, ordered by the length without the shield."""
    lengths = {mode: {e.seed: e for e in run.episodes} for mode, run in runs.items()}
    first = next(iter(lengths.values()))
    seeds = sorted(set().union(*lengths.values()), key=lambda s: (first[s].steps if s in first else np.inf, s))
    with _figure("lengths", 3.2) as (figure, svg):
        axes = figure.subplots()
        size = float(np.clip(300 / len(seeds), 3.0, 7.0))
        shift = 0.5 * size * len(seeds) / (60.0 * WIDTH)  # half a dot, in places of seeds
        for x, seed in enumerate(seeds):
            ends = [(x + shift * SIDE[mode], lengths[mode][seed].steps) for mode in lengths if seed in lengths[mode]]
            axes.plot(*zip(*ends, strict=True), color="#cfd6dc", linewidth=size / 3, zorder=1)
        for mode, by_seed in lengths.items():
            for fell in (True, False):
                chosen = [x for x, seed in enumerate(seeds) if seed in by_seed and by_seed[seed].incident == fell]
                ends = [(x + shift * SIDE[mode], by_seed[seeds[x]].steps) for x in chosen]
                face = COLOURS[mode] if fell else "white"
                style: dict[str, Any] = {
                    "color": COLOURS[mode],
                    "markerfacecolor": face,
                    "markersize": size,
                    "clip_on": False,
                }
                if ends:
                    axes.plot(*zip(*ends, strict=True), "o", zorder=3, **style)
        axes.set(ylabel="length, control periods", xlabel="episodes, one seed each, by length without the shield")
        axes.set_ylim(bottom=0)
        axes.set_xlim(-0.7, len(seeds) - 0.3)
        axes.set_xticks([])
        axes.grid(axis="x", visible=False)
        seconds = axes.secondary_yaxis("right", functions=(_scale(period), _scale(1.0 / period)))
        seconds.set_ylabel("length, s")
        seconds.spines["right"].set_visible(False)
        handles = [_line(COLOURS[mode], NAMES[mode]) for mode in lengths]
        _legend(axes, [*handles, _dot(MUTED, "fell"), _dot(MUTED, "did not fall", hollow=True)])
        return svg()


def _scale(factor: float) -> Callable[[Any], Any]:
    return lambda values: values * factor


def decisions_plot(runs: Mapping[str, RunRecord], summaries: Mapping[str, Summary]) -> str:
    """Return the histogram of decision times, by decision, and the share of each decision in every run."""
    pairs = [(e.decisions, e.decision_times) for run in runs.values() for e in run.episodes]
    decisions, times = (np.concatenate(column) for column in zip(*pairs, strict=True))
    times = 1e6 * times
    usable = np.isfinite(times) & (times > 0)
    with _figure("decisions", 3.2) as (figure, svg):
        histogram, shares = figure.subplots(1, 2, width_ratios=[1, 1])
        if usable.any():
            _draw_histogram(histogram, decisions[usable], times[usable])
        histogram.set(ylabel="decisions", xlabel="decision time, µs")
        for row, summary in enumerate(summaries.values()):
            left = 0.0
            for kind, share in summary.shares.items():
                shares.barh(row, share, left=left, height=0.34, color=DECISION_COLOURS[kind])
                left += share
            text = " · ".join(f"{DECISION_NAMES[kind]} {percent(s, 1)}" for kind, s in summary.shares.items() if s != 0)
            shares.text(0, row + 0.32, text, va="center", fontsize=8.8, color=MUTED, in_layout=False)
        for row, mode in enumerate(summaries):
            shares.text(0, row - 0.3, NAMES[mode], va="center", color=INK)
        shares.set(xlim=(0, 1), ylim=(len(summaries) - 0.45, -0.6), yticks=[])
        shares.set_xticks(np.linspace(0, 1, 5))
        shares.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.0f} %"))
        shares.spines["left"].set_visible(False)
        shares.grid(visible=False)
        shares.set_xlabel("share of decisions")
        return svg()


def _draw_histogram(axes: Axes, decisions: np.ndarray, times: np.ndarray) -> None:
    kinds = [kind for kind in Decision if np.any(decisions == kind)]
    low, high = times.min(), times.max()
    edges = np.geomspace(low * 0.9, high * 1.1, 56)
    axes.hist(
        [times[decisions == kind] for kind in kinds],
        bins=edges.tolist(),
        stacked=True,
        color=[DECISION_COLOURS[kind] for kind in kinds],
        label=[DECISION_NAMES[kind] for kind in kinds],
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.grid(axis="x", visible=False)
    # Room over the highest bar for the labels.
    top = 1.13 * axes.get_ylim()[1]
    axes.set_ylim(0, top)
    for name, value in zip(("p50", "p99"), percentiles([1e-6 * times]), strict=True):
        axes.axvline(value, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
        axes.text(value * 1.04, top * 0.985, f"{name} {value:.0f}", va="top")
    handles = [_dot(DECISION_COLOURS[kind], DECISION_NAMES[kind], "s") for kind in kinds]
    _legend(axes, handles)
