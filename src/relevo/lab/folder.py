"""A lab's folder: what lies where, which processes serve it, and the lock that keeps two commands apart.

lab.json               the options and the lab's name
lock                   held (flock) while a command changes the lab
cut.json               which cables are cut: a property of the cables, so it outlives the machines
switch.json, switch.log, expose.json, …   helper processes and what they said
shared/                seen by every machine at the same path
machines/NAME/         upper/ (overlay), root/ (its mount point), boot.json, process.json, fuse.json,
                       control.sock (PID 1's), log, disk.img, disk/r0 (the test disk's mount), disk.sock
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from relevo.base.control import Message, call
from relevo.lab.errors import LabBusy, LabFailed, LabNotRunning
from relevo.lab.process import MARK, Process
from relevo.lab.scene import DEFAULT_DIR, Options

REMOVED = ("lab.json", "cut.json", "switch.json", "switch.log", "expose.json", "expose.log")
"""What `down` removes from the folder itself."""
_KEPT = ("lock", "shared", "machines")
LOCK_LIMIT_S = 60.0
SPAWN_LIMIT_S = 20.0
_LOCK_STEP_S = 0.02


class LabFolder:
    """The folder of one lab.

    Args:
        path: any folder; it is created when the lab is.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path.resolve()
        self.name = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:8]
        self.shared = self.path / "shared"

    def machine(self, name: str) -> pathlib.Path:
        """The folder of a machine."""
        return self.path / "machines" / name

    def image(self, name: str) -> pathlib.Path:
        """The file that holds a server's disk."""
        return self.machine(name) / "disk.img"

    @property
    def exists(self) -> bool:
        """Whether a lab was made here and not taken down."""
        return (self.path / "lab.json").exists()

    def check(self) -> None:
        """Refuse a folder that something else lives in: a lab removes and hides what is in its folder.

        Raises:
            LabFailed: there is something in it that is no lab's.
        """
        known = {*REMOVED, *_KEPT, *(f"{name}.new" for name in REMOVED)}
        foreign = sorted(path.name for path in self.path.glob("*") if path.name not in known)
        if foreign:
            raise LabFailed(f"{self.path} holds other things than a lab ({foreign[0]}).", "Name an empty folder.")

    def remove(self) -> None:
        """Remove what `down` leaves, and the folder itself unless something foreign is in it."""
        for name in ("shared", "machines"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        (self.path / "lock").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def options(self) -> Options:
        """The options the lab was made with.

        Raises:
            LabNotRunning: there is none.
        """
        try:
            return msgspec.json.decode((self.path / "lab.json").read_bytes(), type=Options)
        except (FileNotFoundError, msgspec.ValidationError) as error:
            raise self.not_there() from error

    def order(self, words: str) -> str:
        """A command for this lab as it has to be typed, with its folder where that is not the usual one."""
        return f"relevo lab {words}" + ("" if self.path == DEFAULT_DIR else f" --dir {self.path}")

    def not_there(self) -> LabNotRunning:
        """The error that there is no lab."""
        return LabNotRunning(f"There is no lab in {self.path}.", f"Start one: {self.order('up')}.")

    def save(self, name: str, value: object) -> None:
        """Replace a small JSON file."""
        beside = self.path / f"{name}.new"
        beside.write_bytes(msgspec.json.encode(value))
        beside.replace(self.path / name)

    def load(self, name: str, default: Any) -> Any:
        """Read a small JSON file; `default` when it is not there."""
        try:
            return json.loads((self.path / name).read_bytes())
        except (FileNotFoundError, ValueError):
            return default

    def process(self, name: str) -> Process | None:
        """The living process that a record such as `switch.json` names."""
        record = self.load(name, None)
        if record is None:
            return None
        process = Process(record["pid"], record["start"])
        return process if process.alive() else None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other commands from changing this lab while the body runs.

        Raises:
            LabBusy: another one holds it for longer than `LOCK_LIMIT_S`.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        # Not inheritable, as all of Python's descriptors: a daemon that kept it would keep the lock.
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            end_s = time.monotonic() + LOCK_LIMIT_S
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= end_s:
                        raise LabBusy(f"Another command is changing the lab in {self.path}.", "Wait for it.") from None
                    time.sleep(_LOCK_STEP_S)
            yield
        finally:
            os.close(fd)

    def spawn(self, module: str, *arguments: str) -> None:
        """Start a helper process of the lab and wait until it says that it is ready.

        Raises:
            LabFailed: it did not get ready; the sentence carries what it said.
        """
        argv = [*python(module), *arguments, f"{MARK}{self.path}"]
        try:
            done = subprocess.run(argv, capture_output=True, timeout=SPAWN_LIMIT_S, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired as error:
            raise LabFailed(f"{module} is not ready after {SPAWN_LIMIT_S:.0f} s.", self.order("down")) from error
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            why = said[-1] if said else "it said nothing"
            raise LabFailed(f"{module} did not start: {why}", self.order("down"))

    def ask(self, socket: pathlib.Path, do: str, *, timeout_s: float = 30.0, **arguments: object) -> Message:
        """Ask a process of the lab at its control socket, whose path may be longer than sockets allow.

        Raises:
            DaemonUnreachable: nobody answers.
            Refused: it says no.
        """
        try:
            fd = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise LabNotRunning(f"{socket.parent} is not there.", f"Start the lab: {self.order('up')}.") from error
        try:
            short = pathlib.Path(f"/proc/self/fd/{fd}/{socket.name}")
            return call(short, do, timeout_s=timeout_s, **arguments)
        finally:
            os.close(fd)


def python(module: str) -> list[str]:
    """The command line that runs a module of this program with this interpreter."""
    return [sys.executable, "-P", "-m", module]


def program_folders(hidden: tuple[str, ...], *further: str) -> list[str]:
    """Folders that hold this program and its interpreter and that an overlay over / would not show.

    Args:
        hidden: trees that no machine sees.
        further: other folders that have to be seen.
    """
    source = pathlib.Path(__file__).resolve().parents[2]
    found = []
    for path in dict.fromkeys(
        (source, pathlib.Path(sys.prefix), pathlib.Path(sys.base_prefix), *map(pathlib.Path, further))
    ):
        masked = any(path.is_relative_to(tree) for tree in hidden)
        if masked or path.stat().st_dev != pathlib.Path("/").stat().st_dev:
            found.append(str(path))
    return found
