"""A guard outside the machines: after a deadline, or when its user has died, it takes a lab down by force.

A process that waits in the kernel for a dead server cannot be killed, and cannot end a test by itself; aborting its
FUSE connection from outside can. The guard is its user's process, not the lab's: it ends with its user.
"""

from __future__ import annotations

import pathlib
import select
import subprocess
import sys
from types import TracebackType
from typing import Self

_DONE = b"done\n"


class Watchdog:
    """The guard, as its user holds it.

    Args:
        folder: the lab's folder.
        limit_s: seconds until it acts.
    """

    def __init__(self, folder: pathlib.Path, limit_s: float) -> None:
        argv = [sys.executable, "-P", "-m", "relevo.lab.watchdog", str(limit_s), str(folder)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE)

    def close(self) -> bool:
        """Send it home; False when it had to act."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(_DONE)
            self._process.stdin.close()
        except BrokenPipeError:
            self._process.stdin = None
        return self._process.wait() == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def main(argv: list[str]) -> int:
    """Wait for the word on standard input; without it act."""
    limit_s, folder = float(argv[1]), pathlib.Path(argv[2])
    readable, _, _ = select.select([sys.stdin], [], [], limit_s)
    if readable and sys.stdin.buffer.readline() == _DONE:
        return 0
    from relevo.lab import cleanup
    from relevo.lab.lab import Lab

    why = "its user has died" if readable else f"{limit_s:.0f} s are over"
    sys.stderr.write(f"The lab in {folder} is taken down by its watchdog: {why}.\n")
    lab = Lab(folder)
    cleanup.abort_all(lab.folder)
    lab.down()
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
