"""One load of fio on one device, and what it says about it."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable
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


@dataclasses.dataclass(frozen=True)
class Result:
    """What a load reached: requests and bytes per second, and the requests in all."""

    iops: float
    bytes_per_s: float
    requests: int


def command(device: str, load: str, size_bytes: int) -> list[str]:
    """The command line of a load on a device."""
    fixed = ["--direct=1", "--ioengine=libaio", f"--size={size_bytes}", f"--runtime={RUNTIME_S}", "--time_based"]
    return ["fio", "--name=load", f"--filename={device}", *fixed, "--output-format=json", *LOADS[load]]


def parse(output: bytes) -> Result:
    """The result in fio's JSON."""
    jobs = msgspec.json.decode(output[output.index(b"{") :])["jobs"]
    sides: list[dict[str, Any]] = [job[side] for job in jobs for side in ("read", "write")]
    return Result(
        sum(side["iops"] for side in sides),
        sum(side["bw_bytes"] for side in sides),
        sum(side["total_ios"] for side in sides),
    )


def run(device: str, load: str, size_bytes: int, runner: Callable[[list[str]], bytes] | None = None) -> Result:
    """Run a load here, or where `runner` runs commands."""
    if runner is None:
        return parse(subprocess.run(command(device, load, size_bytes), check=True, capture_output=True).stdout)
    return parse(runner(command(device, load, size_bytes)))


def run_together(devices: list[str], load: str, size_bytes: int) -> Result:
    """Run a load on several devices at once; the slowest one is the result."""
    running = [
        subprocess.Popen(command(device, load, size_bytes), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for device in devices
    ]
    outputs = [process.communicate()[0] for process in running]
    return min((parse(output) for output in outputs), key=lambda result: result.iops)
