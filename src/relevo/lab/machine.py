"""One machine of a lab, seen from outside: switch it on, ask its PID 1, switch it off in order, cut its power."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterable

import msgspec

from relevo.base.control import DaemonUnreachable, Message
from relevo.base.sysrq import MASK_VARIABLE, REQUIRED, STAND_IN_VARIABLE
from relevo.base.units import parse_duration_ms
from relevo.device.connection import Connection
from relevo.lab import fusectl, loops, reset_timer, sysrq
from relevo.lab.disk import Disk
from relevo.lab.errors import LabFailed, MachineOff, MachineOn
from relevo.lab.folder import LabFolder, program_folders, python
from relevo.lab.process import MARK, Process, arguments, inside, marked, pid_namespace, wait_until
from relevo.lab.root import MASKED_TREES, ROOT, UPPER, WORK
from relevo.lab.scene import ADDRESSES, DISK_PATH, SERVERS, SWITCHES, WATCHDOG, Unit, cluster_name
from relevo.lab.switch import Switch

GONE_LIMIT_S = 10.0
"""How long a machine may take to end after its power was cut."""
ABORT_AFTER_S = 1.0
"""How long to wait for its processes before every FUSE connection it is known to have had is aborted again."""
STOP_LIMIT_S = 90.0
POWER = "power"
"""Beside the machines' folders: their power switches."""
_OPAQUE = "trusted.overlay.opaque"


class Machine:
    """A server or the client.

    Args:
        folder: the lab's folder.
        switch: the lab's network.
        name: `nodo1`, `nodo2` or `client`.
    """

    def __init__(self, folder: LabFolder, switch: Switch, name: str) -> None:
        self.name = name
        self._lab = folder
        self._folder = folder.machine(name)
        self._switch = switch
        self._units_name = f"machines/{name}/units.json"
        self.disk = Disk(folder, name) if name in SERVERS else None

    @property
    def process(self) -> Process | None:
        """Its PID 1, as the host numbers it, when it is on."""
        return self._lab.process(f"machines/{self.name}/process.json")

    def power(self) -> Process:
        """Its PID 1.

        Raises:
            MachineOff: it has none.
        """
        process = self.process
        if process is None:
            raise MachineOff(f"{self.name} is off.", f"Switch it on: {self._lab.order(f'boot {self.name}')}.")
        return process

    # Making it.

    def create(self, files: dict[str, str]) -> None:
        """Make a fresh machine, switched off.

        Args:
            files: path -> text, of secret files that it finds when it is switched on.
        """
        for name in (ROOT, UPPER):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        self._make_upper()
        upper = self._folder / UPPER / UPPER
        for path in ("etc", "etc/relevo", "var", "var/lib", "var/lib/relevo", "srv", "srv/relevo"):
            (upper / path).mkdir(mode=0o755)
        for path in ("etc/relevo", "var/lib/relevo"):  # whatever the host has there is not the machine's
            os.setxattr(upper / path, _OPAQUE, b"y")
        (upper / "etc/hostname").write_text(f"{self.name}\n")
        (upper / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
        (upper / "etc/resolv.conf").write_text("")
        hosts = "".join(f"{cards['eth0'].partition('/')[0]} {name}\n" for name, cards in ADDRESSES.items())
        (upper / "etc/hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
        for path, text in files.items():
            target = upper / path.lstrip("/")
            target.touch(mode=0o600)
            target.write_text(text)

    def _make_upper(self) -> None:
        """The overlay's upper layer: in the lab's folder, or in memory where that file system cannot be one."""
        base = self._folder / UPPER
        for _ in range(2):
            for name in (UPPER, WORK):
                (base / name).mkdir(mode=0o755, exist_ok=True)
            options = f"lowerdir=/,upperdir={UPPER}/{UPPER},workdir={UPPER}/{WORK}"
            probe = ["unshare", "--mount", "mount", "-t", "overlay", "overlay", "-o", options, ROOT]
            done = subprocess.run(probe, cwd=self._folder, capture_output=True)
            if done.returncode == 0:
                return
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(base)], check=True)
        raise LabFailed(f"No overlay over / can be mounted: {done.stderr.decode(errors='replace').strip()}.")

    # Switching it on.

    def boot(self) -> None:
        """Switch it on: its disk, its namespaces and PID 1, its network cards. Its units are not started.

        Raises:
            MachineOn: it is on.
            LabFailed: a part of it could not be made.
        """
        if self.process is not None:
            raise MachineOn(f"{self.name} is on already.")
        self._forget()
        program = self._lab.options().programs.get(self.name)
        disks = {} if self.disk is None else {DISK_PATH: str(self.disk.power_on())}
        if self._lab.options().fencing and self.disk is not None:
            disks[SWITCHES] = str(self._folder.parent / POWER)
        reset_ms = self._reset_ms()
        if reset_ms:
            disks[WATCHDOG] = str(reset_timer.make_fifo(self._folder))
        spec = {
            "name": self.name,
            "lab": str(self._lab.path),
            "folder": str(self._folder),
            "disks": disks,
            "shared": [str(self._lab.shared)],
            "needed": program_folders((*MASKED_TREES, str(self._lab.path)), *([program] if program else [])),
            "boot_id": str(uuid.uuid4()),
            "env": environment(program),
            "units": self._lab.load(self._units_name, []),
        }
        (self._folder / "boot.json").write_bytes(msgspec.json.encode(spec))
        sysrq.make_fifo(self._folder, self._folder.parent / POWER)
        self._lab.spawn("relevo.lab.init", str(self._folder / "boot.json"))
        process = self.power()
        self._lab.spawn("relevo.lab.sysrq", str(self._lab.path), self.name, str(process.pid), str(process.start))
        if reset_ms:
            who = (self.name, str(process.pid), str(process.start))
            self._lab.spawn("relevo.lab.reset_timer", str(self._lab.path), *who, str(reset_ms))
        self._switch.plug_in(self.name, self.power())

    def _reset_ms(self) -> int:
        """The timeout of its watchdog; 0: it has none."""
        written = self._lab.options().watchdog
        return parse_duration_ms(written) if written and self.disk is not None else 0

    def ask(self, do: str, *, timeout_s: float = 30.0, **arguments: object) -> Message:
        """Ask its PID 1.

        Raises:
            MachineOff: there is none.
            Refused: it says no.
        """
        self.power()
        return self._lab.ask(self._folder / "control.sock", do, timeout_s=timeout_s, **arguments)

    def define(self, units: Iterable[Unit]) -> None:
        """Give its PID 1 further units, now and at every boot; they are not started."""
        more = [msgspec.to_builtins(unit) for unit in units]
        self.ask("define", units=more)
        self._lab.save(self._units_name, [*self._lab.load(self._units_name, []), *more])

    def root(self) -> pathlib.Path:
        """Its file tree, as far as the host can reach it while it is on."""
        return pathlib.Path(f"/proc/{self.power().pid}/root")

    @property
    def environment(self) -> dict[str, str]:
        """The environment of what is run in it."""
        return environment(self._lab.options().programs.get(self.name))

    def command(self, argv: Iterable[str]) -> list[str]:
        """The command line, on the host, that runs `argv` in it.

        Raises:
            MachineOff: it is off.
        """
        process = self.power()
        mark = f"{MARK}{self._lab.path}"
        return [*python("relevo.lab.enter"), mark, str(process.pid), str(process.start), "--", *argv]

    # Switching it off.

    def shut_down(self) -> None:
        """Power off in order.

        Raises:
            MachineOff: it is off.
            LabFailed: it did not end; it is still on.
        """
        process = self.power()
        try:
            self.ask("shutdown")
        except DaemonUnreachable:
            process.send(signal.SIGTERM)
        if not process.wait_gone(STOP_LIMIT_S):
            raise LabFailed(
                f"{self.name} has not powered off after {STOP_LIMIT_S:.0f} s.", self._lab.order(f"crash {self.name}")
            )
        self._await_end([])

    def crash(self) -> Message:
        """Cut its power: first no packet leaves, then its disk refuses and forgets, then everything is killed.

        When this returns nothing of it is left: no process, no FUSE connection, no loop device.

        Returns:
            What its disk forgot: `unflushed_blocks` and `lost_blocks` (nothing, when it has no test disk).

        Raises:
            MachineOff: it is off.
            LabFailed: something of it does not end.
        """
        process = self.power()
        self._switch.power_off(self.name)
        forgot = (self.disk.crash() if self.disk is not None else None) or {}
        connections = fusectl.mounted(process.pid)
        fusectl.abort(connections)
        process.send(signal.SIGKILL)
        self._await_end(connections)
        return {key: forgot[key] for key in ("unflushed_blocks", "lost_blocks") if key in forgot}

    def _left_connections(self) -> list[Connection]:
        """The FUSE connections of what is left of it: what is mounted there, and what its PID 1 wrote down."""
        noted = fusectl.unclaimed(self._lab.load(f"machines/{self.name}/fuse.json", []))
        return [connection for process in self._left() for connection in fusectl.mounted(process.pid)] + noted

    def _record(self) -> dict[str, int]:
        return dict(self._lab.load(f"machines/{self.name}/process.json", {}))

    def _await_end(self, connections: list[Connection]) -> None:
        """Wait until its processes, FUSE connections and loop devices are gone, then put the machine away."""
        if not wait_until(lambda: not self._left(), ABORT_AFTER_S):
            fusectl.abort(connections + self._left_connections())
            if not wait_until(lambda: not self._left(), GONE_LIMIT_S):
                left = ", ".join(str(found.pid) for found in self._left())
                raise LabFailed(f"Processes of {self.name} do not end: {left}.", self._lab.order("down"))
        if not wait_until(lambda: not self._devices(connections), ABORT_AFTER_S):
            for loop in loops.named(cluster_name(self._lab.name), self.name):
                loops.detach(loop)
            if not wait_until(lambda: not self._devices(connections), GONE_LIMIT_S):
                devices = self._devices(connections)
                raise LabFailed(f"Devices of {self.name} do not end: {devices}.", self._lab.order("down"))
        self._forget()
        self._switch.unplug(self.name)
        if self.disk is not None:
            self.disk.power_off()

    def _left(self) -> list[Process]:
        """Its processes; a PID 1 that only waits for others to be reaped holds nothing any more and does not count."""
        record = self._record()
        found = inside({record["pid_namespace"]}) if "pid_namespace" in record else []
        return [] if len(found) == 1 and found[0].only_waits else found

    def _devices(self, connections: list[Connection]) -> list[str]:
        devices = [f"FUSE connection {connection.minor}" for connection in connections if connection.alive]
        return devices + [f"/dev/loop{loop.number}" for loop in loops.named(cluster_name(self._lab.name), self.name)]

    def _forget(self) -> None:
        for name in ("process.json", "fuse.json", "control.sock"):
            (self._folder / name).unlink(missing_ok=True)

    def clean_up(self) -> None:
        """End whatever is left of it, in whatever state it is; for `lab down`."""
        record = self._record()
        process = self.process
        connections = [] if process is None else fusectl.mounted(process.pid)
        namespaces = {record["pid_namespace"]} if "pid_namespace" in record else set()
        for mine in boot_processes(self._lab.path, self._folder):
            namespaces |= _namespace(mine)
            mine.send(signal.SIGKILL)
        left = inside(namespaces)
        if left:
            fusectl.abort(connections + self._left_connections())
        for found in left:
            found.send(signal.SIGKILL)
        self._await_end(connections)

    def erase(self) -> None:
        """Remove what it has in the lab's folder, but for its log."""
        subprocess.run(["umount", str(self._folder / UPPER)], capture_output=True)
        (self._folder.parent / POWER / self.name).unlink(missing_ok=True)
        for name in (UPPER, ROOT, "disk"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        for name in (
            "boot.json",
            "units.json",
            "boots.json",
            "disk.img",
            "disk.json",
            "disk.log",
            sysrq.FIFO,
            sysrq.LOG,
            reset_timer.FIFO,
            reset_timer.LOG,
        ):
            (self._folder / name).unlink(missing_ok=True)


def boot_processes(lab: pathlib.Path, machine: pathlib.Path) -> list[Process]:
    """The processes that are, or start, the PID 1 of a machine, however little of a record there is."""
    spec = str(machine / "boot.json")
    return [found for found in marked(lab) if spec in arguments(found.pid)]


def _namespace(process: Process) -> set[int]:
    own, found = pid_namespace(os.getpid()), pid_namespace(process.pid)
    return set() if found is None or found == own else {found}


def environment(program: str | None = None) -> dict[str, str]:
    """The environment of a machine's daemons and commands: the program's commands come first in PATH.

    Args:
        program: the virtual environment of another program than this one.
    """
    folder = pathlib.Path(sys.executable).parent if program is None else pathlib.Path(program) / "bin"
    path = f"{folder}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    found = {"PATH": path, "HOME": "/root", "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
    return {**found, MASK_VARIABLE: REQUIRED, STAND_IN_VARIABLE: f"/{sysrq.STAND_IN}"}


def read_log(path: pathlib.Path) -> str:
    """The whole log of a machine; empty when it was never on."""
    older = path.with_name(path.name + ".1")
    return "".join(part.read_text(errors="replace") for part in (older, path) if part.exists())
