"""The learner's own process: trains on the buffer, judges what it has learned, and offers what passes.

    python -m ssql_ros.live.worker FOLDER

Reads FOLDER/live.json and the chunks in FOLDER/buffer; takes one word a line on standard input (pause, resume, train,
export, stop; end of file is stop), and writes one JSON object a line on standard output. It knows nothing of ROS: who
feeds it may be killed, and it may be, and neither harms the other.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ssql_ros.live.learner import LiveLearner
from ssql_ros.live.settings import claim, read_settings

IDLE = 0.1  # s
PARENT_CHECK = 1.0  # s


def tell(message: dict[str, Any]) -> None:
    """Write one line on standard output."""
    print(json.dumps({k: None if v != v else v for k, v in message.items()}), flush=True)


def _tell_problem(words: str) -> None:
    tell({"event": "problem", "words": words})


class Commands:
    """Words from standard input, one a line."""

    def __init__(self) -> None:
        self._rest, self._words, self._ended = b"", list[str](), False

    def next(self, timeout: float) -> str | None:
        """Return a word, "" where none came in `timeout` s, None at the end of the input."""
        if not self._words and not self._ended and select.select([0], [], [], timeout)[0]:
            data = os.read(0, 4096)
            self._ended = not data
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._words += [line.decode(errors="replace").strip() for line in lines]
        if self._words:
            return self._words.pop(0)
        return None if self._ended else ""


def serve(learner: LiveLearner) -> None:
    """Learn until told to stop, or until nobody is there to be told anything."""
    parent, looked, commands = os.getppid(), time.monotonic(), Commands()
    while True:
        new = learner.take_in()
        told = learner.step()
        for message in told:
            tell(message)
        if new and not told:
            tell(learner.progress())
        word = commands.next(0.0 if told else IDLE)
        if time.monotonic() - looked > PARENT_CHECK:
            looked = time.monotonic()
            if os.getppid() != parent:
                word = None
        if word is None or word == "stop":
            return
        if word in ("pause", "resume"):
            learner.paused = word == "pause"
            tell(learner.progress())
        elif word == "train":
            learner.asked = True
        elif word == "export":
            tell(learner.export())
        elif word:
            _tell_problem(f"unknown command {word!r}")


def main() -> int:
    """Run the learner."""
    torch.set_num_threads(1)
    with contextlib.suppress(OSError):
        os.nice(10)  # what drives the robot comes first
    folder = Path(sys.argv[1])
    try:
        # One that is left over from a learner that was killed ends its step, and writes its checkpoint, first.
        _lock = claim(folder / "worker.lock", wait=True)
        learner = LiveLearner(folder, read_settings(folder / "live.json"), _tell_problem)
    except (ValueError, OSError) as error:
        _tell_problem(str(error))
        return 2
    with contextlib.suppress(BrokenPipeError):  # who started it has been killed
        serve(learner)
        learner.save()
        return 0
    # What is told from now on reaches nobody.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    learner.save()
    return 0


if __name__ == "__main__":
    sys.exit(main())
