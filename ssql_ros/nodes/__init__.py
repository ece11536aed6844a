"""The ROS 2 nodes: thin, messages in, a call, messages out. The only place that imports rclpy."""

from ssql_ros.processes import blas  # noqa: F401 (before NumPy)
