"""What the simulator knows of each robot: its world's options, how a joint command moves it, what its sensors say."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import gymnasium
import numpy as np
from nav_msgs.msg import Odometry
from rclpy.node import Node
from sensor_msgs.msg import Imu, JointState

from ssql_ros.contract import Contract
from ssql_ros.contract.messages import fill_joint_state, fill_quaternion, fill_vector3, set_stamp
from ssql_ros.robots.tasks import Task
from ssql_ros.ros.process import EVENT

StepResult = tuple[np.ndarray, float, bool, bool, dict[str, Any]]


class Body(Protocol):
    """One robot in its world. `info` has incident, margin, cause (in words) and velocity (m/s, NaN: it has none)."""

    def reset(self, seed: int) -> dict[str, Any]:
        """Begin an episode; return its info."""

    def step(self, command: np.ndarray) -> StepResult:
        """Follow a joint command (n_joint,) for one control period."""

    def publish(self, stamp: int) -> None:
        """Publish what the sensors say at `stamp` ns, the trigger of the contract last."""

    def close(self) -> None:
        """Close the world."""


class MinitaurBody:
    """Joint states, an IMU and odometry; commands are joint positions."""

    def __init__(self, node: Node, task: Task, contract: Contract, value_of: Callable[[str], Any]) -> None:
        randomise = value_of("randomise")
        self._env = task.make(
            **_steps(value_of),
            goal_velocity=value_of("goal_velocity"),
            foot_friction=value_of("foot_friction"),
            randomise=None if randomise == "none" else randomise,
        )
        inputs = {name: source.topic for name, source in contract.inputs.items()}
        self._joint_states = node.create_publisher(JointState, inputs["joint_states"], EVENT)
        self._imu = node.create_publisher(Imu, inputs["imu"], EVENT)
        self._odometry = node.create_publisher(Odometry, inputs["odometry"], EVENT)

    def reset(self, seed: int) -> dict[str, Any]:
        """Begin an episode; return its info."""
        return self._env.reset(seed=seed)[1]

    def step(self, command: np.ndarray) -> StepResult:
        """Follow joint positions (8,), rad, for one control period."""
        return self._env.step_joint_positions(command)

    def publish(self, stamp: int) -> None:
        """Publish odometry, IMU and joint states."""
        reading = self._env.sensors()
        odometry = _odometry(stamp)
        fill_vector3(odometry.pose.pose.position, reading.base_position)
        fill_quaternion(odometry.pose.pose.orientation, reading.base_orientation)
        fill_vector3(odometry.twist.twist.linear, reading.base_velocity_body)
        fill_vector3(odometry.twist.twist.angular, reading.angular_velocity)
        self._odometry.publish(odometry)

        imu = Imu()
        imu.header.frame_id = "base_link"
        set_stamp(imu, stamp)
        fill_quaternion(imu.orientation, reading.orientation)
        fill_vector3(imu.angular_velocity, reading.angular_velocity)
        fill_vector3(imu.linear_acceleration, reading.linear_acceleration)
        self._imu.publish(imu)

        self._joint_states.publish(
            fill_joint_state(
                JointState(),
                stamp,
                reading.joint_names,
                position=reading.joint_position,
                velocity=reading.joint_velocity,
                effort=reading.joint_effort,
            )
        )

    def close(self) -> None:
        """Close the world."""
        self._env.close()


class PointBody:
    """A point in the plane, boat or spider: odometry; commands are the velocities of two drives."""

    def __init__(self, node: Node, task: Task, contract: Contract, value_of: Callable[[str], Any]) -> None:
        self._env: gymnasium.Env = task.make(**{**task.world("finetune"), **_steps(value_of)})
        self._contract = contract
        self._odometry = node.create_publisher(Odometry, contract.inputs["odometry"].topic, EVENT)
        # Joint command = offset + matrix @ action: the drives are two independent ones.
        self._to_action = np.linalg.inv(contract.commanded.matrix)
        self._position = np.zeros(2)

    def reset(self, seed: int) -> dict[str, Any]:
        """Begin an episode; return its info."""
        self._position, info = self._env.reset(seed=seed)
        return self._told(info)

    def step(self, command: np.ndarray) -> StepResult:
        """Follow the velocities (2,) of the drives for one control period."""
        action = self._to_action @ (command - self._contract.commanded.offset)
        self._position, reward, terminated, truncated, info = self._env.step(action)
        return self._position, float(reward), terminated, truncated, self._told(info)

    def publish(self, stamp: int) -> None:
        """Publish odometry."""
        odometry = _odometry(stamp)
        x, y = self._position.tolist()
        fill_vector3(odometry.pose.pose.position, (x, y, 0.0))
        fill_quaternion(odometry.pose.pose.orientation, (0.0, 0.0, 0.0, 1.0))
        self._odometry.publish(odometry)

    def close(self) -> None:
        """Close the world."""
        self._env.close()

    def _told(self, info: dict[str, Any]) -> dict[str, Any]:
        margin, cause = self._contract.margin(self._position)
        return {"margin": margin, "cause": cause if info["incident"] else "", "velocity": math.nan, **info}


BODIES: dict[str, Callable[[Node, Task, Contract, Callable[[str], Any]], Body]] = {
    "minitaur": MinitaurBody,
    "boat": PointBody,
    "spider": PointBody,
}


def _steps(value_of: Callable[[str], Any]) -> dict[str, int]:
    return {"max_steps": value_of("max_steps")} if value_of("max_steps") else {}


def _odometry(stamp: int) -> Odometry:
    odometry = Odometry(child_frame_id="base_link")
    odometry.header.frame_id = "odom"
    set_stamp(odometry, stamp)
    return odometry
