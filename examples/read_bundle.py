"""What is in a bundle: who made it, its networks, its threshold, and what its critic says of one observation.

python examples/read_bundle.py config/bundles/minitaur_critic.safetensors --contract minitaur
"""

import argparse
from pathlib import Path

import numpy as np

from ssql_ros.contract import find_contract, load_contract
from ssql_ros.model.bundle import Rule, load_bundle
from ssql_ros.model.critic import shielding_critic, sigmoid, thresholds_of


def main(path: Path, robot: str) -> np.ndarray:
    """Print what a bundle holds; return the scores of three actions at the mean of what it was trained on."""
    contract = load_contract(find_contract(robot))
    bundle = load_bundle(path, contract)  # digest, shapes, finite numbers and contract are checked here
    print(f"{path.name}: bundle {bundle.id}, for contract {bundle.contract_id}")
    print(f"made by: {bundle.provenance.get('command', 'not said')}")
    for name, network in bundle.networks().items():
        widths = [len(network.observation_mean), *(len(layer.bias) for layer in network.members[0])]
        print(f"  {name}: {len(network.members)} x {'-'.join(map(str, widths))}, {network.activation}")

    critic = shielding_critic(bundle)
    threshold = {name: value for name, value in thresholds_of(bundle).items() if value is not None}
    print(f"rule {critic.rule.name.lower()}: safe below {threshold}")
    low, high = contract.commanded.low, contract.commanded.high
    actions = np.stack([low, contract.safe_action, high])
    scores = critic.logits(bundle.safety_critic().observation_mean, actions)
    if critic.rule is Rule.PROBABILITY:
        scores = np.array([sigmoid(float(score)) for score in scores])
    print("at the mean observation of its training:")
    for name, score in zip(("lowest", "safe", "highest"), scores, strict=True):
        print(f"  {name} action: {score:.4g}")
    return scores


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--contract", default="minitaur", help="robot name, or path of its contract YAML")
    given = parser.parse_args()
    main(given.bundle, given.contract)
