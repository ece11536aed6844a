#!/usr/bin/env python3
"""Writes docs/results/safefql.csv: every figure of docs/safefql.md, of one run folder a seed.

    studies/safefql_results.py runs/boat_safefql_0 runs/half_cheetah_velocity_safefql_0 ...

Each run of SafeFQL is calibrated first; of IQL with a Lagrangian the policy alone is judged. Columns as in summary.csv:
experiment, method, task, seed, figure, value.
"""

import json
import subprocess
import sys
from pathlib import Path

RESULTS = Path("docs/results/safefql.csv")
HEADER = "experiment,method,task,seed,figure,value"
# Of the boat all is cheap. An episode of the others has 1,000 steps of MuJoCo.
CALIBRATION = {"boat": []}
FEWER = ["--states", "500", "--epsilon-s", "0.02"]
EPISODES = {"boat": "500"}
FEWER_EPISODES = "50"


def figures(*arguments: str) -> dict[str, float]:
    """Run one command of ssql; return its figures."""
    command = [sys.executable, "-m", "ssql_ros.cli.main", *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])["figures"]


def rows_of(run: Path) -> list[str]:
    """Return the lines of one run."""
    plan = json.loads((run / "config.json").read_text())["plan"]
    task, seed, bundle = plan["task"], str(plan["seed"]), str(run / "bundle.safetensors")
    judged = ["eval", "policy", "--task", task, "--bundle", bundle, "--seed", seed, "--quiet"]
    judged += ["--episodes", EPISODES.get(task, FEWER_EPISODES)]
    # Runs from before there was a choice do not name their algorithm.
    learned = plan.get("algorithm", "safefql")
    found = {}
    if learned == "safefql":
        # Before all else: the shield holds actions against the delta that this stores.
        found["calibration"] = figures("calibrate", bundle, "--quiet", *CALIBRATION.get(task, FEWER))
        # A shield refuses a bundle of which nothing is certified.
        if found["calibration"]["below_delta"]:
            found["safefql_conformal"] = figures(*judged)
    found[learned] = figures(*judged, "--unshielded")
    if learned == "safefql" and task == "boat":
        found["feasible_set"] = figures("eval", "feasible", "--bundle", bundle, "--seed", seed)
    return [
        f"{task}_offline,{method},{task},{seed},{name},{value:.6g}"
        for method, values in found.items()
        for name, value in values.items()
        if value is not None
    ]


def main() -> None:
    """Write the table; lines of other runs stay."""
    lines = {}
    if RESULTS.exists():
        lines = {line.rsplit(",", 1)[0]: line for line in RESULTS.read_text().splitlines()[1:]}
    for run in sys.argv[1:]:
        for line in rows_of(Path(run)):
            lines[line.rsplit(",", 1)[0]] = line
        RESULTS.write_text("\n".join([HEADER, *sorted(lines.values())]) + "\n")


if __name__ == "__main__":
    main()
