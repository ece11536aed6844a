"""A teleoperator that knows no shield: whole seconds with the stick held, in geometry_msgs/Twist on `cmd_vel`.

    python examples/foreign_teleop.py
    python examples/foreign_teleop.py --ros-args -r cmd_vel:=cmd_vel_raw

It publishes as teleop_twist_joy does with joy's autorepeat_rate, and teleop_twist_keyboard with repeat_rate: the same
Twist again, ten times a second, until another key is held. It sees nothing of what lies ahead. The second line is all
that it takes to put the shield before it.
"""

import contextlib
import random

import rclpy
from geometry_msgs.msg import Twist
from rclpy.node import Node

RATE = 10.0  # Hz, of the repetitions
HELD = (3, 10)  # repetitions, the least and the most that a key is held for
# m/s along x and y, one a key: ahead, back, to both sides, and between them.
KEYS = {"i": (1.0, 0.0), ",": (-1.0, 0.0), "j": (0.0, 1.0), "l": (0.0, -1.0), "u": (0.7, 0.7), "o": (0.7, -0.7)}


class Teleop(Node):
    """Holds one key after the other."""

    def __init__(self) -> None:
        super().__init__("teleop")
        self._out = self.create_publisher(Twist, "cmd_vel", 1)
        self._random, self._key, self._left = random.Random(0), "i", 0
        self.create_timer(1.0 / RATE, self._tick)

    def _tick(self) -> None:
        if self._left == 0:
            self._key, self._left = self._random.choice(list(KEYS)), self._random.randint(*HELD)
        self._left -= 1
        message = Twist()
        message.linear.x, message.linear.y = KEYS[self._key]
        self._out.publish(message)


def main() -> None:
    """Run until told to stop."""
    rclpy.init()
    with contextlib.suppress(KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        rclpy.spin(Teleop())


if __name__ == "__main__":
    main()
