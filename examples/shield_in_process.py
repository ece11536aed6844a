"""Judge actions with the shield's own decision function: arrays in, an action and a reason out. No ROS.

    python examples/shield_in_process.py

A simulated Minitaur is driven by a controller of large random actions. Each one passes `decide`, as it would in
shield_node, and what comes out of it is executed.
"""

from collections import Counter

import numpy as np

from ssql_ros.contract import find_contract, load_contract
from ssql_ros.model.bundle import load_bundle
from ssql_ros.model.critic import shielding_critic, thresholds_of
from ssql_ros.model.proposal import Proposal
from ssql_ros.model.shipped import find_shipped_bundle
from ssql_ros.shield.decision import Decision, Observation, ShieldSettings, decide
from ssql_sim import MinitaurEnv


def main(steps: int = 150) -> Counter[str]:
    """Drive one episode of at most so many steps; return how often the shield decided what."""
    contract = load_contract(find_contract("minitaur"))
    bundle = load_bundle(find_shipped_bundle("minitaur"), contract)
    critic = shielding_critic(bundle)
    # Ages are bounded as the contract says; here all is fresh, because nothing is sent anywhere.
    limits = {"max_observation_age": 0.04, "max_proposal_age": contract.command_timeout}
    settings = ShieldSettings(**thresholds_of(bundle), **limits)

    env, rng = MinitaurEnv(), np.random.default_rng(0)
    vector, _ = env.reset(seed=0)
    decisions: Counter[str] = Counter()
    for step in range(steps):
        now = step * contract.control_period
        wanted = rng.uniform(contract.commanded.low, contract.commanded.high)
        verdict = decide(Observation(vector, now), Proposal(wanted, now), critic, contract, settings, now, rng)
        decisions[verdict.decision.name] += 1
        if verdict.decision is not Decision.PASSED and decisions[verdict.decision.name] == 1:
            print(f"step {step}: {verdict.decision.name}: {verdict.reason}")
        vector, _, terminated, truncated, _ = env.step(verdict.action)
        if terminated or truncated:
            break
    env.close()
    print(", ".join(f"{count} {name}" for name, count in decisions.most_common()))
    return decisions


if __name__ == "__main__":
    main()
