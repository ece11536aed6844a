"""`python -m studies`: as `ssql`, with the verbs of this folder alone."""

import sys

from ssql_ros.cli.main import parser_of, run_verbs
from studies import command

if __name__ == "__main__":
    sys.exit(run_verbs(parser_of("python -m studies", "The studies of docs/results.", [command])))
