"""Valid inputs made wrong: bytes, plain values, and YAML text. All follows from the random numbers it is given."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from random import Random
from typing import Any

import yaml

NUMBERS = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1)
FLOATS = (0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, -1e308, 1e308, 1e-12, 3.0)
TEXTS = (
    "",
    "\0",
    "a" * 300,
    "../../etc/passwd",
    "/dev/zero",
    "*",
    "{}",
    "é\u202e",
    "%s%n",
    "\ud800",
    "1e999",
    "null",
    "-",
)


def mutated_bytes(rng: Random, data: bytes) -> bytes:
    """Return bytes with one to four changes: bits, numbers of lengths and offsets, parts cut out, doubled, put in."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(_BYTES)(rng, changed)
    return bytes(changed)


def _place(rng: Random, data: bytearray) -> int:
    # What counts, headers and lengths, stands in front more often than not.
    size = len(data)
    return rng.randrange(min(size, 256) if rng.random() < 0.5 else size) if size else 0


def _flip(rng: Random, data: bytearray) -> None:
    if data:
        data[_place(rng, data)] ^= 1 << rng.randrange(8)


def _number(rng: Random, data: bytearray) -> None:
    size, at = rng.choice((1, 2, 4, 4, 8)), _place(rng, data)
    value = rng.choice((*NUMBERS, len(data), rng.getrandbits(64))) % 2 ** (8 * size)
    data[at : at + size] = value.to_bytes(size, "little")


def _float(rng: Random, data: bytearray) -> None:
    at = _place(rng, data)
    data[at : at + 8] = struct.pack("<d", rng.choice(FLOATS))


def _cut(rng: Random, data: bytearray) -> None:
    at = _place(rng, data)
    del data[at : at + rng.choice((1, 4, 8, 100, len(data)))]


def _double(rng: Random, data: bytearray) -> None:
    at = _place(rng, data)
    part = data[at : at + rng.choice((1, 8, 64, 1000))]
    data[at:at] = part * rng.choice((1, 2, 10))


def _insert(rng: Random, data: bytearray) -> None:
    data[_place(rng, data) : 0] = b""
    at = _place(rng, data)
    data[at:at] = rng.choice((rng.randbytes(8), bytes(16), b"\xff" * 8, b"[" * 200, b'"' * 3))


def _shuffle(rng: Random, data: bytearray) -> None:
    at, to, size = _place(rng, data), _place(rng, data), rng.choice((4, 16, 128))
    data[to : to + size] = data[at : at + size]


_BYTES: tuple[Callable[[Random, bytearray], None], ...] = (
    _flip,
    _flip,
    _number,
    _number,
    _number,
    _float,
    _cut,
    _double,
    _insert,
    _shuffle,
)


def any_value(rng: Random, depth: int = 0) -> Any:
    """Return a plain value of any kind, as YAML or JSON may give one."""
    kind = rng.randrange(9 if depth < 3 else 6)
    if kind == 0:
        return rng.choice((*NUMBERS, -1, 10**30, -(10**400), True, False))
    if kind == 1:
        return rng.choice(FLOATS)
    if kind == 2:
        return rng.choice(TEXTS)
    if kind == 3:
        return rng.choice((None, [], {}, [[]], {"": None}))
    if kind == 4:
        return rng.uniform(-1e3, 1e3)
    if kind == 5:
        return [0.0] * rng.choice((1, 3, 1000))
    if kind == 6:
        return [any_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 7:
        return {rng.choice((*TEXTS[:4], "name", "type")): any_value(rng, depth + 1) for _ in range(rng.randrange(3))}
    nest: Any = 0
    for _ in range(rng.choice((5, 50))):
        nest = [nest]
    return nest


def mutated_tree(rng: Random, tree: Any) -> Any:
    """Return a copy of plain values with one or two of them replaced, taken out, doubled, renamed or moved."""
    copied = _copy(tree)
    for _ in range(rng.choice((1, 1, 1, 2))):
        places = list(_places(copied))
        if not places:
            return any_value(rng)
        holder, key = rng.choice(places)
        change = rng.randrange(8)
        if change < 3:
            holder[key] = any_value(rng)
        elif change == 3:
            del holder[key]
        elif change == 4 and isinstance(holder, dict):
            holder[rng.choice((f"{key}s", str(key)[:-1], "", 7))] = holder.pop(key)
        elif change == 4 or change == 5:
            other, from_key = rng.choice(places)
            holder[key] = _copy(other.get(from_key) if isinstance(other, dict) else other[from_key])
        elif isinstance(holder, list):
            holder[key:key] = [_copy(holder[key])] * rng.choice((1, 2, 30))
        elif isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
            holder[key] = rng.choice((*NUMBERS, *FLOATS, -holder[key], holder[key] * 1e-3, 10**30))
        else:
            holder[key] = any_value(rng)
    return copied


def _copy(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _copy(value) for key, value in tree.items()}
    return [_copy(value) for value in tree] if isinstance(tree, list) else tree


def _places(tree: Any) -> Any:
    """Yield where values stand: what holds each, and its key there."""
    pairs = list(tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ())
    for key, value in pairs:
        yield tree, key
        yield from _places(value)


# By what YAML alone can do: anchors that grow, keys that are merged, depth, tags, dates, numbers in base 60.
_LAUGHS = "\n".join(["x0: &x0 [lol, lol]"] + [f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, 12)])
_MERGES = "\n".join(
    ["m0: &m0 {a: 1, b: 2}"] + [f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}" for i in range(1, 12)]
)
# In a value, where an error would show what came.
_NESTED_LAUGHS = (
    "robot: [&y0 [lol, lol], " + ", ".join(f"&y{i} [{', '.join([f'*y{i - 1}'] * 9)}]" for i in range(1, 10)) + "]\n"
)
YAML_PARTS = (
    _NESTED_LAUGHS,
    _LAUGHS + "\ncontrol_period: *x11\n",
    _LAUGHS + "\ninputs: {*x11: 1}\n",
    _MERGES + "\n",
    "inputs: &a {<<: *a}\n",
    "robot: &a [*a]\n",
    "reward: " + "[" * 3000 + "\n",
    "reward: " + "{a: " * 3000 + "\n",
    "reward: " + "- " * 2000 + "1\n",
    "robot: !!python/object/apply:os.system ['true']\n",
    "robot: !!binary AAAA\nsafe_action: !!set {a, b}\n",
    "control_period: 2001-99-99\n",
    "control_period: 190:20:30.15e400\n",
    "control_period: 0x" + "f" * 400 + "\n",
    "control_period: " + "9" * 5000 + "\n",
    "robot: boat\nrobot: boat\n",
    "? [a, b]\n: 1\n",
    "--- a\n--- b\n",
    "%YAML 9.9\n---\n",
    "\t",
    "\x00",
    "\ufeff",
    "robot: " + "a" * 100_000 + "\n",
)


def mutated_yaml(rng: Random, tree: Any) -> bytes:
    """Return the text of a document, made wrong as values, as text, or by what YAML can do."""
    kind = rng.randrange(4)
    try:
        text = yaml.dump(mutated_tree(rng, tree) if kind == 0 else tree, Dumper=yaml.CSafeDumper, allow_unicode=True)
    except UnicodeEncodeError:  # half a character: no text can say it
        text = yaml.dump(tree, Dumper=yaml.CSafeDumper, allow_unicode=True)
    if kind == 1:
        lines = text.splitlines(keepends=True)
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(YAML_PARTS))
        text = "".join(lines)
    data = text.encode("utf-8", "surrogatepass")
    return mutated_bytes(rng, data) if kind > 1 else data
