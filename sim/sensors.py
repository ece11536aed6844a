"""What the Minitaur's driver would publish after a control step."""

from typing import NamedTuple

import numpy as np


class Sensors(NamedTuple):
    """One reading; vectors are float64 and the caller's own.

    Joints and inertial unit are as old as the control latency (0.02 s); the base's position and velocity, which
    a robot would take from a tracking system, are of now. Orientation turns the body frame to the world frame.
    """

    joint_names: tuple[str, ...]  # (8,) of the URDF
    joint_position: np.ndarray  # (8,) rad, URDF joint coordinates, not wrapped
    joint_velocity: np.ndarray  # (8,) rad/s
    joint_effort: np.ndarray  # (8,) N m, torque applied
    orientation: np.ndarray  # (4,) quaternion x, y, z, w
    angular_velocity: np.ndarray  # (3,) rad/s, body frame (REP-145)
    linear_acceleration: np.ndarray  # (3,) m/s^2, body frame, specific force: +10 upwards at rest
    base_position: np.ndarray  # (3,) m, world frame, of now
    base_orientation: np.ndarray  # (4,) quaternion x, y, z, w, of now
    base_velocity_world: np.ndarray  # (3,) m/s, world frame, of now
    base_velocity_body: np.ndarray  # (3,) m/s, body frame, of now
