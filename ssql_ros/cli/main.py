"""`ssql`: the command line."""

from __future__ import annotations

import argparse
import sys

from ssql_ros.cli import (
    announce,
    bag,
    bench,
    bundle,
    calibrate,
    collect,
    compare,
    demo,
    evaluate,
    experiment,
    export,
    report,
    run,
    train,
)

_EPILOG = """examples:
  ssql demo                                    an untrusted controller, first unprotected, then behind the shield
  ssql train critic --task minitaur            learn the Minitaur's safety critic, minutes on two cores
  ssql eval shield --task minitaur             falls with and without the shield, same seeds
  ssql announce BUNDLE                         let the running nodes take it, without missing a command
  ssql bench shield                            how long one decision takes, next to torch
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status: 0 done, 1 failed, 2 wrong use or bad input."""
    parser = argparse.ArgumentParser(
        prog="ssql",
        description="Let robots learn without getting hurt: a safety shield, its training and its figures.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for module in (
        demo,
        run,
        collect,
        train,
        experiment,
        evaluate,
        calibrate,
        compare,
        export,
        announce,
        bundle,
        bag,
        report,
        bench,
    ):
        module.add_parser(verbs)
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
