"""Links of the pages: where they lead in the repository, and which line of a source a name is on. No MkDocs."""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Pages that lie at the top of the repository, and what they are called on the site.
TOP = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
# A link or an image: what stands before its target, the target without its anchor, the anchor.
LINK = re.compile(r"(\]\()(?![a-z]+:|/)([^)\s#]*)(#[^)\s]*)?(?=[)\s])")
FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1\s*$", re.MULTILINE | re.DOTALL)


def links(place: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield the target of every relative link of a page, as a path from the root, and its anchor without `#`.

    Args:
        place: path of the page from the root.
    """
    for match in LINK.finditer(FENCE.sub("", text)):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(place), match[2])) if match[2] else place
        yield target, (match[3] or "")[1:]


def outside_fences(text: str, change: Callable[[str], str]) -> str:
    """Return the text, changed wherever it is no fenced code."""
    parts, end = [], 0
    for match in FENCE.finditer(text):
        parts += [change(text[end : match.start()]), match[0]]
        end = match.end()
    return "".join([*parts, change(text[end:])])


def line_of(path: Path, name: str) -> int | None:
    """Return the line of a Python file that defines `name` (`Class.method` too); None: it defines none."""
    *classes, last = name.split(".")
    body: list[Any] = list(ast.parse(path.read_text()).body)
    for outer in classes:
        body = next((list(node.body) for node in body if isinstance(node, ast.ClassDef) and node.name == outer), [])
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        named = [getattr(node, "name", None), *(getattr(target, "id", None) for target in targets)]
        if last in named:
            return int(node.lineno)
    return None
