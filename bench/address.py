"""How long an address and a web server are away: ours beside the real Heartbeat and the real Pacemaker, in one run.

Every contender gets a lab of its own, the same page, the same deadtime, and the same rounds: nodo1 is left in order
and comes back, nodo1 loses its power and comes back. A client asks every 50 ms. No disk is mirrored here; the whole
stack is measured by `bench/failover.py`.
"""

from __future__ import annotations

import pathlib
import statistics
import tempfile
import time
from typing import Any

from bench.record import write
from bench.services import CONTENDERS, DEADTIME_S, Contender
from relevo.lab import poll
from relevo.lab.demo import polling
from relevo.lab.lab import Lab, Options
from relevo.lab.scene import SERVERS, VIRTUAL_IP

ROUNDS = 10
SETTLE_S = 2.0
"""Polls that began during a gap end, and what would still go away has gone."""
BEFORE_S = 0.5
ORDERLY, CUT = "orderly hand-over", "power cut"
WANTED = {
    (ORDERLY, "Relevo"): "<= 0.5 s",
    (ORDERLY, "Relevo, Apache kept running on both"): "<= 0.3 s",
    (CUT, "Relevo"): "<= 0.95 of Heartbeat",
    (CUT, "Relevo, Apache kept running on both"): "<= 0.95 of Heartbeat",
}


class Contest:
    """All rounds of one contender."""

    def __init__(self, contender: Contender, scratch: pathlib.Path) -> None:
        self._contender = contender
        self._scratch = scratch
        self.gaps: list[dict[str, Any]] = []

    def run(self, rounds: int) -> None:
        """The gaps of every round; the service is on nodo1 before each."""
        made = self._contender
        made.prepare()
        for node in SERVERS:
            made.start(node)
        made.wait_for_service("nodo1")
        for _ in range(rounds):
            time.sleep(SETTLE_S)
            self._gap(ORDERLY)
            made.ended("nodo1")
            made.start("nodo1")
            made.wait_for_service("nodo1")
            time.sleep(SETTLE_S)
            self._gap(CUT)
            made.lab.boot("nodo1", units=False)
            made.start("nodo1")
            made.wait_for_service("nodo1")

    def _gap(self, kind: str) -> None:
        log = self._scratch / f"polls-{len(self.gaps)}.jsonl"
        made = self._contender
        with polling(made.lab, log, f"http://{VIRTUAL_IP}/"):
            time.sleep(BEFORE_S)
            start = time.monotonic()
            if kind == CUT:
                made.lab.crash("nodo1")
            else:
                made.leave("nodo1")
            made.wait_for_service("nodo2")
            time.sleep(SETTLE_S)
        polls = poll.read_polls(log)
        gap_s = poll.longest_gap_s(polls, start, polls[-1].done)
        self.gaps.append({"contender": made.name, "case": kind, "gap_s": gap_s})


def rows_of(gaps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each case and contender: median and worst gap, ratio to Heartbeat's median."""
    rows = []
    for case in (ORDERLY, CUT):
        medians: dict[str, float] = {}
        for name in dict.fromkeys(found["contender"] for found in gaps):
            found = [gap["gap_s"] for gap in gaps if gap["contender"] == name and gap["case"] == case]
            medians[name] = statistics.median(found)
        for name, median in medians.items():
            peer = medians.get("Heartbeat")
            rows.append(
                {
                    "case": case,
                    "contender": name,
                    "gap, median s": median,
                    "worst s": max(gap["gap_s"] for gap in gaps if gap["contender"] == name and gap["case"] == case),
                    "ratio to Heartbeat": median / peer if peer else "-",
                    "wanted": WANTED.get((case, name), ""),
                }
            )
    return rows


def main(rounds: int = ROUNDS) -> None:
    """Measure all that are installed and write down."""
    gaps: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    for kind in CONTENDERS:
        missing = kind.missing()
        if missing:
            left_out[kind.name] = f"not installed: {missing}"
            print(f"{kind.name} is left out ({left_out[kind.name]}).")
            continue
        with tempfile.TemporaryDirectory(prefix="relevo-bench-", dir="/var/tmp") as folder:
            lab = Lab(pathlib.Path(folder) / "lab", Options())
            contender = kind(lab)
            try:
                lab.up(service=False)
                contest = Contest(contender, lab.shared)
                contest.run(rounds)
                gaps += contest.gaps
            finally:
                lab.erase()
                contender.close()
    raw = {"gaps": gaps, "rounds": rounds, "deadtime_s": DEADTIME_S, "left out": left_out}
    write("address", "make bench-failover", rows_of(gaps), raw)
