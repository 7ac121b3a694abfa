"""The mirror under fio, side by side with what it can be compared with, on a disk and in memory.

Both copies lie on one medium here, so the ceiling is the same load on two plain loop devices at once (for reads: on
one, as one copy is read). All contenders stand ready together and are measured in turn, round by round: a disk's pace
changes by the minute. The median of the rounds' ratios counts.
"""

from __future__ import annotations

import contextlib
import pathlib
import statistics
import tempfile
from typing import Any

from bench import contenders, fio
from bench.contenders import Target
from bench.record import write

DISK_BYTES = 512 << 20
SPAN_BYTES = 384 << 20
ROUNDS = 3
MEDIA = {"disk": "/var/tmp", "memory": "/dev/shm"}
CEILING, OURS = "plain loops", "Relevo"
CONTENDERS = {
    CEILING: contenders.plain,
    OURS: contenders.relevo,
    "qemu": contenders.qemu,
    "GlusterFS": contenders.gluster,
}


def _targets(stack: contextlib.ExitStack, folder: pathlib.Path) -> dict[str, Target]:
    return {name: stack.enter_context(make(folder, DISK_BYTES)) for name, make in CONTENDERS.items()}


def _once(target: Target, load: str, devices: tuple[str, ...]) -> dict[str, float] | None:
    """One load on one contender; None: it did not complete it."""
    before_s = target.cpu_s()
    try:
        result = min(fio.run(devices, load, SPAN_BYTES), key=lambda found: found.iops)
    except fio.LoadFailed:
        return None
    cpu_us = (target.cpu_s() - before_s) / max(1, result.requests) * 1e6
    return {"iops": result.iops, "bytes_per_s": result.bytes_per_s, "cpu_us_per_request": cpu_us}


def measure(targets: dict[str, Target]) -> dict[str, list[dict[str, dict[str, float] | None]]]:
    """Every load on every contender, in turn; load -> rounds -> contender -> what was reached."""
    found: dict[str, list[dict[str, dict[str, float] | None]]] = {load: [] for load in fio.LOADS}
    for _ in range(ROUNDS):
        for load, rounds in found.items():
            reads = "read" in load
            rounds.append(
                {name: _once(target, load, target.devices[: 1 if reads else None]) for name, target in targets.items()}
            )
    return found


def _median(rounds: list[dict[str, dict[str, float] | None]], name: str, key: str) -> float | None:
    values = [found[name][key] for found in rounds if found[name] is not None]  # type: ignore[index]
    return statistics.median(values) if values else None


def _ratio(rounds: list[dict[str, dict[str, float] | None]], other: str) -> float | str:
    pairs = [(found[OURS], found[other]) for found in rounds]
    ratios = [ours["iops"] / theirs["iops"] for ours, theirs in pairs if ours and theirs]
    return statistics.median(ratios) if ratios else "–"


def row(medium: str, load: str, rounds: list[dict[str, dict[str, float] | None]]) -> dict[str, Any]:
    """One line of the table."""
    rates = {name: _median(rounds, name, "iops") for name in CONTENDERS}
    return {
        "medium": medium,
        "load": load,
        **{f"{name}, requests/s": "–" if rate is None else round(rate) for name, rate in rates.items()},
        **{f"÷ {name}": _ratio(rounds, name) for name in CONTENDERS if name != OURS},
        "CPU µs/request": round(_median(rounds, OURS, "cpu_us_per_request") or 0),
        "qemu's": round(_median(rounds, "qemu", "cpu_us_per_request") or 0),
    }


def main() -> None:
    """Measure and write down."""
    rows, raw = [], {}
    for medium, place in MEDIA.items():
        with tempfile.TemporaryDirectory(prefix="relevo-bench-", dir=place) as scratch, contextlib.ExitStack() as stack:
            raw[medium] = measure(_targets(stack, pathlib.Path(scratch)))
        rows += [row(medium, load, rounds) for load, rounds in raw[medium].items()]
    write("mirror", "make bench-mirror", rows, raw)
