"""Options that many verbs have, spelled once."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_seed(parser: argparse.ArgumentParser, of: str) -> None:
    """Add --seed; `of`: what it is the seed of, in words."""
    parser.add_argument("--seed", type=int, default=0, help=f"{of} (default: %(default)s)")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Add --quiet."""
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def add_results(parser: argparse.ArgumentParser) -> None:
    """Add --results, the folder of tables and pictures."""
    parser.add_argument("--results", type=Path, default=Path("docs/results"), help="(default: %(default)s)")
