"""Attaching a large device: how long it takes until the disk is ready, and how much memory that needs.

Sparse files under loop devices stand for disks of 1 GiB to 16 TiB. In a process of its own, as the worker does it:
open the disk, read the meta-data, give it to the core, write what that wants written until the copy is attached. For
each size with an empty bitmap (the usual case), with every bit set, and with all its pages part set.
"""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import msgspec

from bench.record import write
from relevo.mirror.create import create_metadata

GIB, TIB = 1 << 30, 1 << 40
SPARE_BYTES = 1 << 20
"""What the largest lacks: ext4 has no file of 16 TiB."""
SIZES = {"1 GiB": GIB, "100 GiB": 100 * GIB, "1 TiB": TIB, "10 TiB": 10 * TIB, "16 TiB": 16 * TIB - SPARE_BYTES}
BITMAPS = {"clear": b"\0", "all set": b"\xff", "mixed": b"\x55"}
PIECE_BYTES = 1 << 20
WORKER = """
import json, pathlib, resource, sys, time
from relevo.mirror import events as ev
from relevo.mirror.core import Mirror, Settings
from relevo.mirror.disk_content import open_copy
from relevo.mirror.loop import Loop
from relevo.mirror.shell_disk import ShellDisk
from relevo.mirror.shell import _meta_state, _random

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

before_mib, start_s = peak_mib(), time.perf_counter()
copy = open_copy(pathlib.Path(sys.argv[1]))
read_s = time.perf_counter()
loop = Loop(after=lambda: disk.submit())
core = Mirror(Settings())

def step(event):
    for effect in core.step(event):
        kind = type(effect)
        if kind is ev.WriteSuperblock:
            disk.meta.write_superblock(effect)
        elif kind is ev.WriteBitmap:
            disk.meta.write_bitmap(effect)
        elif kind is ev.WantConnection:
            loop.stop()

disk = ShellDisk(loop, copy, lambda token, number, buffer: step(ev.DiskDone(loop.now_ms, token, number, buffer)))
content = copy.content
step(ev.Attach(loop.now_ms, _meta_state(content.superblock), content.layout.data_bytes, content.bitmap,
    content.active_extents, content.newest_transaction, 0, _random(8)))
loop.run()
end_s = time.perf_counter()
disk.close()
print(json.dumps({"read_s": read_s - start_s, "all_s": end_s - start_s, "memory_mib": peak_mib() - before_mib}))
"""


@contextlib.contextmanager
def _disk(folder: pathlib.Path, size_bytes: int) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """A sparse file and the loop device over it."""
    path = folder / "disk"
    with path.open("wb") as file:
        file.truncate(size_bytes)
    made = subprocess.run(
        ["losetup", "--find", "--show", "--direct-io=on", str(path)], check=True, capture_output=True, text=True
    )
    device = made.stdout.strip()
    try:
        yield path, pathlib.Path(device)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
        path.unlink()


def _attach(name: str, bitmap: str, device: pathlib.Path) -> dict[str, Any]:
    layout = create_metadata(device, zeroed=True, force=True)
    bytes_used = layout.data_bytes // 4096 // 8
    if bitmap != "clear":
        piece = BITMAPS[bitmap] * PIECE_BYTES
        with device.open("r+b", buffering=0) as file:
            for at in range(0, bytes_used, PIECE_BYTES):
                file.seek(layout.bitmap + at)
                file.write(piece[: min(PIECE_BYTES, bytes_used - at)])
    done = subprocess.run([sys.executable, "-c", WORKER, str(device)], check=True, capture_output=True, text=True)
    found = msgspec.json.decode(done.stdout.splitlines()[-1])
    return {
        "disk": name,
        "bitmap": bitmap,
        "bitmap MiB": bytes_used / (1 << 20),
        "read s": found["read_s"],
        "attached s": found["all_s"],
        "memory MiB": found["memory_mib"],
    }


def main() -> None:
    """Measure and write down."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="relevo-bench-", dir="/var/tmp") as scratch:
        for name, size_bytes in SIZES.items():
            with _disk(pathlib.Path(scratch), size_bytes) as (_, device):
                rows += [_attach(name, bitmap, device) for bitmap in BITMAPS]
    write("attach", "python -m bench attach", rows, {})
