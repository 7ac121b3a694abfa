"""The units of a machine's PID 1: start, output, death, and how long to wait before the next start.

Standard library only: PID 1 imports it.
"""

from __future__ import annotations

import datetime as dt
import enum
import os
import pathlib
import signal
from typing import IO

BACKOFF_FIRST_S = 0.1
BACKOFF_LONGEST_S = 5.0
BACKOFF_FORGET_S = 10.0
"""A unit that ran at least this long starts afresh with the shortest wait."""
LINE_LIMIT_BYTES = 64 << 10
LOG_LIMIT_BYTES = 64 << 20
"""At this size the log is renamed to `log.1` (the one before is dropped) and begun anew."""


class State(enum.Enum):
    """What a unit is doing.

    stopped -> running -> stopping -> stopped; running -> waiting -> running when it died by itself.
    """

    STOPPED = "stopped"
    RUNNING = "running"
    STOPPING = "stopping"
    WAITING = "waiting"


class Log:
    """The log of a machine: one line of text each, with time and origin; lies outside the machine."""

    def __init__(self, folder: pathlib.Path, name: str) -> None:
        self._name = name
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._file = self._open()

    def _open(self) -> IO[bytes]:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.fdopen(os.open(self._name, flags, 0o644, dir_fd=self._folder), "ab", buffering=0)

    def line(self, origin: str, text: str) -> None:
        """Append one line."""
        now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._file.write(f"{now} {origin}: {text}\n".encode(errors="replace"))
        if self._file.tell() >= LOG_LIMIT_BYTES:
            self._file.close()
            os.rename(self._name, self._name + ".1", src_dir_fd=self._folder, dst_dir_fd=self._folder)
            self._file = self._open()

    @property
    def fd(self) -> int:
        """For output that PID 1 itself makes."""
        return self._file.fileno()


class Unit:
    """A daemon, as PID 1 sees it."""

    def __init__(
        self,
        name: str,
        argv: list[str],
        log: Log,
        env: dict[str, str],
        *,
        stop_limit_s: float,
        goodbye: list[str],
        goodbye_limit_s: float,
    ) -> None:
        self.name = name
        self.state = State.STOPPED
        self.pid = 0
        self.restarts = 0
        self.last_exit = ""
        self.output: IO[bytes] | None = None
        self.due_s = 0.0
        self.stop_limit_s = stop_limit_s
        self.goodbye = goodbye
        self.goodbye_limit_s = goodbye_limit_s
        self._argv = argv
        self._log = log
        self._env = env
        self._started_s = 0.0
        self._wait_s = BACKOFF_FIRST_S
        self._rest = b""

    def start(self, now_s: float) -> None:
        """Run its command. One that cannot be run ends at once with status 127, and says so in the log."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        # A signal that comes before the command has its own handling would be lost in ours.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self.pid = os.fork()
        if self.pid == 0:
            self._become(writer)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(writer)
        if self.output is not None:
            self.read()
            self.output.close()
        self.output = os.fdopen(reader, "rb", buffering=0)
        self._rest = b""
        self.state = State.RUNNING
        self._started_s = now_s
        self._log.line("init", f"{self.name} started as {self.pid}")

    def _become(self, writer: int) -> None:
        try:
            os.setsid()
            for number in (signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            null = os.open("/dev/null", os.O_RDONLY)
            for fd, target in ((null, 0), (writer, 1), (writer, 2)):
                os.dup2(fd, target)
            os.chdir("/")
            os.execvpe(self._argv[0], self._argv, self._env)
        except OSError as error:
            os.write(2, f"{self._argv[0]}: {error.strerror}\n".encode())
        finally:
            os._exit(127)

    def read(self) -> bool:
        """Log what it has printed; False at the end of its output."""
        assert self.output is not None
        while (data := self.output.read(LINE_LIMIT_BYTES)) is not None:
            if not data:
                self._flush()
                return False
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._write(line)
            if len(self._rest) >= LINE_LIMIT_BYTES:
                self._flush()
        return True

    def _flush(self) -> None:
        if self._rest:
            self._write(self._rest)
            self._rest = b""

    def _write(self, line: bytes) -> None:
        self._log.line(f"{self.name}[{self.pid}]", line.decode(errors="replace"))

    def died(self, status: int, now_s: float) -> None:
        """Its process has ended: what comes next is a rest, or a new start at `due_s`."""
        code = os.waitstatus_to_exitcode(status)
        self.last_exit = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        self._log.line("init", f"{self.name}[{self.pid}] ended: {self.last_exit}")
        self.pid = 0
        if self.state is State.STOPPING:
            self.state = State.STOPPED
            return
        if now_s - self._started_s >= BACKOFF_FORGET_S:
            self._wait_s = BACKOFF_FIRST_S
        self.state = State.WAITING
        self.due_s = now_s + self._wait_s
        self._wait_s = min(2 * self._wait_s, BACKOFF_LONGEST_S)
        self.restarts += 1

    def stop(self, now_s: float) -> None:
        """Ask it to end; `due_s` is when patience ends."""
        if self.state is State.WAITING:
            self.state = State.STOPPED
        elif self.state is State.RUNNING:
            self.state = State.STOPPING
            self.due_s = now_s + self.stop_limit_s
            os.kill(self.pid, signal.SIGTERM)

    def tick(self, now_s: float) -> None:
        """Do what is due: a new start, or the end of patience."""
        if now_s < self.due_s:
            return
        if self.state is State.WAITING:
            self.start(now_s)
        elif self.state is State.STOPPING:
            self._log.line("init", f"{self.name} did not end within {self.stop_limit_s:.1f} s and is killed")
            os.kill(self.pid, signal.SIGKILL)
            self.due_s = now_s + self.stop_limit_s

    @property
    def waits(self) -> bool:
        """Whether `due_s` means something."""
        return self.state in (State.WAITING, State.STOPPING)

    def describe(self) -> dict[str, object]:
        """For `lab status`."""
        return {
            "name": self.name,
            "state": self.state.value,
            "pid": self.pid,
            "restarts": self.restarts,
            "last_exit": self.last_exit,
        }
