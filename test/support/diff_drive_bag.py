"""What the robot of diff_drive says over ROS 2: its messages in a bag, and its episodes behind a shield."""

import math
from pathlib import Path

import numpy as np
from rosbags.typesys.store import Typestore

from ssql_ros.bags import BagWriter, qos_profile
from ssql_ros.bags.definitions import Definitions
from ssql_ros.contract import Contract, ObservationAssembler, load_contract
from ssql_ros.contract.messages import CommandReader, InputReader
from ssql_ros.contract.serialised import reader_of
from ssql_ros.model.bundle import load_bundle
from ssql_ros.model.critic import shielding_critic, thresholds_of
from ssql_ros.model.proposal import Proposal
from ssql_ros.shield.decision import Decision, Observation, ShieldSettings, decide
from support.diff_drive import BEAMS, PERIOD, STEPS, TOUCH, DiffDrive

ODOMETRY, SCAN, TWIST = "nav_msgs/msg/Odometry", "sensor_msgs/msg/LaserScan", "geometry_msgs/msg/Twist"
TOPICS = {"/odom": ODOMETRY, "/scan": SCAN, "/cmd_vel": TWIST}
NANOSECONDS = 1_000_000_000


def make_store() -> Typestore:
    """A store of the types that the robot publishes."""
    definitions = Definitions()
    for kind in TOPICS.values():
        definitions.add(kind)
    return definitions.store


def messages(store: Typestore, robot: DiffDrive, stamp: int) -> dict[str, bytes]:
    """What the sensors say at `stamp` ns, as CDR by topic."""
    kinds = store.types
    vector, point = kinds["geometry_msgs/msg/Vector3"], kinds["geometry_msgs/msg/Point"]
    at = kinds["builtin_interfaces/msg/Time"](stamp // NANOSECONDS, stamp % NANOSECONDS)
    turned = kinds["geometry_msgs/msg/Quaternion"](0.0, 0.0, math.sin(robot.heading / 2), math.cos(robot.heading / 2))
    pose = kinds["geometry_msgs/msg/Pose"](point(robot.x, robot.y, 0.0), turned)
    moving = kinds[TWIST](vector(float(robot.v), 0.0, 0.0), vector(0.0, 0.0, float(robot.w)))
    odometry = kinds[ODOMETRY](
        kinds["std_msgs/msg/Header"](at, "odom"),
        "base_link",
        kinds["geometry_msgs/msg/PoseWithCovariance"](pose, np.zeros(36)),
        kinds["geometry_msgs/msg/TwistWithCovariance"](moving, np.zeros(36)),
    )
    step, header = float(BEAMS[1] - BEAMS[0]), kinds["std_msgs/msg/Header"](at, "laser")
    ranges = robot.scan().astype(np.float32)
    scan = kinds[SCAN](
        header, float(BEAMS[0]), float(BEAMS[-1]), step, 0.0, PERIOD, 0.05, 10.0, ranges, np.zeros(0, np.float32)
    )
    return {
        "/odom": bytes(store.serialize_cdr(odometry, ODOMETRY)),
        "/scan": bytes(store.serialize_cdr(scan, SCAN)),
    }


def twist(store: Typestore, command: np.ndarray) -> bytes:
    """A command as CDR."""
    vector = store.types["geometry_msgs/msg/Vector3"]
    made = store.types[TWIST](vector(float(command[0]), 0.0, 0.0), vector(0.0, 0.0, float(command[1])))
    return bytes(store.serialize_cdr(made, TWIST))


def record(path: Path, episodes: int, seed: int = 0) -> int:
    """Write a bag of the controller alone; return how many episodes ended by touching something."""
    store, stamp, touched = make_store(), NANOSECONDS, 0
    period = round(PERIOD * NANOSECONDS)
    with BagWriter(path) as writer:
        for topic, kind in TOPICS.items():
            writer.add_topic(topic, kind, [qos_profile()])
        for episode in range(episodes):
            robot = DiffDrive(seed + episode)
            for step in range(STEPS + 1):
                for topic, data in messages(store, robot, stamp).items():
                    writer.write(topic, stamp + 1_000_000, data)
                if step == STEPS or robot.scan().min() < TOUCH:
                    break
                command = robot.controller()
                writer.write("/cmd_vel", stamp + 5_000_000, twist(store, command))
                robot.step(command)
                stamp += period
            touched += bool(robot.scan().min() < TOUCH)
            stamp += 2 * NANOSECONDS  # it is put elsewhere
    return touched


def drive(contract: Contract | Path, bundle: Path | None, episodes: int, seed: int) -> dict[str, float]:
    """Let the controller drive from its messages, behind the shield of a bundle, or without one; return figures."""
    contract = load_contract(contract) if isinstance(contract, Path) else contract
    store, rng, touched, changed, steps = make_store(), np.random.default_rng(seed), 0, 0, 0
    served = load_bundle(bundle, contract) if bundle is not None else None
    critic = shielding_critic(served) if served is not None else None
    settings = (
        ShieldSettings(**thresholds_of(served), max_observation_age=1e9, max_proposal_age=1e9) if served else None
    )
    inputs = {
        f"/{source.topic}": source for source in contract.inputs.values() if source.name in contract.observed_inputs
    }
    readers = {topic: (reader_of(s.type, bytes), InputReader(contract, s), s.name) for topic, s in inputs.items()}
    parse, commands = reader_of(TWIST, bytes), CommandReader(contract, "cmd_vel")
    distance = 0.0
    for episode in range(episodes):
        robot, assembler = DiffDrive(seed + episode), ObservationAssembler(contract)
        for step in range(STEPS):
            stamp = NANOSECONDS + step * round(PERIOD * NANOSECONDS)
            for topic, data in messages(store, robot, stamp).items():
                if topic in readers:
                    read, values, name = readers[topic]
                    assembler.read(name, stamp, stamp / NANOSECONDS, values(read(data)))
            wanted = commands.joint_command(parse(twist(store, robot.controller())))
            action = contract.clip(contract.action_of(wanted))
            if critic is not None and settings is not None:
                seen = Observation(assembler.vector(), 0.0)
                verdict = decide(seen, Proposal(action, 0.0), critic, contract, settings, 0.0, rng)
                changed += verdict.decision is not Decision.PASSED
                action = verdict.action
            assembler.executed(action, stamp)
            steps += 1
            over = robot.step(contract.joint_command(action))
            distance += robot.v * PERIOD
            if over:
                touched += 1
                break
    return {"incidents": touched / episodes, "interventions": changed / steps, "metres": distance / episodes}
