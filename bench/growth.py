"""What grows: the cost per request with the size of the device, with the number of mirrors, and with the activity log.

- size: 4 KiB random writes, depth 1, within the last 192 MiB of sparse devices in memory;
- mirrors: one and eight of them on this machine under the same load at once;
- activity log: writes spread over four times what it covers, beside two plain loop devices over files of that size.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
from typing import Any

from bench import contenders, fio
from bench.contenders import Target
from bench.record import write

GIB = 1 << 30
TIB = 1 << 40
SIZES = {"1 GiB": GIB, "100 GiB": 100 * GIB, "10 TiB": 10 * TIB}
SPAN_BYTES = 192 << 20
FAR_END_BYTES = GIB // 2
"""The load on a large device lies that far from its end: below the largest meta-data that is measured."""
MIRRORS = 8
MIRROR_BYTES = 256 << 20
AL_EXTENT_BYTES = 4 << 20
AL_EXTENTS = 1237
AL_FACTOR = 4
AL_SPARE_BYTES = 256 << 20
DEPTH_1, DEPTH_16 = "4 KiB random write, depth 1", "4 KiB random write, depth 16"


def _line(what: str, targets: list[Target], load: str, size_bytes: int, offset: int = 0) -> dict[str, Any]:
    before_s = sum(target.cpu_s() for target in targets)
    results = fio.run([device for target in targets for device in target.devices], load, size_bytes, offset)
    used_s = sum(target.cpu_s() for target in targets) - before_s
    requests = sum(found.requests for found in results)
    return {
        "what": what,
        "load": load,
        "requests/s": round(sum(found.iops for found in results)),
        "CPU µs/request": round(used_s / max(1, requests) * 1e6, 1),
    }


def _of_a_size(name: str, size_bytes: int, folder: pathlib.Path) -> dict[str, Any]:
    with contenders.relevo(folder, size_bytes, sparse=True, fill_bytes=0) as target:
        end = os.lseek(fd := os.open(target.devices[0], os.O_RDONLY), 0, os.SEEK_END)
        os.close(fd)
        offset = (end - FAR_END_BYTES) // AL_EXTENT_BYTES * AL_EXTENT_BYTES
        contenders.fill(target.devices[0], SPAN_BYTES, offset)
        return _line(f"device of {name}", [target], DEPTH_1, SPAN_BYTES, offset)


def _several(count: int, folder: pathlib.Path) -> list[dict[str, Any]]:
    with contextlib.ExitStack() as stack:
        targets = []
        for number in range(count):
            place = folder / str(number)
            place.mkdir(exist_ok=True)
            targets.append(stack.enter_context(contenders.relevo(place, MIRROR_BYTES)))
        return [_line(f"{count} mirrors at once", targets, load, SPAN_BYTES) for load in (DEPTH_1, DEPTH_16)]


def _activity_log(folder: pathlib.Path) -> list[dict[str, Any]]:
    span = AL_FACTOR * AL_EXTENTS * AL_EXTENT_BYTES
    size = span + AL_SPARE_BYTES
    if shutil.disk_usage(folder).free < 3 * size:
        return [{"what": "activity log", "load": f"no room for two files of {size >> 30} GiB"}]
    rows = []
    for load in (DEPTH_1, DEPTH_16):
        with contenders.plain(folder, size, whole=False) as target:
            slowest = min(fio.run(target.devices, load, span), key=lambda found: found.iops)
        with contenders.relevo(folder, size, fill_bytes=0) as target:
            found = _line(f"log missed ({AL_FACTOR} x {AL_EXTENTS} extents)", [target], load, span)
        rows.append({**found, "÷ plain loops": found["requests/s"] / slowest.iops})
    return rows


def main() -> None:
    """Measure and write down."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="relevo-bench-", dir="/dev/shm") as scratch:
        folder = pathlib.Path(scratch)
        rows += [_of_a_size(name, size_bytes, folder) for name, size_bytes in SIZES.items()]
        for count in (1, MIRRORS):
            rows += _several(count, folder)
    with tempfile.TemporaryDirectory(prefix="relevo-bench-", dir="/var/tmp") as scratch:
        rows += _activity_log(pathlib.Path(scratch))
    write("growth", "make bench-mirror", rows, {})
