"""Pictures of a recorded run: the commands of its bag replayed in the simulator and rendered."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssql_ros.bags import read_messages
from ssql_ros.contract import Contract
from ssql_ros.contract.messages import CommandReader, stamp_of
from ssql_ros.contract.stamped import NANOSECONDS
from ssql_ros.report.page import Frame
from ssql_ros.report.records import RunRecord, typical_pair
from ssql_ros.robots.body import Body

# Control periods before the fall of the unprotected episode at which both episodes are shown.
BEFORE_FALL = (40, 20, 8, 0)
TITLES = {"monitor": "watched", "enforce": "shielded"}


def fall_frames(
    path: str | os.PathLike[str], contract: Contract, world: Any, body: Body, runs: Sequence[RunRecord]
) -> list[Frame]:
    """Return the same instants of one seed without and with the shield, up to the fall of the one without.

    A simulation restored from its seed repeats itself to the bit, so the recorded commands give the recorded motion.

    Args:
        path: the bag.
        world: that was recorded, with render_mode "rgb_array".
        body: the driver of that world.
    """
    if not contract.commanded.stamped:
        return []  # it is not known which step a command is of
    by_mode = {run.mode: run for run in runs}
    if len(by_mode) < len(TITLES):
        return []
    pair = typical_pair(by_mode["monitor"], by_mode["enforce"])
    if pair is None or not pair[0].incident:
        return []
    instants = [max(0, pair[0].steps - before) for before in BEFORE_FALL]
    commands = _commands(path, contract)
    frames = []
    for mode, episode in zip(TITLES, pair, strict=True):
        sent = commands.get((episode.seed, mode == "enforce"), [])
        for step, image in _replayed(world, body, episode.seed, sent, instants):
            seconds = step * contract.control_period
            frames.append(Frame(image, f"{TITLES[mode]}, seed {episode.seed}, {seconds:.2f} s"))
    return frames


def _commands(path: str | os.PathLike[str], contract: Contract) -> dict[tuple[int, bool], list[np.ndarray]]:
    """Return the joint commands of each episode, by seed and whether the shield enforced."""
    read = CommandReader(contract, contract.commanded.topic)
    period = round(contract.control_period * NANOSECONDS)
    by_stamp: dict[int, np.ndarray] = {}
    enforced: dict[int, bool] = {}
    ends = []
    for topic, _, message in read_messages(path):
        if topic.endswith(f"/{contract.commanded.topic}"):
            by_stamp.setdefault(stamp_of(message), read.joint_command(message))
        elif topic.endswith("/shielded_action"):
            enforced[stamp_of(message)] = bool(message.enforced)
        elif topic.endswith("/episode"):
            ends.append((stamp_of(message), int(message.steps), int(message.seed)))
    episodes = {}
    for last, steps, seed in ends:
        stamps = [last - (steps - k) * period for k in range(steps)]
        sent = [by_stamp[stamp] for stamp in stamps if stamp in by_stamp]
        episodes[seed, any(enforced.get(stamp, False) for stamp in stamps)] = sent
    return episodes


def _replayed(
    world: Any, body: Body, seed: int, commands: list[np.ndarray], instants: list[int]
) -> list[tuple[int, np.ndarray]]:
    body.reset(seed)
    pictures = []
    for step in range(max(instants) + 1):
        if step in instants:
            pictures.append((step, world.render()))
        if step < len(commands):
            body.step(commands[step])
    return pictures
