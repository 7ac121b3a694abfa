"""The mirror under fio, as ratios to the same load on plain loop devices of two backing files, in one run.

Both copies lie on one disk here, so the plain load runs on both loop devices at once: that is what the machine can do
at best for two copies. Both are measured alternately, and the median of the ratios counts. Everything is written whole
before (a hole would be measured as an allocation). CPU time is that of both mirror processes together.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

from bench import fio
from bench.record import write
from relevo.lab.lab import Lab, Options
from relevo.lab.scene import MIRROR
from relevo.lab.story import Story

DISK_BYTES = 512 << 20
SPAN_BYTES = 384 << 20
CHUNK_BYTES = 4 << 20
ROUNDS = 3


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


@contextlib.contextmanager
def mirrored_device(folder: pathlib.Path) -> Iterator[tuple[Lab, str]]:
    """A lab with bare disks in which nodo1 is Primary by hand, and the path of the device there."""
    lab = Lab(folder / "lab", Options(disk="plain", disk_bytes=DISK_BYTES))
    try:
        lab.up()
        Story(lab).stop_service()
        for node in ("nodo1", "nodo2"):
            lab.unit(node, "node", "stop")
        made = lab.run("nodo1", ["relevo", "mirror", "primary", MIRROR], check=True)
        device = made.stdout.decode().strip()
        # As the plain files: written whole, so that no first allocation is measured.
        fill = ["dd", "if=/dev/zero", f"of={device}", "bs=1M", f"count={SPAN_BYTES >> 20}", "oflag=direct"]
        lab.run("nodo1", fill, check=True)
        yield lab, device
        lab.run("nodo1", ["relevo", "mirror", "secondary", MIRROR], check=True)
    finally:
        lab.erase()


def _measure(lab: Lab, device: str, plain: list[str], load: str) -> list[dict[str, float]]:
    """One load on the plain devices and on the mirror, alternately: a disk's pace changes by the minute."""

    def in_node(command: list[str]) -> bytes:
        return bytes(lab.run("nodo1", command, check=True).stdout)

    rounds = []
    for _ in range(ROUNDS):
        bare = fio.run_together(plain, load, SPAN_BYTES)
        before_s = _mirror_cpu_s()
        mirrored = fio.run(device, load, SPAN_BYTES, in_node)
        cpu_us = (_mirror_cpu_s() - before_s) / max(1, mirrored.requests) * 1e6
        rounds.append(
            {
                "plain_iops": bare.iops,
                "mirror_iops": mirrored.iops,
                "mirror_bytes_per_s": mirrored.bytes_per_s,
                "ratio": mirrored.iops / bare.iops,
                "cpu_us_per_request": cpu_us,
            }
        )
    return rounds


def _row(load: str, rounds: list[dict[str, float]]) -> dict[str, Any]:
    median = {key: statistics.median(found[key] for found in rounds) for key in rounds[0]}
    return {
        "load": load,
        "mirror IOPS": round(median["mirror_iops"]),
        "MB/s": median["mirror_bytes_per_s"] / 1e6,
        "plain IOPS": round(median["plain_iops"]),
        "ratio": median["ratio"],
        "CPU µs/request": median["cpu_us_per_request"],
    }


def main() -> None:
    """Measure and write down."""
    with tempfile.TemporaryDirectory(prefix="relevo-bench-", dir="/var/tmp") as scratch:
        folder = pathlib.Path(scratch)
        with plain_loops(folder) as plain, mirrored_device(folder) as (lab, device):
            raw = {load: _measure(lab, device, plain, load) for load in fio.LOADS}
    write("mirror", "make bench", [_row(load, rounds) for load, rounds in raw.items()], raw)
