"""A build of the mirror that leaves out its flushes: every flush of the disk is answered, and none is done."""

from __future__ import annotations

import os
import sys

from relevo.device.aio import Aio


def fdsync(self: Aio[object], _fd: int, token: object) -> None:
    self._failed.append((token, 0))
    os.eventfd_write(self.fileno(), 1)


Aio.fdsync = fdsync  # type: ignore[method-assign]
if "relevo.mirror.worker" in " ".join(sys.orig_argv):
    print("flushes are left out", file=sys.stderr, flush=True)
