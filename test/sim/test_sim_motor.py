"""The Minitaur's motors against the equations of a DC motor, and their cut-out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssql_sim.motor import OVERHEAT_TIME, SUBSTEP, Motors

eight = st.lists(st.floats(-4.0, 4.0), min_size=8, max_size=8)
eight_fast = st.lists(st.floats(-400.0, 400.0), min_size=8, max_size=8)


def joints(positions, velocities):
    """As PyBullet's getJointStates gives them."""
    return tuple((p, v, (0.0,) * 6, 0.0) for p, v in zip(positions, velocities, strict=True))


def dc_motor(target, position, velocity, old_position, old_velocity, voltage, damping):
    """Torques (8,) in N m: PD law on what was measured 3 ms ago, back-EMF, saturation of torque over current."""
    age = 0.003 / SUBSTEP
    seen_position = (1.0 - age) * position + age * old_position
    seen_velocity = (1.0 - age) * velocity + age * old_velocity
    pulse_width = np.clip(1.0 * (target - seen_position) - 0.015 * seen_velocity, -1.0, 1.0)
    current = np.clip(pulse_width * voltage - (0.0954 + damping) * velocity, -50.0, 50.0) / 0.186
    return np.sign(current) * np.interp(np.abs(current), [0, 10, 20, 30, 40, 50, 60], [0, 1, 1.9, 2.45, 3.0, 3.25, 3.5])


@given(eight, eight, eight_fast, eight, eight_fast, st.floats(14.8, 16.8), st.floats(0.0, 0.01))
def test_torque_is_that_of_the_equations(target, position, velocity, old_position, old_velocity, voltage, damping):
    torques = Motors(voltage, damping).torques(target, joints(position, velocity), joints(old_position, old_velocity))
    values = map(np.array, (target, position, velocity, old_position, old_velocity))
    np.testing.assert_allclose(torques, dc_motor(*values, voltage, damping), rtol=0, atol=1e-10)


def test_stalled_motor_is_cut_off_after_a_second_and_stays_off():
    motors = Motors()
    still = joints([0.0] * 8, [0.0] * 8)
    stalled = [3.0] + [0.1] * 7
    substeps = round(OVERHEAT_TIME / SUBSTEP)
    for _ in range(substeps):
        assert motors.torques(stalled, still, still)[0] == pytest.approx(3.5)
    assert motors.torques(stalled, still, still)[0] == 0.0
    assert motors.torques([0.1] * 8, still, still)[0] == 0.0
    assert min(motors.torques(stalled, still, still)[1:]) > 0.5
    motors.cool()
    assert motors.torques(stalled, still, still)[0] == pytest.approx(3.5)


def test_motor_that_rests_in_time_is_not_cut_off():
    motors = Motors()
    still = joints([0.0] * 8, [0.0] * 8)
    for _ in range(3):
        for _ in range(round(OVERHEAT_TIME / SUBSTEP)):
            motors.torques([3.0] * 8, still, still)
        motors.torques([0.1] * 8, still, still)
    assert min(motors.torques([3.0] * 8, still, still)) == pytest.approx(3.5)


def test_heat_is_kept_and_given_back():
    motors, twin = Motors(), Motors()
    still = joints([0.0] * 8, [0.0] * 8)
    for _ in range(200):
        motors.torques([3.0] * 8, still, still)
    twin.set_heat(motors.heat())
    for _ in range(120):
        assert list(motors.torques([3.0] * 8, still, still)) == list(twin.torques([3.0] * 8, still, still))
