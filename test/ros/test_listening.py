"""A contract is drafted from a live graph as from a bag."""

import threading

import pytest

from ssql_ros.contract.fields import MESSAGE_FIELDS
from ssql_ros.drafting.draft import draft
from ssql_ros.drafting.signals import signals_of
from ssql_ros.ros.listening import listen
from support.cart import Cart

pytestmark = pytest.mark.ros


def test_a_live_graph_is_heard_topic_by_topic(domain):
    cart, over = Cart(), threading.Event()
    speeds = iter(range(10_000))
    drives = threading.Thread(target=lambda: cart.until(over.is_set, lambda: (0.01 * (next(speeds) % 40), 0.2)))
    drives.start()
    heard = listen(5.0, MESSAGE_FIELDS)
    over.set()
    drives.join()
    cart.close()
    signals = signals_of(heard)
    assert {"/odom", "/scan", "/cmd_vel_raw"} <= set(signals)
    assert all(len(signals[topic].times) > 15 for topic in ("/odom", "/scan", "/cmd_vel_raw"))
    made = draft(signals, "cart")
    assert (made.command.topic, [part.name for part in made.parts]) == ("/cmd_vel_raw", ["linear.x"])
    assert {feature.input for feature in made.frame} == {"scan"}  # the odometry stands still
    with pytest.raises(ValueError, match="--seconds"):
        listen(0.0, MESSAGE_FIELDS)
