"""A robot that takes a Twist behind the real shield node: its scan and odometry in, its command out."""

import dataclasses
from pathlib import Path

import pytest

from ssql_ros.contract import load_contract
from ssql_ros.graph.processes import Graph
from ssql_ros.model.bundle import save_bundle
from ssql_ros.model.probes import with_probes
from support.cart import Cart
from support.toy_robot import toy_bundle

pytestmark = pytest.mark.ros
CONTRACT = """
robot: cart
control_period: 0.1
inputs:
  odometry: {topic: odom, type: nav_msgs/msg/Odometry}
  scan: {topic: scan, type: sensor_msgs/msg/LaserScan}
observation:
  trigger: odometry
  frame:
    - {name: speed, input: odometry, field: linear_velocity.x, unit: m/s}
    - {name: heading, input: odometry, field: orientation.yaw, unit: rad, function: cos}
    - {name: front, input: scan, field: "min(-30, 30)", unit: m}
action:
  elements: [{name: forward, low: -1, high: 1}, {name: turn, low: -1, high: 1}]
  command: {topic: cmd_vel, type: geometry_msgs/msg/Twist}
  parts: [{name: linear.x, offset: 0.25, sum: {forward: 0.25}}, {name: angular.z, sum: {turn: 1.5}}]
incident: [{feature: front, below: 0.2, unit: m}]
safe_action: [-1, 0]
"""


def test_a_twist_goes_through_the_shield_within_its_bounds_and_silence_stops_the_robot(domain, tmp_path: Path) -> None:
    path, file = tmp_path / "cart.yaml", tmp_path / "bundle.safetensors"
    path.write_text(CONTRACT)
    contract = load_contract(path)
    bundle = toy_bundle(contract)
    everything = dataclasses.replace(bundle, critic=dataclasses.replace(bundle.critic, epsilon=0.9999))
    save_bundle(with_probes(everything, contract), file)
    cart = Cart()
    with Graph(tmp_path / "logs") as graph:
        graph.start("shield_node", contract=str(path), bundle=str(file))
        cart.until(lambda: (0.3, -0.6) in [(round(v, 9), round(w, 9)) for v, w in cart.told], (0.3, -0.6))
        # Beyond what an action can say: at its bounds.
        cart.told.clear()
        cart.until(lambda: (0.5, 1.5) in [(round(v, 9), round(w, 9)) for v, w in cart.told], (7.0, 9.0))
        cart.told.clear()
        cart.until(lambda: len(cart.told) > 3 and cart.told[-1] == (0.0, 0.0), None)
        cart.close()
