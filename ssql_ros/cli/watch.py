"""`ssql watch`: what the shields of this ROS domain do, live, in a terminal or as lines for machines."""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssql_ros.ros.overview import Overview

EVERY = 0.5  # s, between two views


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "watch",
        help="see what the shields on the ROS graph do, live",
        description="Finds every shield of this ROS domain and shows, robot by robot: mode, bundle and threshold, rate "
        "and time of decisions, q_safe over time against the threshold, what was decided in the last ten seconds and "
        "why, faults and incidents, and who publishes what. It publishes nothing, and calls nothing. Keys: q ends it, "
        "n or the arrows show the next robot, t shows topics. With --json a line a robot and second, for machines.",
    )
    parser.add_argument(
        "--namespace", nargs="+", default=[], metavar="NAME", help="only these robots' (default: all of the domain)"
    )
    parser.add_argument("--seconds", type=float, default=math.inf, help="end after so long (default: never)")
    parser.add_argument("--json", action="store_true", help="a line of JSON a robot and second, in place of the screen")
    parser.set_defaults(run=_watch)


def _watch(options: argparse.Namespace) -> int:
    from ssql_ros.processes.missing import need, need_ros

    need_ros("ssql watch")
    if not options.seconds > 0.0:
        raise ValueError(f"--seconds: expected a number above 0, got {options.seconds}")
    if not options.json:
        need("textual")
    from ssql_ros.ros.overview import Overview

    with Overview(options.namespace) as overview:
        if options.json:
            _lines(overview, options.seconds)
            return 0
        from ssql_ros.cli.watch_screen import WatchScreen

        WatchScreen(overview, EVERY, options.seconds, os.environ.get("ROS_DOMAIN_ID", "0")).run()
    return 0


def _lines(overview: Overview, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0.0:
        overview.hear(min(1.0, left))
        for _, robot in sorted(overview.robots.items()):
            print(json.dumps(robot.summary(time.monotonic())), flush=True)
