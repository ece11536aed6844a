"""What `ssql contract init` drafts from a bag of each robot that is shipped, against its contract by hand."""

from pathlib import Path

import numpy as np
import pytest
from rclpy.serialization import serialize_message

from ssql_ros.bags import BagWriter, qos_profile
from ssql_ros.cli.main import main
from ssql_ros.contract import Contract, load_contract
from ssql_ros.contract.messages import fill_joint_state
from ssql_ros.contract.stamped import NANOSECONDS
from ssql_ros.nodes.sensors import MESSAGES
from ssql_ros.robots.tasks import find_task
from ssql_ros.ros.inputs import message_type

TASKS = ("minitaur", "boat", "spider", "half_cheetah_velocity", "swimmer_velocity", "cube")
STEPS, GAP = 40, 2 * NANOSECONDS


def features(contract: Contract) -> set[tuple[str, str, str, str | None]]:
    """The numbers of the frame, whatever a contract calls them: topic, type, field, joint."""
    inputs = {name: (source.topic.lstrip("/"), source.type) for name, source in contract.inputs.items()}
    return {(*inputs[feature.input], feature.field, feature.joint) for feature in contract.observed.frame}


def drive(task_name: str, path: Path) -> None:
    """Record what a robot's driver publishes and takes, over three episodes of commands that mean nothing."""
    task = find_task(task_name)
    contract, rng = task.contract(), np.random.default_rng(0)
    body = task.plug.body(task.make(**task.world("pretrain")), contract)
    told = contract.commanded
    with BagWriter(path) as writer:
        for topic, kind in [*((one.topic, one.type) for one in contract.inputs.values()), (told.topic, told.type)]:
            writer.add_topic(f"/{topic}", kind, [qos_profile()])
        now = NANOSECONDS
        for seed in range(3):
            body.reset(seed)
            for _ in range(STEPS):
                readings = body.readings()
                for name, source in contract.inputs.items():
                    message = MESSAGES[source.type](readings[name], now)
                    writer.write(f"/{source.topic}", now, serialize_message(message))
                command = contract.joint_command(contract.clip(0.3 * rng.normal(size=contract.action_size)))
                message = fill_joint_state(
                    message_type(told.type)(), now, told.joint_names, **{told.field: np.asarray(command)}
                )
                writer.write(f"/{told.topic}", now + 1000, serialize_message(message))
                now += round(contract.control_period * NANOSECONDS)
                if any(body.step(command)[2:4]):
                    break
            now += GAP
    body.close()


@pytest.fixture
def bag(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    drive(request.param, tmp_path / "bag")
    return tmp_path / "bag"


@pytest.mark.parametrize(("bag", "task"), zip(TASKS, TASKS, strict=True), indirect=["bag"])
def test_the_draft_observes_what_the_contract_by_hand_does(bag: Path, task: str, tmp_path: Path) -> None:
    written, out = find_task(task).contract(), tmp_path / "draft.yaml"
    assert main(["contract", "init", str(bag), "--out", str(out), "--incident", incident_of(task)]) == 0
    drafted = load_contract(out)
    assert features(drafted) == features(written)
    assert drafted.control_period == written.control_period
    assert drafted.commanded.joint_names == written.commanded.joint_names
    assert main(["contract", "check", str(out), "--bag", str(bag)]) == 0


def incident_of(task: str) -> str:
    # Any of the frame will do: an incident is what nobody but the user can know.
    named = {"cube": "cube_pose_position_z below 0.01", "boat": "x below -9", "spider": "x below -9"}
    return named.get(task, "roll beyond 1" if task == "minitaur" else "mean_odom_velocity_x above 9")
