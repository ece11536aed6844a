"""From a rosbag to arrays of transitions: convert, look at what was left out and why, draw a batch. No ROS.

    python examples/read_bag_to_data_set.py bags/first data/first --contract minitaur

`ssql bag convert` does the same and prints more; this is how to do it in a program.
"""

import argparse
from pathlib import Path

import numpy as np

from ssql_ros.bags.data_set import Source, make_data_set
from ssql_ros.contract import find_contract, load_contract
from ssql_ros.data.data_set import DataSet
from ssql_ros.data.rewards import reward_of


def main(bag: Path, out: Path, robot: str) -> DataSet:
    """Convert a bag into the new folder `out` and return the data set."""
    contract = load_contract(find_contract(robot))
    source = Source((bag,), contract, reward_of(contract))
    conversion = make_data_set(source, out, {"command": "examples/read_bag_to_data_set.py"})
    print({name: count for name, count in conversion.counts.items() if count})
    for problem in conversion.problems:
        print(f"problem: {problem}")

    data = DataSet(out)
    data.check_contract(contract.id)
    print(f"{len(data)} transitions in {len(data.episodes())} episodes: {', '.join(data.names)}")
    print(f"incidents: {int(np.sum(data['incident']))}, mean reward {float(np.mean(data['reward'])):.3f}")
    batch = data.batch(min(64, len(data)), np.random.default_rng(0))
    print({name: values.shape for name, values in batch.items()})
    return data


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bag", type=Path)
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--contract", default="minitaur", help="robot name, or path of its contract YAML")
    given = parser.parse_args()
    main(given.bag, given.out, given.contract)
