"""What the mirror is measured against: the same load, the same disk, the same network, other software.

Each contender is a context manager that yields a `Target`: a device or file for fio, and the processes that serve it.
The backing files are written whole before (a hole would be measured as an allocation).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

from bench.limits import CHUNK_BYTES, READY_LIMIT_S
from cable import Cable, run
from mirror_pair import ADDRESSES, Pair, plain_file
from relevo.device.mount import umount

MIB = 1 << 20
META_DATA_BYTES = 1 << 20
"""More than what a device of a few GiB is smaller than its disk."""


@dataclasses.dataclass(frozen=True)
class Target:
    """Something that fio can write to.

    Attributes:
        devices: where the load goes; several at once for the plain devices.
        processes: ids of the processes that serve it, whose CPU time counts.
    """

    devices: tuple[str, ...]
    processes: tuple[int, ...] = ()

    def cpu_s(self) -> float:
        """CPU time that its processes have used so far, their threads' included."""
        ticks = 0
        for number in self.processes:
            fields = pathlib.Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def write_whole(path: pathlib.Path, size_bytes: int, *, keep_end: bool = False) -> None:
    """Make a file of zeros without holes. `keep_end`: its last part is there already and stays."""
    with path.open("r+b" if keep_end else "wb") as out:
        for _ in range(0, size_bytes - keep_end * CHUNK_BYTES, CHUNK_BYTES):
            out.write(bytes(CHUNK_BYTES))
        os.fsync(out.fileno())


def fill(device: str, size_bytes: int, offset: int = 0) -> None:
    """Write a part of a device."""
    place = [f"seek={offset}", "oflag=direct,seek_bytes", "conv=notrunc"]
    subprocess.run(
        ["dd", "if=/dev/zero", f"of={device}", "bs=1M", f"count={size_bytes // MIB}", *place],
        check=True,
        capture_output=True,
    )


def loop_over(path: pathlib.Path) -> str:
    """A loop device with direct I/O and blocks of 4 KiB over a file."""
    done = run("losetup", "--find", "--show", "--direct-io=on", "--sector-size", "4096", str(path))
    return done.strip()


@contextlib.contextmanager
def plain(folder: pathlib.Path, size_bytes: int, *, whole: bool = True) -> Iterator[Target]:
    """The ceiling: loop devices on two files, no network. `whole`: written before, not only allocated."""
    devices: list[str] = []
    try:
        for number in range(2):
            image = folder / f"plain{number}.img"
            if whole:
                write_whole(image, size_bytes)
            else:
                with image.open("wb") as out:
                    os.posix_fallocate(out.fileno(), 0, size_bytes)
            devices.append(loop_over(image))
        yield Target(tuple(devices))
    finally:
        for device in devices:
            run("losetup", "--detach", device, check=False)
        for image in folder.glob("plain*.img"):
            image.unlink()


@contextlib.contextmanager
def relevo(
    folder: pathlib.Path, size_bytes: int, *, fill_bytes: int | None = None, sparse: bool = False
) -> Iterator[Target]:
    """Two mirrors of ours: bitmap, activity log, order of overlapping writes, protocol C.

    Args:
        folder: where the disks lie.
        size_bytes: of each disk.
        fill_bytes: how much of the device is written before; None: nearly everything.
        sparse: the disks are loop devices over files with holes, larger than what lies below.
    """
    place = folder / "relevo"
    place.mkdir()
    loops: list[str] = []

    def make_sparse(path: pathlib.Path, size_bytes: int) -> None:
        image = path.with_suffix(".img")
        with image.open("wb") as out:
            out.truncate(size_bytes)
        loops.append(loop_over(image))
        path.symlink_to(loops[-1])

    pair = Pair(place, READY_LIMIT_S * 10, size_bytes, make_disk=make_sparse if sparse else plain_file)
    try:
        pair.start()
        device = str(pair.one.promote())
        fill(device, size_bytes - META_DATA_BYTES if fill_bytes is None else fill_bytes)
        yield Target((device,), (pair.one.worker(), pair.two.worker()))
        pair.one.call("secondary")
    finally:
        pair.close()
        for device in loops:
            run("losetup", "--detach", device, check=False)
        shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def qemu(folder: pathlib.Path, size_bytes: int) -> Iterator[Target]:
    """qemu-storage-daemon: mirror job in write-blocking mode, its copy on an nbdkit across the network."""
    place = folder / "qemu"
    place.mkdir()
    cable = Cable(ADDRESSES)
    running: list[subprocess.Popen[bytes]] = []
    device = ""
    try:
        for name in ("own", "copy"):
            write_whole(place / f"{name}.img", size_bytes)
        exported = place / "exported"
        exported.touch()
        nbdkit = ["nbdkit", "--foreground", "--exit-with-parent", "file", str(place / "copy.img")]
        running.append(_inside(cable, "nodo2", nbdkit))
        _await_port(cable, "nodo1", ADDRESSES["nodo2"], 10809)
        running.append(_inside(cable, "nodo1", _mirroring_daemon(place)))
        with _Monitor(place / "qmp") as monitor:
            monitor.mirror()
            running.append(_inside(cable, "nodo1", _exporting_daemon(place, exported)))
            _until(lambda: exported.stat().st_size == size_bytes, "its exported file")
            device = loop_over(exported)
            yield Target((device,), tuple(process.pid for process in running))
            run("losetup", "--detach", device)
            device = ""
    finally:
        if device:
            run("losetup", "--detach", device, check=False)
        for process in reversed(running):
            process.terminate()
            process.wait(READY_LIMIT_S)
        umount(place / "exported", lazy=True)
        cable.close()
        shutil.rmtree(place, ignore_errors=True)


def _mirroring_daemon(place: pathlib.Path) -> list[str]:
    peer = f"server.type=inet,server.host={ADDRESSES['nodo2']},server.port=10809"
    return [
        *("qemu-storage-daemon", "--chardev", f"socket,id=qmp,path={place / 'qmp'},server=on,wait=off"),
        *("--monitor", "chardev=qmp"),
        *("--blockdev", f"driver=file,node-name=file,filename={place / 'own.img'},cache.direct=on,aio=native"),
        *("--blockdev", "driver=raw,node-name=own,file=file"),
        *("--blockdev", f"driver=nbd,node-name=copy,{peer}"),
        *("--nbd-server", f"addr.type=unix,addr.path={place / 'nbd'}"),
        *("--export", "type=nbd,id=nbd,node-name=own,name=own,writable=on"),
    ]


def _exporting_daemon(place: pathlib.Path, exported: pathlib.Path) -> list[str]:
    """A FUSE export asks for the right to resize, which a mirror job does not share: it takes a second daemon."""
    return [
        "qemu-storage-daemon",
        *("--blockdev", f"driver=nbd,node-name=own,server.type=unix,server.path={place / 'nbd'},export=own"),
        *("--export", f"type=fuse,id=fuse,node-name=own,mountpoint={exported},writable=on"),
    ]


class _Monitor:
    """The storage daemon's control socket (QMP)."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_UNIX)
        _until(lambda: self._path.exists() and not self._socket.connect_ex(str(self._path)), "its monitor")
        self._socket.settimeout(READY_LIMIT_S * 4)
        self._lines = self._socket.makefile("rb")
        self._await("QMP")
        self._ask("qmp_capabilities")
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def mirror(self) -> None:
        """Copy everything once, and from then on each write before it is complete."""
        own = {"job-id": "mirror", "device": "own", "target": "copy"}
        self._ask("blockdev-mirror", {**own, "sync": "full", "copy-mode": "write-blocking"})
        self._await("BLOCK_JOB_READY")

    def _ask(self, command: str, arguments: dict[str, str] | None = None) -> None:
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments or {}}).encode() + b"\n")
        self._await("return")

    def _await(self, what: str) -> None:
        for line in self._lines:
            found: dict[str, Any] = json.loads(line)
            assert "error" not in found, found
            if what in found or found.get("event") == what:
                return
        raise AssertionError(f"the storage daemon closed its monitor before {what}")


@contextlib.contextmanager
def gluster(folder: pathlib.Path, size_bytes: int) -> Iterator[Target]:
    """GlusterFS, replica 2, direct I/O down to the bricks; the load goes to a file on its mount."""
    place = folder / "gluster"
    cable = Cable(ADDRESSES)
    sides = {name: _GlusterSide(place / name, name, cable) for name in ADDRESSES}
    one = sides["nodo1"]
    try:
        for side in sides.values():
            side.start()
        _until(lambda: not one.tell("peer", "probe", ADDRESSES["nodo2"]), "its peer")
        bricks = [f"{address}:{sides[name].folder / 'brick'}" for name, address in ADDRESSES.items()]
        _until(lambda: not one.tell("volume", "create", "v", "replica", "2", *bricks, "force"), "its volume")
        for key, value in (("performance.strict-o-direct", "on"), ("network.remote-dio", "disable")):
            one.check("volume", "set", "v", key, value)
        one.check("volume", "start", "v")
        target = one.mount()
        fill = ["dd", "if=/dev/zero", f"of={target / 'file'}", "bs=1M", f"count={size_bytes // MIB}", "conv=fsync"]
        one.inside(*fill)
        yield Target((str(pathlib.Path(f"/proc/{one.process}/root") / str(target / "file").lstrip("/")),), ())
    finally:
        for side in sides.values():
            side.stop()
        cable.close()
        shutil.rmtree(place, ignore_errors=True)


class _GlusterSide:
    """One server: network, mounts and processes of its own (all end with the first one)."""

    def __init__(self, folder: pathlib.Path, name: str, cable: Cable) -> None:
        self.folder = folder
        self._namespace = cable.namespaces[name]
        self.process = 0
        self._holder: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin with empty state."""
        (self.folder / "brick").mkdir(parents=True)
        holder = ["nsenter", f"--net=/run/netns/{self._namespace}", "unshare", "--mount", "--pid", "--fork"]
        holder += ["--kill-child", "--mount-proc", "sleep", "infinity"]
        self._holder = subprocess.Popen(holder)
        found: list[str] = []

        def begun() -> bool:
            found[:] = run("pgrep", "--parent", str(self._holder.pid if self._holder else 0), check=False).split()
            return bool(found)

        _until(begun, "its namespaces")
        self.process = int(found[0])
        _until(lambda: pathlib.Path(f"/proc/{self.process}/comm").read_text() == "sleep\n", "its namespaces")
        for path in ("/var/lib/glusterd", "/run", "/var/log/glusterfs"):
            self.inside("mkdir", "-p", path)
            self.inside("mount", "-t", "tmpfs", "tmpfs", path)
        self.inside("mkdir", "/run/gluster")
        self.inside("glusterd")
        _until(lambda: not self.tell("volume", "list"), "its daemon")

    def inside(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Run a command on this server."""
        enter = ["nsenter", "-t", str(self.process), "--net", "--mount", "--pid"]
        return subprocess.run([*enter, *command], check=check, capture_output=True)

    def tell(self, *words: str) -> int:
        """Run the gluster command; its exit status."""
        return self.inside("gluster", "--mode=script", *words, check=False).returncode

    def check(self, *words: str) -> None:
        """Run the gluster command, which has to go well."""
        done = self.inside("gluster", "--mode=script", *words, check=False)
        assert not done.returncode, f"{words}: {done.stdout.decode()}{done.stderr.decode()}"

    def mount(self) -> pathlib.Path:
        """Mount the volume here."""
        target = self.folder / "mnt"
        target.mkdir()
        server = ["--volfile-server", ADDRESSES["nodo1"], "--volfile-id", "v"]
        self.inside("glusterfs", *server, "--direct-io-mode=enable", str(target))
        return target

    def stop(self) -> None:
        """End everything on this server."""
        if self.process:
            self.inside("umount", "--lazy", str(self.folder / "mnt"), check=False)
        if self._holder is not None:
            self._holder.kill()
            self._holder.wait(READY_LIMIT_S)


def _inside(cable: Cable, name: str, command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["nsenter", f"--net=/run/netns/{cable.namespaces[name]}", *command])


def _await_port(cable: Cable, name: str, address: str, port: int) -> None:
    probe = ["nsenter", f"--net=/run/netns/{cable.namespaces[name]}", "bash", "-c", f"</dev/tcp/{address}/{port}"]
    _until(lambda: not subprocess.run(probe, capture_output=True, check=False).returncode, f"port {port}")


def _until(condition: Callable[[], bool], what: str) -> None:
    """Look again until another program is ready, which it does not announce."""
    end = time.monotonic() + READY_LIMIT_S
    while not condition():
        assert time.monotonic() < end, f"{what} is not there after {READY_LIMIT_S} s"
        time.sleep(0.1)
