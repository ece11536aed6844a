"""Message definitions: the standard ones of ROS 2 Jazzy, others from the .msg files that are installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, TypesysError, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from ssql_ros.bags.bounds import check_types

SEPARATOR = "=" * 80 + "\n"


class BagError(ValueError):
    """A bag cannot be written or read; the text names the file or the type, and what to do."""


@dataclass(frozen=True)
class Definition:
    """A message type as a bag holds it: its definition with those of its parts, and its RIHS01 hash."""

    text: str
    digest: str


class Definitions:
    """Looks message definitions up and keeps those that were asked for.

    Attributes:
        store: type store of `rosbags` with every type that was added.
    """

    def __init__(self) -> None:
        self.store: Typestore = get_typestore(Stores.ROS2_JAZZY)
        self._texts: dict[str, str] = {}

    def add(self, type_name: str) -> None:
        """Make `type_name` (such as ssql_ros/msg/Proposal) and the types that it is made of known to `store`.

        Raises:
            BagError: no definition was found, or it cannot be read.
        """
        if type_name in self.store.fielddefs:
            return
        path = _definition_file(type_name)
        try:
            text = path.read_text(encoding="utf-8")
            types = get_types_from_msg(text, type_name)
            for part in _parts(types[type_name][1]):
                self.add(part)
            self.store.register(types)
        except (OSError, UnicodeDecodeError, TypesysError) as error:
            raise BagError(f"{path}: the definition of {type_name} cannot be read: {error}") from error
        self._texts[type_name] = text

    def definition(self, type_name: str) -> Definition:
        """Return the definition of a type. Raises BagError as `add` does."""
        self.add(type_name)
        text, _ = self.store.generate_msgdef(type_name, ros_version=2)
        if type_name in self._texts:
            # The file's own text has the comments: the unit of every field.
            _, separator, parts = text.partition(SEPARATOR)
            text = f"{self._texts[type_name].rstrip()}\n{separator}{parts}"
        return Definition(text, self.store.hash_rihs01(type_name))


def store_of(definitions: Iterable[tuple[str, str]], source: Path) -> Typestore:
    """Return a type store for the types of a bag.

    Args:
        definitions: (type name, its definition as the bag has it); empty where it has none, and the one that is
            installed serves.
        source: the bag, for error texts.

    Raises:
        BagError: a definition cannot be read, or a type is unknown.
    """
    parsed: dict[str, Any] = {}
    definitions = list(definitions)
    for name, text in definitions:
        try:
            if text:
                parsed.update(get_types_from_msg(text, name))
            else:
                installed = Definitions()
                installed.add(name)
                parsed = {**_with_parts(name, installed.store.fielddefs), **parsed}
        except (BagError, TypesysError, ValueError, RecursionError) as error:
            what = "cannot be read" if text else "is not in the bag"
            raise BagError(f"{source}: the definition of the type {name[:80]} {what}: {str(error)[:500]}") from error
    store = get_typestore(Stores.EMPTY)
    try:
        check_types(parsed)
        store.register(parsed)
        # Code is made of each when it is first used: what cannot be is said here.
        for name, _ in definitions:
            store.get_msgdef(name)
    except Exception as error:  # what Python says of code that cannot be made is of many kinds
        raise BagError(f"{source}: its definitions of types cannot be used: {str(error)[:500]}") from error
    return store


def _with_parts(name: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return a type and the types that it is made of: code is made for each, so no others."""
    found: dict[str, Any] = {}
    wanted = [name]
    while wanted:
        if (each := wanted.pop()) not in found:
            found[each] = known[each]
            wanted += _parts(known[each][1])
    return found


def _parts(fields: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """Yield the message types among the fields of a parsed definition."""
    for _, (kind, value) in fields:
        while kind in (Nodetype.ARRAY, Nodetype.SEQUENCE):
            kind, value = value[0]  # the element's
        if kind == Nodetype.NAME:
            yield value


def _definition_file(type_name: str) -> Path:
    """Return the .msg file of a type: an overlay's, the interpreter's prefix's, or that of our own sources."""
    package, kind, name = [*type_name.split("/"), "", ""][:3]
    if kind != "msg" or not name:
        raise BagError(f"the type {type_name} is not a message (package/msg/Name)")
    prefixes = [prefix for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    folders = [Path(prefix) / "share" / package / "msg" for prefix in dict.fromkeys((*prefixes, sys.prefix))]
    if package == "ssql_ros":
        folders.append(Path(__file__).resolve().parents[2] / "msg")
    for folder in folders:
        path = folder / f"{name}.msg"
        if path.is_file():
            return path
    raise BagError(f"no definition of the type {type_name} is installed; looked in {', '.join(map(str, folders))}")
