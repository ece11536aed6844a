"""The ROS 2 nodes: thin, messages in, a call, messages out. The only place that imports rclpy."""
