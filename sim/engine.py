"""PyBullet, imported without the line that it writes to stderr at import, in the middle of progress bars and logs."""

import os
import sys
from types import ModuleType


def _import_quietly() -> ModuleType:
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        import pybullet  # an ImportError is raised as ever; only what C prints is lost
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    return pybullet


pybullet = _import_quietly()
