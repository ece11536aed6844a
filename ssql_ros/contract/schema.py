"""Reads YAML mappings strictly: unknown, missing and duplicate keys are errors that name their place."""

from __future__ import annotations

import difflib
import reprlib
import sys
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml


class ContractError(ValueError):
    """A contract, or data that claims to follow it, is not as expected; the text names where."""


MAX_BYTES = 2**20  # of a contract; those that are shipped have 2 to 20 thousand
MAX_DEPTH = 32  # of lists and mappings in each other
MAX_NODES = 200_000  # of a document, with everything that its aliases repeat
LONGEST = 1e9  # s


class BoundedLoader(yaml.SafeLoader):
    """SafeLoader that gives up on what nests too deep, or grows by aliases of aliases, before it costs anything."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = self._nodes = 0
        self._sizes: dict[str, int] = {}  # nodes, by anchor

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        """Refuse [[[[ here: PyYAML's scanner takes a time for each that grows with how many are open."""
        if self.flow_level >= MAX_DEPTH:
            raise yaml.YAMLError(f"nests more than {MAX_DEPTH} levels deep")
        super().fetch_flow_collection_start(TokenClass)

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Count what an alias stands for as if it were written out."""
        event: Any = self.peek_event()
        alias, anchor = isinstance(event, yaml.AliasEvent), event.anchor
        before, self._depth = self._nodes, self._depth + 1
        self._nodes += self._sizes.get(anchor, 1) if alias else 1
        if self._depth > MAX_DEPTH:
            raise yaml.YAMLError(f"nests more than {MAX_DEPTH} levels deep")
        if self._nodes > MAX_NODES:
            raise yaml.YAMLError(f"has more than {MAX_NODES} values, counting those that aliases repeat")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if anchor is not None and not alias:
            self._sizes[anchor] = self._nodes - before
        return node


class _UniqueKeyLoader(BoundedLoader):
    """SafeLoader that refuses a key given twice, where YAML would silently keep the last one."""


def _construct_unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode, deep: bool = False) -> dict:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, f"{shown(key)} cannot be a key", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {shown(key)} is given twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=deep)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_unique_mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping from `path`.

    Raises:
        ContractError: the file is missing, not YAML, or not a mapping.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ContractError(f"{path}: cannot be read: {error.strerror or error}") from error
    return parse_yaml(data, path)


def parse_yaml(data: bytes, path: Path) -> dict[str, Any]:
    """Return the mapping of a YAML file's content. `path`: what error texts call it. Raises ContractError."""
    if len(data) > MAX_BYTES:
        raise ContractError(f"{path}: has {len(data)} bytes, at most {MAX_BYTES} are read")
    try:
        # The loader is a SafeLoader: it builds plain Python values only.
        document = yaml.load(data.decode("utf-8"), Loader=_UniqueKeyLoader)
    except UnicodeDecodeError as error:
        raise ContractError(f"{path}: is not UTF-8 text: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # PyYAML itself lets a ValueError through for a date or a number that cannot be, and recurses once a level.
        raise ContractError(f"{path}: is not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise ContractError(f"{path}: expected a mapping at the top, got {type(document).__name__}")
    return document


class _Short(reprlib.Repr):
    """What came, in a few words: it may be as large as a file, and by aliases far larger."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxdict, self.maxstring, self.maxother = 3, 8, 4, 120, 120

    def repr_int(self, x: int, level: int) -> str:
        """Return a number; Python itself refuses to write one of more than 4300 digits."""
        return repr(x) if x.bit_length() < 256 else f"a whole number of {x.bit_length()} bits"


shown = _Short().repr


def _is_finite_number(value: Any) -> bool:
    # Compared, not math.isfinite: YAML gives whole numbers of any length, which no float can hold.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


class Section:
    """One mapping of a YAML file with its place in it, so that every error can say where.

    Args:
        mapping: the YAML value that should be a mapping.
        where: file and place, e.g. ``config/minitaur/contract.yaml: observation.frame[3]``.
        required: keys that must be there.
        optional: keys that may be there.

    Raises:
        ContractError: not a mapping, a missing key, or an unknown one (with the nearest known name).
    """

    def __init__(self, mapping: Any, where: str, required: Iterable[str], optional: Iterable[str] = ()) -> None:
        if not isinstance(mapping, Mapping):
            raise ContractError(f"{where}: expected a mapping, got {shown(mapping)}")
        required, known = list(required), [*required, *optional]
        for key in mapping:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1) if isinstance(key, str) and len(key) < 100 else []
                hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(known)}"
                raise ContractError(f"{where}: unknown key {shown(key)}{hint}")
        for key in required:
            if key not in mapping:
                raise ContractError(f"{where}: key {key!r} is missing")
        self._mapping = mapping
        self._where = where

    def place(self, key: str) -> str:
        """Return where `key` stands, for error texts."""
        return f"{self._where}.{key}" if not self._where.endswith(": ") else f"{self._where}{key}"

    def error(self, key: str, text: str) -> ContractError:
        """Return an error at `key`."""
        return ContractError(f"{self.place(key)}: {text}")

    def has(self, key: str) -> bool:
        """Tell whether an optional key was given."""
        return key in self._mapping

    def raw(self, key: str) -> Any:
        """Return the value as YAML gave it."""
        return self._mapping.get(key)

    def number(self, key: str, default: float | None = None, *, positive: bool = False) -> float:
        """Return a finite number; `positive` also asks for > 0."""
        value = self._mapping.get(key, default)
        if not _is_finite_number(value):
            raise self.error(key, f"expected a finite number, got {shown(value)}")
        if positive and value <= 0:
            raise self.error(key, f"expected a number above 0, got {shown(value)}")
        return float(value)

    def seconds(self, key: str, default: float | None = None) -> float:
        """Return a time in s that whole nanoseconds can say."""
        value = self.number(key, default, positive=True)
        if not 1e-9 <= value <= LONGEST:
            raise self.error(key, f"expected a time from 1e-09 to {LONGEST:g} s, got {shown(value)}")
        return value

    def count(self, key: str) -> int:
        """Return a whole number of at least 1."""
        value = self._mapping.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.error(key, f"expected a whole number of at least 1, got {shown(value)}")
        return value

    def text(self, key: str, choices: Iterable[str] | None = None, default: str | None = None) -> str:
        """Return a non-empty string, one of `choices` where they are given."""
        value = self._mapping.get(key, default)
        if not isinstance(value, str) or not value:
            raise self.error(key, f"expected a name, got {shown(value)}")
        if choices is not None and value not in (known := list(choices)):
            raise self.error(key, f"expected one of {', '.join(known)}; got {shown(value)}")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        """Return true or false."""
        value = self._mapping.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"expected true or false, got {shown(value)}")
        return value

    def items(self, key: str) -> list[Any]:
        """Return a list with at least one entry."""
        value = self._mapping.get(key)
        if not isinstance(value, list) or not value:
            raise self.error(key, f"expected a list with at least one entry, got {shown(value)}")
        return value

    def numbers(self, key: str) -> list[float]:
        """Return a list of finite numbers."""
        values = self.items(key)
        for value in values:
            if not _is_finite_number(value):
                raise self.error(key, f"expected finite numbers only, got {shown(value)}")
        return [float(value) for value in values]

    def weights(self, key: str, names: Iterable[str]) -> dict[str, float]:
        """Return a mapping of known names to finite numbers: a weighted sum."""
        value, known = self._mapping.get(key), list(names)
        if not isinstance(value, Mapping) or not value:
            raise self.error(key, f"expected a mapping of names to numbers, got {shown(value)}")
        section = Section(value, self.place(key), required=(), optional=known)
        return {name: section.number(name) for name in value}
