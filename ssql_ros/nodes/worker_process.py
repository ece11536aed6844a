"""The learner's worker as its node sees it: started, heard, told, and started again when it dies."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from ssql_ros.processes.missing import need

# The worker imports it; this process does without, but is of no use where there is none.
need("torch")

PAUSES = (2.0, 4.0, 8.0, 16.0, 32.0, 60.0)  # s, before a worker that has died again and again is started again
LIVED = 120.0  # s, after which its death is the first one again
ANSWER = 30.0  # s, that a worker may take to export


class WorkerProcess:
    """Keeps one worker running on a folder.

    Attributes:
        restarts: how often it was started again.
    """

    def __init__(self, folder: Path, logger: Any) -> None:
        self.restarts = 0
        self._folder, self._logger = folder, logger
        self._lock = threading.Lock()
        self._told: deque[dict[str, Any]] = deque()
        self._export: dict[str, Any] = {}
        self._exported = threading.Event()
        self._retry_at, self._deaths, self._closing = 0.0, 0, False
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-m", "ssql_ros.live.worker", str(self._folder)]
        self._started = time.monotonic()
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._hear, args=(self._process,), name="worker", daemon=True).start()

    def _hear(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                told = json.loads(line)
                event = told["event"]
            except (ValueError, KeyError, TypeError):
                continue  # what it prints beside its reports is no report
            with self._lock:
                if event == "exported":
                    self._export = told
                    self._exported.set()
                self._told.append(told)

    @property
    def ended(self) -> bool:
        """Tell whether there is none at the moment."""
        return self._process.poll() is not None

    def told(self) -> list[dict[str, Any]]:
        """Return what it has told since the last call; start it again where it has ended."""
        with self._lock:
            told, self._told = list(self._told), deque()
        if self.ended and not self._closing:
            self._revive()
        return told

    def _revive(self) -> None:
        now = time.monotonic()
        if not self._retry_at:
            self._deaths = 1 if now - self._started > LIVED else self._deaths + 1
            pause = PAUSES[min(self._deaths, len(PAUSES)) - 1]
            self._retry_at = now + pause
            self._logger.error(
                f"the worker has ended with status {self._process.returncode}; it is started again in {pause:g} s"
            )
        elif now >= self._retry_at:
            self._retry_at = 0.0
            self._start()
            self.restarts += 1

    def say(self, word: str) -> bool:
        """Tell it a word; return whether it was there to hear it."""
        stdin = self._process.stdin
        if stdin is None or self.ended:
            return False
        try:
            stdin.write(word + "\n")
            stdin.flush()
        except (OSError, ValueError):
            return False
        return True

    def export(self) -> dict[str, Any]:
        """Have it export; return what it tells of that, with `path` empty where nothing came of it.

        It answers between two slices of learning: some tenths of a second, of the caller's time alone.
        """
        self._exported.clear()
        if not self.say("export"):
            return {"path": "", "words": "the worker is not running"}
        if not self._exported.wait(ANSWER):
            return {"path": "", "words": f"the worker has not answered within {ANSWER:g} s"}
        with self._lock:
            return self._export

    def close(self) -> None:
        """Let it save and end."""
        self._closing = True
        if self.say("stop"):
            try:
                self._process.wait(20.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
