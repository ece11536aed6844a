"""A file written so that a kill or a full disk costs little, and locked while it is written."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
from pathlib import Path


class CommittedFile(io.RawIOBase):
    """A file to write whose bytes reach the disk in commits: all of one or, where it fails, none of it.

    After a failed commit (disk full) the file ends where the last good one ended, and what was written since is still
    held, so that a later commit can succeed.
    """

    def __init__(self, path: Path) -> None:
        self._raw = open(path, "xb", buffering=0)  # noqa: SIM115 (closed by `close`)
        # Who wants to recover the file sees by this that it is still being written. Some file systems have no locks.
        with contextlib.suppress(OSError):
            fcntl.flock(self._raw, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._committed = 0
        self._pending = bytearray()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """Take `data`; it is on the disk after the next commit."""
        self._pending += data
        return len(data)

    def tell(self) -> int:
        """Return the position after everything that was written, committed or not."""
        return self._committed + len(self._pending)

    @property
    def held_bytes(self) -> int:
        """Return how many bytes are not committed."""
        return len(self._pending)

    def commit(self) -> None:
        """Bring everything written so far to the disk.

        Raises:
            OSError: it could not be; the file is as after the last commit.
        """
        if not self._pending:
            return
        try:
            with memoryview(self._pending) as view:
                done = 0
                while done < len(view):
                    done += self._raw.write(view[done:]) or 0
            # A robot's power can go at any time: only what is synced is recorded.
            os.fsync(self._raw.fileno())
        except OSError:
            self._raw.truncate(self._committed)
            self._raw.seek(self._committed)
            raise
        self._committed += len(self._pending)
        self._pending.clear()

    def close(self) -> None:
        """Commit and close. Raises OSError where the commit fails; the file is closed all the same."""
        if self.closed:
            return
        try:
            self.commit()
        finally:
            self._raw.close()
            super().close()
