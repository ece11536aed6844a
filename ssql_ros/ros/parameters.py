"""Declares a node's parameters from one table: type, default, description and bounds, checked on every change."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.parameter import Parameter as RosParameter

KINDS = {bool: "true or false", int: "a whole number", float: "a number with a decimal point", str: "a text"}
# Declared by rclpy itself, or by what topics declare with a prefix of their own.
ROS_NAMES, ROS_PREFIXES = ("use_sim_time", "start_type_description_service"), ("qos_overrides.",)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a node.

    Attributes:
        default: also gives the type; None: not set, and of any type until `check` of `declare` says otherwise.
        low, high: bounds of a number, included.
        choices: what a text may be; empty: anything.
        fixed: True: only at start.
    """

    name: str
    default: Any
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    fixed: bool = False

    @property
    def kind(self) -> str:
        """Return the type in words."""
        return KINDS.get(type(self.default), type(self.default).__name__)

    @property
    def allowed(self) -> str:
        """Return bounds or choices in words, from a comma on; empty: anything of its type."""
        if self.choices:
            return f", one of {', '.join(self.choices)}"
        least, most = (None if bound is None else f"{bound:.10g}" for bound in (self.low, self.high))
        if least is not None and most is not None:
            return f", from {least} to {most}"
        return f", at least {least}" if least is not None else f", at most {most}" if most is not None else ""

    def descriptor(self) -> ParameterDescriptor:
        """Return what `ros2 param describe` shows."""
        descriptor = ParameterDescriptor(
            description=self.description, read_only=self.fixed, dynamic_typing=self.default is None
        )
        if self.choices:
            descriptor.additional_constraints = f"one of: {', '.join(self.choices)}"
        if self.low is not None and self.high is not None:
            if isinstance(self.default, float):
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=float(self.low), to_value=float(self.high))
                ]
            else:
                descriptor.integer_range = [IntegerRange(from_value=int(self.low), to_value=int(self.high), step=1)]
        return descriptor

    def fault(self, value: Any) -> str:
        """Return what is wrong with a value, or an empty text. The ranges of rcl let NaN through; this does not."""
        if self.default is None:
            return ""  # for `check` of `declare` to say
        if type(value) is not type(self.default):
            return f"{self.name}: expected {self.kind}, got {value!r}{self._advice(value)}"
        if isinstance(value, float) and not math.isfinite(value):
            return f"{self.name}: expected a finite number, got {value}"
        if self.low is not None and not value >= self.low:
            return f"{self.name}: expected at least {self.low:g}, got {value!r}"
        if self.high is not None and not value <= self.high:
            return f"{self.name}: expected at most {self.high:g}, got {value!r}"
        if self.choices and value not in self.choices:
            return f"{self.name}: expected one of {', '.join(self.choices)}; got {value!r}"
        return ""

    def _advice(self, value: Any) -> str:
        if isinstance(self.default, float) and type(value) is int:
            return f"; write {value}.0"
        if isinstance(self.default, str) and isinstance(value, bool | int | float):
            return f"; write it in quotes, as in -p '{self.name}:=\"{str(value).lower()}\"'"
        return ""


# Parameters of earlier versions, and what takes their place.
GONE = {
    "take_announcements": "is no more; by default no announcement is taken, bundle_folder and announcement_keys say "
    "which are (docs/hot_swap.md)",
    "gait": "is no more; `behaviour` names a gait",
    **dict.fromkeys(("goal_velocity", "foot_friction", "randomise"), "is no more; it is an option in `world`"),
}


def _check_given(
    given: Mapping[str, RosParameter], known: Mapping[str, Parameter], declared: Callable[[str], bool]
) -> None:
    """Hold what was given at start against the table. Raises ValueError."""
    for name, override in given.items():
        if name in known:
            if fault := known[name].fault(override.value):
                raise ValueError(f"parameter {fault}")
        elif not (name in ROS_NAMES or name.startswith(ROS_PREFIXES) or declared(name)):
            if name in GONE:
                raise ValueError(f"parameter {name}: {GONE[name]}")
            close = difflib.get_close_matches(name, [*known, *ROS_NAMES], 1)
            advice = f"did you mean {close[0]}?" if close else f"known: {', '.join([*known, ROS_NAMES[0]])}"
            raise ValueError(f"parameter {name}: is unknown; {advice}")


def declare(
    node: Any, table: Iterable[Parameter], check: Callable[[dict[str, Any]], str] | None = None
) -> Callable[[str], Any]:
    """Declare the parameters of `table` on `node` and return a function that gives a parameter's value by name.

    Args:
        check: is given all values as they would be after a change, and returns what is wrong with them together, or
            an empty text. A change that it refuses does not happen.

    Raises:
        ValueError: a value given at start is out of bounds, of another type, of an unknown name, or refused by `check`.
    """
    by_name = {parameter.name: parameter for parameter in table}
    # What -p and --params-file say of this node; rclpy itself ignores what nobody declares.
    _check_given(node._parameter_overrides, by_name, node.has_parameter)
    for parameter in by_name.values():
        try:
            node.declare_parameter(parameter.name, parameter.default, parameter.descriptor())
        except ParameterException as error:
            raise ValueError(f"parameter {parameter.name}: {error}") from error

    def value_of(name: str) -> Any:
        return node.get_parameter(name).value

    for parameter in by_name.values():
        if fault := parameter.fault(value_of(parameter.name)):
            raise ValueError(f"parameter {fault}")
    if check is not None and (fault := check({name: value_of(name) for name in by_name})):
        raise ValueError(f"parameter {fault}")

    def validate(changes: list[RosParameter]) -> SetParametersResult:
        values = {name: value_of(name) for name in by_name}
        for change in changes:
            if change.name in by_name:
                if change.value is None:
                    return SetParametersResult(successful=False, reason=f"{change.name}: expected a value, got none")
                if fault := by_name[change.name].fault(change.value):
                    return SetParametersResult(successful=False, reason=fault)
                values[change.name] = change.value
        fault = check(values) if check is not None else ""
        return SetParametersResult(successful=not fault, reason=fault)

    node.add_on_set_parameters_callback(validate)
    return value_of
