"""What a shield does is seen on the screen of `ssql watch`, and in its lines for machines."""

import asyncio
import json
import math
from types import SimpleNamespace

import pytest

from ssql_ros.cli.main import main as ssql
from ssql_ros.cli.watch_screen import WatchScreen
from ssql_ros.graph.processes import Graph
from ssql_ros.msg import ShieldState
from ssql_ros.ros.overview import Overview, Robot

pytestmark = pytest.mark.ros


def account(decision: int, q_safe: float, reason: str = "", taken_over: bool = False) -> SimpleNamespace:
    return SimpleNamespace(
        decision=decision, decision_time=0.002, q_safe_proposal=q_safe, reason=reason, taken_over=taken_over
    )


def screen_of(robots: list[Robot], keys: tuple[str, ...] = ()) -> str:
    """The text of the screen that shows these robots, after some keys."""
    overview = SimpleNamespace(robots={robot.namespace: robot for robot in robots}, hear=lambda _: None)

    async def shown() -> str:
        app = WatchScreen(overview, 0.05, math.inf, "7")
        async with app.run_test(size=(140, 50)) as pilot:
            await pilot.press(*keys)
            await pilot.pause()
            return app.export_screenshot()

    return asyncio.run(shown()).replace("&#160;", " ")


def test_the_screen_shows_decisions_their_reasons_and_who_publishes(monkeypatch):
    robot, other = Robot("/left"), Robot("/right")
    for i in range(30):
        robot.take(account(0, 0.001 * i), i * 0.02)
    for _ in range(3):
        robot.take(account(1, 0.4, "q_safe 0.4 of the proposal is above epsilon 0.02"), 0.7)
    robot.state = ShieldState(mode=0, bundle_id="abc", epsilon=0.02, delta=math.nan, margin=-0.2, incidents=1)
    robot.topics = {"/left/joint_commands_raw": ("sensor_msgs/msg/JointState", ["/left/walker"], ["/left/shield_node"])}
    monkeypatch.setattr("time.monotonic", lambda: 1.0)
    told = robot.summary(1.0)
    assert told["decisions"] == {"passed": 30, "resampled": 3}
    assert (told["decision_ms_p50"], told["q_safe"], told["mode"], told["epsilon"]) == (2.0, 0.4, "enforce", 0.02)
    monkeypatch.undo()
    robot.accounts.clear()
    seen = screen_of([robot, other])
    for text in ("/left  (1 of 2)", "enforce", "threshold 0.02", "/left/walker", "incidents 1", "(×3)"):
        assert text in seen, text
    assert "12 of them above the threshold" in seen
    assert "/right  (2 of 2)" in screen_of([robot, other], ("n",))
    assert "/left/walker" not in screen_of([robot, other], ("t",))
    assert "No shield yet" in screen_of([])


def test_reasons_that_repeat_are_one_line_and_a_fault_is_the_loudest():
    robot = Robot("/")
    for reason in ("a", "a", "b", "a"):
        robot.take(account(3, math.nan, reason), 0.0)
    assert list(robot.reasons) == [("held: a", 1), ("held: b", 1), ("held: a", 2)]
    robot.state = ShieldState(latched=True, fault_reason="incident: roll 0.5 rad")
    assert "FAULT latched: incident: roll 0.5 rad" in screen_of([robot])


def test_a_running_shield_is_found_by_its_namespace_and_told_line_by_line(domain, tmp_path, capfd):
    with Graph(tmp_path / "logs") as graph:
        graph.run("shield", [*_shield(), "-r", "__ns:=/lab"])
        with Overview([]) as overview:
            robot = Robot("/lab")
            for _ in range(300):
                overview.hear(0.1)
                robot = overview.robots.get("/lab", robot)
                if robot.state is not None and "/lab/joint_commands" in robot.topics:
                    break
            assert robot.state.contract_id.startswith("minitaur-")
            kind, publishers, hearers = robot.topics["/lab/joint_commands"]
            assert (kind, publishers, hearers) == ("sensor_msgs/msg/JointState", ["/lab/shield_node"], [])
        told = {"namespace": "/lab", "mode": None}
        for _ in range(20):
            assert ssql(["watch", "--json", "--seconds", "2.5", "--namespace", "lab"]) == 0
            told = [told, *map(json.loads, capfd.readouterr().out.splitlines())][-1]
            if told["mode"] is not None:
                break
        assert (told["namespace"], told["mode"]) == ("/lab", "inactive")
        assert ssql(["watch", "--json", "--seconds", "1.5", "--namespace", "elsewhere"]) == 0
        assert capfd.readouterr().out == ""


def _shield() -> list[str]:
    from ssql_ros.graph.processes import executable

    return [str(executable("shield_node")), "--ros-args"]
