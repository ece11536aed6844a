"""`python -m bench`: as `ssql`, with the verbs of this folder alone."""

import sys

from bench import command
from ssql_ros.cli.main import parser_of, run_verbs

if __name__ == "__main__":
    sys.exit(run_verbs(parser_of("python -m bench", "Benchmarks.", [command])))
