"""A served policy over real processes: it sees what the shield sees, and better ones take its place while it runs."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from bench.ros import record
from ssql_ros.contract import ObservationAssembler
from ssql_ros.contract.messages import InputReader, fill_joint_command, set_stamp, stamp_of
from ssql_ros.graph.processes import Graph
from ssql_ros.model.announcement import Purpose
from ssql_ros.model.bundle import Bundle, Layer, Network, load_bundle, save_bundle
from ssql_ros.model.policy import make_policy
from ssql_ros.model.probes import with_probes
from ssql_ros.msg import ModelStatus, Proposal
from ssql_ros.ros.announcer import Announcer
from ssql_ros.ros.process import COMMAND
from support.robots import CONTRACT, SAFE_COMMAND, TASK, Robot

pytestmark = pytest.mark.ros
SHIPPED = load_bundle(TASK.bundle_path(), CONTRACT)
PERIOD = round(CONTRACT.control_period * 1e9)
SECOND = 10**9


def policy_bundle(seed: int, kind: str = "squashed_gaussian") -> Bundle:
    """The shipped critic and a policy of random weights, quiet enough to stand."""
    rng, n, m = np.random.default_rng(seed), CONTRACT.observation_size, CONTRACT.action_size
    behaviour = TASK.behaviour_policy().describe() if kind == "supported_gaussian" else {}
    n += behaviour.get("context", 0)
    shapes = ((n, 32), (32, 2 * m))
    layers = tuple(Layer(rng.normal(0, 0.05, s).astype(np.float32), np.full(s[1], -0.1, np.float32)) for s in shapes)
    mean, scale = np.zeros(n, np.float32), np.ones(n, np.float32)
    policy = Network(mean, scale, 5.0, (layers,))
    return with_probes(replace(SHIPPED, policy=policy, policy_kind=kind, behaviour=behaviour), CONTRACT)


class Driver(Robot):
    """A robot that hears proposals and sends commands of its own, stamped on a clock that only the test moves."""

    def __init__(self):
        super().__init__()
        self.proposals: list[Proposal] = []
        self.node.create_subscription(Proposal, "joint_proposals", self.proposals.append, COMMAND)
        self.command_out = self.node.create_publisher(JointState, "joint_commands", COMMAND)
        self.announcer = Announcer(self.node, "test")
        self.reference = ObservationAssembler(CONTRACT)
        self.readers = {name: InputReader(CONTRACT, CONTRACT.inputs[name]) for name in CONTRACT.observed_inputs}
        self.steps, self.count, self.now = record(TASK, 0), 0, SECOND

    def spin(self, condition, again=lambda: None):
        end, due = time.monotonic() + 20.0, time.monotonic() + 0.1
        while not condition():
            assert time.monotonic() < end, "nothing came in time"
            self.executor.spin_once(timeout_sec=0.02)
            if time.monotonic() > due:
                again()
                due += 0.1

    def observe(self, gap: int = PERIOD) -> np.ndarray:
        """Publish the next step's sensors; return the observation that they make."""
        step, self.now = self.steps[self.count % len(self.steps)], self.now + gap
        self.count += 1
        self.send(step)
        for name, message in (("imu", step.imu), ("joint_states", step.joint_states)):
            self.reference.read(name, self.now, 0.0, self.readers[name](message))
        return self.reference.vector()

    def send(self, step):
        for publisher, message in ((self.imu, step.imu), (self.joints, step.joint_states)):
            set_stamp(message, self.now)
            publisher.publish(message)

    def answer(self) -> Proposal:
        """The proposal for the newest observation, which is told again until somebody answers, as a driver does."""
        step = self.steps[(self.count - 1) % len(self.steps)]
        self.spin(lambda: any(stamp_of(p) == self.now for p in self.proposals), lambda: self.send(step))
        return next(p for p in self.proposals if stamp_of(p) == self.now)

    def execute(self, action: np.ndarray, stamp: int = 0):
        """Command an action that is not the proposed one: what is executed is what counts."""
        joints = CONTRACT.joint_command(action)
        self.command_out.publish(fill_joint_command(JointState(), CONTRACT, joints, stamp or self.now))
        self.reference.executed(action, stamp or self.now)

    def call(self, kind, service, request):
        client = self.node.create_client(kind, service)
        self.spin(client.service_is_ready)
        future = client.call_async(request)
        self.spin(future.done)
        return future.result()


@pytest.fixture
def served(domain, tmp_path):
    """Starts a policy node with a bundle and yields the driver that it is to talk to."""
    drivers = []
    with Graph(tmp_path / "logs") as graph:

        def start(bundle: Bundle, **parameters) -> Driver:
            graph.start("policy_node", bundle=bundle.path, bundle_folder=str(tmp_path.parent), **parameters)
            drivers.append(Driver())
            return drivers[0]

        yield start
        for driver in drivers:
            driver.close()


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> list[Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return [save_bundle(policy_bundle(seed), folder / f"{seed}.safetensors") for seed in range(3)]


def test_policy_sees_what_was_executed_and_answers_with_its_most_probable_action(served, bundles):
    driver, policy = served(bundles[0], best=True), make_policy(bundles[0])
    rng = np.random.default_rng(0)
    for _ in range(25):
        observation = driver.observe()
        proposal = driver.answer()
        np.testing.assert_allclose(proposal.action, policy.best(observation), rtol=0, atol=1e-6)
        assert (proposal.contract_id, proposal.source) == (CONTRACT.id, f"policy {bundles[0].id}")
        driver.execute(rng.uniform(-0.3, 0.3, 8))


def test_command_that_is_heard_after_the_next_observation_is_in_the_history_of_the_one_after(served, bundles):
    driver, policy = served(bundles[0], best=True), make_policy(bundles[0])
    for i in range(12):
        observation = driver.observe()
        if i % 3 != 1:
            # Where the command came late, the answer may be of before or of after it.
            np.testing.assert_allclose(driver.answer().action, policy.best(observation), rtol=0, atol=1e-6)
        if i % 3:
            driver.answer()
        late = driver.now
        if i % 3 == 0:
            driver.observe()
            driver.execute(np.full(8, 0.05 * i), late)
            driver.answer()
        driver.execute(np.full(8, -0.02 * i))


def test_episode_begins_at_a_gap_and_its_draws_follow_from_the_seed(served, bundles):
    driver, policy = served(bundles[0], seed=7), make_policy(bundles[0])
    for episode in range(3):
        rng = np.random.default_rng(7 + episode)
        policy.reset(rng)
        for i in range(4):
            observation = driver.observe(SECOND if i == 0 else PERIOD)
            proposal, wanted = driver.answer(), policy.propose(observation, rng)
            for name in ("action", "mean", "std"):
                np.testing.assert_allclose(getattr(proposal, name), getattr(wanted, name), rtol=0, atol=1e-6)
            assert proposal.squashed
            driver.execute(np.zeros(8))


def test_policy_of_a_support_says_its_context_and_support(served, tmp_path):
    bundle = save_bundle(policy_bundle(0, "supported_gaussian"), tmp_path / "supported")
    driver, policy = served(bundle, seed=3), make_policy(bundle)
    rng = np.random.default_rng(3)
    policy.reset(rng)
    for _ in range(6):
        observation, context = driver.observe(), policy.context()
        proposal, wanted = driver.answer(), policy.propose(observation, rng)
        np.testing.assert_allclose(proposal.context, context)
        for name in ("action", "low", "high"):
            np.testing.assert_allclose(getattr(proposal, name), getattr(wanted, name), rtol=0, atol=1e-6)
        assert (np.array(proposal.low) <= proposal.action).all()
        assert (np.array(proposal.action) <= proposal.high).all()
        driver.execute(np.zeros(8))


def test_swapped_policy_goes_on_in_the_same_stride_and_rolls_back(served, tmp_path):
    first, other = (save_bundle(policy_bundle(seed, "supported_gaussian"), tmp_path / f"{seed}") for seed in range(2))
    driver, policy = served(first, seed=3), make_policy(first)
    policy.reset(np.random.default_rng(3))

    def step(bundle: Bundle):
        driver.observe()
        proposal = driver.answer()
        np.testing.assert_allclose(proposal.context, policy.context())
        assert proposal.source == f"policy {bundle.id}"
        policy.behaviour.advance()
        driver.execute(np.zeros(8))

    for _ in range(5):
        step(first)
    offer = driver.announcer.announce(Path(other.path), CONTRACT.id, True)
    driver.spin(lambda: driver.announcer.answers(offer))
    assert driver.announcer.answers(offer)["/policy_node"].status == ModelStatus.ACCEPTED
    for _ in range(5):
        step(other)
    answer = driver.call(Trigger, "policy_node/rollback", Trigger.Request())
    assert (answer.success, first.id in answer.message) == (True, True)
    for _ in range(5):
        step(first)
    assert not driver.call(Trigger, "policy_node/rollback", Trigger.Request()).success


def test_what_is_no_policy_of_this_robot_changes_nothing(served, bundles, tmp_path):
    driver = served(bundles[0])
    critic_only = save_bundle(with_probes(SHIPPED, CONTRACT), tmp_path / "critic")
    mismatch = save_bundle(replace(policy_bundle(1), probes=policy_bundle(2).probes), tmp_path / "mismatch")
    wanted = {
        critic_only.path: (ModelStatus.IGNORED, "has no policy, only critic"),
        mismatch.path: (ModelStatus.REFUSED, "the policy gives"),
    }
    for path, (status, reason) in wanted.items():
        offer = driver.announcer.announce(Path(path), CONTRACT.id, False, purpose=Purpose.BOTH)
        driver.spin(lambda offer=offer: driver.announcer.answers(offer))
        answer = driver.announcer.answers(offer)["/policy_node"]
        assert (answer.status, answer.in_force) == (status, bundles[0].id)
        assert reason in answer.reason
        driver.observe()
        assert driver.answer().source == f"policy {bundles[0].id}"


def test_output_can_be_a_command_and_changes_while_it_runs(served, bundles):
    driver, policy = served(bundles[0], best=True), make_policy(bundles[0])
    heard = []
    driver.node.create_subscription(JointState, "joint_commands_raw", heard.append, COMMAND)
    driver.observe()
    driver.answer()
    changes = [Parameter("output", value="command").to_parameter_msg()]
    driver.call(SetParameters, "policy_node/set_parameters", SetParameters.Request(parameters=changes))
    driver.execute(np.zeros(8))
    observation = driver.observe()
    driver.spin(lambda: any(stamp_of(m) == driver.now for m in heard), lambda: driver.send(driver.steps[1]))
    np.testing.assert_allclose(heard[-1].position, CONTRACT.joint_command(policy.best(observation)), rtol=0, atol=1e-6)


def test_one_announcement_reaches_policy_and_shield_and_commands_go_on(domain, bundles, tmp_path):
    with Graph(tmp_path / "logs") as graph:
        folder = str(tmp_path.parent)
        graph.start("shield_node", bundle_folder=folder)
        graph.start("policy_node", bundle=bundles[0].path, bundle_folder=folder)
        robot = Robot()
        try:
            announcer = Announcer(robot.node, "test")
            robot.until(lambda: robot.accounts and robot.accounts[-1].proposal)
            robot.until(lambda: len(announcer.receivers()) == 2)
            # A new policy alone: the critic behind it stays where it is.
            offer = announcer.announce(Path(bundles[2].path), CONTRACT.id, True)
            robot.until(lambda: len(announcer.answers(offer)) == 2)
            statuses = {name: answer.status for name, answer in announcer.answers(offer).items()}
            assert statuses == {"/policy_node": ModelStatus.ACCEPTED, "/shield_node": ModelStatus.IGNORED}
            assert robot.states[-1].bundle_id == SHIPPED.id
            offer = announcer.announce(Path(bundles[1].path), CONTRACT.id, True, purpose=Purpose.BOTH)
            robot.until(lambda: len(announcer.answers(offer)) == 2)
            assert {a.status for a in announcer.answers(offer).values()} == {ModelStatus.ACCEPTED}
            robot.until(lambda: robot.states[-1].bundle_id == bundles[1].id)
            robot.accounts.clear()
            robot.until(lambda: len(robot.accounts) > 20)
            assert {account.bundle_id for account in robot.accounts} == {bundles[1].id}
            robot.until(lambda: not np.allclose(robot.commands[-1].position, SAFE_COMMAND, atol=1e-9))
        finally:
            robot.close()
