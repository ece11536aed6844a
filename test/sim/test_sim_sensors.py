"""The simulated Minitaur's sensors: what they measure is what the observation says."""

import numpy as np
import pytest
from sensor_msgs.msg import Imu, JointState
from transforms3d.euler import quat2euler
from transforms3d.quaternions import rotate_vector

from ssql_ros.contract import ObservationAssembler, find_contract, load_contract, messages
from ssql_sim import leg_model
from ssql_sim.minitaur import MinitaurEnv


@pytest.fixture
def env():
    env = MinitaurEnv()
    yield env
    env.close()


def test_sensors_reproduce_the_observation(env):
    rng = np.random.default_rng(9)
    env.reset()
    for _ in range(40):
        observation, *_ = env.step(rng.uniform(-1.0, 1.0, 8))
        sensors = env.sensors()
        x, y, z, w = sensors.orientation
        roll, pitch, _ = quat2euler((w, x, y, z), "sxyz")
        np.testing.assert_array_equal(observation[:2], (roll, pitch))
        rates = rotate_vector(sensors.angular_velocity, (w, x, y, z))
        np.testing.assert_allclose(observation[2:4], rates[:2], rtol=0, atol=1e-12)
        angles = [leg_model.wrap(a) for a in sensors.joint_position * leg_model.MOTOR_DIRECTION]
        np.testing.assert_array_equal(observation[4:12], angles)


def test_observation_out_of_the_driver_s_messages_has_the_same_bits(env):
    contract = load_contract(find_contract("minitaur"))
    assembler = ObservationAssembler(contract)
    readers = {name: messages.InputReader(contract, contract.inputs[name]) for name in contract.observed_inputs}

    def publish(step: int) -> None:
        sensors, stamp = env.sensors(), step * 20_000_000
        imu = Imu()
        messages.fill_quaternion(imu.orientation, sensors.orientation)
        messages.fill_vector3(imu.angular_velocity, sensors.angular_velocity)
        joints = messages.fill_joint_state(JointState(), stamp, sensors.joint_names, position=sensors.joint_position)
        for name, message in (("imu", imu), ("joint_states", joints)):
            assembler.read(name, stamp, 0.0, readers[name](message))

    observation, _ = env.reset()
    publish(1)
    np.testing.assert_array_equal(assembler.vector(), observation)
    for step, action in enumerate(np.random.default_rng(3).uniform(-1.0, 1.0, (30, 8)), start=2):
        assembler.executed(action)
        observation, *_ = env.step(action)
        publish(step)
        np.testing.assert_array_equal(assembler.vector(), observation)


def test_sensors_at_rest_measure_gravity_and_hold_it_up(env):
    env.reset()
    for _ in range(250):  # it sways for some seconds
        env.step(np.zeros(8))
    sensors = env.sensors()
    assert sensors.joint_names == leg_model.JOINT_NAMES
    x, y, z, w = sensors.orientation
    upwards = rotate_vector([0.0, 0.0, 10.0], (w, -x, -y, -z))
    np.testing.assert_allclose(sensors.linear_acceleration, upwards, atol=0.02)
    np.testing.assert_allclose(sensors.angular_velocity, 0.0, atol=0.01)
    np.testing.assert_allclose(sensors.joint_velocity, 0.0, atol=0.05)
    # The standing legs are loaded: on the right side positive torque stretches them, on the left negative.
    assert (sensors.joint_effort * leg_model.MOTOR_DIRECTION > 0.1).all()


def test_base_velocity_is_given_in_both_frames(env):
    rng = np.random.default_rng(2)
    env.reset()
    for _ in range(20):
        before = env.sensors().base_position
        env.step(rng.uniform(-1.0, 1.0, 8))
        sensors = env.sensors()
        x, y, z, w = sensors.base_orientation
        turned = rotate_vector(sensors.base_velocity_body, (w, x, y, z))
        np.testing.assert_allclose(turned, sensors.base_velocity_world, rtol=0, atol=1e-12)
    mean = (sensors.base_position - before) / 0.02
    np.testing.assert_allclose(sensors.base_velocity_world, mean, atol=0.5)
