"""`ssql`: the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import ssql_ros
from ssql_ros.cli import (
    bag,
    bundle,
    calibrate,
    certify,
    check,
    checkout,
    collect,
    contract,
    data,
    demo,
    evaluate,
    learn,
    replay,
    report,
    run,
    train,
    watch,
)
from ssql_ros.processes import interrupts
from ssql_ros.processes.missing import explained, need

_EPILOG = """examples:
  ssql demo                                    an untrusted controller, first unprotected, then behind the shield
  ssql contract init BAG                       draft the contract of a robot from its bag
  ssql learn BAG --contract FILE --out FOLDER  from its bag to a shield, without a simulator
  ssql train critic --task minitaur            learn the Minitaur's safety critic, minutes on two cores
  ssql eval shield --task minitaur             falls with and without the shield, same seeds
  ssql bundle announce BUNDLE                  let the running nodes take it, without missing a command
  ssql watch                                   what the shields on the graph do, live
  ssql replay BAG                              take a robot's decisions again, bit for bit
  ssql bench shield                            how long one decision takes, next to torch
"""


VERBS = (
    run,
    demo,
    watch,
    collect,
    bag,
    data,
    contract,
    check,
    learn,
    train,
    evaluate,
    calibrate,
    certify,
    bundle,
    replay,
    report,
    checkout,
)
# Spellings of before, and what replaces them.
REPLACED = {
    ("export",): "ssql bundle export",
    ("announce",): "ssql bundle announce",
    ("eval", "feasible"): "ssql feasible",
    ("eval", "rivals"): "ssql rivals",
}


class _Parser(argparse.ArgumentParser):
    """Refuses what it does not know itself, so that the usage which is printed is the verb's."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed, unknown


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status: 0 done, 1 failed, 2 wrong use or bad input, 128 + a signal's number."""
    words = tuple(sys.argv[1:] if arguments is None else arguments)
    for before, now in REPLACED.items():
        if words[: len(before)] == before:
            print(f"error: `ssql {' '.join(before)}` is `{now}` now", file=sys.stderr)
            return 2
    return run_verbs(make_parser(), arguments)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of `ssql`."""
    description = "Let robots learn without getting hurt: a safety shield, its training and its figures."
    return parser_of("ssql", description, VERBS, _EPILOG)


def parser_of(name: str, description: str, modules: Sequence[Any], epilog: str = "") -> argparse.ArgumentParser:
    """Return a parser of the command `name`, whose verbs these modules add."""
    parser = _Parser(
        prog=name, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {ssql_ros.__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for module in modules:
        module.add_parser(verbs)
    return parser


def run_verbs(parser: argparse.ArgumentParser, arguments: list[str] | None = None) -> int:
    """Run one command of a parser of `parser_of`; return its exit status, as `main`."""
    options = parser.parse_args(arguments)
    try:
        with interrupts.raising():
            need(*getattr(options, "needs", ()))
            return options.run(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(f"error: {explained(error, f'{parser.prog} {options.verb}')}", file=sys.stderr)
        return 2
    except interrupts.Interrupted as interrupted:
        print(f"interrupted{f'; {interrupted.note}' if interrupted.note else ''}", file=sys.stderr)
        return 128 + interrupted.number
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
