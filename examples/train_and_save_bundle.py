"""Train SQRL for a few seconds on a small task, save what it learned as a bundle, and drive with that bundle alone.

    python examples/train_and_save_bundle.py spider.safetensors

The spider's goal is moved to three steps away, so that seconds are enough to see success go up. `ssql train sqrl` is
the whole thing: run folder, checkpoints, curves.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from ssql_ros.evaluation.driver import evaluate
from ssql_ros.model.bundle import Bundle, ProbabilityCritic, load_bundle, save_bundle
from ssql_ros.model.policy import make_policy
from ssql_ros.model.probes import with_probes
from ssql_ros.robots.tasks import find_task
from ssql_ros.training.registry import Start, make_learner
from ssql_ros.training.settings import settings_of
from ssql_ros.training.world_training import WorldTraining
from ssql_sim import SpiderEnv

SMALL = {"hidden": (32, 32), "learning_rate": 3e-3, "batch": 64, "update_every": 2, "initial_temperature": 1.0}


def easy_spider() -> SpiderEnv:
    """The goal lies on the bridge, between two pools of lava."""
    return SpiderEnv(goal=(3.5, 3.5), action_noise=0.1, max_steps=12)


def main(out: Path, steps: int = 2500, seed: int = 0) -> tuple[float, float]:
    """Train, save, load, drive; return the share of successful episodes in training's first fifth and afterwards."""
    torch.set_num_threads(1)  # networks this small only lose by a second one
    task = find_task("spider")
    contract = task.contract()
    settings = settings_of("sqrl", "easy", SMALL | {"target_entropy": -1.0, "mask_from": 1.0})
    spread = np.array(task.centre), np.array(task.spread)
    start = Start(*spread, contract.action_size, contract.id, "easy", "pretrain", steps, seed)
    learner = make_learner("sqrl", start, settings)
    training = WorldTraining(learner, easy_spider, contract, steps, seed)
    for _ in training.run():
        pass

    networks = learner.networks()
    bundle = Bundle(
        contract.id,
        ProbabilityCritic.of(networks["critic"], settings.epsilon, settings.gamma_safe),
        policy=networks["policy"],
        provenance={"command": " ".join(sys.argv), "seed": seed, "steps": steps},
    )
    # Probes: what the networks say of fixed inputs, so that another machine can check that it computes the same.
    save_bundle(with_probes(bundle, contract), out)

    served = load_bundle(out, contract)
    rows = evaluate(make_policy(served), easy_spider(), contract, None, 20, seed)
    first = [row.success for row in training.rows if row.step <= steps // 5]
    before, after = float(np.mean(first)), float(np.mean([row.success for row in rows]))
    print(f"{out}: bundle {served.id}; success {before:.0%} at first, {after:.0%} of 20 episodes with the bundle")
    return before, after


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="bundle to write, .safetensors")
    main(parser.parse_args().out)
