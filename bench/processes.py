"""Processes that a benchmark starts, and ends with it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Sequence

from ssql_ros.graph.processes import GraphError, end
from ssql_ros.processes import lifeline


class Processes:
    """Node processes with a command line each; use as a context manager. What they print goes to this terminal."""

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, name: str, command: Sequence[str]) -> int:
        """Start a process and return its id."""
        # A session of its own: Ctrl-C reaches this process only, which then ends the others in order.
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
            env=lifeline.environment(),
        )
        self._processes[name] = process
        return process.pid

    def check(self) -> None:
        """Raise GraphError when a process has ended by itself."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise GraphError(f"{name} ended by itself with status {process.returncode}")

    def tell(self, name: str, line: str) -> None:
        """Write a line to a process's standard input."""
        stdin = self._processes[name].stdin
        assert stdin is not None  # every process is started with one
        stdin.write(f"{line}\n")
        stdin.flush()

    def stop(self, name: str, seconds: float = 10.0) -> None:
        """End one process: politely, and after `seconds` by force."""
        process = self._processes.pop(name)
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        end(process, seconds)

    def __enter__(self) -> Processes:
        """Return this."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all processes."""
        for name in list(self._processes):
            self.stop(name)
