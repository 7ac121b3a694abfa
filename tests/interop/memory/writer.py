"""Writes files of a folder over and over, through the page cache, for so many seconds; prints what it saw as JSON.

`writer.py FOLDER SECONDS`: `bytes` written, `longest_s` between two steps forward (4 MiB taken, or an fsync done).
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import time

PIECE_BYTES = 4 << 20
PIECES = 6
FILES = 4


class Steps:
    """When it last went forward, and the longest pause."""

    def __init__(self) -> None:
        self.began = self.last = time.monotonic()
        self.longest_s = 0.0

    def forward(self) -> None:
        """A step was made."""
        now = time.monotonic()
        self.longest_s = max(self.longest_s, now - self.last)
        self.last = now


def main(folder: str, seconds: float) -> None:
    """Write until the time is over."""
    pathlib.Path("/proc/self/oom_score_adj").write_text("-1000")
    contents = [bytes([65 + number]) * PIECE_BYTES for number in range(2)]
    steps = Steps()
    rounds = 0
    while steps.last < steps.began + seconds:
        fd = os.open(f"{folder}/file{rounds % FILES}", os.O_WRONLY | os.O_CREAT)
        for number in range(PIECES):
            os.pwrite(fd, contents[rounds // FILES % 2], number * PIECE_BYTES)
            steps.forward()
        os.fsync(fd)
        steps.forward()
        os.close(fd)
        rounds += 1
    written = rounds * PIECES * PIECE_BYTES
    print(json.dumps({"bytes": written, "longest_s": round(steps.longest_s, 1), "rounds": rounds}))


main(sys.argv[1], float(sys.argv[2]))
