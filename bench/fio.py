"""One load of fio on one device, and what it says about it."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Sequence
from typing import Any

import msgspec

RUNTIME_S = 5

LOADS: dict[str, list[str]] = {
    "4 KiB random write, depth 1": ["--rw=randwrite", "--bs=4k", "--iodepth=1"],
    "4 KiB random write, depth 16": ["--rw=randwrite", "--bs=4k", "--iodepth=16"],
    "1 MiB sequential write, depth 4": ["--rw=write", "--bs=1m", "--iodepth=4"],
    "4 KiB random read, depth 16": ["--rw=randread", "--bs=4k", "--iodepth=16"],
    "4 KiB write + fsync": ["--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=1"],
}
OTHERS: dict[str, list[str]] = {"1 MiB sequential read, depth 4": ["--rw=read", "--bs=1m", "--iodepth=4"]}
"""Loads that only a bound is made of."""


class LoadFailed(Exception):
    """A device answered a load with an error, or not at all."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What a load reached: requests and bytes per second, and the requests in all."""

    iops: float
    bytes_per_s: float
    requests: int


def command(device: str, load: str, size_bytes: int, offset: int = 0) -> list[str]:
    """The command line of a load on a device, within `size_bytes` from `offset` on."""
    span = [f"--size={size_bytes}", f"--offset={offset}"]
    fixed = ["--direct=1", "--ioengine=libaio", *span, f"--runtime={RUNTIME_S}", "--time_based"]
    return ["fio", "--name=load", f"--filename={device}", *fixed, "--output-format=json", *(LOADS | OTHERS)[load]]


def parse(output: bytes) -> Result:
    """The result in fio's JSON."""
    jobs = msgspec.json.decode(output[output.index(b"{") :])["jobs"]
    sides: list[dict[str, Any]] = [job[side] for job in jobs for side in ("read", "write")]
    return Result(
        sum(side["iops"] for side in sides),
        sum(side["bw_bytes"] for side in sides),
        sum(side["total_ios"] for side in sides),
    )


def run(devices: Sequence[str], load: str, size_bytes: int, offset: int = 0) -> list[Result]:
    """Run a load on several devices at once.

    Raises:
        LoadFailed: fio saw an error on one of them.
    """
    running = [
        subprocess.Popen(command(device, load, size_bytes, offset), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for device in devices
    ]
    outputs = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise LoadFailed(load)
    return [parse(output) for output in outputs]
