"""Processes that a benchmark starts, and ends with it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssql_ros.graph.processes import Graph


class Processes(Graph):
    """Nodes, and programs beside this file, each with an input. What they say of problems goes to this terminal, or
    all of it to their logs.
    """

    def run(self, name: str, command: Sequence[str], **options: Any) -> None:
        """Start a process."""
        if self._logs is None:
            options = {"stdout": subprocess.DEVNULL, **options}
        super().run(name, command, stdin=subprocess.PIPE, text=True, **options)

    def program(self, name: str, *arguments: str) -> None:
        """Start the program NAME.py of this folder."""
        self.run(name, [sys.executable, str(Path(__file__).with_name(f"{name}.py")), *arguments])

    def tell(self, name: str, line: str) -> None:
        """Write a line to a process's standard input."""
        stdin = self.processes[name].stdin
        assert stdin is not None  # every process is started with one
        stdin.write(f"{line}\n")
        stdin.flush()

    def stop(self, name: str, seconds: float = 10.0) -> None:
        """End one process: its input first, then politely, and after `seconds` by force."""
        stdin = self.processes[name].stdin
        assert stdin is not None
        with contextlib.suppress(OSError):
            stdin.close()
        super().stop(name, seconds)
