"""Tables and plots of learning results, from the summary.csv and curves.csv that `ssql experiment` writes."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from ssql_ros.processes.files import write_atomically
from ssql_ros.report.figures import panels as drawn_panels

# Told apart also without colour: the shield's own method is the dark one.
COLOURS = ("#1f6fae", "#c8602b", "#5b8c3e", "#8a4fa3", "#b8912b", "#6b7782")
COLUMNS = {
    "incidents": ("incidents while learning", 0),
    "incident_rate": ("per episode", 4),
    "last_success": ("success, last tenth", 3),
    "last_reward": ("reward, last tenth", 1),
    "last_velocity": ("m/s, last tenth", 3),
    "final_success": ("success, final policy", 3),
    "final_incident_rate": ("incidents, final policy", 3),
    "final_velocity": ("m/s, final policy", 3),
    "drawn_incident_rate": ("incidents, final policy drawn", 3),
    "drawn_velocity": ("m/s, final policy drawn", 3),
    "drawn_reward": ("reward, final policy drawn", 1),
    "goes_round": ("goes round, drawn", 3),
    "calibration_ece": ("error of Q_safe", 4),
    "calibration_bias": ("bias of Q_safe", 4),
    "return_mean": ("return", 3),
    "final_reward": ("reward, final policy", 1),
    "q_bias": ("bias of Q", 2),
    "q_rmse": ("RMSE of Q over range", 3),
    "q_rank": ("rank correlation of Q", 2),
    "q_return_mean": ("return, drawn", 1),
    "q_incident_rate": ("incidents, drawn", 3),
}
# What is drawn against lambda: the first of each that the experiment has.
OVER_LAMBDA = (("final_reward", "return_mean"), ("final_success", "induced_return_mean"), ("q_bias",), ("q_rank",))
FAR_OFF = 10.0

Values = dict[str, dict[str, dict[int, float]]]  # method -> figure -> seed -> value


class ResultsError(ValueError):
    """The tables of results cannot be read; the text names the file and what was expected."""


def read_summary(path: Path) -> dict[str, Values]:
    """Return the figures of each experiment, one with several tasks once for each of them: "experiment, task".

    Raises:
        ResultsError: the file is missing, or lacks a column.
    """
    rows = _rows(path, ("experiment", "method", "task", "seed", "figure", "value"))
    tasks: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        tasks[row["experiment"]].add(row["task"])
    found: dict[str, Values] = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for row in rows:
        name = row["experiment"] + (f", {row['task']}" if len(tasks[row["experiment"]]) > 1 else "")
        # What is exact was computed, and has no run.
        if row["seed"] != "exact":
            found[name][row["method"]][row["figure"]][int(row["seed"])] = float(row["value"])
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
        seeds, episodes = max(len(by_seed) for by_seed in figures.values()), sum(figures.get("episodes", {}).values())
        cells = [_cell(figures.get(name, {}), COLUMNS[name][1]) for name in present]
        lines.append(f"| {method} | {seeds} | {f'{episodes:.0f}' if episodes else '-'} | " + " | ".join(cells) + " |")
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
    titles = ["velocity, m/s" if panel == "velocity" else panel for panel in panels]
    with drawn_panels(path, titles, 10.0, 3.0) as places:
        for axes, panel in zip(places, panels, strict=True):
            axes.set_xlabel("steps")
            for i, method in enumerate(methods):
                chosen = [row for row in rows if row["experiment"] == experiment and row["method"] == method]
                _draw(axes, chosen, panel, COLOURS[i % len(COLOURS)], method)
            if panel.startswith("incidents"):
                # Methods differ by orders of magnitude, and some have none.
                axes.set_yscale("symlog", linthresh=1e-3)
                axes.set_ylim(bottom=0.0)
        places[0].legend(frameon=False, fontsize=8)


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


def over_lambda(values: Values) -> dict[float, dict[str, dict[int, float]]]:
    """Return the figures of an experiment by its lambda, ascending; empty where that is not what its methods are."""
    found = {method: method.removeprefix("lambda ") for method in values}
    if not found or any(method == rest for method, rest in found.items()):
        return {}
    return dict(sorted((float(rest), values[method]) for method, rest in found.items()))


def plot_over_lambda(by_lambda: dict[float, dict[str, dict[int, float]]], path: Path) -> None:
    """Draw what SSQL comes to against lambda: mean and standard deviation over seeds, and every seed."""
    first = next(iter(by_lambda.values()))
    chosen = [next((name for name in names if name in first), "") for names in OVER_LAMBDA]
    panels = [name for name in chosen if name]
    titles = [COLUMNS.get(name, (name, 0))[0] for name in panels]
    with drawn_panels(path, titles, 2.6 * len(panels), 2.8) as places:
        for axes, name in zip(places, panels, strict=True):
            seeds = [(t, value) for t, figures in by_lambda.items() for value in figures[name].values()]
            axes.plot(*zip(*seeds, strict=True), ".", color=COLOURS[-1], markersize=4, alpha=0.6)
            numbers = [np.array(list(figures[name].values())) for figures in by_lambda.values()]
            spread = [n.std(ddof=1) if len(n) > 1 else 0.0 for n in numbers]
            axes.errorbar(list(by_lambda), [n.mean() for n in numbers], spread, fmt="o-", capsize=3, color=COLOURS[0])
            axes.set_xscale("log")
            axes.set_xlabel("λ")
            if name == "q_bias" and max(abs(value) for _, value in seeds) > FAR_OFF:
                # A seed that runs away must not hide the others.
                axes.set_yscale("symlog", linthresh=1.0)


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
        by_lambda = over_lambda(values)
        if by_lambda:
            # Ascending, not as the names are spelt.
            values = {f"lambda {t:g}": figures for t, figures in by_lambda.items()}
        sections += ["", f"## {experiment}", "", table(values)]
        picture = results / f"{experiment}.png"
        if by_lambda:
            plot_over_lambda(by_lambda, picture)
            told = "`ssql report`; mean, standard deviation and every seed."
        elif any(row["experiment"] == experiment for row in curves):
            plot_curves(curves, experiment, picture)
            told = f"`ssql experiment {experiment}`, then `ssql report`; the band is the range over seeds."
        else:
            continue
        written.append(picture)
        sections += ["", f"![{experiment}]({picture.name})", "", told]
    tables = results / "tables.md"
    write_atomically(tables, ("\n".join(sections) + "\n").encode())
    return [*written, tables]
