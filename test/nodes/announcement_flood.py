"""Floods the graph with announcements that nobody should take: RATE (Hz) SIZE (bytes) CONTRACT."""

import array
import os
import sys
import time

import rclpy
from rclpy.node import Node

from ssql_ros.contract.messages import set_stamp
from ssql_ros.msg import ModelAnnouncement
from ssql_ros.ros.process import LATCHED


def main() -> None:
    """Publish until killed."""
    rate, size, contract_id = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    rclpy.init()
    node = Node("flood")
    publisher = node.create_publisher(ModelAnnouncement, "model_announcements", LATCHED)
    message = ModelAnnouncement(sha256="0" * 64, bundle_id="0" * 16, contract_id=contract_id, purpose=3, path="/x")
    message.data = array.array("B", os.urandom(size))
    due = time.monotonic()
    while True:
        set_stamp(message, time.time_ns())
        publisher.publish(message)
        due += 1.0 / rate
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()
