"""Driver and controller of the Minitaur for tests of real graphs."""

import time

import numpy as np
import rclpy
from rclpy.experimental.events_executor import EventsExecutor
from rclpy.node import Node
from sensor_msgs.msg import Imu, JointState

from bench.round_trip import step_messages
from ssql_ros.contract.messages import set_stamp
from ssql_ros.msg import ShieldedAction, ShieldState
from ssql_ros.robots.tasks import find_task
from ssql_ros.ros.process import COMMAND, EVENT, LATCHED

TASK = find_task("minitaur")
CONTRACT = TASK.contract()
SAFE_COMMAND = CONTRACT.joint_command(CONTRACT.safe_action).tolist()


class Robot:
    """Stands in for driver and controller: sends a standing robot's sensors and whatever command a test wants."""

    def __init__(self):
        rclpy.init()
        self.node = Node("robot")
        self.executor = EventsExecutor()
        self.executor.add_node(self.node)
        self.imu = self.node.create_publisher(Imu, "imu/data", EVENT)
        self.joints = self.node.create_publisher(JointState, "joint_states", EVENT)
        self.raw = self.node.create_publisher(JointState, "joint_commands_raw", COMMAND)
        self.commands, self.accounts, self.states = [], [], []
        self.node.create_subscription(JointState, "joint_commands", self.commands.append, EVENT)
        self.node.create_subscription(ShieldedAction, "shield_node/shielded_action", self.accounts.append, EVENT)
        self.node.create_subscription(ShieldState, "shield_node/state", self.states.append, LATCHED)
        env = TASK.make()
        env.reset(seed=0)
        self.step = step_messages(env.sensors(), CONTRACT.commanded.joint_names, np.array(SAFE_COMMAND))
        env.close()

    def sense(self):
        stamp = self.node.get_clock().now().nanoseconds
        for publisher, message in ((self.imu, self.step.imu), (self.joints, self.step.joint_states)):
            set_stamp(message, stamp)
            publisher.publish(message)
        return stamp

    def until(self, condition, send=lambda _stamp: None, seconds=20.0):
        """Sense and send at the control period until `condition()`."""
        end = time.monotonic() + seconds
        due = time.monotonic()
        while not condition():
            assert time.monotonic() < end, "nothing came in time"
            if time.monotonic() >= due:
                send(self.sense())
                due += CONTRACT.control_period
            self.executor.spin_once(timeout_sec=max(0.0005, due - time.monotonic()))

    def command(self, positions, names=CONTRACT.commanded.joint_names):
        def send(stamp):
            message = JointState(name=list(names), position=[float(p) for p in positions])
            set_stamp(message, stamp)
            self.raw.publish(message)

        return send

    def hear(self, condition, send):
        """Send until an account fulfils `condition`; return it."""
        self.accounts.clear()
        self.until(lambda: any(map(condition, self.accounts)), send)
        return next(account for account in self.accounts if condition(account))

    def close(self):
        self.executor.remove_node(self.node)
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()
