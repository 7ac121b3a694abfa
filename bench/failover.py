"""How long the service is away, as a client sees it: the whole stack of mirror, file system, file service and address.

Four cases, under load, and the service on nodo1 before each: an orderly hand-over with 64 MiB of the volume not yet
written, a power cut, a node daemon that is killed, and a server that comes back after the network was parted. The last
one has a witness, the others have none, as the historic scene. What an address and a web server alone cost, beside the
originals, is measured by `bench/address.py`.
"""

from __future__ import annotations

import contextlib
import pathlib
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from bench.record import write
from relevo.lab import poll
from relevo.lab.demo import polling
from relevo.lab.lab import Lab, Options
from relevo.lab.scene import URL
from relevo.lab.story import Status, Story

ROUNDS = 10
LOAD_S = 2.0
SETTLE_S = 2.0
PROBE = "probe.txt"
VOLUME = "/srv/relevo"
DEVICE = "/run/relevo/mirror/r0/device"
DIRTY_MIB = 64
BLOCK_KIB = 4
NO_GAP_S = 0.25
"""What polls that start every 50 ms can tell from none at all on a machine under load."""
ORDERLY, CUT, KILLED, REJOIN = (
    "orderly hand-over, 64 MiB dirty",
    "power cut",
    "node daemon killed -9",
    "rejoin after a partition, with a witness",
)
WANTED_S = {ORDERLY: 0.5, CUT: 2.6, KILLED: NO_GAP_S, REJOIN: NO_GAP_S}
"""deadtime is 2 s."""


class Measured:
    """The gaps of all rounds in one lab that is up, and how much the volume still had to write."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._story = Story(lab)
        self._scratch = lab.shared
        self._device = ""
        self.rounds: list[dict[str, Any]] = []
        probe = self._scratch / PROBE
        probe.write_text("Relevo\n")
        lab.run("client", ["relevo", "put", "--quiet", str(probe), URL], check=True)

    def _measure(self, kind: str, what: Callable[[], int]) -> None:
        """One interruption under load, from just before it until the service has settled; `what` returns dirty KiB."""
        log = self._scratch / f"polls-{len(self.rounds)}.jsonl"
        with polling(self._lab, log, URL + PROBE), self._load():
            time.sleep(LOAD_S)  # the load is under way
            start = time.monotonic()
            dirty_kib = what()
            time.sleep(SETTLE_S)  # polls that began during the gap end
        polls = poll.read_polls(log)
        gap_s = poll.longest_gap_s(polls, start, polls[-1].done)
        self.rounds.append({"case": kind, "gap_s": gap_s, "dirty_kib": dirty_kib})

    @contextlib.contextmanager
    def _load(self) -> Iterator[None]:
        number = len(self.rounds)
        with (self._scratch / f"load-{number}.jsonl").open("wb") as out:
            argv = [sys.executable, "-m", "relevo.lab.load", URL, "--folder", f"load-{number}"]
            load = self._lab.popen("client", argv, stdout=out)
            try:
                yield
            finally:
                load.send_signal(signal.SIGTERM)
                load.wait()

    # ---- the cases

    def orderly(self) -> None:
        """A hand-over in order, with much that is in the page cache only; then back."""
        self._device = ""
        self._make_dirty()
        written_kib = self._written_kib()

        def hand_over() -> int:
            self._lab.run("nodo1", ["relevo", "standby", "nodo1"], check=True)
            self._story.await_service_away_from("nodo1")
            return self._written_kib() - written_kib

        self._measure(ORDERLY, hand_over)
        self._lab.run("nodo2", ["relevo", "online", "nodo1"], check=True)
        self._story.await_service_on("nodo1")

    def cut(self) -> None:
        """The active server loses its power, then it comes back."""

        def crash() -> int:
            forgotten = int(self._lab.crash("nodo1")["unflushed_blocks"]) * BLOCK_KIB
            self._story.await_service_away_from("nodo1")
            return forgotten

        self._measure(CUT, crash)
        self._lab.boot("nodo1")
        self._story.await_service_on("nodo1")

    def killed(self) -> None:
        """The daemon that decides on the active server dies and is started anew."""

        def kill() -> int:
            self._lab.unit("nodo1", "node", "kill")
            self._story.await_service_on("nodo1")
            return 0

        self._measure(KILLED, kill)

    def rejoin(self) -> None:
        """The passive server was cut off for a while; what is measured is its way back."""
        self._lab.cut("nodo2")
        self._story.await_status("nodo2 dead", "nodo1", lambda state: _state_of(state, "nodo2") == "dead")

        def heal() -> int:
            self._lab.heal("nodo2")
            self._story.await_both_current("nodo1")
            return 0

        self._measure(REJOIN, heal)
        self._story.await_service_on("nodo1")

    # ---- the volume

    def _make_dirty(self) -> None:
        """Data that nobody has asked to be flushed, in the page cache of the mounted volume."""
        argv = ["dd", "if=/dev/urandom", f"of={VOLUME}/dirty.bin", "bs=1M", f"count={DIRTY_MIB}"]
        self._lab.run("nodo1", argv, check=True)

    def _written_kib(self) -> int:
        """What the mirror's device was given to write so far; the kernel counts on while it is detached."""
        if not self._device:
            minor = self._lab.run("nodo1", ["stat", "-L", "-c", "%T", DEVICE], check=True).stdout.decode()
            self._device = f"loop{int(minor, 16)}"
        fields = pathlib.Path(f"/sys/block/{self._device}/stat").read_text().split()
        return int(fields[6]) // 2


def _state_of(state: Status, node: str) -> str:
    return str(state["nodes"][node]["state"])


def _row(rounds: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    gaps = [found["gap_s"] for found in rounds if found["case"] == kind]
    dirty = [found["dirty_kib"] for found in rounds if found["case"] == kind]
    return {
        "case": kind,
        "gap, median s": statistics.median(gaps),
        "worst s": max(gaps),
        "wanted s": WANTED_S[kind],
        "dirty KiB": statistics.median(dirty),
    }


@contextlib.contextmanager
def _measured(options: Options) -> Iterator[Measured]:
    with tempfile.TemporaryDirectory(prefix="relevo-bench-", dir="/var/tmp") as folder:
        lab = Lab(pathlib.Path(folder) / "lab", options)
        try:
            lab.up()
            yield Measured(lab)
        finally:
            lab.erase()


def main(rounds: int = ROUNDS) -> None:
    """Measure and write down."""
    found: list[dict[str, Any]] = []
    with _measured(Options()) as made:
        for _ in range(rounds):
            made.orderly()
            made.cut()
            made.killed()
        found += made.rounds
    with _measured(Options(witness=True)) as made:
        for _ in range(rounds):
            made.rejoin()
        found += made.rounds
    write("failover", "make bench-failover", [_row(found, kind) for kind in WANTED_S], {"rounds": found})
