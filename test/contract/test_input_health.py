"""Why nothing can be decided on, in words: jitter, a clock that jumped, and who fills a stamp wrongly, told apart."""

import heapq
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from ssql_ros.contract import ContractError
from ssql_ros.contract.messages import check_stamp
from ssql_ros.shield.decision import Decision, ShieldSettings
from ssql_ros.shield.loop import ShieldLoop
from ssql_ros.shield.tick import Mode
from support.toy_robot import PERIOD, PERIOD_NS, FormulaCritic, toy_contract

CONTRACT = toy_contract()
SETTINGS = ShieldSettings(epsilon=0.1, max_observation_age=0.04, max_proposal_age=0.04)
CLOCK = 1_700_000_000_000_000_000
INPUTS = ("joints", "imu")


def drive(periods: int, sensors, answers=lambda k: 0.0, jump=(10**9, 0.0), simulated: bool = False):
    """A shield whose messages take as long as they are told.

    Args:
        sensors, answers: s, delay of each message, by period; None: it is lost.
        jump: period from which on the node's clock is ahead, and by how many s.

    Returns:
        (decision, reason) of each tick, and the loop.
    """
    loop = ShieldLoop(CONTRACT, FormulaCritic(lambda a: np.full(len(a), -9.0)), SETTINGS, Mode.ENFORCE, 0, simulated)
    events: list[tuple[float, int, str, int]] = []
    for k in range(periods):
        for name, delays in (*((name, sensors) for name in INPUTS), ("answer", answers)):
            if (delay := delays(k)) is not None:
                heapq.heappush(events, (100.0 + k * PERIOD + delay, len(events), name, CLOCK + k * PERIOD_NS))
    loop.start(100.0)
    now, found = 100.0, []
    while now < 100.0 + periods * PERIOD:
        now += 0.001
        clock = CLOCK + round((now - 100.0) * 1e9)
        clock += round(jump[1] * 1e9) * (now >= 100.0 + jump[0] * PERIOD)
        while events and events[0][0] <= now:
            _, _, name, stamp = heapq.heappop(events)
            if name == "answer":
                loop.inputs.answers.hear(stamp, now, clock)
                late = max(0.0, (clock - stamp) / 1e9)
                loop.propose(np.array([0.5]), CONTRACT.joint_command(np.array([0.5])), stamp, now - late)
            else:
                loop.read(name, stamp, now, clock, np.array([0.0]))
        if loop.wait(now) == 0.0:
            verdict = loop.tick(now, clock).verdict
            found.append((verdict.decision, verdict.reason))
    return found, loop


def shaken(seed: int):
    rng = np.random.default_rng(seed)
    return lambda k: rng.uniform(0.0, 0.1)


@pytest.mark.parametrize("seed", range(3))
def test_where_jitter_is_the_cause_it_is_named(seed: int) -> None:
    # 0 to 100 ms on sensors and commands, so that they come in another order.
    found, loop = drive(300, shaken(seed), shaken(seed + 10))
    held = [reason for decision, reason in found[100:] if decision is Decision.HELD]
    assert len(held) > 50
    assert Counter("jitter" in reason for reason in held)[True] > 0.95 * len(held), Counter(held)
    assert not any("clock" in reason for reason in held if "jitter" in reason)
    assert "jitter: the delay of its messages varies by" in loop.inputs.warning()


def test_jitter_of_commands_alone_is_named() -> None:
    found, loop = drive(300, lambda k: 0.001, shaken(0))
    held = {reason for decision, reason in found[100:] if decision is Decision.HELD}
    assert held
    assert all(reason.startswith("proposal is stale") and "jitter" in reason for reason in held), held
    assert loop.inputs.warning() == ""
    assert "jitter" in loop.inputs.jitter_of_answers()


LOST = np.random.default_rng(1).random(300) < 0.3


@pytest.mark.parametrize(
    ("sensors", "expected"),
    [
        (lambda k: 0.08, "its clock is behind this one by about"),  # late, but evenly
        (lambda k: 0.001 if k < 200 else None, "no newer one for"),  # silence
        # Held up for a second, and then all at once; lost now and then.
        (lambda k: 0.001 if not 100 <= k < 150 else 0.001 + (150 - k) * PERIOD, "no newer one for"),
        (lambda k: None if LOST[k] else 0.001, ""),
        (lambda k: 0.001 + 0.005 * (k % 2), ""),
    ],
)
def test_what_is_no_jitter_is_not_called_so(sensors, expected: str) -> None:
    found, loop = drive(300, sensors)
    reasons = [reason for decision, reason in found if decision is Decision.HELD]
    assert not any("jitter" in reason for reason in reasons)
    assert any(expected in reason for reason in reasons) or not expected
    assert "jitter" not in loop.inputs.warning()


@pytest.mark.parametrize("seconds", [10.0, -10.0, 3600.0])
@pytest.mark.parametrize("simulated", [False, True])
def test_a_clock_of_the_node_that_jumps_is_named_and_no_sensor(seconds: float, simulated: bool) -> None:
    found, _ = drive(120, lambda k: 0.001, jump=(60, seconds), simulated=simulated)
    decisions = [decision for decision, _ in found]
    assert decisions[40:58] == [Decision.PASSED] * 18
    reasons = {reason for decision, reason in found[65:] if decision is Decision.HELD}
    assert len(found[65:]) > 50
    side = "ahead" if seconds > 0 else "back"
    which = "/clock jumped" if simulated else "this computer's clock jumped"
    for reason in reasons:
        assert f"{which} {abs(seconds):.1f}"[:-2] in reason
        assert f" s {side}, and the stamps of joint_states did not: " in reason
    assert reasons


def test_a_driver_that_is_behind_from_the_start_is_still_what_is_named() -> None:
    found, _ = drive(50, lambda k: 0.2)
    assert "its clock is behind this one by about" in found[-1][1]


def test_who_fills_a_stamp_wrongly_is_named() -> None:
    stamp = SimpleNamespace(sec=2**31 - 1, nanosec=2_000_000_000)
    message = SimpleNamespace(header=SimpleNamespace(stamp=stamp))
    with pytest.raises(ContractError, match=r"joint_states: .*; the driver fills it wrongly"):
        check_stamp(message, "joint_states")
    with pytest.raises(ContractError, match=r"joint_commands_raw: .*; the controller fills it wrongly"):
        check_stamp(message, "joint_commands_raw", "the controller")
