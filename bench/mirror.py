"""The mirror under fio, as ratios to the same load on plain loop devices of two backing files, in one run.

Both copies lie on one disk here, so the plain load runs on both loop devices at once: that is what the machine can do
at best for two copies. Backing files are written whole before (a hole would be measured as an allocation).
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

from bench import fio
from bench.record import write
from relevo.lab.lab import Lab, Options
from relevo.lab.story import MIRROR, Story

DISK_BYTES = 512 << 20
SPAN_BYTES = 384 << 20
CHUNK_BYTES = 4 << 20


@contextlib.contextmanager
def plain_loops(folder: pathlib.Path) -> Iterator[list[str]]:
    """Two loop devices with direct I/O on two files that are written whole."""
    devices: list[str] = []
    try:
        for number in range(2):
            image = folder / f"plain{number}.img"
            with image.open("wb") as out:
                for _ in range(0, DISK_BYTES, CHUNK_BYTES):
                    out.write(bytes(CHUNK_BYTES))
                os.fsync(out.fileno())
            losetup = ["losetup", "--find", "--show", "--direct-io=on", "--sector-size", "4096", str(image)]
            done = subprocess.run(losetup, check=True, capture_output=True, text=True)
            devices.append(done.stdout.strip())
        yield devices
    finally:
        for device in devices:
            subprocess.run(["losetup", "--detach", device], check=False)
        for image in folder.glob("plain*.img"):
            image.unlink()


def _mirror_cpu_s() -> float:
    """CPU time that all mirror processes of the lab have used so far, in seconds."""
    ticks = 0
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            if b"mirror" in command and MIRROR.encode() in command and b"bench" not in command:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _mirrored(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    lab = Lab(folder / "lab", Options(disk="plain", disk_bytes=DISK_BYTES))
    results: dict[str, dict[str, Any]] = {}
    try:
        lab.up()
        Story(lab).stop_service()
        for node in ("nodo1", "nodo2"):
            lab.unit(node, "node", "stop")
        device = (
            lab.run("nodo1", ["relevo", "mirror", "primary", MIRROR], check=True, capture=True).stdout.decode().strip()
        )

        def in_node(command: list[str]) -> bytes:
            return bytes(lab.run("nodo1", command, check=True, capture=True).stdout)

        for load in fio.LOADS:
            before_s = _mirror_cpu_s()
            found = fio.run(device, load, SPAN_BYTES, in_node)
            cpu_us = (_mirror_cpu_s() - before_s) / max(1, found.requests) * 1e6
            results[load] = {"iops": found.iops, "bytes_per_s": found.bytes_per_s, "cpu_us_per_request": cpu_us}
        lab.run("nodo1", ["relevo", "mirror", "secondary", MIRROR], check=True)
    finally:
        lab.erase()
    return results


def main() -> None:
    """Measure and write down."""
    with tempfile.TemporaryDirectory(prefix="relevo-bench-", dir="/var/tmp") as scratch:
        folder = pathlib.Path(scratch)
        with plain_loops(folder) as devices:
            plain = {load: fio.run_together(devices, load, SPAN_BYTES) for load in fio.LOADS}
        mirrored = _mirrored(folder)
    rows = [
        {
            "load": load,
            "mirror IOPS": round(mirrored[load]["iops"]),
            "mirror MB/s": mirrored[load]["bytes_per_s"] / 1e6,
            "plain IOPS": round(plain[load].iops),
            "ratio": mirrored[load]["iops"] / plain[load].iops,
            "CPU µs/request, both sides": mirrored[load]["cpu_us_per_request"],
        }
        for load in fio.LOADS
    ]
    raw = {"mirror": mirrored, "plain": {load: plain[load].__dict__ for load in fio.LOADS}}
    write("mirror", "make bench", rows, raw)
