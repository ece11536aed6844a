"""Recorders as processes, and a node that publishes what they are to record."""

import signal
import subprocess
import sys
import time

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState

from ssql_ros.contract.messages import fill_joint_state

RELIABLE = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
SENSOR = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
SECONDS = 30  # to wait for a condition before the test fails


class Graph:
    """A ROS graph of its own: a node in this process, and recorder processes."""

    def __init__(self, tmp_path, environment):
        self.folder, self.environment = tmp_path, environment
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=int(environment["ROS_DOMAIN_ID"]))
        self.node = rclpy.create_node("publisher", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.processes = []
        self.reports = []
        self.node.create_subscription(DiagnosticArray, "/diagnostics", lambda m: self.reports.append(m.status[0]), 10)

    def record(self, *arguments):
        command = [sys.executable, "-m", "ssql_ros.nodes.recorder_node", "--ros-args", *arguments]
        process = subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True
        )
        self.processes.append(process)
        return process

    def wait(self, condition, what):
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end, f"waited {SECONDS} s for: {what}"
            for process in self.processes:
                assert process.poll() is None, process.stdout.read()
            self.executor.spin_once(timeout_sec=0.02)

    def publisher(self, kind, topic, qos, subscribers=1):
        publisher = self.node.create_publisher(kind, topic, qos)
        self.wait(lambda: publisher.get_subscription_count() == subscribers, f"the recorder subscribes to {topic}")
        return publisher

    def report(self, condition, what):
        """Wait for a report of the recorder that meets `condition` and return its values."""
        self.reports.clear()
        self.wait(lambda: any(map(condition, self.reports)), what)
        status = next(filter(condition, self.reports))
        return status, {entry.key: entry.value for entry in status.values}

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


def stop(process, number=signal.SIGTERM):
    process.send_signal(number)
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, output
    return output


def joint_state(i):
    return fill_joint_state(JointState(), 20_000_000 * i, ["a", "b"], position=[float(i), -0.5 * i])
