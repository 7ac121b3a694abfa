"""How long the service is away, as a client sees it: power cuts and orderly hand-overs, under load.

The whole stack (mirror, file system, file service, address) beside the figures that Heartbeat 3.0.6 needs at the same
timing for an address and a web server alone, without a mirror and without a mount. "Dirty" is, for a hand-over, what
the volume still had to write to both disks before it could go; for a power cut, what the disk had not flushed.
"""

from __future__ import annotations

import pathlib
import signal
import statistics
import sys
import tempfile
import time
from typing import Any

from bench.record import write
from relevo.lab import poll
from relevo.lab.demo import polling
from relevo.lab.lab import Lab, Options
from relevo.lab.scene import URL
from relevo.lab.story import Story

ROUNDS = 3
HEARTBEAT_CRASH_S = 2.4
HEARTBEAT_HANDOVER_S = 1.5
WANTED_CRASH_S = 2.6
WANTED_HANDOVER_S = 1.0
LOAD_S = 3.0
SETTLE_S = 2.0
PROBE = "probe.txt"
VOLUME = "/srv/relevo"
DEVICE = "/run/relevo/mirror/r0/device"
DIRTY_MIB = 24
BLOCK_KIB = 4


class Measured:
    """The gaps and the dirty data of all rounds."""

    def __init__(self, lab: Lab, scratch: pathlib.Path) -> None:
        self._lab = lab
        self._story = Story(lab)
        self._scratch = scratch
        self._device = ""
        self.rounds: list[dict[str, Any]] = []

    def _gap(self, kind: str, number: int, active: str) -> None:
        """One interruption under load: from just before it until the service has settled elsewhere."""
        log = self._scratch / f"polls-{len(self.rounds)}.jsonl"
        stored = self._scratch / f"load-{len(self.rounds)}.jsonl"
        with polling(self._lab, log, URL + PROBE), stored.open("wb") as out:
            folder = f"load-{len(self.rounds)}"
            load = self._lab.popen(
                "client", [sys.executable, "-m", "relevo.lab.load", URL, "--folder", folder], stdout=out
            )
            time.sleep(LOAD_S)  # the load is under way
            self._make_dirty(active)
            written_kib = self._written_kib(active)
            start = time.monotonic()
            if kind == "power cut":
                handed_kib = int(self._lab.crash(active)["unflushed_blocks"]) * BLOCK_KIB
            else:
                self._lab.run(active, ["relevo", "standby", active], check=True)
            self._story.await_service_away_from(active)
            time.sleep(SETTLE_S)  # polls that began during the gap end
            load.send_signal(signal.SIGTERM)
            load.wait()
        if kind != "power cut":
            handed_kib = self._written_kib(active) - written_kib
        polls = poll.read_polls(log)
        gap_s = poll.longest_gap_s(polls, start, polls[-1].done)
        self.rounds.append({"kind": kind, "number": number, "gap_s": gap_s, "dirty_kib": handed_kib})

    def _make_dirty(self, active: str) -> None:
        """Data that nobody has asked to be flushed, in the page cache of the mounted volume."""
        write = ["dd", "if=/dev/urandom", f"of={VOLUME}/dirty.bin", "bs=1M", f"count={DIRTY_MIB}"]
        self._lab.run(active, write, check=True)

    def _written_kib(self, active: str) -> int:
        """What the mirror's device was given to write so far; the kernel counts on while it is detached."""
        if not self._device:
            minor = self._lab.run(active, ["stat", "-L", "-c", "%T", DEVICE], check=True).stdout.decode()
            self._device = f"loop{int(minor, 16)}"
        fields = pathlib.Path(f"/sys/block/{self._device}/stat").read_text().split()
        return int(fields[6]) // 2

    def measure(self) -> None:
        """All rounds; each begins with both servers up to date and the service on nodo1."""
        for number in range(ROUNDS):
            self._device = ""
            self._gap("orderly hand-over", number, "nodo1")
            self._lab.run("nodo2", ["relevo", "online", "nodo1"], check=True)
            self._story.await_service_on("nodo1")
            self._device = ""
            self._gap("power cut", number, "nodo1")
            self._lab.boot("nodo1")
            self._story.await_service_on("nodo1")


def _row(rounds: list[dict[str, Any]], kind: str, peer_s: float, wanted_s: float) -> dict[str, Any]:
    gaps = [found["gap_s"] for found in rounds if found["kind"] == kind]
    dirty = [found["dirty_kib"] for found in rounds if found["kind"] == kind]
    return {
        "case": kind,
        "gap, median s": statistics.median(gaps),
        "worst s": max(gaps),
        "wanted s": wanted_s,
        "ratio to Heartbeat 3.0.6": statistics.median(gaps) / peer_s,
        "dirty KiB": statistics.median(dirty),
    }


def main() -> None:
    """Measure and write down."""
    with tempfile.TemporaryDirectory(prefix="relevo-bench-", dir="/var/tmp") as folder:
        lab = Lab(pathlib.Path(folder) / "lab", Options())
        try:
            lab.up()
            probe = lab.shared / PROBE
            probe.write_text("Relevo\n")
            lab.run("client", ["relevo", "put", "--quiet", str(probe), URL], check=True)
            measured = Measured(lab, lab.shared)
            measured.measure()
        finally:
            lab.erase()
    rows = [
        _row(measured.rounds, "power cut", HEARTBEAT_CRASH_S, WANTED_CRASH_S),
        _row(measured.rounds, "orderly hand-over", HEARTBEAT_HANDOVER_S, WANTED_HANDOVER_S),
    ]
    write("failover", "make bench", rows, {"rounds": measured.rounds})
