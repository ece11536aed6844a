"""A driver that is not ours, as a process: a standing Minitaur at 50 Hz, with what a test wants of QoS and stamps.

    python foreign_driver.py '{"frames": 100, "best_effort": true, "imu_ahead": 1000000, "carried": 50}'

The action of frame i has a swing of 0.01 (i mod 20) on all legs. From frame `carried` on the robot stands 2 m further.
It ends when all is sent.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import rclpy
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import Imu, JointState

sys.path.append(str(Path(__file__).parents[2]))  # a program of its own, in a checkout
from bench.round_trip import step_messages
from ssql_ros.contract.messages import fill_joint_command, set_stamp
from ssql_ros.msg import ModelStatus
from ssql_ros.robots.tasks import find_task
from ssql_ros.ros.process import ANSWERS

GARBAGE = (b"\x00", b"\x00\x03\x00\x00\xff\xff\xff\xff", b"\x00\x01\x00\x00" + 40 * b"\xff")


def main() -> None:
    wanted = json.loads(sys.argv[1])
    task = find_task("minitaur")
    contract = task.contract()
    env = task.make()
    env.reset(seed=0)
    step = step_messages(env.sensors(), contract.commanded.joint_names, np.zeros(8))
    env.close()
    rclpy.init()
    node = Node("foreign_driver")
    reliable = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
    qos = qos_profile_sensor_data if wanted.get("best_effort") else reliable
    kinds = {"imu/data": Imu, "odom": Odometry, "joint_states": JointState, "joint_commands": JointState}
    publishers = {topic: node.create_publisher(kind, topic, qos) for topic, kind in kinds.items()}
    while not all(publisher.get_subscription_count() for publisher in publishers.values()):
        time.sleep(0.02)
    # A reader that takes best effort loses what is sent before it has found the publisher too.
    time.sleep(1.0)
    if wanted.get("garbage"):
        statuses = node.create_publisher(ModelStatus, "model_status", ANSWERS)
        while not statuses.get_subscription_count():
            time.sleep(0.02)
        for data in GARBAGE:
            for publisher in (*publishers.values(), statuses):
                publisher.publish(data)
    start = time.time_ns()
    for i in range(wanted["frames"]):
        stamp = start + i * 20_000_000
        time.sleep(max(0.0, (stamp - time.time_ns()) / 1e9))
        action = np.tile([0.01 * (i % 20), 0.0], 4)
        command = fill_joint_command(JointState(), contract, contract.joint_command(action), stamp)
        odometry = Odometry()
        odometry.pose.pose.position.x = 0.001 * i + 2.0 * (i >= wanted.get("carried", wanted["frames"]))
        odometry.pose.pose.orientation.w = 1.0
        set_stamp(odometry, stamp)
        set_stamp(step.imu, stamp - wanted.get("imu_ahead", 0))
        set_stamp(step.joint_states, stamp)
        messages = {"imu/data": step.imu, "odom": odometry, "joint_states": step.joint_states}
        for topic, message in {**messages, "joint_commands": command}.items():
            publishers[topic].publish(message)
    time.sleep(0.5)  # what is on its way leaves
    rclpy.shutdown()


if __name__ == "__main__":
    main()
