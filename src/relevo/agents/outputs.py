"""Where tools write what they say: a file in memory, which what they leave running may go on filling for months.

An init script that starts its program without redirecting what that prints hands it this file. A pipe would end the
program at its next word, once nobody reads; so the file stays, and is emptied now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os

from relevo.agents.aside import aside

NAME = "relevo-output"
MAX_LEFT_BYTES = 1 << 20
"""What is larger is emptied."""
TRIM_PAUSE_S = 60.0
_LINK = f"/memfd:{NAME}"
_STANDARD = (1, 2)


def create() -> int:
    """A new file; whoever writes to it appends, so that it can be emptied under him."""
    output = os.memfd_create(NAME, os.MFD_CLOEXEC)
    fcntl.fcntl(output, fcntl.F_SETFL, os.O_APPEND)
    return output


def trim(limit_bytes: int = MAX_LEFT_BYTES) -> int:
    """Empty those that programs still hold and that are larger; how many there were."""
    count = 0
    for pid in os.listdir("/proc"):  # noqa: PTH208 - a process that ends meanwhile is no error
        for number in _STANDARD if pid.isdigit() else ():
            path = f"/proc/{pid}/fd/{number}"
            with contextlib.suppress(OSError):
                if os.readlink(path).startswith(_LINK):  # noqa: PTH115 - as above
                    count += _trim_one(path, limit_bytes)
    return count


def _trim_one(path: str, limit_bytes: int) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_size <= limit_bytes:
            return 0
        os.ftruncate(fd, 0)
        return 1
    finally:
        os.close(fd)


async def keep_small() -> None:
    """Until cancelled."""
    while True:
        await asyncio.sleep(TRIM_PAUSE_S)  # nothing tells when a program has said much
        await aside(trim)
