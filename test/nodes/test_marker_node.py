"""What RViz and Foxglove show of a shield, over real processes; a score that is not known is never green."""

import math
from pathlib import Path

import pytest
from test_faults import WANTED, Faller
from visualization_msgs.msg import Marker, MarkerArray

from ssql_ros.contract.messages import fill
from ssql_ros.graph.processes import Graph
from ssql_ros.msg import ShieldedAction, ShieldState
from ssql_ros.nodes.marker_node import GREEN, GREY, ORANGE, RED, margin_colour, score_colour, words
from ssql_ros.ros.process import NEWEST
from support.nodes import refusal
from support.robots import CONTRACT

NAN = math.nan


def probability(**fields):
    return fill(ShieldedAction(), rule=ShieldedAction.PROBABILITY, epsilon=0.2, delta=NAN, enforced=True, **fields)


def margin(**fields):
    return fill(ShieldedAction(), rule=ShieldedAction.MARGIN, epsilon=NAN, delta=-0.1, enforced=True, **fields)


def test_score_is_green_where_the_shield_would_let_it_through_and_nowhere_else():
    assert score_colour(probability(), 0.0) == GREEN
    assert score_colour(probability(), 0.1) == pytest.approx((0.55, 0.8, 0.2))
    assert score_colour(probability(), 0.2) == pytest.approx((1.0, 0.8, 0.2))
    assert score_colour(probability(), math.nextafter(0.2, 1.0)) == RED
    assert score_colour(probability(), NAN) == GREY
    assert score_colour(probability(), math.inf) == RED
    assert score_colour(margin(), -0.11) == GREEN
    assert score_colour(margin(), -0.1) == RED
    assert score_colour(fill(ShieldedAction(), epsilon=NAN, delta=NAN), 0.1) == RED


def test_margin_is_red_from_the_failure_set_on():
    assert margin_colour(None) == GREY
    assert margin_colour(fill(ShieldState(), margin=NAN)) == GREY
    assert margin_colour(fill(ShieldState(), margin=-0.1)) == GREEN
    assert margin_colour(fill(ShieldState(), margin=-0.1, out_of_domain=True)) == ORANGE
    assert margin_colour(fill(ShieldState(), margin=0.0)) == RED
    assert margin_colour(fill(ShieldState(), margin=-0.1, latched=True)) == RED


def test_text_says_decision_score_and_reason_in_ascii():
    account = probability(decision=ShieldedAction.RESAMPLED, q_safe_proposal=0.31, reason="q_safe 0.31 above ε, " * 9)
    state = fill(ShieldState(), margin=-0.125, margin_unit="rad")
    first, second, third, fourth = words(account, state, False).splitlines()
    assert (first, second, fourth) == ("RESAMPLED", "q_safe 0.31 > epsilon 0.2", "margin -0.125 rad")
    assert third.startswith("q_safe 0.31 above ?, ")
    assert len(third) == 60
    assert words(margin(q_safe_proposal=-0.2), None, False) == "PASSED\nq_c -0.2 < delta -0.1"
    assert words(fill(margin(q_safe_proposal=NAN), enforced=False), None, False) == "PASSED (only watched)\nnot scored"
    assert words(None, fill(ShieldState(), mode=3, margin=NAN), False) == "NO DECISION (inactive)"


@pytest.mark.ros
def test_frame_and_size_are_checked(capfd: pytest.CaptureFixture[str]) -> None:
    assert "size: expected at least 0.001" in refusal("marker_node", capfd, size=0.0)


@pytest.mark.ros
def test_decisions_faults_and_silence_are_drawn(domain: int, tmp_path: Path) -> None:
    robot, views = Faller(), []
    contract = tmp_path / "minitaur.yaml"
    contract.write_text(Path(CONTRACT.path).read_text() + "\non_incident: hold\n")
    robot.node.create_subscription(MarkerArray, "marker_node/markers", views.append, NEWEST)

    def seen(text: str) -> dict[str, Marker]:
        newest = {marker.ns: marker for marker in views[-1].markers} if views else {}
        return newest if newest and newest["decision"].text.startswith(text) else {}

    try:
        with Graph(tmp_path / "logs") as graph:
            graph.start("shield_node", contract=str(contract))
            graph.start("marker_node", frame_id="trunk")
            send = robot.command(WANTED)
            robot.until(lambda: seen("PASSED"), send)
            markers = seen("PASSED")
            assert set(markers) == {"decision", "proposal", "action", "threshold", "margin"}
            assert {marker.header.frame_id for marker in markers.values()} == {"trunk"}
            account, state = robot.accounts[-1], robot.states[-1]
            assert f"epsilon {account.epsilon:.3g}\nmargin " in markers["decision"].text
            assert markers["threshold"].pose.position.z == pytest.approx(0.5 + 0.5 * account.epsilon)
            assert colour(markers["margin"]) == pytest.approx(GREEN if state.margin < 0.0 else RED, abs=1e-6)
            assert all(1 <= marker.lifetime.sec <= 2 for marker in markers.values())

            robot.lean(0.5)
            robot.until(lambda: "LATCHED: incident: roll 0.500 rad" in (seen("FAULT") or BLANK)["decision"].text, send)
            assert colour(seen("FAULT")["margin"]) == pytest.approx(RED, abs=1e-6)

            graph.stop("shield_node")
            robot.until(lambda: seen("NO DECISION"), send)
            assert colour(seen("NO DECISION")["proposal"]) == pytest.approx(GREY, abs=1e-6)
            graph.check()
    finally:
        robot.close()


BLANK = {"decision": Marker()}


def colour(marker: Marker) -> tuple[float, float, float]:
    return marker.color.r, marker.color.g, marker.color.b
