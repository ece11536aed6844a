"""The Minitaur's actions as joint positions, and back: what tests hold its commands against."""

from collections.abc import Sequence

import numpy as np

from ssql_sim import leg_model


def action_to_joint_positions(action: Sequence[float]) -> np.ndarray:
    """Joint position targets of an action.

    Args:
        action: (8,) swing of the four legs, then extension, dimensionless, not clipped here.

    Returns:
        (8,) URDF joint positions, rad, in the order of JOINT_NAMES, float64.
    """
    return np.array(leg_model.joint_targets([leg_model.ACTION_SCALE * float(a) for a in action]))


def joint_positions_to_action(joint_position: Sequence[float]) -> np.ndarray:
    """Inverse of action_to_joint_positions: (8,) rad -> (8,) action, exact up to rounding."""
    pose = leg_model.leg_pose([d * float(q) for d, q in zip(leg_model.MOTOR_DIRECTION, joint_position, strict=True)])
    return np.array(leg_model.pose_to_scaled_action(pose)) / leg_model.ACTION_SCALE
