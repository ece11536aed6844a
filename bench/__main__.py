"""`python -m bench`: as `ssql`, with the verbs of this folder alone."""

import sys

from bench import command
from ssql_ros.cli.main import run_verbs

if __name__ == "__main__":
    sys.exit(run_verbs("python -m bench", "Benchmarks.", [command]))
