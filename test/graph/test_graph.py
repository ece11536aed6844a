"""The graph of nodes over real processes: what a robot is told when everything is well, and when it is not."""

import json
import math
import os
import time
from pathlib import Path

import numpy as np
import pytest
import rclpy
from mcap_ros2.reader import read_ros2_messages
from rclpy.experimental.events_executor import EventsExecutor
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

from ssql_ros.bags import open_bag
from ssql_ros.cli.main import main as ssql
from ssql_ros.contract.messages import stamp_of
from ssql_ros.data.episode import EpisodeJob
from ssql_ros.evaluation.rollout import run_episode
from ssql_ros.graph.processes import Graph
from ssql_ros.msg import ShieldedAction, ShieldState
from ssql_ros.report import records_from_bag
from ssql_ros.ros.conductor import Conductor
from ssql_ros.ros.process import COMMAND, EVENT
from support.robots import CONTRACT, SAFE_COMMAND, TASK, Robot

pytestmark = pytest.mark.ros
HELD, PASSED = ShieldedAction.HELD, ShieldedAction.PASSED


@pytest.fixture
def shielded(domain, tmp_path):
    with Graph(tmp_path / "logs") as graph:
        graph.start("shield_node")
        robot = Robot()
        try:
            robot.until(lambda: robot.accounts)
            yield robot
        finally:
            robot.close()


def is_safe(action):
    return np.allclose(action, CONTRACT.safe_action)


def test_safe_command_goes_through_unchanged_and_stamped_with_its_observation(shielded):
    wanted = CONTRACT.joint_command(np.full(8, 0.01)).tolist()
    account = shielded.hear(lambda a: a.decision == PASSED, shielded.command(wanted))
    shielded.until(lambda: shielded.commands and shielded.commands[-1].position.tolist() == wanted)
    assert account.enforced
    assert account.q_safe_proposal <= account.epsilon
    assert account.bundle_id
    assert account.reason == ""
    assert stamp_of(account) > 0


@pytest.mark.parametrize(
    ("name", "send", "reason"),
    [
        ("nothing", lambda _robot: lambda _stamp: None, "no proposal yet"),
        ("nan", lambda robot: robot.command([math.nan] * 8), "motor_front_leftL_joint is nan"),
        ("wrong length", lambda robot: robot.command([0.0] * 7), "joint_commands_raw"),
        ("missing joint", lambda robot: robot.command([0.0] * 7, CONTRACT.commanded.joint_names[1:]), "lacks motor_fr"),
    ],
)
def test_bad_controller_gives_the_safe_action_and_says_which_topic_and_joint(shielded, name, send, reason):
    account = shielded.hear(lambda a: a.decision == HELD and reason in a.reason, send(shielded))
    assert is_safe(account.action)
    assert account.enforced
    shielded.commands.clear()
    shielded.until(lambda: len(shielded.commands) >= 3, send(shielded))
    assert all(command.position.tolist() == pytest.approx(SAFE_COMMAND) for command in shielded.commands)


def test_sensors_that_fall_silent_lead_to_the_safe_action_every_period(shielded):
    shielded.hear(lambda a: a.decision == PASSED, shielded.command(SAFE_COMMAND))
    shielded.accounts.clear()
    shielded.sense = lambda: 0
    shielded.until(lambda: sum("observation is stale" in a.reason for a in shielded.accounts) >= 5)
    assert all(is_safe(a.action) for a in shielded.accounts if a.decision == HELD)


def test_imu_that_is_not_finite_leads_to_the_safe_action_until_it_is_well_again(shielded):
    shielded.hear(lambda a: a.decision == PASSED, shielded.command(SAFE_COMMAND))
    well = shielded.step.imu.angular_velocity.x
    shielded.step.imu.angular_velocity.x = math.nan
    account = shielded.hear(lambda a: a.decision == HELD, shielded.command(SAFE_COMMAND))
    assert "imu/data" in account.reason
    shielded.step.imu.angular_velocity.x = well
    shielded.hear(lambda a: a.decision == PASSED, shielded.command(SAFE_COMMAND))


def test_disabling_is_shown_in_the_latched_state(shielded):
    client = shielded.node.create_client(SetBool, "shield_node/enable")
    shielded.until(client.service_is_ready)
    future = client.call_async(SetBool.Request(data=False))
    shielded.until(future.done, shielded.command(SAFE_COMMAND))
    assert future.result().success
    shielded.until(lambda: shielded.states and shielded.states[-1].mode == ShieldState.DISABLED)


@pytest.mark.parametrize("damage", ["truncated", "not safetensors", "missing"])
def test_shield_refuses_a_bad_bundle_and_says_why(domain, tmp_path, damage):
    bundle = tmp_path / "bad.safetensors"
    data = TASK.bundle_path().read_bytes()
    if damage != "missing":
        bundle.write_bytes(data[: len(data) // 2] if damage == "truncated" else b"not a bundle at all")
    with Graph(tmp_path / "logs") as graph:
        graph.start("shield_node", bundle=str(bundle))
        log, end = tmp_path / "logs" / "shield_node.log", time.monotonic() + 20
        while "cannot configure" not in log.read_text() and time.monotonic() < end:
            graph.check()
            os.sched_yield()
    text = log.read_text()
    assert "cannot configure" in text
    assert str(bundle) in text


def test_simulator_stops_safely_when_commands_cease(domain, tmp_path):
    with Graph(tmp_path / "logs") as graph:
        graph.start("sim_node", real_time=True)
        rclpy.init()
        node, executor = Node("driver_test"), EventsExecutor()
        executor.add_node(node)
        seen = []
        node.create_subscription(JointState, "joint_states", seen.append, EVENT)
        raised = CONTRACT.joint_command(np.r_[np.zeros(4), np.full(4, -0.8)])
        publisher = node.create_publisher(JointState, "joint_commands", COMMAND)

        def spin(condition):
            end = time.monotonic() + 20
            while not condition():
                assert time.monotonic() < end, "nothing came in time"
                graph.check()
                executor.spin_once(timeout_sec=0.05)

        def gap(target):
            return np.abs(np.array(seen[-1].position) - target).max() if seen else np.inf

        def crouched():
            publisher.publish(JointState(name=list(CONTRACT.commanded.joint_names), position=raised.tolist()))
            return gap(raised) < 0.25

        try:
            spin(crouched)
            spin(lambda: gap(np.array(SAFE_COMMAND)) < 0.25)
        finally:
            executor.remove_node(node)
            executor.shutdown()
            node.destroy_node()
            rclpy.try_shutdown()
    assert "command time-out: safe stop" in (tmp_path / "logs" / "sim_node.log").read_text()


def test_graph_repeats_the_episode_that_one_process_computes(domain, tmp_path):
    """The same seed falls at the same step over ROS as without it: nothing is lost, late or rounded on the way."""
    alone = run_episode(EpisodeJob("minitaur", 4, TASK.noisy_controller()))
    assert alone.incident
    with Graph(tmp_path / "logs") as graph:
        graph.start("sim_node", auto_reset=False, patience=10.0)
        noise = TASK.noisy_controller()
        graph.start("behaviour_node", sigma=noise.sigma, rho=noise.rho, bound=2.0, use_sim_time=True)
        graph.start("shield_node", autostart=False, mode="monitor", use_sim_time=True)
        with Conductor(graph.check) as conductor:
            conductor.configure_shield()
            # What it answers first it takes for an episode of its own, with whatever seed it has by then.
            answers: list[JointState] = []
            conductor.node.create_subscription(JointState, "joint_commands_raw", answers.append, COMMAND)
            conductor.wait(lambda: answers, "the controller's first answer")
            heard = next(conductor.episodes("monitor", 4, 1))
    held = sum(decision == HELD for decision in heard.decisions)
    assert held or (heard.steps, heard.incident) == (len(alone), True)
    assert heard.incident


def test_demo_ends_with_a_bag_and_a_report_that_open(domain, tmp_path, capfd):
    folder = tmp_path / "demo"
    assert ssql(["demo", "--episodes", "1", "--seed", "4", "--out", str(folder)]) == 0
    printed = capfd.readouterr().out
    assert f"bag:    {folder / 'bag'}" in printed
    assert f"report: {folder / 'report.html'}" in printed
    assert "<html" in (folder / "report.html").read_text()
    monitor, enforce = records_from_bag(folder / "bag", CONTRACT)
    assert monitor.episodes[0].incident
    assert enforce.episodes[0].steps > monitor.episodes[0].steps
    with open_bag(folder / "bag") as bag:
        assert "/shield_node/shielded_action" in bag.topics
    (mcap,) = Path(folder / "bag").glob("*.mcap")
    accounts = [m.ros_msg for m in read_ros2_messages(str(mcap), topics=["/shield_node/shielded_action"])]
    assert accounts[0].bundle_id == monitor.bundle_id
    # And each of the shield's decisions is the same when it is taken again.
    assert ssql(["replay", str(folder / "bag"), "--quiet", "--json"]) == 0
    figures = json.loads(capfd.readouterr().out.splitlines()[-1])["figures"]
    assert min(figures["decisions"] - 100, figures["resampled"]) > 0
    assert (figures["different"], figures["without_bundle"], figures["unreadable"]) == (0, 0, 0)
    # A second run into the same folder would overwrite the first.
    assert ssql(["demo", "--out", str(folder)]) == 2
    assert str(folder) in capfd.readouterr().err


def test_json_ends_with_one_line_of_figures(capfd):
    assert ssql(["eval", "shield", "--episodes", "2", "--quiet", "--json"]) == 0
    line = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert set(line) == {"figures", "seed", "versions", "command"}
    assert {"falls_monitor", "falls_enforce", "episodes", "interventions_per_step"} <= set(line["figures"])
