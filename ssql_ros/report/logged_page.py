"""The report of what was learned from a log: what it covers, where the shield would have stepped in, the figures."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssql_ros.contract import Contract
from ssql_ros.data.data_set import DataSet
from ssql_ros.evaluation.evidence import Evidence
from ssql_ros.evaluation.logged_calibration import held_out_parts, scores_of
from ssql_ros.model.bundle import Bundle, Rule
from ssql_ros.model.critic import thresholds_of
from ssql_ros.processes.files import write_atomically

STYLESHEET = Path(__file__).with_name("report.css")
INK, SAFE, UNSAFE = "#1f2933", "#1f6fae", "#c8602b"
BEFORE = 20  # steps before an incident that are shown apart
SHOWN = 3  # episodes
STEPS = 400  # of an episode


def write_logged_page(
    path: Path,
    bundle: Bundle,
    data: DataSet,
    contract: Contract,
    evidence: Evidence,
    figures: Mapping[str, Mapping[str, float]],
    calibration: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> Path:
    """Write the report.

    Args:
        figures: of each stage, by its name.
        calibration: see `calibrate_on_log`; empty: the bundle has no safety critic.
        facts: command, seed, versions.

    Raises:
        FileExistsError: a report never overwrites another.
    """
    if path.exists():
        raise FileExistsError(f"{path}: exists already; a report never overwrites another")
    sections = [
        ("What this log can teach", _list(evidence.words)),
        ("What it covers", _coverage(data, contract)),
    ]
    if calibration:
        sections += [
            ("Where the shield would have stepped in", _interventions(bundle, data, contract, calibration)),
            ("Is the risk what it says?", _figures(calibration) + _reliability(calibration)),
        ]
    sections.append(("Figures of each stage", "".join(_stage(*each) for each in figures.items())))
    sections.append(("How this was made", f"<pre>{html.escape(json.dumps(dict(facts), indent=1))}</pre>"))
    body = "".join(f"<section><h2>{html.escape(title)}</h2>{text}</section>" for title, text in sections)
    title = f"{contract.robot}: learned from {evidence.seconds / 60:.1f} minutes of its log"
    page = f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLESHEET.read_text()}</style></head>
<body><main><h1>{html.escape(title)}</h1>
{body}
</main></body></html>
"""
    write_atomically(path, page.encode())
    return path


def _list(sentences: tuple[str, ...]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences) + "</ul>"


def _near_incidents(data: DataSet) -> np.ndarray:
    """Return which rows (N,) lie within the last steps before an incident."""
    near = np.zeros(len(data), bool)
    for episode in data.episodes():
        for at in np.flatnonzero(np.asarray(data["incident"][episode])):
            near[max(episode.start + at - BEFORE + 1, episode.start) : episode.start + at + 1] = True
    return near


def _coverage(data: DataSet, contract: Contract) -> str:
    """Return a table of the frame's and the action's ranges, and their histograms."""
    frames = np.asarray(data["observation"])[:, : contract.frame_size] if _begins_with_frame(contract) else None
    columns = dict(zip(contract.commanded.names, np.asarray(data["action"]).T, strict=True))
    units = dict.fromkeys(contract.commanded.names, "action")
    if frames is not None:
        columns = {**dict(zip(contract.frame_names, frames.T, strict=True)), **columns}
        units = {**{f.name: f.unit for f in contract.observed.frame}, **units}
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(units[name])}</td>"
        + "".join(f"<td>{value:.4g}</td>" for value in np.percentile(values, [0, 1, 50, 99, 100]))
        + "</tr>"
        for name, values in columns.items()
    )
    head = "<tr><th>feature</th><th>unit</th><th>least</th><th>1 %</th><th>median</th><th>99 %</th><th>most</th></tr>"
    said = (
        f"<p>States and actions of {len(data)} steps. Outside of these ranges everything that was learned is a guess. "
        f"In the darker colour the {BEFORE} steps before an incident.</p>"
    )
    return f"{said}{_histograms(columns, _near_incidents(data))}<table>{head}{rows}</table>"


def _begins_with_frame(contract: Contract) -> bool:
    first = contract.observed.blocks[0]
    return first.kind == "frame" and first.scale == 1.0


def _histograms(columns: Mapping[str, np.ndarray], near: np.ndarray) -> str:
    across = 4
    down = -(-len(columns) // across)
    figure = Figure(figsize=(9.0, 1.5 * down), layout="constrained")
    panels = np.atleast_1d(figure.subplots(down, across)).ravel()
    for axes, (name, values) in zip(panels, columns.items(), strict=False):
        edges = np.histogram_bin_edges(values, 40)
        axes.hist(values, edges, color=SAFE, alpha=0.45, density=True)
        if near.any():
            axes.hist(values[near], edges, color=UNSAFE, alpha=0.55, density=True)
        axes.set_title(name, fontsize=8, loc="left")
        axes.set_yticks([])
        axes.tick_params(labelsize=7)
    for axes in panels[len(columns) :]:
        axes.axis("off")
    return _image(figure, "Histograms of every feature, and of the steps before incidents")


def _interventions(bundle: Bundle, data: DataSet, contract: Contract, calibration: Mapping[str, Any]) -> str:
    """Return how often, and a few held-out episodes with the score and the margin of every step."""
    parts, _ = held_out_parts(bundle, data)
    segments = parts.segments()
    fell = [segment for segment in segments if np.asarray(data["incident"][segment]).any()]
    kept = [segment for segment in segments if segment not in fell]
    chosen = [*sorted(fell, key=_length)[len(fell) // 2 :][: SHOWN - 1], *sorted(kept, key=_length)[::-1]][:SHOWN]
    figure = Figure(figsize=(9.0, 2.3 * len(chosen)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(chosen), 1))
    for axes, segment in zip(panels, chosen, strict=True):
        _draw_episode(axes, bundle, data, slice(max(segment.start, segment.stop - STEPS), segment.stop), contract)
    caught = calibration["caught"]
    words = f"It would have stepped in at {calibration['stepped_in']:.1%} of the steps"
    if calibration["false_alarms"] is not None:
        words += f", and at {calibration['false_alarms']:.1%} of those that no incident followed"
    if caught is not None:
        words += (
            f"; before {caught:.0%} of the incidents, in the median {calibration['lead']:.0f} steps "
            f"({calibration['lead'] * contract.control_period:.2f} s) before"
        )
    image = _image(figure, "Score and margin of held-out episodes; shaded where the shield would have stepped in")
    return f"<p>{words}. What would have followed then, the log cannot say.</p>{image}"


def _length(segment: slice) -> int:
    return int(segment.stop - segment.start)


def _draw_episode(axes: Axes, bundle: Bundle, data: DataSet, segment: slice, contract: Contract) -> None:
    rows = np.arange(segment.start, segment.stop)
    time = (rows - rows[0]) * contract.control_period
    score, threshold = scores_of(bundle, data, rows), thresholds_of(bundle)
    probability = bundle.rule is Rule.PROBABILITY
    limit = threshold["epsilon"] if probability else threshold["delta"]
    assert limit is not None
    axes.plot(time, score, color=SAFE, label="Q_safe" if probability else "Q_c")
    axes.axhline(limit, color=SAFE, linewidth=0.8, linestyle=(0, (4, 3)))
    stepped = ~(score <= limit) if probability else ~(score < limit)
    axes.fill_between(time, 0, 1, where=stepped, transform=axes.get_xaxis_transform(), color=UNSAFE, alpha=0.15)
    beside = axes.twinx()
    beside.plot(time, np.asarray(data["margin"])[rows], color=INK, linewidth=0.9, label="margin l(s)")
    beside.axhline(0.0, color=INK, linewidth=0.5)
    if np.asarray(data["incident"])[rows[-1]]:
        axes.axvline(time[-1], color=UNSAFE)
    axes.set_ylabel("Q_safe" if probability else "Q_c", color=SAFE)
    beside.set_ylabel("margin l(s)")
    axes.set_xlabel("s, to the incident" if np.asarray(data["incident"])[rows[-1]] else "s")


def _figures(calibration: Mapping[str, Any]) -> str:
    names = ("episodes", "incidents", "n", "base_rate", "auc", "auc_low", "auc_high", "ece", "bias", "brier", "skill")
    rows = "".join(
        f"<tr><td>{name}</td><td>{calibration[name]:.4g}</td></tr>"
        for name in names
        if calibration.get(name) is not None
    )
    said = f"<p>On {html.escape(calibration['judged_on'])}. {html.escape(calibration['statement'])}</p>"
    return f"{said}<table>{rows}</table>"


def _reliability(calibration: Mapping[str, Any]) -> str:
    if "deciles" not in calibration:
        return ""
    figure = Figure(figsize=(4.5, 3.6), layout="constrained")
    axes = figure.subplots()
    _, predicted, observed, _ = np.array(calibration["deciles"]).T
    top = 1.05 * max(predicted.max(), observed.max(), 0.01)
    axes.plot([0.0, top], [0.0, top], color=INK, linewidth=0.7)
    axes.plot(predicted, observed, "o-", color=SAFE)
    axes.set(xlabel="Q_safe, mean of each tenth of the steps", ylabel="what came, discounted")
    return _image(figure, "Predicted against observed risk")


def _stage(name: str, figures: Mapping[str, float]) -> str:
    rows = "".join(f"<tr><td>{html.escape(key)}</td><td>{value:.5g}</td></tr>" for key, value in figures.items())
    return f"<details><summary>{html.escape(name)}</summary><table>{rows}</table></details>"


def _image(figure: Figure, text: str) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}">'
