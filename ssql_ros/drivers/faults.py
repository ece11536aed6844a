"""What a scripted driver does wrong on purpose, so that a check, a shield and a user see each mistake once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ssql_ros.contract.sensor_readings import Reading
from ssql_ros.contract.stamped import NANOSECONDS


@dataclass(frozen=True)
class Faults:
    """Mistakes of a driver; as they stand here there are none.

    Attributes:
        stamps: "clock": of the measurement; "zero": none; "still": that of the first message for ever.
        ahead: s, by which its clock is ahead of this one's; negative: behind.
        rename: joints by other names, as the contract has them.
        degrees: angles and turning rates of joints are in degrees.
        w_first: quaternions are (w, x, y, z) in fields named x, y, z, w.
        frame_id: of poses; empty: the contract's.
    """

    stamps: str = "clock"
    ahead: float = 0.0
    rename: tuple[tuple[str, str], ...] = ()
    degrees: bool = False
    w_first: bool = False
    frame_id: str = ""

    def stamp(self, now: int, first: int) -> int:
        """Return the stamp (ns) of a message; `now`: ns, of the measurement; `first`: ns, of the first one."""
        if self.stamps == "zero":
            return 0
        return (first if self.stamps == "still" else now) + round(self.ahead * NANOSECONDS)

    def reading(self, reading: Reading) -> Reading:
        """Return what such a driver makes of a reading."""
        made = dict(reading)
        if "name" in made:
            names = dict(self.rename)
            made["name"] = [names.get(name, name) for name in made["name"]]
        if self.degrees and "name" in made:
            for field in ("position", "velocity"):
                if field in made:
                    made[field] = [math.degrees(value) for value in made[field]]
        if self.w_first:
            x, y, z, w = made.get("orientation", (0.0, 0.0, 0.0, 1.0))
            made["orientation"] = (w, x, y, z)
        if self.frame_id:
            made["frame_id"] = self.frame_id
        return made


def read_renames(text: str) -> tuple[tuple[str, str], ...]:
    """Return joints by other names, from a text such as `FFJ3=ffj3,FFJ4=ffj4`. Raises ValueError."""
    pairs = tuple(tuple(part.split("=")) for part in text.split(",") if part)
    if not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise ValueError(f"rename: expected JOINT=NAME, or several with commas between, got {text!r}")
    return tuple((joint, name) for joint, name in pairs)
