"""PID 1 of a machine: reaps, keeps its units running, takes orders at a socket, and powers off in order.

Started from outside as `python -P -m relevo.lab.init BOOT.json --relevo-lab=FOLDER`; what it does and the socket's
messages are written down in docs/internals/lab.md. Standard library only, no threads, nothing that can wait for ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from relevo.lab import kernel, root
from relevo.lab.mounts import fuse_minors, mounts
from relevo.lab.process import Birth, Process, pid_namespace
from relevo.lab.units import Log, State, Unit

LINE_LIMIT_BYTES = 1 << 20
BACKLOG = 16
KILL_LIMIT_S = 2.0
"""At power-off: how long processes that are no units may take after SIGTERM, and again after SIGKILL."""
TICK_S = 1.0
ANSWER_LIMIT_S = 1.0
"""How long a caller may keep PID 1 from writing its answer."""
_UNMOUNTED_AT_END = ("ext4", "ext3", "xfs", "btrfs")


class Refused(Exception):
    """A request that cannot be done, with the sentence for its sender."""


class Caller:
    """A connection at the control socket: one JSON request a line, one JSON answer a line."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._rest = b""

    def requests(self) -> list[dict[str, Any]] | None:
        """What it asks now; None when it has hung up or talks nonsense."""
        try:
            data = self.sock.recv(LINE_LIMIT_BYTES)
        except OSError:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data or len(self._rest) > LINE_LIMIT_BYTES:
            return None
        try:
            return [json.loads(line) for line in lines]
        except ValueError:
            return None

    def answer(self, message: dict[str, Any]) -> None:
        """Answer; a caller that does not listen any more is no error."""
        with contextlib.suppress(OSError):
            self.sock.sendall(json.dumps(message).encode() + b"\n")


class Init:
    """The loop of PID 1.

    Args:
        spec: what boot.json says.
        log: the machine's log.
        listener: the control socket, listening.
        fuse_record: a file outside the machine that always names its FUSE connections.
    """

    def __init__(self, spec: dict[str, Any], log: Log, listener: socket.socket, fuse_record: int) -> None:
        self._env: dict[str, str] = spec["env"]
        self._own_mounts = {mount.point for mount in mounts()}
        self._log = log
        self._listener = listener
        self._fuse_record = fuse_record
        self._units: dict[str, Unit] = {}
        self._callers: dict[int, Caller] = {}
        self._waiters: list[tuple[Caller, Unit, bool]] = []
        self._shutdown = False
        self._poll = select.poll()
        self._mountinfo = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._wakeup, writer = os.pipe()
        for fd in (self._wakeup, writer):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._poll.register(self._mountinfo, select.POLLPRI | select.POLLERR)
        for fd in (self._wakeup, listener.fileno()):
            self._poll.register(fd, select.POLLIN)
        self._define(spec["units"])

    def _on_signal(self, number: int, _frame: object) -> None:
        if number != signal.SIGCHLD:
            self._shutdown = True

    def run(self) -> None:
        """Until somebody orders the power-off."""
        self._note_fuse()
        while not self._shutdown:
            self._pump()
        self._power_off()

    # One turn of the loop.

    def _pump(self) -> None:
        now_s = time.monotonic()
        due = [unit.due_s for unit in self._units.values() if unit.waits]
        wait_s = max(0.0, min([TICK_S, *(moment - now_s for moment in due)]))
        outputs = {unit.output.fileno(): unit for unit in self._units.values() if unit.output is not None}
        for fd in outputs:
            self._poll.register(fd, select.POLLIN)
        events = self._poll.poll(wait_s * 1000 + 1)
        for fd, _ in events:
            if fd in outputs and not outputs[fd].read():
                output, outputs[fd].output = outputs[fd].output, None
                assert output is not None
                output.close()
        for fd in outputs:
            with contextlib.suppress(KeyError):
                self._poll.unregister(fd)
        self._reap()
        for unit in self._units.values():
            if unit.waits:
                unit.tick(time.monotonic())
        for fd, _ in events:
            self._attend(fd)
        self._answer_waiters()

    def _attend(self, fd: int) -> None:
        if fd == self._wakeup:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wakeup, 4096)
        elif fd == self._mountinfo:
            self._note_fuse()
        elif fd == self._listener.fileno():
            with contextlib.suppress(OSError):
                sock, _ = self._listener.accept()
                sock.settimeout(ANSWER_LIMIT_S)
                self._callers[sock.fileno()] = Caller(sock)
                self._poll.register(sock.fileno(), select.POLLIN)
        elif fd in self._callers:
            self._serve(fd)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                for unit in self._units.values():
                    if unit.pid == found[0]:
                        if unit.output is not None:
                            unit.read()
                        unit.died(found[1], time.monotonic())

    def _note_fuse(self) -> None:
        """Write down outside which FUSE connections live here: a power cut must abort them, and cannot ask any more."""
        text = json.dumps(sorted(fuse_minors())).encode()
        os.pwrite(self._fuse_record, text.ljust(4096), 0)

    # Requests.

    def _serve(self, fd: int) -> None:
        caller = self._callers[fd]
        requests = caller.requests()
        if requests is None:
            self._poll.unregister(fd)
            del self._callers[fd]
            self._waiters = [waiter for waiter in self._waiters if waiter[0] is not caller]
            caller.sock.close()
            return
        for request in requests:
            try:
                answer = self._do(caller, request)
            except Refused as error:
                answer = {"ok": False, "error": "Refused", "what": str(error), "remedy": ""}
            if answer is not None:
                caller.answer(answer)

    def _do(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any] | None:
        match request.get("do"):
            case "units":
                return {"ok": True, "units": [unit.describe() for unit in self._units.values()]}
            case "define":
                self._define(request["units"])
                return {"ok": True}
            case "start":
                unit = self._unit(request)
                if unit.state in (State.STOPPED, State.WAITING):
                    unit.start(time.monotonic())
                return {"ok": True, "pid": unit.pid}
            case "stop" | "restart" as what:
                unit = self._unit(request)
                unit.stop(time.monotonic())
                self._waiters.append((caller, unit, what == "restart"))
                return None
            case "signal":
                return self._signal(self._unit(request), int(request["signal"]))
            case "shutdown":
                self._shutdown = True
                return {"ok": True}
            case unknown:
                raise Refused(f"PID 1 knows no request {unknown!r}.")

    def _unit(self, request: dict[str, Any]) -> Unit:
        unit = self._units.get(str(request.get("unit")))
        if unit is None:
            raise Refused(f"There is no unit {request.get('unit')!r} here; there are {', '.join(self._units)}.")
        return unit

    def _signal(self, unit: Unit, number: int) -> dict[str, Any]:
        if not unit.pid:
            raise Refused(f"The unit {unit.name} is not running.")
        pid = unit.pid
        os.kill(pid, number)
        return {"ok": True, "pid": pid}

    def _define(self, specs: list[dict[str, Any]]) -> None:
        for spec in specs:
            if spec["name"] in self._units:
                raise Refused(f"There is a unit {spec['name']} already.")
            self._units[spec["name"]] = Unit(
                spec["name"],
                spec["argv"],
                self._log,
                self._env,
                stop_limit_s=spec["stop_limit_ms"] / 1000,
                goodbye=spec["goodbye"],
                goodbye_limit_s=spec["goodbye_limit_ms"] / 1000,
            )

    def _answer_waiters(self) -> None:
        waiting = []
        for caller, unit, again in self._waiters:
            if unit.state is not State.STOPPED:
                waiting.append((caller, unit, again))
                continue
            if again:
                unit.start(time.monotonic())
            caller.answer({"ok": True, "pid": unit.pid})
        self._waiters = waiting

    # The orderly power-off.

    def _pump_until(self, condition: Callable[[], bool], limit_s: float) -> bool:
        end_s = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() >= end_s:
                return False
            self._pump()
        return True

    def _power_off(self) -> None:
        self._log.line("init", "power-off: the units are stopped in order")
        ordered = list(self._units.values())
        for unit in ordered:
            if unit.goodbye and unit.state is State.RUNNING:
                self._say_goodbye(unit)
        for unit in reversed(ordered):
            unit.stop(time.monotonic())
            self._pump_until(lambda unit=unit: unit.state is State.STOPPED, 2 * unit.stop_limit_s)  # type: ignore[misc]
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, number)
            if self._pump_until(_alone, KILL_LIMIT_S):
                break
        self._unmount()
        self._log.line("init", "power-off")

    def _say_goodbye(self, unit: Unit) -> None:
        limit_s = unit.goodbye_limit_s
        name = f"{unit.name}-goodbye"
        goodbye = Unit(
            name, unit.goodbye, self._log, self._env, stop_limit_s=KILL_LIMIT_S, goodbye=[], goodbye_limit_s=0
        )
        self._units[name] = goodbye
        goodbye.start(time.monotonic())
        if not self._pump_until(lambda: not goodbye.pid, limit_s):
            self._log.line("init", f"`{' '.join(unit.goodbye)}` did not end within {limit_s:.0f} s")
        goodbye.stop(time.monotonic())
        self._pump_until(lambda: goodbye.state is State.STOPPED, 2 * KILL_LIMIT_S)

    def _unmount(self) -> None:
        for mount in reversed(list(mounts())):
            if mount.kind in _UNMOUNTED_AT_END and mount.point not in self._own_mounts:
                try:
                    kernel.umount(mount.point)
                    self._log.line("init", f"{mount.point} was still mounted and is unmounted")
                except OSError as error:
                    self._log.line("init", f"{mount.point} cannot be unmounted: {error.strerror}")


def _alone() -> bool:
    return sum(path.name.isdecimal() for path in pathlib.Path("/proc").iterdir()) <= 1


def _listen(folder: pathlib.Path) -> socket.socket:
    """The control socket; by way of /proc, because the folder's name may be longer than a socket's may be."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    (folder / "control.sock").unlink(missing_ok=True)
    fd = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    sock.bind(f"/proc/self/fd/{fd}/control.sock")
    os.close(fd)
    sock.listen(BACKLOG)
    sock.settimeout(0)
    return sock


def _record(folder: pathlib.Path, pid: int) -> None:
    """Write down who PID 1 is, for those outside."""
    process = Process.of(pid)
    assert process is not None
    text = json.dumps({"pid": pid, "start": process.start, "pid_namespace": pid_namespace(pid)})
    beside = folder / "process.json.new"
    beside.write_text(text)
    beside.replace(folder / "process.json")


def main(argv: list[str]) -> None:
    """Become a machine: the starter returns when it runs, exit status 0, or says why not, exit status 1."""
    spec = json.loads(pathlib.Path(argv[1]).read_text())
    folder = pathlib.Path(spec["folder"])
    log = Log(folder, "log")
    listener = _listen(folder)
    record = os.open(folder / "fuse.json", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    birth = Birth()
    kernel.unshare(kernel.CLONE_NEWPID)
    pid = os.fork()
    if pid:
        _record(folder, pid)
        os._exit(birth.await_ready())
    os.setsid()
    # Not before the fork: the change of root would take the starter along.
    kernel.unshare(kernel.CLONE_NODE & ~kernel.CLONE_NEWPID)
    root.build(
        folder,
        pathlib.Path(spec["lab"]),
        disks=spec["disks"],
        shared=spec["shared"],
        needed=spec["needed"],
        boot_id=spec["boot_id"],
    )
    kernel.never_reboot()
    socket.sethostname(spec["name"])
    os.environ.clear()
    os.environ.update(spec["env"])
    init = Init(spec, log, listener, record)
    log.line("init", f"{spec['name']} is on, boot id {spec['boot_id']}")
    birth.ready(log.fd)
    init.run()


if __name__ == "__main__":
    main(sys.argv)
