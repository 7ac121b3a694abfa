"""Two mirror daemons in two network namespaces, with plain files as disks, for lab tests and measurements.

Whatever happens, `close` leaves no process, namespace, mount or loop device; a watchdog outside aborts the FUSE
connections when a test hangs, because a process that waits for a dead device cannot be killed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from cable import Cable, run
from relevo.base import sysrq
from relevo.base.control import Message, Refused, call, watch
from relevo.base.errors import RelevoError
from relevo.base.paths import Paths
from relevo.device import loop as loops
from relevo.device.connection import abort_at
from relevo.device.mount import umount
from relevo.mirror.create import create_metadata, read_superblock

ADDRESSES = {"nodo1": "10.27.0.1", "nodo2": "10.27.0.2"}
DISK_BYTES = 64 << 20
SECRET = "the secret"
_clusters = (f"pair-{os.getpid()}-{number}" for number in itertools.count())
"""Several pairs may go on at the same time: each looks for its own loop devices."""
DAEMON = """
import pathlib, sys
from relevo.base import log
from relevo.base.paths import Paths
from relevo.config.site import find_site
from relevo.mirror import daemon
log.set_up("mirror-r0")
paths = Paths(*map(pathlib.Path, sys.argv[2:]))
sys.exit(daemon.run(find_site(paths, sys.argv[1], "r0"), paths))
"""
WATCHDOG = """
import pathlib, sys, threading, time
from relevo.device.connection import abort_at
done = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
if not done.wait(float(sys.argv[1])):
    for disk in pathlib.Path(sys.argv[2]).resolve().glob("*/run/mirror/*/disk"):
        abort_at(disk)
    sys.exit(1)
"""


def plain_file(path: pathlib.Path, size_bytes: int) -> None:
    """A disk that is a file without holes."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size_bytes)


class Side:
    """One server of the pair."""

    def __init__(self, folder: pathlib.Path, name: str, namespace: str) -> None:
        self.name = name
        self.namespace = namespace
        self.folder = folder / name
        etc = self.folder / "etc"
        self.paths = Paths(etc, self.folder / "state", self.folder / "run", etc / "drbd.conf")
        self.disk = self.folder / "disk"
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] | None = None
        self.command: list[str] | None = None
        """What to run instead of a plain daemon."""
        self._folders = (etc, self.paths.state, self.paths.run)
        for path in self._folders:
            path.mkdir(parents=True)

    @property
    def device(self) -> pathlib.Path:
        """The block device while this side is Primary."""
        return self.paths.run / "mirror" / "r0" / "device"

    def start(self) -> None:
        """Start the daemon, and wait until it answers."""
        places = [str(path) for path in (*self._folders, self.paths.drbd)]
        command = self.command or [sys.executable, "-c", DAEMON, self.name, *places]
        command = ["nsenter", f"--net=/run/netns/{self.namespace}", *command]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment
            )
        self.wait_for(lambda _: True, "an answer")

    def call(self, do: str, **arguments: object) -> Message:
        """Ask the daemon."""
        return call(self.paths.socket("mirror-r0"), do, timeout_s=20, **arguments)

    def status(self) -> Message:
        """Its state now."""
        return self.call("status")

    def wait_for(self, wanted: Callable[[Message], bool], what: str, limit_s: float = 20.0) -> Message:
        """Watch until the state is as wanted."""
        end = time.monotonic() + limit_s
        last: Any = None
        while time.monotonic() < end:
            try:
                for last in watch(self.paths.socket("mirror-r0"), timeout_s=max(0.1, end - time.monotonic())):
                    if wanted(last):
                        return last
                    if time.monotonic() > end:
                        break
            except (RelevoError, OSError):
                assert self.process is None or self.process.poll() is None, self.log()
                time.sleep(0.02)  # the socket is not there yet, which nothing announces
        raise AssertionError(f"{self.name} did not reach {what} in {limit_s} s: {last}\n{self.log()}")

    def promote(self, epoch: int = 1, *, force: bool = False) -> pathlib.Path:
        """Become Primary."""
        return pathlib.Path(self.call("primary", force=force, epoch=epoch)["device"])

    def worker(self) -> int:
        """The worker's process id."""
        assert self.process is not None
        found = run("pgrep", "-P", str(self.process.pid), "-f", "relevo.mirror.worker", check=False).split()
        assert len(found) == 1, found
        return int(found[0])

    def kill(self) -> None:
        """SIGKILL to keeper and worker, as `kill -9` of the whole daemon."""
        assert self.process is not None
        worker = self.worker()
        self.process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
        self.process.wait()
        self.process = None
        self.clean()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.terminate()
        status = self.process.wait(30)
        self.process = None
        return status

    def clean(self) -> None:
        """Take away what a killed daemon has left."""
        disk = self.paths.run.resolve() / "mirror" / "r0" / "disk"
        abort_at(disk)
        umount(disk, lazy=True)

    def data_bytes(self) -> bytes:
        """The whole data area of the backing disk."""
        _, layout = read_superblock(self.disk)
        with self.disk.open("rb") as file:
            return file.read(layout.data_bytes)

    def log(self) -> str:
        """What the daemon wrote."""
        return (self.folder / "log").read_text(errors="replace")

    def events(self, name: str) -> list[dict[str, Any]]:
        """The lines of its log with this event."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]


class Pair:
    """Both servers and the cable between them.

    Args:
        folder: where everything lies; on a file system that can do direct I/O (tmpfs can, from Linux 6.6 on).
        limit_s: when the watchdog steps in.
        disk_bytes: size of each disk.
        mirror: further lines of the mirror's section.
        zeroed: the disks are equal from the start; otherwise one has to be forced to be Primary.
        make_disk: makes a disk of a size at a path.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        limit_s: float = 100.0,
        disk_bytes: int = DISK_BYTES,
        mirror: str = "",
        *,
        zeroed: bool = True,
        make_disk: Callable[[pathlib.Path, int], None] = plain_file,
    ) -> None:
        self.folder = folder
        self.cluster = next(_clusters)
        self.watchdog = subprocess.Popen(
            [sys.executable, "-c", WATCHDOG, str(limit_s), str(folder)], stdin=subprocess.PIPE
        )
        self._cable = Cable(ADDRESSES)
        self.sides = {name: Side(folder, name, self._cable.namespaces[name]) for name in ADDRESSES}
        for side in self.sides.values():
            self.configure(side, mirror=mirror)
            make_disk(side.disk, disk_bytes)
            create_metadata(side.disk, zeroed=zeroed)

    @property
    def one(self) -> Side:
        """nodo1."""
        return self.sides["nodo1"]

    @property
    def two(self) -> Side:
        """nodo2."""
        return self.sides["nodo2"]

    def configure(self, side: Side, secret: str = SECRET, mirror: str = "") -> None:
        """Write one side's configuration."""
        nodes = "".join(
            f'[nodes.{name}]\naddresses = {{ cross = "{address}" }}\ndisks = {{ r0 = "{self.sides[name].disk}" }}\n'
            for name, address in ADDRESSES.items()
        )
        etc = side.paths.etc
        (etc / "relevo.toml").write_text(
            f'[cluster]\nname = "{self.cluster}"\nsecrets = "secrets.toml"\nauthkeys = "authkeys"\n'
            '[links.cross]\ninterface = "eth1"\nnetwork = "10.27.0.0/24"\n'
            f'{nodes}[mirrors.r0]\nlink = "cross"\nport = 7788\nalone = "risk"\n{mirror}\n'
        )
        for name, text in (("secrets.toml", f'[mirror]\nr0 = "{secret}"\n'), ("authkeys", "auth 1\n1 sha1 key\n")):
            path = etc / name
            path.touch(mode=0o600)
            path.write_text(text)

    def configure_by_drbd(self, conf: str) -> None:
        """Let both sides have this drbd.conf and no relevo.toml, and find out who they are by their host names.

        They run as `relevo mirror run r0`, each with a host name of its own.
        """
        for side in self.sides.values():
            (side.paths.etc / "relevo.toml").unlink()
            side.paths.drbd.write_text(conf)
            options = {"--etc": "etc", "--state": "state", "--run": "run", "--drbd-conf": "drbd"}
            places = [word for option, name in options.items() for word in (option, str(getattr(side.paths, name)))]
            relevo = shlex.join([sys.executable, "-m", "relevo", *places, "mirror", "run", "r0"])
            side.environment = {**os.environ, sysrq.MASK_VARIABLE: sysrq.REQUIRED}  # its handlers may end this machine
            side.command = ["unshare", "--uts", "sh", "-c", f"hostname {side.name}; exec {relevo}"]

    def cut(self) -> None:
        """Silence on the cable: no packet passes, no connection is closed."""
        self._cable.cut("nodo2")

    def heal(self) -> None:
        """Packets pass again."""
        self._cable.heal("nodo2")

    def start(self) -> None:
        """Start both, and wait until they agree that both disks are up to date."""
        for side in self.sides.values():
            side.start()
        self.wait_in_sync()

    def wait_in_sync(self, limit_s: float = 20.0) -> None:
        """Wait until both are connected and up to date."""
        for side in self.sides.values():
            side.wait_for(in_sync, "Connected and UpToDate on both", limit_s)

    def close(self) -> None:
        """End everything."""
        for side in self.sides.values():
            if side.process is not None:
                side.process.terminate()
        for side in self.sides.values():
            if side.process is not None:
                try:
                    side.process.wait(10)
                except subprocess.TimeoutExpired:
                    side.kill()
            side.clean()
        self._cable.close()
        assert self.watchdog.stdin is not None
        self.watchdog.stdin.close()
        quiet = self.watchdog.wait(10) == 0
        left = loops.find(f"relevo:{self.cluster}:", self.folder)
        assert quiet, "the watchdog had to end this"
        assert not left, left


def in_sync(status: Message) -> bool:
    """Connected, both copies up to date."""
    return bool(
        status["connection"] == "Connected" and status["disk"] == "UpToDate" and status["peer_disk"] == "UpToDate"
    )


__all__ = ["Pair", "Refused", "Side", "in_sync", "run"]
