"""Two servers on a machine that is busy with other things: is anyone declared dead who is alive?"""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from relevo.lab.lab import Lab, Options
from relevo.lab.scene import SERVERS, URL

SPINNERS_PER_CPU = 2
SPIN = "while True: pass"
WRITE = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
data = os.urandom(1 << 20)
while True:
    for number in range(256):
        os.pwrite(fd, data, number << 20)
    os.fsync(fd)
"""
"""The disk full of writes: as fast as it takes them."""
WRITERS = 2


class Steady:
    """A lab that serves, under load; `alarms` says what was thought of whom.

    Args:
        folder: an empty one, on a real disk.
        profile: the cluster's profile; None is the default.
    """

    def __init__(self, folder: pathlib.Path, profile: str | None) -> None:
        self._folder = folder
        self.lab = Lab(folder / "lab", Options(heartbeat={}, profile=profile, disk_bytes=64 << 20))
        self._from: dict[str, int] = {}

    def up(self) -> None:
        """Bring it up, and begin to listen."""
        self.lab.up()
        self._from = {node: len(self.lab.logs(node)) for node in SERVERS}

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Every core saturated twice over, the disk written to without pause, and uploads."""
        spinners = [["-c", SPIN]] * (SPINNERS_PER_CPU * (os.cpu_count() or 1))
        writers = [["-c", WRITE, str(self._folder / f"written-{number}")] for number in range(WRITERS)]
        started = [subprocess.Popen([sys.executable, *argv]) for argv in (*spinners, *writers)]
        with (self._folder / "load.jsonl").open("wb") as out:
            argv = [sys.executable, "-m", "relevo.lab.load", URL, "--folder", "busy"]
            started.append(self.lab.popen("client", argv, stdout=out))
            try:
                yield
            finally:
                for process in started:
                    process.kill()
                    process.wait()

    def watch(self, seconds: float) -> list[str]:
        """Let it run for so long; everyone who was declared dead meanwhile, and by whom."""
        with self.busy():
            time.sleep(seconds)  # how long is what this is about
        return self.alarms()

    def alarms(self) -> list[str]:
        """Who was declared dead since `up`."""
        found = []
        for node in SERVERS:
            for line in self.lab.logs(node)[self._from[node] :].splitlines():
                event = _event(line)
                if event.get("event") == "peer" and event.get("state") == "dead":
                    found.append(f"{node} declared {event['peer']} dead at {event.get('timestamp')}")
        return found

    def down(self) -> None:
        """Leave nothing."""
        self.lab.erase()


def _event(line: str) -> dict[str, Any]:
    _, brace, rest = line.partition("{")
    with contextlib.suppress(msgspec.DecodeError):
        return dict(msgspec.json.decode(brace + rest))
    return {}
