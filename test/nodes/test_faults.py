"""A fault over real processes: the robot falls, the shield latches, and a person releases it."""

import math

import numpy as np
import pytest
from std_srvs.srv import SetBool, Trigger
from test_foreign_robots import Foreign

from ssql_ros.contract import load_contract
from ssql_ros.graph.processes import Graph
from ssql_ros.model.bundle import load_bundle, save_bundle
from ssql_ros.model.domain import fitted_domain
from ssql_ros.model.probes import with_probes
from ssql_ros.model.shipped import find_shipped_bundle
from ssql_ros.msg import ShieldedAction
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
    with open(CONTRACT.path) as shipped:
        contract.write_text(shipped.read() + "\non_incident: hold\n")
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
