"""What a durable network drive costs: smbclient over a lab's mirror, with `durable = "close"` and `"write"`."""

from __future__ import annotations

import pathlib
import statistics
import sys
import tempfile
import time

from relevo.lab.lab import Lab, Options
from relevo.lab.scene import CLIENT, VIRTUAL_IP

LARGE_MIB = 64
SMALL = 100
SMALL_BYTES = 16 << 10
ROUNDS = 3
PASSWORD = "a long password"  # noqa: S105 - of a lab that lives for a minute


def put_s(lab: Lab, folder: pathlib.Path, commands: str) -> float:
    """Seconds for one run of smbclient on the client."""
    argv = ["smbclient", f"//{VIRTUAL_IP}/docs", "-U", f"root%{PASSWORD}", "-c", f"lcd {folder}; {commands}"]
    begun = time.monotonic()
    lab.run(CLIENT, argv, check=True, capture=True)
    return time.monotonic() - begun


def measure(durable: str, scratch: pathlib.Path) -> tuple[float, float]:
    """MiB per second of one large file, and small files per second."""
    lab = Lab(scratch / durable, Options(disk_bytes=512 << 20, further=f'[services.web.smb]\ndurable = "{durable}"\n'))
    try:
        lab.up()
        folder = lab.shared
        (folder / "large").write_bytes(bytes(range(256)) * (LARGE_MIB << 12))
        for number in range(SMALL):
            (folder / f"small{number}").write_bytes(bytes([number]) * SMALL_BYTES)
        lab.run("nodo1", ["sh", "-c", f"echo '{PASSWORD}' | relevo user add root --admin --password-stdin"], check=True)
        lab.run("nodo1", ["relevo", "share", "add", "docs", "/docs"], check=True)
        bare = min(put_s(lab, folder, "ls") for _ in range(ROUNDS))
        large = statistics.median(put_s(lab, folder, "put large") - bare for _ in range(ROUNDS))
        small = statistics.median(put_s(lab, folder, "prompt off; mput small*") - bare for _ in range(ROUNDS))
    finally:
        lab.erase()
    return LARGE_MIB / large, SMALL / small


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for durable in ("close", "write"):
            rate, files = measure(durable, pathlib.Path(scratch))
            sys.stdout.write(
                f"durable = {durable!r}: {LARGE_MIB} MiB file at {rate:.0f} MiB/s, "
                f"files of {SMALL_BYTES >> 10} KiB at {files:.0f} per second\n"
            )


if __name__ == "__main__":
    main()
