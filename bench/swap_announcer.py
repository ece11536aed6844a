"""Announces the bundles that its standard input names, line by line; for `ssql bench swap`.

A process of its own, as a learner is: reading and sending a file must not disturb the pace of who drives the robot.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from ssql_ros.model.announcement import Purpose
from ssql_ros.ros.announcer import AnnouncerNode


def main() -> int:
    """Announce until the input ends, signed with the key that the argument names.

    A line: contract id, "path" or "data", path, with tabs between.
    """
    with suppress(KeyboardInterrupt), AnnouncerNode("bench swap", sys.argv[1]) as node:
        for line in sys.stdin:
            contract_id, how, path = line.rstrip("\n").split("\t")
            node.announcer.announce(Path(path), contract_id, how == "data", purpose=Purpose.BOTH)
    return 0


if __name__ == "__main__":
    sys.exit(main())
