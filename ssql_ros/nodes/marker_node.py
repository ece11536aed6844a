"""Shows a shield in RViz or Foxglove: what it decided and why, its scores against the threshold, and the margin.

A process of its own: it hears the shield's accounts best effort, and publishes nothing that any robot listens to.
"""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from geometry_msgs.msg import Point, Vector3
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from ssql_ros.contract.messages import set_stamp
from ssql_ros.contract.stamped import NANOSECONDS
from ssql_ros.contract.topics import ACCOUNT_TOPIC, OWN_MARKERS, STATE_TOPIC
from ssql_ros.msg import ShieldedAction, ShieldState
from ssql_ros.ros.guard import Guard
from ssql_ros.ros.overview import HEARD
from ssql_ros.ros.parameters import Parameter, declare
from ssql_ros.ros.process import LATCHED, NEWEST, run_node
from ssql_ros.shield.decision import Decision
from ssql_ros.shield.tick import Mode

PARAMETERS = (
    Parameter("frame_id", "base_link", "frame of the robot that the markers stand in, and move with", fixed=True),
    Parameter("rate", 10.0, "Hz, at which they are published", 0.5, 60.0, fixed=True),
    Parameter("x", 0.0, "m, where they stand in the frame", -100.0, 100.0),
    Parameter("y", 0.0, "m", -100.0, 100.0),
    Parameter("z", 0.5, "m", -100.0, 100.0),
    Parameter("size", 0.05, "m, height of the letters; bars are ten times as high", 0.001, 10.0),
)
SILENT = 1.0  # s without a decision, from which on that is what is shown
LINE = 60  # letters of a reason that are shown
GREY, GREEN, ORANGE, RED = (0.6, 0.6, 0.6), (0.1, 0.8, 0.2), (1.0, 0.6, 0.0), (0.9, 0.1, 0.1)
COLOURS = {
    Decision.PASSED: GREEN,
    Decision.RESAMPLED: ORANGE,
    Decision.LEAST_RISK: RED,
    Decision.HELD: RED,
    Decision.BACKUP: ORANGE,
    Decision.FAULT: RED,
}
Colour = tuple[float, float, float]


def judged_safe(account: ShieldedAction, score: float) -> bool:
    """Tell whether a score is safe by the rule of an account; NaN never is."""
    if account.rule == ShieldedAction.MARGIN:
        return math.isfinite(score) and score < account.delta
    return math.isfinite(score) and score <= account.epsilon


def score_colour(account: ShieldedAction, score: float) -> Colour:
    """Return green for a safe score, yellow where it comes close to epsilon, red beyond; grey: not scored."""
    if math.isnan(score):
        return GREY
    if not judged_safe(account, score):
        return RED
    if account.rule == ShieldedAction.MARGIN or not account.epsilon > 0.0:
        return GREEN
    red, green, blue = GREEN
    return red + (1.0 - red) * max(0.0, score / account.epsilon), green, blue


def margin_colour(state: ShieldState | None) -> Colour:
    """Return red inside the failure set or latched, orange out of the critic's domain, green outside; grey: unknown."""
    if state is None or (math.isnan(state.margin) and not state.latched):
        return GREY
    if state.latched or state.margin >= 0.0:
        return RED
    return ORANGE if state.out_of_domain else GREEN


def score_words(account: ShieldedAction, score: float) -> str:
    """Return a score and what it was held against."""
    if math.isnan(score):
        return "not scored"
    margins = account.rule == ShieldedAction.MARGIN
    name, bound, limit = ("q_c", "delta", account.delta) if margins else ("q_safe", "epsilon", account.epsilon)
    safe, unsafe = ("<", ">=") if margins else ("<=", ">")
    return f"{name} {score:.3g} {safe if judged_safe(account, score) else unsafe} {bound} {limit:.3g}"


def words(account: ShieldedAction | None, state: ShieldState | None, silent: bool) -> str:
    """Return what the text says, line by line. In ASCII: the fonts of viewers have little else."""
    lines = []
    if account is None or silent:
        mode = "" if state is None else f" ({Mode(state.mode).name.lower()})"
        lines.append(f"NO DECISION{mode}")
    else:
        lines.append(Decision(account.decision).name + ("" if account.enforced else " (only watched)"))
        lines.append(score_words(account, account.q_safe_proposal))
        lines += [account.reason] if account.reason else []
        lines += ["an operator has the robot"] if account.taken_over else []
    if state is not None:
        if state.latched:
            lines.append(f"LATCHED: {state.fault_reason}")
        if not math.isnan(state.margin):
            lines.append(f"margin {state.margin:.3g} {state.margin_unit}")
        if state.out_of_domain:
            lines.append("out of the critic's domain")
    shown = (line if len(line) <= LINE else f"{line[: LINE - 3]}..." for line in lines)
    return "\n".join(line.encode("ascii", "replace").decode() for line in shown)


class MarkerNode(Node):
    """Publishes text, two bars of scores with the threshold across them, and a ball of the margin's colour."""

    def __init__(self) -> None:
        super().__init__("marker_node")
        self._value_of = declare(self, PARAMETERS)
        self.guard = Guard(self.get_logger())
        self._state: ShieldState | None = None
        # The gravest since the last view: at ten views a second an intervention of one period would go unseen.
        self._account: ShieldedAction | None = None
        self._seen, self._came = True, -math.inf
        self._publisher = self.create_publisher(MarkerArray, OWN_MARKERS, NEWEST)
        self.create_subscription(ShieldedAction, ACCOUNT_TOPIC, self.guard(ACCOUNT_TOPIC, self._on_account), HEARD)
        self.create_subscription(ShieldState, STATE_TOPIC, self.guard(STATE_TOPIC, self._on_state), LATCHED)
        # The steady clock: the view must not stop with /clock.
        steady, period = Clock(clock_type=ClockType.STEADY_TIME), 1.0 / self._value_of("rate")
        self.create_timer(period, self.guard("view", self._publish), clock=steady)

    def _on_account(self, account: ShieldedAction) -> None:
        self._came = time.monotonic()
        if self._seen or self._account is None or account.decision >= self._account.decision:
            self._account, self._seen = account, False

    def _on_state(self, state: ShieldState) -> None:
        self._state = state

    def _publish(self) -> None:
        silent = time.monotonic() - self._came > SILENT
        self._seen = True
        self._publisher.publish(MarkerArray(markers=self._markers(None if silent else self._account)))

    def _markers(self, account: ShieldedAction | None) -> list[Marker]:
        """Return what is seen, every marker each time: one that is not to be seen is transparent."""
        state, size = self._state, self._value_of("size")
        bar = 10.0 * size
        colour = GREY if account is None else COLOURS[Decision(account.decision)]
        text = self._marker("decision", Marker.TEXT_VIEW_FACING, (0.0, 0.0, bar + 4.0 * size), (size,) * 3, colour)
        text.text = words(account, state, account is None)
        ball = self._marker("margin", Marker.SPHERE, (0.0, 0.0, -size), (size,) * 3, margin_colour(state))
        return [text, ball, *self._bars(account, bar, size)]

    def _bars(self, account: ShieldedAction | None, bar: float, size: float) -> list[Marker]:
        """Return the bars of what was proposed and of what was decided on, and the threshold.

        A probability fills its share of the bar. Margins have no largest value: their bars are full, and only coloured.
        """
        margins = account is not None and account.rule == ShieldedAction.MARGIN
        scores = (math.nan,) * 2 if account is None else (account.q_safe_proposal, account.q_safe_action)
        made = []
        for name, y, score in zip(("proposal", "action"), (size, -size), scores, strict=True):
            known = account is not None and not math.isnan(score)
            share = 1.0 if margins else min(1.0, max(0.0, score))
            height = bar * max(0.01, share if known else 0.0)
            colour = score_colour(account, score) if account is not None else GREY
            made.append(self._marker(name, Marker.CUBE, (0.0, y, height / 2.0), (size, size, height), colour))
        drawn = account is not None and account.rule == ShieldedAction.PROBABILITY and math.isfinite(account.epsilon)
        at = bar * account.epsilon if drawn and account is not None else 0.0
        sides = (1.2 * size, 4.0 * size, 0.02 * bar)
        made.append(self._marker("threshold", Marker.CUBE, (0.0, 0.0, at), sides, (1.0, 1.0, 1.0), 0.8 * drawn))
        return made

    def _marker(self, name: str, kind: int, at: Any, sides: Any, colour: Colour, alpha: float = 1.0) -> Marker:
        x, y, z = (self._value_of(axis) + offset for axis, offset in zip("xyz", at, strict=True))
        marker = Marker(ns=name, type=kind, action=Marker.ADD, frame_locked=True)
        set_stamp(marker, max(0, self.get_clock().now().nanoseconds))
        marker.header.frame_id = self._value_of("frame_id")
        marker.pose.position = Point(x=x, y=y, z=z)
        marker.pose.orientation.w = 1.0
        marker.scale = Vector3(x=sides[0], y=sides[1], z=sides[2])
        red, green, blue = colour
        marker.color = ColorRGBA(r=red, g=green, b=blue, a=alpha)
        # Gone when this node is.
        seconds = max(1.0, 3.0 / self._value_of("rate"))
        marker.lifetime.sec = int(seconds)
        marker.lifetime.nanosec = int((seconds % 1.0) * NANOSECONDS)
        return marker


def main() -> int:
    """Run the node."""
    return run_node(MarkerNode)


if __name__ == "__main__":
    sys.exit(main())
