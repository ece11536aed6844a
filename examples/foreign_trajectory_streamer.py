"""A motion that knows no shield: trajectory_msgs/JointTrajectory, streamed a point at a time.

    python examples/foreign_trajectory_streamer.py
    python examples/foreign_trajectory_streamer.py --ros-args \
        -r legs_controller/joint_trajectory:=legs_controller/joint_trajectory_raw

It publishes on `legs_controller/joint_trajectory` as MoveIt Servo does with command_out_type
trajectory_msgs/JointTrajectory: joints by name, in whatever order, one point a message, to be reached at once. Between
the poses of its plan it interpolates smoothly. The plan rocks the robot, front legs against back legs, faster
than it can stand; a planner that knows joints alone does not mind. The second line is all that it takes to put the
shield before it.
"""

import contextlib
import math

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

RATE = 50.0  # Hz, of the points
SECONDS = 0.2  # from pose to pose
STAND = 2.0  # rad, both motors of a leg
# rad, how far each of LEGS is stretched from standing in each pose of the plan.
PLAN = ((0.0, 0.0, 0.0, 0.0), (0.5, -0.5, 0.5, -0.5), (0.0, 0.0, 0.0, 0.0), (-0.5, 0.5, -0.5, 0.5))
LEGS = ("front_left", "back_left", "front_right", "back_right")


class Streamer(Node):
    """Goes through its plan again and again."""

    def __init__(self) -> None:
        super().__init__("streamer")
        self._out = self.create_publisher(JointTrajectory, "legs_controller/joint_trajectory", 1)
        self._steps = 0
        self.create_timer(1.0 / RATE, self._tick)

    def _tick(self) -> None:
        self._steps += 1
        passed, rest = divmod(self._steps / RATE, SECONDS)
        before, after = (PLAN[(int(passed) + i) % len(PLAN)] for i in (0, 1))
        # 0 to 1 with no speed at either end.
        share = 0.5 - 0.5 * math.cos(math.pi * rest / SECONDS)
        message, point = JointTrajectory(), JointTrajectoryPoint()
        for name, start, end in zip(LEGS, before, after, strict=True):
            stretch = STAND + start + share * (end - start)
            message.joint_names += [f"motor_{name}R_joint", f"motor_{name}L_joint"]
            point.positions.extend([-stretch if name.endswith("left") else stretch] * 2)
        point.time_from_start = Duration(seconds=1.0 / RATE).to_msg()
        message.points = [point]
        self._out.publish(message)


def main() -> None:
    """Run until told to stop."""
    rclpy.init()
    with contextlib.suppress(KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        rclpy.spin(Streamer())


if __name__ == "__main__":
    main()
