"""What spins for a command: Ctrl-C ends it in order wherever it comes."""

import signal

import pytest
from std_msgs.msg import Float64

from ssql_ros.processes.interrupts import Interrupted, raising
from ssql_ros.ros.client import Client

pytestmark = pytest.mark.ros


@pytest.fixture
def interrupting(monkeypatch):
    """Have Ctrl-C come while a message is being made of what has come in, among C++'s conversions."""
    before, made = Float64.__init__, []

    def interrupted(self, *values, **named):
        if made:
            made.clear()
            signal.raise_signal(signal.SIGINT)
        before(self, *values, **named)

    monkeypatch.setattr(Float64, "__init__", interrupted)
    return made


def test_ctrl_c_among_conversions_ends_a_client_in_order(domain, interrupting):
    with raising(), Client("hears") as client:
        client.node.create_subscription(Float64, "heard", lambda _: None, 10)
        publisher, message = client.node.create_publisher(Float64, "heard", 10), Float64(data=1.0)

        def heard_for_ever():
            while True:
                publisher.publish(message)
                client.spin(0.1)

        interrupting.append(True)
        with pytest.raises(Interrupted):
            heard_for_ever()
        client.spin(0.0)


def test_a_second_ctrl_c_does_not_wait():
    from ssql_ros.processes.interrupts import deferred

    reached = []

    def twice():
        with raising(), deferred():
            signal.raise_signal(signal.SIGINT)
            reached.append(1)
            signal.raise_signal(signal.SIGINT)
            reached.append(2)

    with pytest.raises(Interrupted):
        twice()
    assert reached == [1]
