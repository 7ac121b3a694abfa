"""A mirror's process that `up` has started: on its own, with a log and a note of its number, until `down`."""

from __future__ import annotations

import os
import pathlib
import select
import subprocess
import sys
import time
from collections.abc import Callable

from relevo.base.control import DaemonUnreachable, call
from relevo.base.errors import RelevoError
from relevo.cli.context import Context
from relevo.cli.init_system import start_unit
from relevo.config.model import MirrorSite
from relevo.units import MIRROR, instance

START_TIMEOUT_S = 30.0
START_POLL_S = 0.02
"""The control socket of a new process appears without announcing itself."""
END_TIMEOUT_S = 30.0


class NotStarted(RelevoError):
    """The mirror's process ended at once."""


class StillThere(RelevoError):
    """The mirror's process does not end."""


def log_of(context: Context, name: str) -> pathlib.Path:
    """Where a process that `up` has started writes its log."""
    return context.paths.run / f"mirror-{name}.log"


def _note_of(context: Context, name: str) -> pathlib.Path:
    return context.paths.run / f"mirror-{name}.pid"


def start_detached(context: Context, site: MirrorSite) -> None:
    """Start `relevo mirror run NAME`, of no terminal and no parent, and wait until it answers.

    Where systemd has a unit for it, it is started through that.

    Raises:
        NotStarted: it has ended instead.
    """
    name = site.mirror.name
    unit = instance(MIRROR, name)
    if start_unit(unit):
        _await_answer(context, name, f"See journalctl -u {unit}.", lambda: None)
        return
    context.paths.run.mkdir(parents=True, exist_ok=True)
    log = log_of(context, name)
    log.touch(mode=0o600)  # it has what handlers print
    with log.open("ab") as output:
        began = output.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "relevo", *context.arguments(), "mirror", "run", name],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    _note_of(context, name).write_text(f"{process.pid}\n", encoding="ascii")

    def must_run() -> None:
        if process.poll() is not None:
            _note_of(context, name).unlink(missing_ok=True)
            raise NotStarted(_last_words(log, began), f"See {log}.")

    _await_answer(context, name, f"See {log}.", must_run)


def _await_answer(context: Context, name: str, remedy: str, must_run: Callable[[], None]) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        try:
            call(context.paths.socket(f"mirror-{name}"), "status")
        except DaemonUnreachable:
            must_run()
            time.sleep(START_POLL_S)
        else:
            return
    raise NotStarted(f"The process of mirror {name} does not answer.", remedy)


def _last_words(log: pathlib.Path, began: int) -> str:
    said = log.read_bytes()[began:].decode(errors="replace").strip().splitlines()
    return said[-1] if said else "The mirror's process has ended without a word."


def end_started(context: Context, name: str) -> None:
    """Wait until the process of a mirror that `up` has started is gone, device and all; others are somebody else's.

    Raises:
        StillThere: it is not gone within `END_TIMEOUT_S`.
    """
    note = _note_of(context, name)
    try:
        pid = int(note.read_text(encoding="ascii"))
        pidfd = os.pidfd_open(pid)
    except (OSError, ValueError):
        note.unlink(missing_ok=True)
        return
    try:
        if _runs(pid, name) and not select.select([pidfd], [], [], END_TIMEOUT_S)[0]:
            raise StillThere(f"Process {pid} of mirror {name} does not end.", "See its log.")
    finally:
        os.close(pidfd)
    note.unlink(missing_ok=True)


def _runs(pid: int, mirror: str) -> bool:
    """A number that was noted may belong to another process by now, that of another mirror included."""
    try:
        return f"\0mirror\0run\0{mirror}\0".encode() in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
