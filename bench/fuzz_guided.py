"""`python -m bench.fuzz_guided TARGET [options of libFuzzer]`: inputs that are led by what code they reach.

Needs atheris (`pip install atheris`), which is no dependency of anything else here. Targets whose inputs are bytes; the
first inputs are those that `ssql bench fuzz` would try.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from random import Random

BYTES = ("contract_text", "bundle", "announcement", "key", "checkpoint")
SEEDS = 30


def main() -> int:
    """Try inputs until libFuzzer's own options end it, or one raises what it should not."""
    import atheris

    with atheris.instrument_imports(include=["ssql_ros.contract", "ssql_ros.model", "ssql_ros.nn", "yaml", "json"]):
        from bench.fuzz_targets import TARGETS

        name = sys.argv[1] if len(sys.argv) > 1 else ""
        if name not in BYTES:
            raise SystemExit(f"expected one of {', '.join(BYTES)}, got {name!r}")
        target = TARGETS[name]()
        corpus = Path(tempfile.mkdtemp(prefix="ssql_corpus_"))
        for index in range(SEEDS):
            given = target.make(Random(f"{name}:0:{index}"))
            (corpus / str(index)).write_bytes(given)
            _try(target, given)

    def one(data: bytes) -> None:
        _try(target, data)

    atheris.Setup([sys.argv[0], str(corpus), *sys.argv[2:]], one)
    atheris.Fuzz()
    return 0


def _try(target: object, data: bytes) -> None:
    try:
        target.run(data)  # type: ignore[attr-defined]
    except target.errors:  # type: ignore[attr-defined]
        return


if __name__ == "__main__":
    sys.exit(main())
