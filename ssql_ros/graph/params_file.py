"""Parameter files of ROS as the launch files read them: which of their values are for which node."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ssql_ros.graph.processes import NAMES

_VALUES = "ros__parameters"


class ParamsFileError(ValueError):
    """A parameter file cannot be read; the text names it, what was expected, what came."""


class ParamsFile:
    """The values of one file, by node.

    Args:
        path: YAML as `ros2 param dump` writes it: node names, and below each `ros__parameters`.

    Raises:
        ParamsFileError: it cannot be read, or holds nothing for any node of this package.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            tree = yaml.safe_load(Path(path).read_text())
        except OSError as error:
            raise ParamsFileError(f"{path}: cannot be read: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ParamsFileError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
        self._sections = list(_sections(tree, "", str(path)))
        names = [name.rpartition("/")[2] for name, _ in self._sections]
        if not any("*" in name or name in NAMES for name in names):
            close = [match for name in names for match in difflib.get_close_matches(name, NAMES, 1)]
            advice = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(NAMES)}, or /**"
            raise ParamsFileError(
                f"{path}: is for no node of this package: it has {', '.join(names) or 'none'}; {advice}"
            )

    def values(self, node: str, namespace: str = "") -> dict[str, Any]:
        """Return a node's values. What names the node goes before what a wildcard gives.

        A name without a slash is the node's in any namespace, so that one file serves several robots.
        """
        full = "/".join(["", *filter(None, namespace.split("/")), node])
        fitting = [section for section in self._sections if _fits(section[0], full)]
        found: dict[str, Any] = {}
        for _, values in sorted(fitting, key=lambda section: "*" not in section[0]):
            found |= values
        return found


def _fits(name: str, full: str) -> bool:
    if not name.startswith("/"):
        return f"/{full}".endswith(f"/{name}")
    # /** is any number of names, /* is one.
    pattern = re.escape(name).replace(r"/\*\*", "(/.*)?").replace(r"\*", "[^/]*")
    return re.fullmatch(pattern, full) is not None


def _sections(tree: Any, prefix: str, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield node names, as they stand, and their values; namespaces may be levels of their own."""
    where = prefix or "the file"
    if not isinstance(tree, Mapping):
        raise ParamsFileError(f"{path}: {where}: expected node names and {_VALUES}, got {tree!r}")
    for key, below in tree.items():
        if key != _VALUES:
            yield from _sections(below, f"{prefix}/{str(key).strip('/')}" if prefix else str(key), path)
        elif not isinstance(below, Mapping) or not prefix:
            raise ParamsFileError(f"{path}: {where}: {_VALUES}: expected a node's name above, parameters below")
        else:
            yield prefix, dict(below)
