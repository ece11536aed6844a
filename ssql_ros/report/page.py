"""Writes the report: one HTML file with everything in it, no script and no outside resource."""

from __future__ import annotations

import html
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imsave

from ssql_ros.processes.files import write_atomically
from ssql_ros.report.figures import inline
from ssql_ros.report.plots import (
    NAMES,
    NOT_RECORDED,
    decisions_plot,
    falls_plot,
    lengths_plot,
    pair_plot,
    percent,
    percentiles,
)
from ssql_ros.report.records import MODES, RunRecord, Summary, typical_pair

STYLESHEET = Path(__file__).with_name("report.css")


@dataclass(frozen=True)
class Frame:
    """A rendered picture: `image` (height, width, 3) uint8 RGB, and a line that says what it shows."""

    image: np.ndarray
    caption: str


def write_report(
    path: str | os.PathLike[str],
    runs: Sequence[RunRecord],
    frames: Sequence[Frame] = (),
    facts: Mapping[str, Any] | None = None,
    *,
    title: str = "Safety shield report",
    control_period: float = 0.02,
    margin_unit: str = "rad",
) -> Path:
    """Write the report of one run in each mode, or of one alone, as a self-contained HTML file.

    Args:
        runs: at most one in mode `monitor` and one in mode `enforce`.
        frames: rendered pictures, shown in this order.
        facts: what is needed to do it again: command, seed, versions, bundle id, contract id, by name.
        control_period: s.
        margin_unit: of the contract's incident rule.

    Raises:
        ValueError: no run, or two in one mode.
        FileExistsError: a report never overwrites another.
    """
    path = Path(path)
    by_mode = _by_mode(runs)
    summaries = {mode: Summary.of(run) for mode, run in by_mode.items()}
    if path.exists():
        raise FileExistsError(f"{path}: exists already; a report never overwrites another")
    sections = [
        _section(
            "Falls", _falls_sentence(by_mode, summaries), falls_plot(summaries) + _table(summaries, control_period)
        ),
        *_pair_section(by_mode, margin_unit),
        _section("Episode lengths", _lengths_sentence(by_mode, summaries), lengths_plot(by_mode, control_period)),
        _section("Decisions", _decisions_sentence(summaries), decisions_plot(by_mode, summaries)),
        *([_section("Pictures", "Rendered from the simulated robot.", _frames(frames))] if frames else []),
        _section("How this was made", "Everything needed to run it again.", _facts(facts or {}, by_mode)),
    ]
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>
{STYLESHEET.read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
<h1>{html.escape(title)}</h1>
{_tiles(summaries)}
{"".join(sections)}</main>
</body>
</html>
"""
    write_atomically(path, page.encode())
    return path


def _by_mode(runs: Sequence[RunRecord]) -> dict[str, RunRecord]:
    by_mode: dict[str, RunRecord] = {}
    for run in sorted(runs, key=lambda run: MODES.index(run.mode)):
        if run.mode in by_mode:
            name, value = by_mode[run.mode].threshold
            both = f"{name} {value:g} and {run.threshold[1]:g}"
            raise ValueError(f"two runs in mode {run.mode} ({both}): a report takes one of each mode")
        by_mode[run.mode] = run
    if not by_mode:
        raise ValueError("a report needs at least one run, got none")
    return by_mode


def _section(title: str, sentence: str, body: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n<p>{sentence}</p>\n{body}\n</section>\n"


def _tiles(summaries: Mapping[str, Summary]) -> str:
    tiles = []
    for mode, summary in summaries.items():
        low, high = summary.fall_interval
        note = f"falls {NAMES[mode]}<br>95&nbsp;%: {_percent(low)} to {_percent(high)}"
        tiles.append((mode, f"{summary.falls}<small> of {summary.episodes}</small>", note))
    last = list(summaries.values())[-1]
    what = "of steps changed by the shield" if "enforce" in summaries else "of steps the shield would have changed"
    tiles.append(("", _percent(last.interventions_per_step, 1), what))
    if last.decision_times.size:
        p50, p99 = percentiles([last.decision_times])
        tiles.append(("", f"{p50:.0f}<small> µs</small>", f"median decision time<br>p99: {p99:.0f} µs"))
    cells = (
        f'<div class="tile {kind}"><strong>{value}</strong><span>{note}</span></div>' for kind, value, note in tiles
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


def _table(summaries: Mapping[str, Summary], period: float) -> str:
    rows: list[tuple[str, list[str]]] = [("Episodes", []), ("Falls", []), ("Fraction that fell, 95 % interval", [])]
    rows += [("Mean episode length, 95 % interval", []), ("Interventions per step", [])]
    rows += [("Decision time p50", []), ("Decision time p99", [])]
    for mode, summary in summaries.items():
        fall, length = summary.fall_interval, summary.steps_interval
        would = "" if mode == "enforce" else " (not carried out)"
        rate = summary.interventions_per_step
        times = percentiles([summary.decision_times])
        values = [
            str(summary.episodes),
            str(summary.falls),
            f"{percent(summary.falls / summary.episodes)} ({percent(fall[0])} to {percent(fall[1])})",
            f"{summary.mean_steps:.0f} steps ({length[0]:.0f} to {length[1]:.0f}), {summary.mean_steps * period:.1f} s",
            NOT_RECORDED if np.isnan(rate) else f"{rate:.4f}{would}",
            *(NOT_RECORDED if np.isnan(time) else f"{time:.0f} µs" for time in times),
        ]
        for (_, cells), value in zip(rows, values, strict=True):
            cells.append(value)
    head = "".join(f'<th class="{mode}">{NAMES[mode]}</th>' for mode in summaries)
    body = "".join(
        f"<tr><th>{name}</th>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>\n"
        for name, cells in rows
    )
    return f"<table>\n<thead><tr><th></th>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"


def _pair_section(by_mode: Mapping[str, RunRecord], margin_unit: str) -> list[str]:
    if len(by_mode) == 2:
        pair = typical_pair(by_mode["monitor"], by_mode["enforce"])
        episodes = dict(zip(MODES, pair, strict=True)) if pair else {}
        sentence = "The same episode twice"
    else:
        ((mode, run),) = by_mode.items()
        ordered = sorted(run.episodes, key=lambda episode: episode.steps)
        episodes = {mode: ordered[len(ordered) // 2]}
        sentence = "The episode of median length"
    if not episodes:
        return []
    ends = [
        f"{NAMES[mode]} it {'falls' if episode.incident else 'is still up'} after {episode.time[-1]:.1f} s"
        for mode, episode in episodes.items()
    ]
    seed = next(iter(episodes.values())).seed
    acts = "takes" if "enforce" in episodes else "would take"
    sentence += (
        f" (seed {seed}): {', '.join(ends)}. Above, the critic's estimate of a coming fall for what the controller"
        f" proposes; where it is above ε the shield {acts} another action. Below, the robot's own margin: at 0 it has"
        " fallen."
    )
    name, threshold = by_mode[list(episodes)[-1]].threshold
    if name == "delta":
        sentence = sentence.replace("estimate of a coming fall", "worst margin to come").replace(
            "above ε", "not below δ"
        )
    return [_section("One episode", sentence, pair_plot(episodes, threshold, margin_unit, margins=name == "delta"))]


def _falls_sentence(by_mode: Mapping[str, RunRecord], summaries: Mapping[str, Summary]) -> str:
    parts = [f"{summary.falls} of {summary.episodes} {NAMES[mode]}" for mode, summary in summaries.items()]
    seeds = {frozenset(episode.seed for episode in run.episodes) for run in by_mode.values()}
    same = ", on the same seeds" if len(by_mode) == 2 and len(seeds) == 1 else ""
    return f"Episodes in which the robot fell{same}: {' and '.join(parts)}."


def _lengths_sentence(by_mode: Mapping[str, RunRecord], summaries: Mapping[str, Summary]) -> str:
    parts = [f"{summary.mean_steps:.0f} control periods {NAMES[mode]}" for mode, summary in summaries.items()]
    sentence = f"How long the robot kept going: on average {' and '.join(parts)}."
    if len(by_mode) == 2:
        before, after = ({e.seed: e.steps for e in run.episodes} for run in by_mode.values())
        shared = before.keys() & after.keys()
        longer, shorter = sum(after[s] > before[s] for s in shared), sum(after[s] < before[s] for s in shared)
        sentence += f" Of {len(shared)} seeds the shield made {longer} longer and {shorter} shorter."
    return sentence


def _decisions_sentence(summaries: Mapping[str, Summary]) -> str:
    mode, summary = list(summaries.items())[-1]
    sentence = "Left, how long a decision took; right, what was decided"
    if np.isnan(summary.interventions_per_step):
        return f"{sentence}: no decision is recorded."
    sentence += (
        f". {NAMES[mode].capitalize()}, {_percent(1.0 - summary.interventions_per_step, 1)} of the proposals passed"
    )
    p50, p99 = percentiles([each.decision_times for each in summaries.values()])
    return f"{sentence}; half of all decisions were made within {p50:.0f} µs, 99 % within {p99:.0f} µs."


def _frames(frames: Sequence[Frame]) -> str:
    figures = []
    for frame in frames:
        image = np.ascontiguousarray(frame.image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"frame {frame.caption!r}: expected (height, width, 3) uint8, got {image.shape} {image.dtype}"
            )
        buffer = io.BytesIO()
        imsave(buffer, image, format="png")
        caption = html.escape(frame.caption)
        picture = f'<img src="{inline(buffer.getvalue())}" alt="{caption}">'
        figures.append(f"<figure>{picture}<figcaption>{caption}</figcaption></figure>")
    return f'<div class="frames">{"".join(figures)}</div>'


def _facts(facts: Mapping[str, Any], by_mode: Mapping[str, RunRecord]) -> str:
    rows: dict[str, Any] = dict(facts)
    runs = by_mode.values()
    for name, _ in dict.fromkeys(run.threshold for run in runs):
        values = dict.fromkeys(f"{run.threshold[1]:g}" for run in runs if run.threshold[0] == name)
        rows.setdefault(name, ", ".join(values))
    rows.setdefault("bundle id", ", ".join(dict.fromkeys(run.bundle_id for run in runs if run.bundle_id)))
    cells = []
    for name, value in rows.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
        if text:
            cells.append(f"<tr><th>{html.escape(name)}</th><td><code>{html.escape(text)}</code></td></tr>\n")
    return f'<table class="facts">\n<tbody>\n{"".join(cells)}</tbody>\n</table>'


def _percent(fraction: float, digits: int = 0) -> str:
    return html.escape(percent(fraction, digits))
