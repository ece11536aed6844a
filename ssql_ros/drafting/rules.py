"""The incident rule, as a person says it in a line: FEATURE above X, FEATURE below X, FEATURE beyond X."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ssql_ros.contract import ContractError
from ssql_ros.drafting.draft import DraftFeature

_RULE = re.compile(r"\s*([\w.]+)\s+(above|below|beyond)\s+(\S+)\s*(.*?)\s*")
FORM = "FEATURE above X, FEATURE below X or FEATURE beyond X (on either side of 0)"


@dataclass(frozen=True)
class Rule:
    """One limit of the incident rule, in the feature's unit; None: no limit on that side."""

    feature: DraftFeature
    above: float | None = None
    below: float | None = None


def read_rule(text: str, frame: Sequence[DraftFeature]) -> Rule:
    """Return the limit that a line says.

    Raises:
        ContractError: it is in another form, of no feature of the frame, or of another unit.
    """
    found = _RULE.fullmatch(text)
    if found is None:
        raise ContractError(f"--incident {text!r}: expected {FORM}, such as --incident 'roll beyond 0.3'")
    name, side, number, unit = found.groups()
    by_name = {feature.name: feature for feature in frame}
    if name not in by_name:
        raise ContractError(f"--incident {text!r}: expected a feature of the frame: {', '.join(by_name)}; got {name!r}")
    feature = by_name[name]
    own = "1" if feature.options else feature.unit
    if unit and unit != own:
        raise ContractError(f"--incident {text!r}: {name} is in {own}, got {unit!r}")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (side == "beyond" and value <= 0.0):
        raise ContractError(
            f"--incident {text!r}: expected a finite number{' above 0' * (side == 'beyond')}, got {number!r}"
        )
    return Rule(feature, value if side != "below" else None, {"above": None, "below": value, "beyond": -value}[side])


def ask_rules(frame: Sequence[DraftFeature], ask: Callable[[str], str], tell: Callable[[str], None]) -> list[Rule]:
    """Ask a person for the incident rule, line by line; an empty line ends it, once there is one."""
    tell("What is an incident? The features, and their ranges in what was recorded:")
    for feature in frame:
        tell(f"  {feature.name:<28} {feature.low:10.4g} to {feature.high:<10.4g} {feature.unit}")
    tell(f"One limit a line: {FORM}. An empty line ends it.")
    rules: list[Rule] = []
    while True:
        line = ask("incident: ").strip()
        if not line:
            if rules:
                return rules
            tell("A contract needs at least one.")
            continue
        try:
            rules.append(read_rule(line, frame))
        except ContractError as error:
            tell(str(error))


def needed(frame: Sequence[DraftFeature]) -> ContractError:
    """Return the error of a draft without an incident rule: what may be said of which features."""
    ranges = "\n".join(f"  {feature.name}: {feature.low:.4g} to {feature.high:.4g} {feature.unit}" for feature in frame)
    return ContractError(
        f"--incident: expected at least one, which nobody but you can know: {FORM}. The features and their ranges:\n"
        f"{ranges}"
    )
