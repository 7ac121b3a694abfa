"""Run a command in a machine of a lab: `python -P -m relevo.lab.enter --relevo-lab=FOLDER PID START -- COMMAND…`.

Input and output are the caller's own. Signals are passed on, the command's end is this process's end (the same exit
status, or the same signal), and it dies with the machine. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import resource
import signal
import sys
from typing import NoReturn

from relevo.lab import kernel
from relevo.lab.process import MARK, Process

EXIT_OFF = 125
EXIT_CANNOT_RUN = 126
EXIT_NOT_FOUND = 127
_SI_KERNEL = 0x80  # a signal that the terminal sent: the command had it too
_KEPT = {signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}
_PASSED = set(signal.Signals) - _KEPT - {signal.SIGTTIN, signal.SIGTTOU, signal.SIGTSTP}


def _enter(process: Process) -> None:
    fd = os.pidfd_open(process.pid)
    if not process.alive():
        raise ProcessLookupError
    kernel.setns(fd, kernel.CLONE_NODE)
    os.close(fd)
    kernel.never_reboot()


def _become(argv: list[str], folder: str, mask: set[signal.Signals | int]) -> NoReturn:
    kernel.die_with_parent(signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for place in (folder, "/"):
        with contextlib.suppress(OSError):
            os.chdir(place)
            break
    try:
        os.execvp(argv[0], argv)
    except FileNotFoundError:
        sys.stderr.write(f"relevo lab: {argv[0]}: there is no such command in the machine.\n")
        status = EXIT_NOT_FOUND
    except OSError as error:
        sys.stderr.write(f"relevo lab: {argv[0]}: {error.strerror}.\n")
        status = EXIT_CANNOT_RUN
    sys.stderr.flush()
    os._exit(status)


def _end_like(status: int) -> NoReturn:
    """End as the command did."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        os._exit(code)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    number = signal.Signals(-code)
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.kill(os.getpid(), number)
    os._exit(128 - code)


def _accompany(pid: int) -> NoReturn:
    """Pass signals on until the command has ended."""
    while True:
        received = signal.sigwaitinfo(_PASSED)
        if received.si_signo != signal.SIGCHLD:
            if received.si_code != _SI_KERNEL:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, received.si_signo)
            continue
        found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        if not found:
            continue
        if os.WIFSTOPPED(status):
            os.kill(os.getpid(), signal.SIGSTOP)
            os.kill(pid, signal.SIGCONT)
        else:
            _end_like(status)


def main(argv: list[str]) -> NoReturn:
    """Enter the machine, run the command, end as it ends."""
    arguments = [item for item in argv[1 : argv.index("--")] if not item.startswith(MARK)]
    command = argv[argv.index("--") + 1 :]
    folder = str(pathlib.Path.cwd())
    try:
        _enter(Process(int(arguments[0]), int(arguments[1])))
    except ProcessLookupError:
        sys.stderr.write("relevo lab: the machine is off.\n")
        raise SystemExit(EXIT_OFF) from None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED)
    pid = os.fork()
    if pid == 0:
        _become(command, folder, mask)
    _accompany(pid)


if __name__ == "__main__":
    main(sys.argv)
