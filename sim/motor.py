"""The Minitaur's motors: a PD law on the pulse width, a DC motor with saturating torque, and a heat cut-out.

Works in URDF joint coordinates: every law here is odd, so a motor's direction cancels out. Plain floats on
purpose: for eight motors they cost a fifth of what numpy calls would, and this runs every 1/300 s.
"""

from collections.abc import Sequence
from itertools import pairwise

SUBSTEP = 0.02 / 6  # s
PD_LATENCY = 0.003  # s, age of the position and velocity that the PD law sees
KP = 1.0  # pulse width per rad
KD = 0.015  # pulse width per rad/s

RESISTANCE = 0.186  # ohm
TORQUE_CONSTANT = 0.0954  # N m/A, also the back-EMF constant in V s/rad
# Torque over current, measured on the motor: it saturates. Knots every 10 A, flat from the last one on.
TORQUE_KNOTS = (0.0, 1.0, 1.9, 2.45, 3.0, 3.25, 3.5)  # N m
KNOT_SPACING = 10.0  # A

OVERHEAT_TORQUE = 2.45  # N m
OVERHEAT_TIME = 1.0  # s above OVERHEAT_TORQUE after which a motor is cut off for the rest of the episode

_SATURATION = KNOT_SPACING * (len(TORQUE_KNOTS) - 1)
_SLOPES = tuple((b - a) / KNOT_SPACING for a, b in pairwise(TORQUE_KNOTS))
_OLD = PD_LATENCY / SUBSTEP  # the delayed reading lies between the newest two: weight of the older one
_NEW = 1.0 - _OLD
_OVERHEAT_SUBSTEPS = OVERHEAT_TIME / SUBSTEP


class Motors:
    """Eight motors, with their heat.

    Args:
        voltage: of the battery, V.
        viscous_damping: V s/rad, adds to the back-EMF constant.
    """

    def __init__(self, voltage: float = 16.0, viscous_damping: float = 0.0):
        self.voltage = voltage
        self.viscous_damping = viscous_damping
        self._torques = [0.0] * 8
        self.cool()

    def cool(self) -> None:
        """All motors cold and on."""
        self._hot_substeps = [0] * 8
        self._off = [False] * 8

    def heat(self) -> tuple[list[int], list[bool]]:
        """Substeps above OVERHEAT_TORQUE without a break, and which motors were cut off (a copy)."""
        return self._hot_substeps.copy(), self._off.copy()

    def set_heat(self, heat: tuple[list[int], list[bool]]) -> None:
        self._hot_substeps, self._off = heat[0].copy(), heat[1].copy()

    def torques(
        self,
        target: Sequence[float],
        state: Sequence[tuple],
        previous: Sequence[tuple],
    ) -> list[float]:
        """Torques of the next substep, and the heat they leave.

        Args:
            target: (8,) joint positions, rad.
            state: the eight joints now, as of PyBullet's getJointStates (position rad, velocity rad/s, ...).
            previous: the same, one substep ago.

        Returns:
            (8,) joint torques, N m: the same list at every call.
        """
        voltage, emf = self.voltage, TORQUE_CONSTANT + self.viscous_damping
        hot, torques = self._hot_substeps, self._torques
        for i, (goal, (position, velocity, _, _), (old_position, old_velocity, _, _)) in enumerate(
            zip(target, state, previous, strict=True)
        ):
            pulse_width = -KP * (_NEW * position + _OLD * old_position - goal) - KD * (
                _NEW * velocity + _OLD * old_velocity
            )
            pulse_width = -1.0 if pulse_width < -1.0 else 1.0 if pulse_width > 1.0 else pulse_width
            volts = pulse_width * voltage - emf * velocity
            current = abs(volts) / RESISTANCE
            if current >= _SATURATION:
                # Beyond the knots the torque is flat, so the 50 V limit (269 A) never changes it.
                torque = TORQUE_KNOTS[-1]
            else:
                knot = int(current / KNOT_SPACING)
                torque = TORQUE_KNOTS[knot] + _SLOPES[knot] * (current - KNOT_SPACING * knot)
            if torque > OVERHEAT_TORQUE:
                hot[i] += 1
                if hot[i] > _OVERHEAT_SUBSTEPS:
                    self._off[i] = True
            else:
                hot[i] = 0
            torques[i] = 0.0 if self._off[i] else torque if volts > 0.0 else -torque
        return torques
