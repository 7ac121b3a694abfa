"""A lab: what the command `relevo lab`, the tests and the demonstration can do with two servers and a client."""

from __future__ import annotations

import pathlib
import signal
import subprocess
from collections.abc import Iterable, Sequence
from typing import IO, Any, Literal

import msgspec

from relevo.base.control import Message
from relevo.lab import cleanup, service
from relevo.lab.errors import CommandFailed, LabFailed, LabRunning, MachineOff
from relevo.lab.expose import HOST
from relevo.lab.folder import LabFolder
from relevo.lab.machine import Machine, read_log
from relevo.lab.scene import (
    ADDRESSES,
    CLIENT,
    DEFAULT_DIR,
    EXPOSED_PORT,
    MACHINES,
    SERVERS,
    SERVICE_UNITS,
    WITNESS_UNIT,
    Options,
    Unit,
    boot_limit_s,
    check_machine,
    configuration,
    new_secrets,
)
from relevo.lab.switch import Switch
from relevo.lab.watchdog import Watchdog

__all__ = ["Lab", "Options", "Unit"]

Stream = int | IO[bytes] | None
UnitAction = Literal["start", "stop", "restart", "kill", "freeze", "thaw"]
_SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP, "thaw": signal.SIGCONT}


class Lab:
    """Two servers, nodo1 and nodo2, and a client, in namespaces of their own on this machine. Needs root.

    Everything lies below one folder; labs in different folders know nothing of each other. Each object is only a view:
    any number of them, in any processes, may serve one lab.

    Args:
        folder: the lab's folder.
        options: how to make it, for `up`; a lab that is up keeps the options it was made with.
    """

    def __init__(self, folder: pathlib.Path | str = DEFAULT_DIR, options: Options | None = None) -> None:
        self.folder = LabFolder(pathlib.Path(folder))
        self._options = options or Options()
        self.switch = Switch(self.folder)
        self._machines = {name: Machine(self.folder, self.switch, name) for name in MACHINES}

    @property
    def dir(self) -> pathlib.Path:
        """The lab's folder, in full."""
        return self.folder.path

    @property
    def shared(self) -> pathlib.Path:
        """A folder that every machine sees under the same name, for what goes in and out; `down` leaves it alone."""
        self.folder.shared.mkdir(parents=True, exist_ok=True)
        return self.folder.shared

    def machine(self, name: str, *, server: bool = False) -> Machine:
        """One of the machines.

        Raises:
            NoSuchMachine: there is none of that name.
        """
        check_machine(name, server=server)
        return self._machines[name]

    # The whole lab.

    def up(self, *, wait: bool = True, service: bool = True, units: Iterable[Unit] = ()) -> None:
        """Make the lab and switch everything on.

        Args:
            wait: return when the service answers at the virtual IP and both disks are up to date.
            service: prepare the mirror and start the daemons; without it the servers run `units` only.
            units: what the servers run instead of the daemons (started at once, when `service` is false).

        Raises:
            LabRunning: it is up.
            LabFailed: the folder holds other things, or a part cannot be made; nothing is left then.
            ServiceNotUp: all is made, but the service did not come up in time. The lab stays, to be looked at.
        """
        wanted = tuple(SERVICE_UNITS if service else units)
        with self.folder.lock():
            if self.folder.exists:
                raise LabRunning(
                    f"The lab in {self.dir} is up already.", f"Take it down first: {self.folder.order('down')}."
                )
            self.folder.check()
            cleanup.clean(self.folder, self._machines.values())
            try:
                self._make(wanted)
            except BaseException:
                cleanup.clean(self.folder, self._machines.values())
                raise
        if not service:
            self.start_units(*SERVERS)
            return
        self._found()
        if wait:
            self.wait_until_up()

    def _make(self, units: Iterable[Unit]) -> None:
        self.shared.mkdir(parents=True, exist_ok=True)
        self.folder.save("lab.json", self._options)
        self.switch.start()
        secret = new_secrets(self.folder.name, witness=self._options.witness)
        own_units = dict.fromkeys(SERVERS, units)
        files = {
            "etc/relevo/relevo.toml": configuration(self._options, self.folder.name),
            "etc/relevo/secrets.toml": secret.secrets_toml,
            "etc/relevo/authkeys": secret.authkeys,
        }
        own_files = dict.fromkeys(SERVERS, files)
        if self._options.witness:
            own_files[CLIENT] = {"etc/relevo/witness.toml": secret.witness_toml}
            own_units[CLIENT] = (WITNESS_UNIT,)
        for name, machine in self._machines.items():
            (self.folder.machine(name) / "log").unlink(missing_ok=True)
            machine.create(own_files.get(name, {}))
            if machine.disk is not None:
                machine.disk.create()
            machine.boot()
            machine.define(own_units.get(name, ()))
        if self._options.witness:
            self.unit(CLIENT, WITNESS_UNIT.name, "start")

    def _found(self) -> None:
        """Prepare the mirror on both servers, make its file system, start the daemons."""
        service.found(self)
        self.start_units(*SERVERS)

    def start_units(self, *names: str) -> None:
        """Start every unit of these machines that is not running, in order."""
        for name in names:
            for unit in self.units(name):
                self.unit(name, unit["name"], "start")

    def wait_until_up(self, limit_s: float | None = None) -> None:
        """Wait until the service answers at the virtual IP and both disks are up to date.

        Raises:
            ServiceNotUp: not within the limit; the sentence says what is missing.
        """
        service.wait_until_up(self, boot_limit_s(self.folder.options()) if limit_s is None else limit_s)

    def down(self) -> None:
        """End the lab, in whatever state it is: no process, namespace, mount or loop device of it is left.

        Logs and the shared folder stay. A lab that is not there is no error.
        """
        if not self.folder.path.exists() and not cleanup.anything_left(self.folder):
            return
        with self.folder.lock():
            cleanup.clean(self.folder, self._machines.values())

    def status(self) -> dict[str, Any]:
        """The state of everything in the lab, for people and programs.

        Raises:
            LabNotRunning: there is no lab.
        """
        options = self.folder.options()
        exposed = self.folder.load("expose.json", {})
        return {
            "dir": str(self.dir),
            "name": self.folder.name,
            "options": msgspec.to_builtins(options),
            "network": "up" if self.switch.running else "gone",
            "exposed": f"http://{HOST}:{exposed['port']}" if self.folder.process("expose.json") else None,
            "machines": {name: self._machine_status(name) for name in MACHINES},
        }

    def _machine_status(self, name: str) -> dict[str, Any]:
        machine = self._machines[name]
        process = machine.process
        return {
            "power": "off" if process is None else "on",
            "pid": None if process is None else process.pid,
            "links": {
                card: {"address": address, "state": self.switch.state(name, card)}
                for card, address in ADDRESSES[name].items()
            },
            "units": [] if process is None else self.units(name),
            "disk": None if machine.disk is None or process is None else machine.disk.stats(),
        }

    # Faults.

    def crash(self, node: str) -> Message:
        """Cut a machine's power. When this returns nothing of it is left, and nothing is going to happen any more.

        Returns:
            What its disk forgot: `unflushed_blocks` and `lost_blocks`.

        Raises:
            MachineOff: it is off.
        """
        with self._changing():
            return self.machine(node).crash()

    def boot(self, node: str, *, units: bool = True) -> None:
        """Switch a machine on that crashed or was stopped: the same disk, the same files.

        Raises:
            MachineOn: it is on.
        """
        with self._changing():
            machine = self.machine(node)
            machine.boot()
        if units:
            self.start_units(node)

    def set_program(self, node: str, program: pathlib.Path | None) -> None:
        """Which program a server runs from its next boot on: two versions side by side, as during an upgrade.

        Args:
            node: whose.
            program: a virtual environment that has `bin/relevo`; None: this program.

        Raises:
            LabFailed: there is no such program.
            LabNotRunning: there is no lab.
        """
        check_machine(node, server=True)
        with self._changing():
            options = self.folder.options()
            programs = {name: path for name, path in options.programs.items() if name != node}
            if program is not None:
                if not (program / "bin/relevo").is_file():
                    raise LabFailed(f"There is no {program}/bin/relevo.", "Name a virtual environment that has Relevo.")
                programs[node] = str(program.resolve())
            self.folder.save("lab.json", msgspec.structs.replace(options, programs=programs))

    def stop(self, node: str) -> None:
        """Power a machine off in order: it says goodbye, its daemons end, then it is off.

        Raises:
            MachineOff: it is off.
            LabFailed: it does not end; it is still on.
        """
        with self._changing():
            self.machine(node).shut_down()

    def cut(self, node: str, link: str | None = None, *, cable: bool = False) -> None:
        """Cut a machine's links, or one: silence, with the carrier still there.

        Args:
            node: whose.
            link: `eth0` or `eth1`; all of them by default.
            cable: pull the cable out, so that the machine sees its carrier drop.
        """
        with self._changing():
            self.switch.cut(node, self._cards(node, link), cable=cable)

    def heal(self, node: str, link: str | None = None) -> None:
        """Undo every `cut` of a machine, or of one link."""
        with self._changing():
            self.switch.heal(node, self._cards(node, link))

    def _cards(self, node: str, link: str | None) -> list[str]:
        check_machine(node)
        cards = list(ADDRESSES[node])
        if link is not None and link not in cards:
            raise LabFailed(f"{node} has no link {link!r}.", f"It has {', '.join(cards)}.")
        return cards if link is None else [link]

    def _changing(self) -> Any:
        if not self.folder.exists:
            raise self.folder.not_there()
        return self.folder.lock()

    # Units.

    def units(self, node: str) -> list[dict[str, Any]]:
        """The units of a machine: name, state, pid (in the machine), restarts, last_exit.

        Raises:
            MachineOff: it is off.
        """
        return list(self.machine(node).ask("units")["units"])

    def unit(self, node: str, name: str, action: UnitAction) -> int:
        """Do something to a unit: start, stop (waits for its end), restart, kill (-9), freeze and thaw (STOP, CONT).

        Returns:
            Its process number in the machine: the new one after start and restart, the old one after kill.

        Raises:
            Refused: there is no such unit, or it is not running.
        """
        machine = self.machine(node)
        if action in _SIGNALS:
            return int(machine.ask("signal", unit=name, signal=int(_SIGNALS[action]))["pid"])
        return int(machine.ask(action, unit=name)["pid"])

    def define(self, node: str, units: Sequence[Unit]) -> None:
        """Give a machine that is on further units, not started; they are there at its next boot too."""
        self.machine(node).define(units)

    # Commands.

    def popen(
        self,
        node: str,
        argv: Sequence[str],
        *,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = None,
        stderr: Stream = None,
        env: dict[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a command in a machine. Signals sent to the process reach the command; it dies with the machine.

        Raises:
            MachineOff: it is off.
        """
        machine = self.machine(node)
        command, given = machine.command(argv), {**machine.environment, **(env or {})}
        return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, env=given)

    def run(
        self,
        node: str,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        capture: bool = False,
        check: bool = False,
        timeout_s: float | None = None,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command in a machine to its end.

        Args:
            node: the machine.
            argv: the command line.
            stdin: what it reads; nothing by default.
            capture: keep its output in the result, instead of letting it through.
            check: raise CommandFailed when it fails.
            timeout_s: after which it is killed, and subprocess.TimeoutExpired raised.
            env: further environment variables.

        Raises:
            MachineOff: the machine is off.
            CommandFailed: its exit status is not 0 and `check` is set.
        """
        pipe = subprocess.PIPE if capture or check else None
        given = subprocess.DEVNULL if stdin is None else subprocess.PIPE
        with self.popen(node, argv, stdin=given, stdout=pipe, stderr=pipe, env=env) as process:
            try:
                out, err = process.communicate(stdin, timeout=timeout_s)
            except BaseException:
                process.kill()
                raise
        if check and process.returncode:
            said = (err or out).decode(errors="replace").strip().splitlines()
            raise CommandFailed(
                f"`{' '.join(argv)}` failed in {node} with status {process.returncode}: "
                f"{said[-1] if said else 'it said nothing'}",
                self.folder.order(f"logs {node}"),
            )
        return subprocess.CompletedProcess(list(argv), process.returncode, out or b"", err or b"")

    # Looking in.

    def logs(self, node: str) -> str:
        """Everything a machine's PID 1 and its units have said since the lab was made, a line each."""
        check_machine(node)
        return read_log(self.folder.machine(node) / "log")

    def image(self, node: str) -> pathlib.Path:
        """The file that holds a server's disk."""
        check_machine(node, server=True)
        return self.folder.image(node)

    def path(self, node: str, inside: str) -> pathlib.Path:
        """A path of a machine that is on, as the host can reach it. Symbolic links would lead into the host.

        Raises:
            MachineOff: it is off.
        """
        return self.machine(node).root() / inside.lstrip("/")

    def expose(self, port: int = EXPOSED_PORT) -> str:
        """Make the virtual IP reachable at 127.0.0.1:`port` of the host; the URL. Port 0 takes any free one.

        Raises:
            MachineOff: the client is off.
            LabFailed: the port is taken.
        """
        with self._changing():
            running = self.folder.process("expose.json")
            if running is not None:
                running.send(signal.SIGKILL)
                running.wait_gone(1.0)
            client = self.machine("client").process
            if client is None:
                raise MachineOff(
                    "The client is off, and connections go out from there.", self.folder.order("boot client")
                )
            self.folder.spawn("relevo.lab.expose", str(self.dir), str(port), str(client.pid), str(client.start))
            taken = self.folder.load("expose.json", {})["port"]
        return f"http://{HOST}:{taken}"

    def watchdog(self, limit_s: float) -> Watchdog:
        """A process outside that takes the lab down by force after `limit_s` seconds, or when its user dies.

        Use it with `with`, or end it with `close`.
        """
        return Watchdog(self.dir, limit_s)

    def erase(self) -> None:
        """Take the lab down and remove its logs, its shared folder, and the folder itself unless others use it."""
        self.down()
        self.folder.remove()
