"""Every example of examples/ does what its first lines say."""

import importlib.util
import time
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MOST_LINES = 110


def example(name: str):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_example_is_short_and_tested(path):
    assert len(path.read_text().splitlines()) <= MOST_LINES
    # Programs before which a page puts the shield are run as it says (test_before_your_controller.py).
    page = (EXAMPLES.parent / "docs/tutorials/before_your_controller.md").read_text()
    assert f'example("{path.stem}")' in Path(__file__).read_text() or f"examples/{path.name}" in page


def test_shield_in_process_replaces_unsafe_actions():
    decisions = example("shield_in_process").main(steps=60)
    assert sum(decisions.values()) >= 20
    assert decisions["PASSED"] < sum(decisions.values())
    assert decisions["HELD"] == 0


def test_read_bundle_judges_three_actions():
    scores = example("read_bundle").main(EXAMPLES.parent / "config/bundles/minitaur_critic.safetensors", "minitaur")
    assert np.all((scores > 0.0) & (scores < 1.0))
    assert scores[1] < 0.02


def test_read_bag_to_data_set_finds_every_period_of_a_walk(walk, tmp_path):
    data = example("read_bag_to_data_set").main(walk, tmp_path / "data", "minitaur")
    assert len(data) == 499
    assert data["observation"].shape == data["next_observation"].shape == (499, 120)


def test_train_and_save_bundle_learns(tmp_path):
    before, after = example("train_and_save_bundle").main(tmp_path / "spider.safetensors")
    assert before < 0.5 < after


def test_foreign_driver_obeys_and_stops_on_silence(domain, tmp_path):
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from sensor_msgs.msg import JointState

    from ssql_ros.contract import load_contract
    from ssql_ros.contract.messages import fill_joint_command
    from ssql_ros.ros.process import COMMAND, SENSOR

    cart = example("foreign_driver")
    path = tmp_path / "cart.yaml"
    path.write_text(cart.CONTRACT)
    contract = load_contract(path)
    assert (contract.control_period, contract.command_timeout) == (cart.PERIOD, cart.TIMEOUT)

    rclpy.init()
    driver, controller, executor = cart.CartDriver(), rclpy.create_node("controller"), SingleThreadedExecutor()
    sensed: list[JointState] = []
    controller.create_subscription(JointState, "joint_states", sensed.append, SENSOR)
    publisher = controller.create_publisher(JointState, "joint_commands", COMMAND)
    executor.add_node(driver)
    executor.add_node(controller)

    def until(condition, act=lambda: None, seconds=20.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "nothing came in time"
            act()
            executor.spin_once(timeout_sec=0.005)

    def push():
        command = contract.joint_command(np.array([1.0]))
        publisher.publish(fill_joint_command(JointState(), contract, command, time.time_ns()))

    try:
        until(lambda: len(sensed) >= 3)
        assert driver.stopped
        until(lambda: sensed[-1].velocity[0] == 0.5 and driver.x > 0.0, push)
        assert not driver.stopped
        until(lambda: driver.stopped and sensed[-1].velocity[0] == 0.0)
        x = driver.x
        count = len(sensed)
        until(lambda: len(sensed) >= count + 5)
        assert driver.x == x
    finally:
        executor.shutdown()
        driver.destroy_node()
        controller.destroy_node()
        rclpy.shutdown()
