"""What a live learner has offered, round by round, on disk: bundles, and what became of them."""

from __future__ import annotations

import json
from pathlib import Path


def offered_rounds(folder: Path) -> dict[int, Path]:
    """Return what was offered from a learner's folder, by the number of its round, oldest first."""
    found = (folder / "offered").glob("round_*.safetensors")
    return dict(sorted((int(path.stem[6:]), path) for path in found if path.stem[6:].isdigit()))


def answers_path(offered: Path) -> Path:
    """Return the file that says what the receivers made of an offer."""
    return offered.parent.parent / "answers" / f"{offered.stem}.json"


def in_service(folder: Path) -> Path | None:
    """Return the newest offer that was not refused by whoever serves policies; None: there is none."""
    for path in reversed(offered_rounds(folder).values()):
        try:
            refused = json.loads(answers_path(path).read_text())["refused"]
        except (OSError, ValueError, KeyError, TypeError):
            refused = False  # nobody has answered yet
        if not refused:
            return path
    return None
