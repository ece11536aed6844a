"""The report of a robot that has learned on the job: one HTML file with a plot and tables, no outside resource."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from ssql_ros.processes.files import write_atomically
from ssql_ros.report.figures import drawn, inline
from ssql_ros.report.page import STYLESHEET

GAITS = "#d55e00"
BLUES = colormaps["Blues"]


def write_learning_page(path: Path, document: Mapping[str, Any]) -> Path:
    """Write the report.

    Args:
        document: walks (each with bundle_id, total_reward, velocity, steps, incident, interventions), swaps (episodes
            before, bundle_id, node), learner (its last diagnostics), first (id of the behaviour policy's bundle), and
            facts (command, seed, versions).

    Raises:
        FileExistsError: a report never overwrites another.
    """
    if path.exists():
        raise FileExistsError(f"{path}: exists already; a report never overwrites another")
    walks, first = document["walks"], document["first"]
    incidents, steps = sum(walk["incident"] for walk in walks), sum(walk["steps"] for walk in walks)
    by_bundle = {
        bundle: [walk for walk in walks if walk["bundle_id"] == bundle]
        for bundle in dict.fromkeys(walk["bundle_id"] for walk in walks)
    }
    rows = "".join(
        f"<tr><td>{html.escape(_name(bundle, first))}</td><td>{len(part)}</td>"
        f"<td>{np.mean([w['total_reward'] for w in part]):.1f}</td><td>{min(w['total_reward'] for w in part):.1f}</td>"
        f"<td>{np.mean([w['velocity'] for w in part]):.3f}</td><td>{sum(w['incident'] for w in part)}</td>"
        f"<td>{sum(w['interventions'] for w in part)}</td></tr>"
        for bundle, part in by_bundle.items()
    )
    swaps = "".join(
        f"<li>before episode {before + 1}: {html.escape(node)} took bundle {html.escape(bundle)}</li>"
        for before, bundle, node in document["swaps"]
    )
    told = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>"
        for name, value in document["learner"].items()
    )
    facts = {name: document[name] for name in ("command", "seed", "versions") if name in document}
    page = f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Learned on the job</title><style>{STYLESHEET.read_text()}</style></head>
<body><main>
<h1>Learned on the job: {incidents} incidents in {steps} steps</h1>
<p>The robot began with its safe gaits. What the learner made of what it saw took over behind the shield once it had
passed calibration, support and shadow evaluation.</p>
<img alt="Return of each episode, by the bundle that drove it" src="{inline(drawn(_plot(walks, first)))}">
<table><tr><th>driven by</th><th>episodes</th><th>mean return</th><th>least</th><th>velocity, m/s</th><th>incidents</th>
<th>interventions</th></tr>{rows}</table>
<h2>Swaps</h2><ul>{swaps or "<li>none: no policy has passed every gate in this time</li>"}</ul>
<h2>The learner, in the end</h2><table>{told}</table>
<h2>How this was made</h2><pre>{html.escape(json.dumps(facts, indent=1))}</pre>
</main></body></html>
"""
    write_atomically(path, page.encode())
    return path


def _name(bundle: str, first: str) -> str:
    if bundle == first:
        return "safe gaits"
    return f"swapped on the way ({bundle})" if "->" in bundle else f"learned {bundle}"


def _plot(walks: list[Mapping[str, Any]], first: str) -> Figure:
    """Return a plot: the return of each episode by its bundle, with their means; incidents crossed out."""
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    axes = figure.subplots()
    learned = [
        bundle for bundle in dict.fromkeys(w["bundle_id"] for w in walks) if bundle != first and "->" not in bundle
    ]
    mixed = [k for k, walk in enumerate(walks) if "->" in walk["bundle_id"]]
    for bundle in ([first] if any(walk["bundle_id"] == first for walk in walks) else []) + learned:
        at = [k for k, walk in enumerate(walks) if walk["bundle_id"] == bundle]
        # Later ones darker: there may be many, and their order is what matters.
        colour = GAITS if bundle == first else BLUES(0.4 + 0.6 * (learned.index(bundle) + 1) / len(learned))
        rewards = [walks[k]["total_reward"] for k in at]
        name = "safe gaits" if bundle == first else f"learned, round {learned.index(bundle) + 1}"
        axes.plot([k + 1 for k in at], rewards, "o", color=colour, label=name)
        axes.hlines(np.mean(rewards), at[0] + 0.6, at[-1] + 1.4, color=colour, linewidth=1.2)
    if mixed:
        rewards = [walks[k]["total_reward"] for k in mixed]
        axes.plot([k + 1 for k in mixed], rewards, "o", color="black", fillstyle="none", label="swapped on the way")
    fallen = [k for k, walk in enumerate(walks) if walk["incident"]]
    if fallen:
        axes.plot([k + 1 for k in fallen], [walks[k]["total_reward"] for k in fallen], "kx", label="incident")
    axes.set_xlabel("episode")
    axes.set_ylabel("return")
    axes.set_ylim(bottom=min(0.0, min(walk["total_reward"] for walk in walks)))
    figure.legend(loc="outside right upper", fontsize="small")
    return figure
