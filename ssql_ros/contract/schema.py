"""Reads YAML mappings strictly: unknown, missing and duplicate keys are errors that name their place."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml


class ContractError(ValueError):
    """A contract, or data that claims to follow it, is not as expected; the text names where."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, where YAML would silently keep the last one."""


def _construct_unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode, deep: bool = False) -> dict:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, f"{key!r} cannot be a key", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=deep)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_unique_mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping from `path`.

    Raises:
        ContractError: the file is missing, not YAML, or not a mapping.
    """
    try:
        # The loader is a SafeLoader: it builds plain Python values only.
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except OSError as error:
        raise ContractError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ContractError(f"{path}: is not UTF-8 text: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # PyYAML itself lets a ValueError through for a date or a number that cannot be, and recurses once a level.
        raise ContractError(f"{path}: is not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise ContractError(f"{path}: expected a mapping at the top, got {type(document).__name__}")
    return document


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
            raise ContractError(f"{where}: expected a mapping, got {mapping!r}")
        required, known = list(required), [*required, *optional]
        for key in mapping:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(known)}"
                raise ContractError(f"{where}: unknown key {key!r}{hint}")
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
            raise self.error(key, f"expected a finite number, got {value!r}")
        if positive and value <= 0:
            raise self.error(key, f"expected a number above 0, got {value!r}")
        return float(value)

    def count(self, key: str) -> int:
        """Return a whole number of at least 1."""
        value = self._mapping.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.error(key, f"expected a whole number of at least 1, got {value!r}")
        return value

    def text(self, key: str, choices: Iterable[str] | None = None, default: str | None = None) -> str:
        """Return a non-empty string, one of `choices` where they are given."""
        value = self._mapping.get(key, default)
        if not isinstance(value, str) or not value:
            raise self.error(key, f"expected a name, got {value!r}")
        if choices is not None and value not in (known := list(choices)):
            raise self.error(key, f"expected one of {', '.join(known)}; got {value!r}")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        """Return true or false."""
        value = self._mapping.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"expected true or false, got {value!r}")
        return value

    def items(self, key: str) -> list[Any]:
        """Return a list with at least one entry."""
        value = self._mapping.get(key)
        if not isinstance(value, list) or not value:
            raise self.error(key, f"expected a list with at least one entry, got {value!r}")
        return value

    def numbers(self, key: str) -> list[float]:
        """Return a list of finite numbers."""
        values = self.items(key)
        for value in values:
            if not _is_finite_number(value):
                raise self.error(key, f"expected finite numbers only, got {value!r}")
        return [float(value) for value in values]

    def weights(self, key: str, names: Iterable[str]) -> dict[str, float]:
        """Return a mapping of known names to finite numbers: a weighted sum."""
        value, known = self._mapping.get(key), list(names)
        if not isinstance(value, Mapping) or not value:
            raise self.error(key, f"expected a mapping of names to numbers, got {value!r}")
        section = Section(value, self.place(key), required=(), optional=known)
        return {name: section.number(name) for name in value}
