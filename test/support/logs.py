"""A bag of a Minitaur that its safe behaviour policy drives, with the proposals that tell gait and phase."""

from pathlib import Path

import numpy as np

from bench.bag import sensor_message
from ssql_ros.bags import BagWriter, qos_profile
from ssql_ros.robots.tasks import find_task
from support.bags import make_store

TASK = find_task("minitaur_trots")
PERIOD_NS, NANOSECONDS = 20_000_000, 1_000_000_000
JOINTS, PROPOSAL = "sensor_msgs/msg/JointState", "ssql_ros/msg/Proposal"
KINDS = {
    "/odom": "nav_msgs/msg/Odometry",
    "/imu/data": "sensor_msgs/msg/Imu",
    "/joint_states": JOINTS,
    "/joint_commands": JOINTS,
    "/joint_proposals": PROPOSAL,
}


def record_trots(path: Path, episodes: int, steps: int, proposals: bool = True) -> list[float]:
    """Write the bag; return the world's rewards."""
    store, contract, behaviour = make_store(), TASK.contract(), TASK.behaviour_policy()
    env, rng, rewards = TASK.make(**TASK.world("pretrain")), np.random.default_rng(0), []
    start = NANOSECONDS
    with BagWriter(path) as writer:
        for topic, kind in KINDS.items():
            if proposals or kind != PROPOSAL:
                writer.add_topic(topic, kind, [qos_profile()])
        for episode in range(episodes):
            observation, _ = env.reset(seed=episode)
            behaviour.reset(rng)
            for i in range(steps + 1):
                stamp, context = start + i * PERIOD_NS, behaviour.context()
                action = behaviour.act(observation, rng)
                # An episode's last observation is answered by nobody.
                answered = i < steps
                step = (env.sensors(), contract.joint_command(action), contract.commanded.joint_names)
                for topic, kind in KINDS.items():
                    if kind != PROPOSAL and (answered or topic != "/joint_commands"):
                        message = sensor_message(store, step, kind, topic, stamp)
                        writer.write(topic, stamp, bytes(store.serialize_cdr(message, kind)))
                if not answered:
                    break
                if proposals:
                    at = store.types["builtin_interfaces/msg/Time"](stamp // NANOSECONDS, stamp % NANOSECONDS)
                    empty = np.zeros(0)
                    message = store.types[PROPOSAL](
                        store.types["std_msgs/msg/Header"](at, ""),
                        contract.id,
                        "trots",
                        action,
                        empty,
                        empty,
                        context,
                        empty,
                        empty,
                        False,
                    )
                    writer.write("/joint_proposals", stamp, bytes(store.serialize_cdr(message, PROPOSAL)))
                observation, reward, *_ = env.step(action)
                rewards.append(float(reward))
            start = stamp + NANOSECONDS
    env.close()
    return rewards
