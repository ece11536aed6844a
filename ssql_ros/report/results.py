"""Tables and plots of learning results, from the summary.csv and curves.csv that `ssql experiment` writes."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ssql_ros.bundle import write_whole
from ssql_ros.report.plots import GRID, INK, MUTED

# Told apart also without colour: the shield's own method is the dark one.
COLOURS = ("#1f6fae", "#c8602b", "#5b8c3e", "#8a4fa3", "#b8912b", "#6b7782")
COLUMNS = {
    "incidents": ("incidents while fine-tuning", 0),
    "incident_rate": ("per episode", 4),
    "last_success": ("success, last tenth", 3),
    "last_reward": ("reward, last tenth", 1),
    "last_velocity": ("m/s, last tenth", 3),
    "final_success": ("success, final policy", 3),
    "final_incident_rate": ("incidents, final policy", 3),
    "final_velocity": ("m/s, final policy", 3),
    "goes_round": ("goes round, drawn", 3),
    "calibration_ece": ("error of Q_safe", 4),
    "calibration_bias": ("bias of Q_safe", 4),
}

Values = dict[str, dict[str, dict[int, float]]]  # method -> figure -> seed -> value


class ResultsError(ValueError):
    """The tables of results cannot be read; the text names the file and what was expected."""


def read_summary(path: Path) -> dict[str, Values]:
    """Return the figures of each experiment.

    Raises:
        ResultsError: the file is missing, or lacks a column.
    """
    found: dict[str, Values] = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for row in _rows(path, ("experiment", "method", "seed", "figure", "value")):
        # What is exact was computed, and has no run.
        if row["seed"] != "exact":
            found[row["experiment"]][row["method"]][row["figure"]][int(row["seed"])] = float(row["value"])
    return found


def _rows(path: Path, needed: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read: {error.strerror or error}; `ssql experiment` writes it") from error
    if missing := [name for name in needed if name not in (reader.fieldnames or ())]:
        raise ResultsError(f"{path}: expected a column {missing[0]!r}, found {', '.join(reader.fieldnames or ())}")
    return rows


def table(values: Values) -> str:
    """Return a Markdown table: mean over seeds and, behind +-, the standard deviation over them."""
    present = [name for name in COLUMNS if any(name in figures for figures in values.values())]
    present = [name for name in present if name not in ("last_success", "final_success") or _any(values, name)]
    lines = ["| method | seeds | episodes | " + " | ".join(COLUMNS[name][0] for name in present) + " |"]
    lines.append("|---" * (len(present) + 3) + "|")
    for method, figures in values.items():
        episodes = sum(figures["episodes"].values())
        cells = [_cell(figures.get(name, {}), COLUMNS[name][1]) for name in present]
        lines.append(f"| {method} | {len(figures['episodes'])} | {episodes:.0f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _any(values: Values, name: str) -> bool:
    return any(value for figures in values.values() for value in figures.get(name, {}).values())


def _cell(by_seed: dict[int, float], digits: int) -> str:
    if not by_seed:
        return "-"
    numbers = np.array(list(by_seed.values()))
    spread = f" ± {numbers.std(ddof=1):.{digits}f}" if len(numbers) > 1 else ""
    return f"{numbers.mean():.{max(digits, 1) if digits == 0 else digits}f}{spread}"


def plot_curves(rows: list[dict[str, str]], experiment: str, path: Path) -> None:
    """Draw reward (or velocity) and the incidents so far against steps: mean over seeds, and their range."""
    methods = list(dict.fromkeys(row["method"] for row in rows if row["experiment"] == experiment))
    moves = any(row["velocity"] not in ("", "nan") for row in rows if row["experiment"] == experiment)
    panels = ["reward", *(["velocity"] if moves else ["success"]), "incidents so far, per episode"]
    with mpl.rc_context({"font.size": 9, "axes.edgecolor": MUTED, "text.color": INK, "axes.labelcolor": INK}):
        figure = Figure(figsize=(10.0, 3.0), layout="constrained")
        FigureCanvasAgg(figure)
        places = figure.subplots(1, len(panels))
        for axes, panel in zip(places, panels, strict=True):
            axes.set_title("velocity, m/s" if panel == "velocity" else panel, loc="left", fontsize=9)
            axes.set_xlabel("steps of fine-tuning")
            axes.grid(color=GRID)
            axes.spines[["top", "right"]].set_visible(False)
            for i, method in enumerate(methods):
                chosen = [row for row in rows if row["experiment"] == experiment and row["method"] == method]
                _draw(axes, chosen, panel, COLOURS[i % len(COLOURS)], method)
            if panel.startswith("incidents"):
                # Methods differ by orders of magnitude, and some have none.
                axes.set_yscale("symlog", linthresh=1e-3)
                axes.set_ylim(bottom=0.0)
        places[0].legend(frameon=False, fontsize=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)


def _draw(axes: Axes, rows: list[dict[str, str]], panel: str, colour: str, label: str) -> None:
    by_seed: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        by_seed[row["seed"]].append(row)
    lines = []
    steps = np.array([])
    for stretch in by_seed.values():
        stretch.sort(key=lambda row: int(row["step"]))
        steps = np.array([int(row["step"]) for row in stretch], float)
        if panel.startswith("incidents"):
            incidents = np.cumsum([int(row["incidents"]) for row in stretch])
            values = incidents / np.cumsum([int(row["episodes"]) for row in stretch])
        else:
            values = np.array([float(row[panel]) for row in stretch])
        lines.append((steps, values))
    if not lines:
        return
    # Stretches end at each run's own last episode: one grid for all.
    grid = np.linspace(max(line[0][0] for line in lines), min(line[0][-1] for line in lines), 50)
    values = np.array([np.interp(grid, *line) for line in lines])
    axes.plot(grid, values.mean(axis=0), color=colour, label=label, linewidth=1.6)
    axes.fill_between(grid, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, linewidth=0)


def write_results(results: Path) -> list[Path]:
    """Write a table and a plot of each experiment beside its numbers; return what was written.

    Raises:
        ResultsError: summary.csv or curves.csv cannot be read.
    """
    summary = read_summary(results / "summary.csv")
    curves = _rows(results / "curves.csv", ("experiment", "method", "seed", "step", "reward", "incidents", "episodes"))
    written = []
    sections = [
        "# Tables of docs/results",
        "",
        "Mean over seeds ± standard deviation over seeds. Written by `ssql report`.",
    ]
    for experiment, values in summary.items():
        picture = results / f"{experiment}.png"
        plot_curves(curves, experiment, picture)
        written.append(picture)
        sections += ["", f"## {experiment}", "", table(values), "", f"![{experiment}]({picture.name})"]
        sections += ["", f"`ssql experiment {experiment}`, then `ssql report`; the band is the range over seeds."]
    tables = results / "tables.md"
    write_whole(tables, ("\n".join(sections) + "\n").encode())
    return [*written, tables]
