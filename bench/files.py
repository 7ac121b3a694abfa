"""The file service beside nginx (downloads), Apache mod_dav and rclone (uploads): one volume, one run, in turns.

RELEVO_BENCH_SHORT=1 is a trial of the measurement itself: a tenth of everything, one round; its figures mean nothing.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator

from bench import record
from bench.http_load import Client, at_once
from bench.servers import Apache, Nginx, Rclone, Relevo, Server, installed

SHORT = os.environ.get("RELEVO_BENCH_SHORT") == "1"
ROUNDS = 1 if SHORT else 3
SMALL_FILES, SMALL_BYTES, SMALL_CLIENTS = (100 if SHORT else 1000), 16 << 10, 8
LARGE_BYTES = (64 << 20) if SHORT else (2 << 30)
ENTRIES = (1000, 10_000) if SHORT else (10_000, 100_000)
CROWD, CROWD_FILES, CROWD_BYTES = 200, 20, 1 << 20
CROWD_REQUESTS = 400 if SHORT else 4000
VOLUME_BYTES = 8 << 30
PIECE = bytes(range(256)) * 4096
Figures = dict[str, float]


class Volume:
    """An ext4 file system in a file, mounted; its inodes suffice for the large folders."""

    def __init__(self, folder: pathlib.Path) -> None:
        image, self.root = folder / "image", folder / "volume"
        image.touch()
        os.truncate(image, VOLUME_BYTES)
        self.root.mkdir()
        _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0", str(image))
        _run("mount", "-o", "loop", str(image), str(self.root))
        self.root.chmod(0o777)

    def set(self, *, sync: bool) -> None:
        """Make every write of everybody wait for the disk, or not."""
        _run("mount", "-o", f"remount,{'sync' if sync else 'async'}", str(self.root))

    def clear(self) -> None:
        """Remove what was uploaded, and let nothing of it be written later on."""
        for path in self.root.glob("up-*"):
            path.unlink()
        _run("sync", "-f", str(self.root))

    def close(self) -> None:
        """Unmount it."""
        _run("umount", str(self.root))


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


@contextlib.contextmanager
def serving(kind: type[Server], volume: Volume) -> Iterator[Server]:
    """A server over the volume while the body runs."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        server = kind(volume.root, folder)
        try:
            yield server
        finally:
            server.stop()


def _measured(server: Server, work: Callable[[], float], amount: float) -> Figures:
    """What was done in a second, and in a second of the server's processor time; the peak of its memory."""
    server.forget_peak()
    before_s = server.cpu_s()
    took_s = work()
    cpu_s = max(server.cpu_s() - before_s, 0.01)
    return {"per_s": amount / took_s, "per_cpu_s": amount / cpu_s, "peak_mib": server.peak_mib()}


def small_up(server: Server) -> Figures:
    """Files per second."""
    piece = PIECE[:SMALL_BYTES]

    def put(client: Client, number: int) -> None:
        client.put(f"/up-{number}", SMALL_BYTES, piece)

    return _measured(server, lambda: at_once(server.port, SMALL_CLIENTS, SMALL_FILES, put), SMALL_FILES)


def large_up(server: Server) -> Figures:
    """MiB per second."""
    return _measured(
        server,
        lambda: at_once(server.port, 1, 1, lambda client, _: client.put("/up-large", LARGE_BYTES, PIECE)),
        LARGE_BYTES / (1 << 20),
    )


def large_down(server: Server) -> Figures:
    """MiB per second; the file is in memory."""
    return _measured(
        server,
        lambda: at_once(server.port, 1, 1, lambda client, _: client.get("/large")),
        LARGE_BYTES / (1 << 20),
    )


def crowd_down(server: Server) -> Figures:
    """MiB per second to many clients at once."""

    def get(client: Client, number: int) -> None:
        assert client.get(f"/crowd/{number % CROWD_FILES}") == CROWD_BYTES

    amount = CROWD_REQUESTS * CROWD_BYTES / (1 << 20)
    return _measured(server, lambda: at_once(server.port, CROWD, CROWD_REQUESTS, get), amount)


def screens(volume: Volume, server: Server) -> dict[str, Figures]:
    """Milliseconds until a folder's first screen is there: for the first time, after a change, and again."""
    result: dict[str, Figures] = {}

    for count in ENTRIES:

        def look(client: Client, _: int, path: str = f"/entries-{count}/") -> None:
            assert client.get(path, "text/html") > 0

        steps: Figures = {}
        for step in ("first", "changed", "again"):
            if step == "changed":
                (volume.root / f"entries-{count}" / f"new-{server.name}").touch()
            steps[step] = 1000 * at_once(server.port, 1, 1, look)
        (volume.root / f"entries-{count}" / f"new-{server.name}").unlink()
        result[f"first screen of {count} entries, ms"] = steps
    return result


UPLOADS: tuple[tuple[str, Callable[[Server], Figures]], ...] = (
    (f"{SMALL_FILES} files of 16 KiB by {SMALL_CLIENTS} clients, files/s", small_up),
    (f"one file of {LARGE_BYTES >> 20} MiB up, MiB/s", large_up),
)
DOWNLOADS: tuple[tuple[str, Callable[[Server], Figures]], ...] = (
    (f"one file of {LARGE_BYTES >> 20} MiB down, MiB/s", large_down),
    (f"{CROWD} clients at once, 1 MiB each, MiB/s", crowd_down),
)


def _fill(volume: Volume) -> None:
    with (volume.root / "large").open("wb") as file:
        for _ in range(LARGE_BYTES // len(PIECE)):
            file.write(PIECE)
    (volume.root / "crowd").mkdir()
    for number in range(CROWD_FILES):
        (volume.root / "crowd" / str(number)).write_bytes(PIECE)
    for count in ENTRIES:
        folder = volume.root / f"entries-{count}"
        folder.mkdir()
        for number in range(count):
            (folder / (f"informe {number} del año.txt" if number % 2 else f"IMG_{number:06d}.jpg")).touch()
    _run("sync", "-f", str(volume.root))


def _round(volume: Volume, raw: dict[str, dict[str, list[Figures]]]) -> None:
    turns: tuple[tuple[type[Server], bool], ...] = (
        (Relevo, False), (Apache, True), (Rclone, True), (Apache, False), (Rclone, False),
    )  # fmt: skip
    for kind, sync in turns:
        if not installed(kind):
            continue
        volume.set(sync=sync)
        with serving(kind, volume) as server:
            for load, work in UPLOADS:
                volume.clear()
                title = kind.name + (", volume mounted sync" if sync else "" if kind.durable else ", not durable")
                raw[load][title].append(work(server))
    volume.set(sync=False)
    volume.clear()
    servers: tuple[type[Server], ...] = (Relevo, Nginx, Apache, Rclone)
    for kind in servers:
        if not installed(kind):
            continue
        with serving(kind, volume) as server:
            for load, work in DOWNLOADS:
                raw[load][kind.name].append(work(server))
            if kind in {Relevo, Nginx}:
                for load, steps in screens(volume, server).items():
                    raw[load][kind.name].append(steps)


def _median(found: list[Figures]) -> Figures:
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def _rows(raw: dict[str, dict[str, list[Figures]]]) -> list[dict[str, object]]:
    """Medians, and Relevo's divided by those of each other one."""
    rows: list[dict[str, object]] = []
    for load, kinds in raw.items():
        medians = {kind: _median(found) for kind, found in kinds.items()}
        ours = medians[Relevo.name]
        for kind, figures in medians.items():
            main = "changed" if "changed" in figures else "per_s"
            row: dict[str, object] = {"load": load, "server": kind, "median": round(figures[main], 1)}
            row["Relevo ÷ it"] = round(ours[main] / figures[main], 2)
            if "per_cpu_s" in figures:
                row["per CPU second"] = round(figures["per_cpu_s"], 1)
                row["Relevo ÷ it, per CPU"] = round(ours["per_cpu_s"] / figures["per_cpu_s"], 2)
                row["peak memory, MiB"] = round(figures["peak_mib"], 1)
            else:
                row["per CPU second"] = row["Relevo ÷ it, per CPU"] = ""
                row["peak memory, MiB"] = f"first {figures['first']:.0f} ms, again {figures['again']:.0f} ms"
            rows.append(row)
    return rows


def main() -> None:
    """Measure, print a table and write `bench/results/files.json` (a trial writes nothing)."""
    raw: dict[str, dict[str, list[Figures]]] = defaultdict(lambda: defaultdict(list))
    folder = pathlib.Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o755)
    volume = Volume(folder)
    try:
        _fill(volume)
        for _ in range(ROUNDS):
            _round(volume, raw)
    finally:
        volume.close()
        shutil.rmtree(folder)
    plain = {load: dict(kinds) for load, kinds in raw.items()}
    if SHORT:
        record.show("files (a trial: these figures mean nothing)", _rows(plain))
    else:
        record.write("files", "make bench-files", _rows(plain), plain)
