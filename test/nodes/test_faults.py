"""A fault over real processes: the robot falls, the shield latches, and a person releases it."""

import math
import time
from pathlib import Path

import numpy as np
import pytest
from std_srvs.srv import SetBool, Trigger
from test_foreign_robots import Foreign

from ssql_ros.contract import load_contract
from ssql_ros.contract.messages import stamp_of
from ssql_ros.graph.processes import Graph
from ssql_ros.model.bundle import load_bundle, save_bundle
from ssql_ros.model.domain import fitted_domain
from ssql_ros.model.probes import with_probes
from ssql_ros.model.shipped import find_shipped_bundle
from ssql_ros.msg import Episode, ShieldedAction
from ssql_ros.ros.client import Client
from ssql_ros.ros.process import EVENT, LATCHED
from support.robots import CONTRACT, SAFE_COMMAND

pytestmark = pytest.mark.ros
WANTED = CONTRACT.joint_command(np.full(8, 0.1)).tolist()


class Faller(Foreign):
    """A robot that can be laid on its side."""

    def lean(self, roll):
        self.step.imu.orientation.x, self.step.imu.orientation.w = math.sin(roll / 2), math.cos(roll / 2)
        self.step.imu.orientation.y = self.step.imu.orientation.z = 0.0

    def reset(self):
        return self.call(Trigger, "shield_node/reset_fault")


@pytest.fixture
def robot(domain):
    robot = Faller()
    yield robot
    robot.close()


def test_robot_that_falls_is_held_until_it_stands_and_somebody_has_looked(robot, tmp_path):
    contract = tmp_path / "minitaur.yaml"
    contract.write_text(Path(CONTRACT.path).read_text() + "\non_incident: hold\n")
    with Graph(tmp_path / "logs") as graph:
        graph.start("shield_node", contract=str(contract))
        send = robot.command(WANTED)
        robot.hear(lambda a: a.decision == ShieldedAction.PASSED, send)
        refused = robot.reset()
        assert (refused.success, refused.message) == (False, "no fault is latched")

        robot.lean(0.5)
        account = robot.hear(lambda a: a.decision == ShieldedAction.FAULT, send)
        words = "incident: roll 0.500 rad (limit 0.3), margin 0.2 rad"
        assert account.reason == f"latched, hold: {words}"
        assert list(account.action) == CONTRACT.safe_action.tolist()
        robot.until(lambda: robot.states[-1].latched, send)
        state = robot.states[-1]
        assert (state.fault_reason, state.incidents, state.margin_unit) == (words, 1, "rad")
        assert state.margin == pytest.approx(0.2)
        robot.until(lambda: robot.commands[-1].position.tolist() == SAFE_COMMAND, send)
        assert "latched, hold, until ~/reset_fault: incident: roll 0.500 rad" in robot.diagnosed("latched", send=send)
        refused = robot.reset()
        assert not refused.success
        assert "inside its failure set: roll 0.500 rad (limit 0.3), margin 0.2 rad" in refused.message

        # Out of the way it goes, and comes back as it was.
        assert robot.call(SetBool, "shield_node/enable", data=False).success
        robot.until(lambda: robot.commands[-1].position.tolist() == WANTED, send)
        assert robot.call(SetBool, "shield_node/enable", data=True).success
        robot.lean(0.0)
        robot.until(lambda: robot.states[-1].margin < 0.0, send)
        robot.hear(lambda a: a.decision == ShieldedAction.FAULT, send)

        released = robot.reset()
        assert (released.success, released.message) == (True, f"released: {words}")
        robot.hear(lambda a: a.decision == ShieldedAction.PASSED, send)
        robot.until(lambda: robot.commands[-1].position.tolist() == WANTED, send)
        robot.diagnosed("enforce", level=0, send=send)
        values = [v for a in robot.said for s in a.status if s.name.endswith(": shield") for v in s.values]
        assert any(v.key == "fault 0" and v.value.endswith(f"{words}; ~/reset_fault") for v in values)
    log = (tmp_path / "logs" / "shield_node.log").read_text()
    assert f"latched, hold: {words}; ~/reset_fault releases it" in log
    assert load_contract(contract).id == CONTRACT.id


def test_robot_far_from_the_training_data_is_told_of_with_the_figure(robot, tmp_path):
    bundle = load_bundle(find_shipped_bundle("minitaur"), CONTRACT)
    rng = np.random.default_rng(0)
    # As if it had been trained on robots that lean by one radian, whatever they do.
    data = rng.normal(1.0, 0.01, (500, CONTRACT.observation_size))
    critic = bundle.safety_critic()
    told = type(critic)(**{**vars(critic), "domain": fitted_domain(data, data)})
    path = tmp_path / "far.safetensors"
    save_bundle(with_probes(type(bundle)(**{**vars(bundle), "critic": told, "id": "", "path": ""}), CONTRACT), path)
    with Graph(tmp_path / "logs") as graph:
        graph.start("shield_node", bundle=str(path))
        send = robot.command(WANTED)
        robot.until(lambda: robot.states and robot.states[-1].out_of_domain, send)
        state = robot.states[-1]
        assert state.domain_distance > 10.0 * state.domain_limit > 0.0
        assert "out of domain: distance" in robot.diagnosed("out of domain", level=1, send=send)
        # By default it is told, and decisions go on.
        robot.hear(lambda a: a.decision == ShieldedAction.PASSED, send)


def test_simulated_robot_that_falls_is_not_driven_on_and_its_next_episode_is(domain, tmp_path):
    contract = tmp_path / "minitaur.yaml"
    contract.write_text(Path(CONTRACT.path).read_text() + "\non_incident: damp\n")
    accounts, ends = [], []
    with Graph(tmp_path / "logs") as graph, Client("watcher") as client:
        client.node.create_subscription(ShieldedAction, "shield_node/shielded_action", accounts.append, EVENT)
        client.node.create_subscription(Episode, "episode", ends.append, LATCHED)
        graph.start("sim_node", task="minitaur")
        # A threshold that stops nothing, and a controller that falls.
        graph.start("shield_node", contract=str(contract), epsilon=0.999, use_sim_time=True)
        graph.start("behaviour_node", contract="minitaur", sigma=1.0, rho=0.95, bound=2.0, use_sim_time=True)
        end, fallen, first, after = time.monotonic() + 60.0, [], None, set()
        # A simulator on a busy machine may begin anew before the shield has decided on the frame of a fall.
        while ShieldedAction.PASSED not in after:
            assert time.monotonic() < end, "nobody falls"
            graph.check()
            client.spin(0.2)
            fallen = [a for a in accounts if a.decision == ShieldedAction.FAULT]
            reasons = {stamp_of(a): a.reason for a in fallen}
            first = next((end for end in ends if end.incident and stamp_of(end) in reasons), None)
            after = {a.decision for a in accounts if first is not None and stamp_of(a) > stamp_of(first)}
    assert reasons[stamp_of(first)].startswith(f"latched, damp: incident: {first.cause} ")
