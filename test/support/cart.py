"""A cart as a node: it publishes a scan and an odometry, wants a Twist, and hears what it is told."""

import math
import time
from typing import Any

import rclpy
from geometry_msgs.msg import Twist
from nav_msgs.msg import Odometry
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import LaserScan

from ssql_ros.ros.process import COMMAND


class Cart:
    """Says what it measures, and hears what it is told."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("cart", context=self.context)
        self.executor = rclpy.executors.SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.told: list[tuple[float, float]] = []
        self._odometry = self.node.create_publisher(Odometry, "odom", qos_profile_sensor_data)
        self._scan = self.node.create_publisher(LaserScan, "scan", qos_profile_sensor_data)
        self._wanted = self.node.create_publisher(Twist, "cmd_vel_raw", COMMAND)
        self.node.create_subscription(
            Twist, "cmd_vel", lambda message: self.told.append((message.linear.x, message.angular.z)), COMMAND
        )

    def until(self, done, wanted: Any, seconds: float = 40.0) -> None:
        """Go on at 10 Hz, with a controller that wants a Twist, or without one, until it is done.

        Args:
            wanted: linear.x and angular.z, or a function that gives them; None: no controller.
        """
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, f"told so far: {self.told[-5:]}"
            stamp = self.node.get_clock().now().to_msg()
            odometry, scan = Odometry(), LaserScan(angle_min=-math.pi, angle_increment=math.pi / 18, range_max=9.0)
            odometry.header.stamp = scan.header.stamp = stamp
            odometry.pose.pose.orientation.w = 1.0
            scan.ranges = [2.0] * 36
            self._scan.publish(scan)
            self._odometry.publish(odometry)
            if wanted is not None:
                twist = Twist()
                twist.linear.x, twist.angular.z = wanted() if callable(wanted) else wanted
                self._wanted.publish(twist)
            tick = time.monotonic() + 0.1
            while time.monotonic() < tick:
                self.executor.spin_once(timeout_sec=0.02)

    def close(self) -> None:
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)
