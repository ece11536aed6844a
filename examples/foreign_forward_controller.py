"""A gait that knows no shield: joint positions for a ros2_control forward command controller, and careless ones.

    python examples/foreign_forward_controller.py
    python examples/foreign_forward_controller.py --ros-args -r position_controller/commands:=forward_commands_raw

It publishes std_msgs/Float64MultiArray on `position_controller/commands`, as any program does that drives such a
controller: numbers without names or stamps, the joints in the controller's order. It trots on the spot, and whoever
tuned it let the legs be thrown about. The second line is all that it takes to put the shield before it.
"""

import contextlib
import math
import random

import rclpy
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray

RATE = 50.0  # Hz, as the robot's control rate
STAND = 2.0  # rad, both motors of a leg
SWING, STRETCH, FREQUENCY = 0.15, 0.15, 2.5  # rad, rad, Hz: the trot itself is harmless
# Front left, back left, front right, back right: the diagonals move together.
PHASE = (0.0, math.pi, math.pi, 0.0)
SIDE = (-1.0, -1.0, 1.0, 1.0)
SHAKE, STAYS = 0.12, 0.85  # rad a step, and the share of it that stays until the next


class Gait(Node):
    """Trots, and shakes its legs."""

    def __init__(self) -> None:
        super().__init__("gait")
        self._out = self.create_publisher(Float64MultiArray, "position_controller/commands", 1)
        self._random, self._shaken, self._steps = random.Random(0), [0.0] * 8, 0
        self.create_timer(1.0 / RATE, self._tick)

    def _tick(self) -> None:
        self._steps += 1
        self._shaken = [STAYS * value + self._random.gauss(0.0, SHAKE) for value in self._shaken]
        positions = []
        for leg, (phase, side) in enumerate(zip(PHASE, SIDE, strict=True)):
            angle = 2.0 * math.pi * FREQUENCY * self._steps / RATE + phase
            swing = SWING * math.sin(angle) + self._shaken[leg]
            stretch = STRETCH * math.cos(angle) + self._shaken[4 + leg]
            # Two motors a leg: they turn against each other to swing it, together to stretch it.
            middle = side * (STAND + max(-0.5, min(0.5, stretch)))
            swing = max(-0.5, min(0.5, swing))
            positions += [middle + swing, middle - swing]
        self._out.publish(Float64MultiArray(data=positions))


def main() -> None:
    """Run until told to stop."""
    rclpy.init()
    with contextlib.suppress(KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        rclpy.spin(Gait())


if __name__ == "__main__":
    main()
