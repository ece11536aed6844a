"""`ssql demo learn`: a robot walks with its safe gaits, a learner beside it learns, a better policy takes over."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ssql_ros.cli.figures import command_line, versions
from ssql_ros.robots import DEFAULT

# Small enough that a round takes a minute beside a simulation on two cores.
SETTINGS = {"hidden": [64, 64], "extraction_updates": 800, "learning_rate": 1e-3}
LEARNER = {"first_steps": 2000, "round_updates": 2500, "shadow_steps": 400, "updates_per_step": 2.0}


@dataclass(frozen=True)
class Walk:
    """One episode: which bundle drove it, and how it went. `velocity` in m/s."""

    bundle_id: str
    total_reward: float
    velocity: float
    steps: int
    incident: bool
    interventions: int


@dataclass
class Heard:
    """What the nodes told while the robot walked.

    Attributes:
        in_force: id of the bundle that policy_node serves.
        swaps: for each bundle that was taken, the number of episodes before it, and who took it.
        learner: the learner's newest diagnostics.
    """

    in_force: str
    swaps: list[tuple[int, str, str]] = field(default_factory=list)
    learner: dict[str, str] = field(default_factory=dict)
    walks: list[Walk] = field(default_factory=list)


def learn(task_name: str | None, minutes: float, seed: int, out: Path | None) -> int:
    """Run the story; return the exit status."""
    from ssql_ros.cli.demo import new_folder
    from ssql_ros.contract import find_nodes_file
    from ssql_ros.graph.processes import Graph, isolate
    from ssql_ros.model.bundle import load_bundle
    from ssql_ros.processes.missing import need_ros
    from ssql_ros.robots.tasks import find_task

    need_ros("ssql demo learn")
    if not (math.isfinite(minutes) and minutes > 0.0):
        raise ValueError(f"--minutes: expected a number above 0, got {minutes}")
    own = [task.name for task in find_task(DEFAULT).plug.tasks if task.first_bundle]
    task = find_task(task_name or own[0])
    gaits = task.first_bundle_path()
    first = load_bundle(gaits, task.contract()).id
    # Of robots that walk; of others the reward is as their contract has it.
    velocity = task.world("pretrain").get("goal_velocity")
    goal = {} if velocity is None else {"goal": float(velocity)}
    folder = new_folder(out, "demo_learn")
    print(f"ROS_DOMAIN_ID={isolate()}, free and on this machine only; logs in {folder / 'logs'}", flush=True)
    config, robot = find_nodes_file(task.robot), {"contract": task.robot, "use_sim_time": True}
    bundle, offers = {"bundle": str(gaits)}, str(folder / "learner")
    with Graph(folder / "logs") as graph:
        graph.start("recorder_node", config, output=str(folder / "bag"), **robot)
        graph.start("sim_node", config, task=task.name, auto_reset=False)
        graph.start("policy_node", config, bundle_folder=offers, **bundle, **robot)
        graph.start("shield_node", config, autostart=False, **bundle, **robot)
        learning = {"behaviour": str(gaits), "folder": offers, "seed": seed, "settings": json.dumps(SETTINGS), **goal}
        graph.start("learner_node", config, contract=task.robot, **learning, **LEARNER)
        heard = _walk(graph, task.contract(), first, minutes, seed)
        graph.stop_all(seconds=30.0)
    _report(folder, heard, first, seed)
    return 0


def _walk(graph: Any, contract: Any, first: str, minutes: float, seed: int) -> Heard:
    """Lead the graph through episodes until the time is over, with one line each."""
    from diagnostic_msgs.msg import DiagnosticArray

    from ssql_ros.msg import ModelStatus
    from ssql_ros.ros.conductor import Conductor
    from ssql_ros.ros.process import ANSWERS

    heard, ends = Heard(first), time.monotonic() + 60.0 * minutes
    with Conductor(graph.check, controller="policy_node") as conductor:

        def on_status(message: ModelStatus) -> None:
            node = message.node.lstrip("/")
            if not message.bundle_id:
                return  # the shield's critic stays: it takes no announcements at all, and says so once
            words = {
                ModelStatus.ACCEPTED: "takes",
                ModelStatus.REFUSED: "refuses",
                ModelStatus.IGNORED: "has no use for",
                ModelStatus.ROLLED_BACK: "goes back to",
            }.get(message.status, "answers on")
            print(f"  {node} {words} bundle {message.bundle_id}: {message.reason}", flush=True)
            if message.status == ModelStatus.ACCEPTED:
                heard.swaps.append((len(heard.walks), message.bundle_id, node))
                if node == "policy_node":
                    heard.in_force = message.bundle_id

        def on_diagnostics(message: DiagnosticArray) -> None:
            for status in message.status:
                if status.name.endswith(": learner"):
                    heard.learner = {value.key: value.value for value in status.values}

        conductor.node.create_subscription(ModelStatus, "model_status", on_status, ANSWERS)
        conductor.node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, 10)
        conductor.configure_shield()
        commands, sensors = (
            contract.commanded.topics,
            [contract.inputs[name].topic for name in contract.observed_inputs],
        )
        conductor.wait_for_listener("recorder_node", [*sensors, *commands])
        conductor.wait_for_listener("learner_node", [*sensors, *commands, "joint_proposals"])
        print("the robot walks with its safe gaits; the learner listens")
        for end, episode in _episodes(conductor, seed, heard, ends):
            walk = Walk(
                end,
                conductor.newest.return_sum,
                conductor.newest.velocity_mean,
                episode.steps,
                episode.incident,
                int(np.count_nonzero(episode.decisions)),
            )
            heard.walks.append(walk)
            told = heard.learner
            who = "safe gaits" if walk.bundle_id == first else f"learned {walk.bundle_id[:6]}"
            print(
                f"  episode {len(heard.walks):3d}  {who:<15} return {walk.total_reward:6.1f}  {walk.velocity:.3f} m/s  "
                f"{'INCIDENT' if walk.incident else 'no incident'}  interventions {walk.interventions:3d}  | learner: "
                f"{told.get('steps') or 0} steps, {told.get('updates') or 0} updates",
                flush=True,
            )
    return heard


def _episodes(conductor: Any, seed: int, heard: Heard, ends: float) -> Iterator[tuple[str, Any]]:
    """Yield episodes until the time is over, each with the bundle that was in force when it began."""
    i = 0
    while time.monotonic() < ends:
        began = heard.in_force
        for episode in conductor.episodes("enforce", seed + i, 1):
            # An episode in which the policy changed counts for neither.
            yield began if heard.in_force == began else f"{began[:6]}->{heard.in_force[:6]}", episode
        i += 1


def _report(folder: Path, heard: Heard, first: str, seed: int) -> None:
    """Print the table, and write figures, plot and report."""
    from ssql_ros.processes.files import write_atomically
    from ssql_ros.report.learning_page import write_learning_page

    incidents = sum(walk.incident for walk in heard.walks)
    print("                    episodes   return (mean, least)   velocity   incidents")
    for bundle_id in dict.fromkeys(walk.bundle_id for walk in heard.walks):
        walks = [walk for walk in heard.walks if walk.bundle_id == bundle_id]
        rewards = [walk.total_reward for walk in walks]
        name = "safe gaits" if bundle_id == first else bundle_id[:16]
        print(
            f"  {name:<18}{len(walks):6d}     {np.mean(rewards):8.1f}, {min(rewards):8.1f}   "
            f"{np.mean([walk.velocity for walk in walks]):8.3f}   {sum(walk.incident for walk in walks):6d}"
        )
    print(f"  incidents from first to last: {incidents} in {sum(walk.steps for walk in heard.walks)} steps")
    facts = {"command": command_line(), "seed": seed, "versions": versions(), "first": first}
    document = {**facts, **asdict(heard)}
    write_atomically(folder / "figures.json", json.dumps(document, indent=1).encode())
    report = write_learning_page(folder / "report.html", document)
    print(f"bag:    {folder / 'bag'}\nreport: {report}")
