"""A QEMU guest that runs the kernel's drbd: started, given scripts, cut off from power. Software emulation only."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import pathlib
import random
import re
import shutil
import socket
import subprocess
import time

from guest_image import Image

BOOT_LIMIT_S = 60.0
SCRIPT_LIMIT_S = 60.0
MEMORY_MIB = 512
KERNEL_ARGUMENTS = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable"
GRACE_S = 10.0
"""What a script with a limit of its own gets on top before the guest counts as hung."""


class GuestHung(AssertionError):
    """The guest does not answer any more."""


class ScriptFailed(AssertionError):
    """A script in the guest ended with an error."""


@dataclasses.dataclass(frozen=True)
class Device:
    """A line of /proc/drbd, taken apart."""

    connection: str
    role: str
    peer_role: str
    disk: str
    peer_disk: str
    protocol: str
    counters: dict[str, int]
    text: str

    @property
    def in_sync(self) -> bool:
        """Connected, both copies up to date."""
        return (self.connection, self.disk, self.peer_disk) == ("Connected", "UpToDate", "UpToDate")


ABSENT = Device("Unconfigured", "", "", "", "", "", {}, "")


def parse_proc(text: str) -> Device:
    """The first device of /proc/drbd."""
    found = re.search(r"^ *0: cs:(\w+)(?: ro:(\w+)/(\w+) ds:(\w+)/(\w+) (\w))?", text, re.MULTILINE)
    if found is None:
        return ABSENT
    counters = {name: int(value) for name, value in re.findall(r"\b([a-z]{2,3}):(\d+)", text[found.end() :])}
    return Device(*(group or "" for group in found.groups()), counters, text)


class Guest:
    """One guest. Its disk is the file `disk`; its card is the tap `tap` in the network namespace `namespace`.

    Args:
        image: kernel and initial RAM disk.
        folder: for sockets and the console.
        namespace: where QEMU runs.
        tap: the name of its card there, made by QEMU, which takes it away with its end.
        name: the guest's host name.
        address: with the length of the network's prefix.
        disk: a file, as large as the disk has to be.
        more: another disk, never written to.
    """

    def __init__(
        self,
        image: Image,
        folder: pathlib.Path,
        namespace: str,
        tap: str,
        name: str,
        address: str,
        disk: pathlib.Path,
        more: pathlib.Path | None = None,
    ) -> None:
        self._image = image
        self.folder = folder
        self._namespace = namespace
        self._tap = tap
        self.name = name
        self._address = address
        self.disk = disk
        self._more = more
        self._process: subprocess.Popen[bytes] | None = None
        self._port: socket.socket | None = None
        self.hung = False
        self.outgrown = False
        """Its disk is larger than it was made: no other case can have it."""

    @property
    def running(self) -> bool:
        """Whether QEMU is there."""
        return self._process is not None

    # ---- power -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Switch it on, and wait until it answers."""
        self.hung = False
        port = self.folder / "guest.port"
        port.unlink(missing_ok=True)
        command = [
            *("nsenter", f"--net=/run/netns/{self._namespace}", "setpriv", "--pdeathsig", "KILL"),
            *("qemu-system-x86_64", "-name", self.name, "-M", "q35", "-cpu", "Nehalem,+rdrand"),
            *("-accel", "tcg,thread=multi,tb-size=256", "-m", str(MEMORY_MIB)),
            # with one processor only, the network of an emulated guest can stall (QEMU 7.2)
            *("-smp", "1,maxcpus=2"),
            *("-display", "none", "-no-reboot", "-nodefaults"),
            *("-kernel", str(self._image.kernel), "-initrd", str(self._image.initrd), "-append"),
            f"{KERNEL_ARGUMENTS} host={self.name} address={self._address}",
            *("-drive", f"file={self.disk},if=none,id=disk,format=raw,cache=writeback,aio=threads,discard=unmap"),
            *("-device", "virtio-blk-pci,drive=disk"),
            *self._second_disk(),
            *("-netdev", f"tap,id=card,ifname={self._tap},script=no,downscript=no"),
            *("-device", "virtio-net-pci,netdev=card", "-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=port,path={port},server=on,wait=off"),
            *("-device", "virtserialport,chardev=port,name=port"),
            *("-monitor", f"unix:{self.folder}/monitor,server=on,wait=off"),
            *("-chardev", f"file,id=console,path={self.folder}/console", "-serial", "chardev:console"),
        ]
        with (self.folder / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._connect(port)
        self._line(time.monotonic() + BOOT_LIMIT_S, "its start")

    def _second_disk(self) -> tuple[str, ...]:
        if self._more is None:
            return ()
        return (
            "-drive",
            f"file={self._more},if=none,id=more,format=raw,readonly=on",
            "-device",
            "virtio-blk-pci,drive=more",
        )

    def _connect(self, port: pathlib.Path) -> None:
        assert self._process is not None
        end = time.monotonic() + BOOT_LIMIT_S
        self._port = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self._port.connect(str(port))
            except OSError:
                log = (self.folder / "qemu.log").read_text(errors="replace")
                assert self._process.poll() is None, f"QEMU ended: {log}"
                assert time.monotonic() < end, f"QEMU does not come up: {log}"
                time.sleep(0.02)  # the socket is not there yet, which nothing announces
            else:
                return

    def grow_disk(self, size: int) -> None:
        """Its disk gets larger while it runs; what is added is noise."""
        self.outgrown = True
        with self.disk.open("r+b") as file:
            old = file.seek(0, 2)
            file.write(random.Random(size).randbytes(size - old))
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(str(self.folder / "monitor"))
            monitor.sendall(f"block_resize disk {size}B\n".encode())
            self.run(f"until [ $(blockdev --getsize64 /dev/vda) = {size} ]; do sleep 0.05; done")

    def cut_power(self) -> None:
        """As if its plug was pulled: no packet says so. What its disk had taken stays."""
        if self._port is not None:
            self._port.close()
            self._port = None
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
            self._process = None

    # ---- scripts -----------------------------------------------------------------------------------------------

    def run(self, script: str, *, check: bool = True, limit_s: float = SCRIPT_LIMIT_S) -> str:
        """Run a shell script in it; what it printed.

        Raises:
            ScriptFailed: it ended with an error, and `check` is set.
            GuestHung: no answer came in time: from then on nothing else can be run.
        """
        status, printed = self.call(script, limit_s=limit_s)
        if check and status:
            raise ScriptFailed(f"{script!r} ended with {status}:\n{printed}")
        return printed

    def call(self, script: str, *, limit_s: float = SCRIPT_LIMIT_S) -> tuple[int, str]:
        """As `run`; the exit status, and what was printed."""
        assert self._port is not None, "the guest is off"
        assert not self.hung, "the guest hung before"
        self._port.sendall(base64.b64encode(script.encode()) + b"\n")
        end = time.monotonic() + limit_s + GRACE_S
        head, got = self._line(end, script)
        status, length = map(int, head.split())
        while len(got) < length:
            got += self._receive(end, script)
        return status, got.decode(errors="replace")

    def _line(self, end: float, script: str) -> tuple[bytes, bytes]:
        """One line of the agent's, and what came after it."""
        got = b""
        while b"\n" not in got:
            got += self._receive(end, script)
        line, _, rest = got.partition(b"\n")
        return line, rest

    def _receive(self, end: float, script: str) -> bytes:
        assert self._port is not None
        self._port.settimeout(max(0.01, end - time.monotonic()))
        try:
            data = self._port.recv(65536)
        except TimeoutError:
            data = b""
        if not data:
            self.hung = True
            raise GuestHung(f"the guest does not answer to {script}:\n{self.console()}")
        return data

    def console(self) -> str:
        """The last lines of its console."""
        path = self.folder / "console"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    # ---- drbd --------------------------------------------------------------------------------------------------

    def drbd(self) -> Device:
        """What /proc/drbd says."""
        return parse_proc(self.run("cat /proc/drbd"))

    def wait_for(self, pattern: str, limit_s: float = 30.0) -> Device:
        """Wait until the line of the device in /proc/drbd matches an extended regular expression."""
        script = (
            f"i=0; until grep -Eq '{pattern}' /proc/drbd; do i=$((i + 1)); [ $i -lt {int(limit_s * 10)} ] || break;"
            f" sleep 0.1; done; cat /proc/drbd; grep -Eq '{pattern}' /proc/drbd"
        )
        status, text = self.call(script, limit_s=limit_s * 2)
        if status:
            raise ScriptFailed(f"/proc/drbd did not reach {pattern!r} in {limit_s} s:\n{text}\n{self.messages()}")
        return parse_proc(text)

    def messages(self) -> str:
        """The last lines of the kernel's log."""
        return self.run("dmesg | tail -60")

    def dump_metadata(self) -> str:
        """The meta-data as drbdmeta writes it; the device must be down."""
        self.run("drbdmeta --force 0 v08 /dev/vda internal apply-al", check=False)
        return self.run("drbdmeta --force 0 v08 /dev/vda internal dump-md")


def missing_tools() -> str:
    """Which of the programs that a guest needs is not here; empty: all are."""
    return next((name for name in ("qemu-system-x86_64", "setpriv", "nsenter") if shutil.which(name) is None), "")
