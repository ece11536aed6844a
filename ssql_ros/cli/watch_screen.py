"""The screen of `ssql watch`."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import App, ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Footer, Header, Sparkline, Static

if TYPE_CHECKING:
    from ssql_ros.ros.overview import Overview, Robot

COLOURS = {
    "passed": "green",
    "resampled": "cyan",
    "least_risk": "yellow",
    "backup": "yellow",
    "held": "red",
    "fault": "magenta",
}
BAR = 30  # characters of a full bar


class WatchScreen(App[None]):
    """Shows one robot at a time.

    Args:
        every: s, between two views; the domain is heard in between.
        seconds: ends after so long.
        domain: number of the ROS domain, for the title.
    """

    CSS = """
    #head { height: auto; padding: 0 1; }
    #score { height: 4; margin: 0 1; }
    #scale { height: 1; padding: 0 1; color: $text-muted; }
    #middle { height: auto; }
    #decisions { width: 58; height: auto; padding: 0 1; }
    #why { height: auto; padding: 0 1; }
    #topics { height: auto; padding: 0 1; }
    """
    BINDINGS: ClassVar = [
        ("q", "quit", "end"),
        ("n,right,down", "turn(1)", "next robot"),
        ("left,up", "turn(-1)", "robot before"),
        ("t", "topics", "topics"),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, overview: Overview, every: float, seconds: float, domain: str) -> None:
        super().__init__()
        self.title, self.sub_title = "ssql watch", f"ROS_DOMAIN_ID {domain}"
        self._overview, self._every, self._end = overview, every, time.monotonic() + seconds
        self._at, self._with_topics = 0, True

    def compose(self) -> ComposeResult:
        """Return the widgets, from top to bottom."""
        yield Header()
        with VerticalScroll():
            yield Static(id="head")
            yield Sparkline([0.0], id="score")
            yield Static(id="scale")
            with Horizontal(id="middle"):
                yield Static(id="decisions")
                yield Static(id="why")
            yield Static(id="topics")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to hear."""
        self.set_interval(self._every, self._refresh)
        self._refresh()

    def action_turn(self, by: int) -> None:
        """Show another robot."""
        self._at += by
        self._show()

    def action_topics(self) -> None:
        """Show who publishes what, or do not."""
        self._with_topics = not self._with_topics
        self._show()

    def _refresh(self) -> None:
        # Between two keys: rclpy is asked in this thread, for a moment.
        self._overview.hear(0.1)
        if time.monotonic() > self._end:
            self.exit()
        self._show()

    def _show(self) -> None:
        robots = sorted(self._overview.robots.values(), key=lambda robot: robot.namespace)
        if not self.is_running or not self.query("#head"):
            return  # a view that comes when the screen is going
        if not robots:
            self.query_one("#head", Static).update("No shield yet: no topic …/shield_node/state in this domain.")
            return
        robot = robots[self._at % len(robots)]
        told = robot.summary(time.monotonic())
        self.query_one("#head", Static).update(_head(told, self._at % len(robots), len(robots)))
        scores, limit = [value for value in robot.scores if not math.isnan(value)], told["epsilon"]
        self.query_one(Sparkline).data = scores or [0.0]
        self.query_one("#scale", Static).update(_scale(scores, limit if limit is not None else told["delta"]))
        self.query_one("#decisions", Static).update(_decisions(told))
        self.query_one("#why", Static).update(_reasons(robot))
        self.query_one("#topics", Static).update(_topics(robot) if self._with_topics else "")


def _head(told: dict[str, Any], at: int, count: int) -> Table:
    table = Table.grid(padding=(0, 3))
    mode = told["mode"] or "not heard yet"
    good = mode == "enforce" and not told["fault"]
    which = f"{told['namespace']}  ({at + 1} of {count})" if count > 1 else told["namespace"]
    limit = told["epsilon"] if told["epsilon"] is not None else told["delta"]
    table.add_row(
        Text(which, "bold"),
        Text(mode, "bold green" if good else "bold red"),
        f"bundle {told['bundle'] or 'none'}",
        "no threshold" if limit is None else f"threshold {limit:g}",
        told["contract"] or "",
    )
    times = "no decision in the last 10 s"
    if told["decision_ms_p50"] is not None:
        p50, p99 = told["decision_ms_p50"], told["decision_ms_p99"]
        times = f"{told['rate_hz']:.1f} Hz, decision {p50:.2f} ms (p99 {p99:.2f})"
    notes = [f"{told['missed_periods']} periods missed" if told["missed_periods"] else ""]
    notes += [
        "an operator has the robot" if told["taken_over"] else "",
        "OUT OF DOMAIN" if told["out_of_domain"] else "",
    ]
    margin = "" if told["margin"] is None else f"margin {told['margin']:.3g}"
    table.add_row(times, margin, f"incidents {told['incidents'] or 0}", Text("  ".join(filter(None, notes)), "yellow"))
    if told["fault"]:
        table.add_row(Text(f"FAULT latched: {told['fault']}", "bold white on red"))
    return table


def _scale(scores: list[float], limit: float | None) -> str:
    if not scores:
        return "q_safe: not scored yet"
    beyond = "" if limit is None else f", {sum(score > limit for score in scores)} of them above the threshold"
    low, high = min(scores), max(scores)
    return f"q_safe of the last {len(scores)} proposals, {low:.3g} to {high:.3g}, now {scores[-1]:.3g}{beyond}"


def _decisions(told: dict[str, Any]) -> Table:
    total = sum(told["decisions"].values())
    table = Table("last 10 s", "", "", box=None, pad_edge=False, title_justify="left")
    for name, colour in COLOURS.items():
        count = told["decisions"].get(name, 0)
        share = count / total if total else 0.0
        bar = "█" * math.ceil(share * BAR)
        table.add_row(Text(name, colour if count else "dim"), Text(bar, colour), f"{count} ({share:.0%})")
    return table


def _reasons(robot: Robot) -> Table:
    table = Table("why, newest first", box=None, pad_edge=False)
    for reason, times in robot.reasons:
        table.add_row(f"{reason}{f'  (×{times})' if times > 1 else ''}")
    if not robot.reasons:
        table.add_row("every proposal has passed")
    return table


def _topics(robot: Robot) -> Table:
    table = Table("topic", "published by", "heard by", "type", box=None, pad_edge=False)
    for name, (kind, publishers, hearers) in robot.topics.items():
        if name.endswith(("/rosout", "/parameter_events", "_transport")) or not (publishers or hearers):
            continue
        who = Text(", ".join(publishers) or "nobody", "" if publishers else "dim")
        table.add_row(name, who, ", ".join(hearers), Text(kind, "dim"))
    return table
