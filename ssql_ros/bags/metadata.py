"""metadata.yaml of a rosbag2 bag: what it tells of the files beside it, checked against what they hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import yaml

from ssql_ros.bags.bounds import bounded_yaml

METADATA = "metadata.yaml"
INFORMATION = "rosbag2_bagfile_information"


@dataclass(frozen=True)
class Metadata:
    """What metadata.yaml tells.

    Attributes:
        files: their names, in the order told.
        counts: messages by topic; None: it tells none that can be used.
        custom: texts that the recorder put there.
        problem: why it cannot be used, in words; empty: it can.
    """

    files: tuple[str, ...] = ()
    counts: Counter[str] | None = None
    custom: dict[str, str] = field(default_factory=dict)
    problem: str = ""


def read_metadata(folder: Path) -> Metadata:
    """Read the metadata.yaml of a bag's folder; what is wrong with it is in `problem`."""
    path = folder / METADATA
    if not path.is_file():
        return Metadata(problem=f"{path}: is missing: the recorder did not close this bag")
    try:
        # Some recorders leave !!opt and the like.
        information = bounded_yaml(path.read_text(encoding="utf-8"))[INFORMATION]
        counts: Counter[str] = Counter()
        for topic in information["topics_with_message_count"]:
            counts[topic["topic_metadata"]["name"]] += int(topic["message_count"])
        return Metadata(
            tuple(PurePath(name).name for name in information["relative_file_paths"]),
            counts,
            {str(key): str(value) for key, value in (information.get("custom_data") or {}).items()},
        )
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        text = " ".join(str(error).split())
        return Metadata(problem=f"{path}: cannot be used: {type(error).__name__}: {text[:200]}")


def differences(folder: Path, told: Metadata, there: Iterable[Path], found: Mapping[str, int]) -> list[str]:
    """Return in words where metadata.yaml and the files of a bag do not agree.

    Args:
        there: files of the bag.
        found: messages that can be read, by topic.
    """
    path, names = folder / METADATA, {file.name for file in there}
    problems = [f"{folder / name}: is missing, though {METADATA} lists it" for name in told.files if name not in names]
    for name in sorted(names - set(told.files)):
        problems.append(f"{folder / name}: is not listed in {METADATA}; it is read all the same")
    counts = told.counts or Counter()
    off = [
        f"{counts[topic]} of {topic} where {found.get(topic, 0)} can be read"
        for topic in sorted({*counts, *found})
        if counts[topic] != found.get(topic, 0)
    ]
    if off:
        problems.append(f"{path}: its counts of messages are off: {', '.join(off)}; all that are there are read")
    return problems


def write_metadata(folder: Path, information: Mapping[str, Any]) -> None:
    """Write a metadata.yaml. Raises OSError."""
    with (folder / METADATA).open("w", encoding="utf-8") as file:
        yaml.safe_dump({INFORMATION: dict(information)}, file, sort_keys=False)
