"""How fast a resync goes when nobody else writes, beside what one TCP stream and the disks can do.

The bound is the smaller of two rates measured right before: one TCP stream over the same virtual cable, and reading one
file while the other is written (1 MiB requests, depth 4, direct I/O), on the same medium.
"""

from __future__ import annotations

import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from bench import contenders, fio
from bench.record import write
from cable import Cable
from mirror_pair import ADDRESSES, Pair

DATA_BYTES = 4 << 30
SPARE_BYTES = 4 << 20
LIMIT_S = 600.0
ROUNDS = 3
MEDIA = {"disk": "/var/tmp", "memory": "/dev/shm"}
PORT = 7900
STREAM_BYTES = 4 << 30
CHUNK_BYTES = 1 << 20
_SENDER = """
import socket, sys
chunk = bytes(int(sys.argv[4]))
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as out:
    for _ in range(int(sys.argv[3]) // len(chunk)):
        out.sendall(chunk)
"""
_RECEIVER = """
import socket, sys, time
room = bytearray(int(sys.argv[3]))
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as server:
    print("ready", flush=True)
    came, _ = server.accept()
    start, total = time.monotonic(), 0
    while count := came.recv_into(room):
        total += count
    print(total / (time.monotonic() - start))
"""


def tcp_bytes_per_s() -> float:
    """What one TCP stream carries between two namespaces."""
    cable = Cable(ADDRESSES)
    try:
        enter = {name: ["nsenter", f"--net=/run/netns/{space}"] for name, space in cable.namespaces.items()}
        where = [ADDRESSES["nodo2"], str(PORT)]
        receive = [*enter["nodo2"], sys.executable, "-c", _RECEIVER, *where, str(CHUNK_BYTES)]
        with subprocess.Popen(receive, stdout=subprocess.PIPE, text=True) as receiver:
            assert receiver.stdout is not None
            receiver.stdout.readline()
            send = [*enter["nodo1"], sys.executable, "-c", _SENDER, *where, str(STREAM_BYTES), str(CHUNK_BYTES)]
            subprocess.run(send, check=True)
            return float(receiver.stdout.read())
    finally:
        cable.close()


def disk_bytes_per_s(folder: pathlib.Path) -> float:
    """What reading one file and writing another at once reaches; the slower of both."""
    with contenders.plain(folder, DATA_BYTES) as target:
        loads = zip(target.devices, ("1 MiB sequential read, depth 4", "1 MiB sequential write, depth 4"), strict=True)
        running = [
            subprocess.Popen(fio.command(device, load, DATA_BYTES), stdout=subprocess.PIPE) for device, load in loads
        ]
        return min(fio.parse(process.communicate()[0]).bytes_per_s for process in running)


def resync_bytes_per_s(folder: pathlib.Path) -> tuple[float, float]:
    """A first full sync: its rate, and the CPU time of both sides for a MiB in µs."""
    place = folder / "pair"
    place.mkdir()
    pair = Pair(place, LIMIT_S, DATA_BYTES + SPARE_BYTES, zeroed=False)
    try:
        for side in pair.sides.values():
            contenders.write_whole(side.disk, DATA_BYTES + SPARE_BYTES, keep_end=True)
            side.start()
        for side in pair.sides.values():
            side.wait_for(lambda status: status["connection"] == "Connected", "its peer")
        target = contenders.Target((), (pair.one.worker(), pair.two.worker()))
        before_s, start = target.cpu_s(), time.monotonic()
        pair.one.promote(force=True)
        pair.wait_in_sync(LIMIT_S)
        took_s = time.monotonic() - start
        done = pair.two.status()["resync_total_bytes"]
        cpu_us = (target.cpu_s() - before_s) * 1e6 / (done / contenders.MIB)
        pair.one.call("secondary")
        return done / took_s, cpu_us
    finally:
        pair.close()
        shutil.rmtree(place, ignore_errors=True)


def _round(folder: pathlib.Path) -> dict[str, float]:
    tcp, disk = tcp_bytes_per_s(), disk_bytes_per_s(folder)
    resync, cpu_us = resync_bytes_per_s(folder)
    return {"tcp": tcp, "disk": disk, "resync": resync, "ratio": resync / min(tcp, disk), "cpu_us_per_mib": cpu_us}


def main() -> None:
    """Measure and write down."""
    raw: dict[str, list[dict[str, float]]] = {}
    for medium, place in MEDIA.items():
        with tempfile.TemporaryDirectory(prefix="relevo-bench-", dir=place) as scratch:
            raw[medium] = [_round(pathlib.Path(scratch)) for _ in range(ROUNDS)]
    rows: list[dict[str, Any]] = []
    for medium, rounds in raw.items():
        median = {key: statistics.median(found[key] for found in rounds) for key in rounds[0]}
        rows.append(
            {
                "medium": medium,
                "resync MB/s": round(median["resync"] / 1e6),
                "TCP stream MB/s": round(median["tcp"] / 1e6),
                "disk to disk MB/s": round(median["disk"] / 1e6),
                "ratio": median["ratio"],
                "CPU µs/MiB": round(median["cpu_us_per_mib"]),
            }
        )
    write("resync", "make bench-mirror", rows, raw)
