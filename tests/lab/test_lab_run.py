"""Commands in machines: input, output, exit status and signals pass through; they die with the machine."""

from __future__ import annotations

import os
import pathlib
import pty
import signal
import subprocess
import sys

import pytest
from labtools import PYTHON, end, start

from relevo.lab.errors import CommandFailed
from relevo.lab.lab import Lab
from relevo.lab.process import Process, pid_namespace

SLEEPER = "import time, sys\nprint('ready', flush=True)\ntime.sleep(600)"
TRAP = """
import signal, sys
def end(number, frame):
    print("got", number, flush=True); sys.exit(7)
signal.signal(signal.SIGTERM, end); signal.signal(signal.SIGINT, end); print("ready", flush=True); signal.pause()
"""


def test_input_output_and_exit_status_pass_through(lab: Lab) -> None:
    done = lab.run("client", ["sh", "-c", "cat; echo err >&2; exit 41"], stdin=b"\0binary\xff" * 1000, capture=True)
    assert (done.returncode, done.stdout, done.stderr) == (41, b"\0binary\xff" * 1000, b"err\n")
    assert lab.run("client", ["no-such-command"], capture=True).returncode == 127
    assert lab.run("client", ["/etc"], capture=True).returncode == 126
    with pytest.raises(CommandFailed, match="status 3: because"):
        lab.run("client", ["sh", "-c", "echo because >&2; exit 3"], check=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_command(lab: Lab, number: signal.Signals) -> None:
    process = start(lab, "nodo1", TRAP)
    process.send_signal(number)
    out, _ = process.communicate(timeout=10)
    assert out == f"got {int(number)}\n".encode()
    assert process.returncode == 7


def test_a_command_that_a_signal_ends_ends_its_caller_alike(lab: Lab) -> None:
    assert lab.run("nodo1", ["sh", "-c", "kill -TERM $$"]).returncode == -signal.SIGTERM
    assert lab.run("nodo1", ["sh", "-c", "kill -KILL $$"]).returncode == -signal.SIGKILL


def test_a_killed_caller_takes_the_command_along(lab: Lab) -> None:
    process = start(lab, "nodo1", SLEEPER)
    inner = _inner(lab, process)
    end(process)
    assert inner.wait_gone(10)


def test_commands_die_with_the_machine(lab: Lab) -> None:
    process = start(lab, "nodo1", SLEEPER)
    inner = _inner(lab, process)
    lab.crash("nodo1")
    assert not inner.alive()
    process.communicate(timeout=10)
    assert process.returncode == -signal.SIGKILL


def _inner(lab: Lab, process: subprocess.Popen[bytes]) -> Process:
    """The command itself, as the host sees it: the only child of the process that accompanies it."""
    (child,) = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    machine = lab.machine("nodo1").power()
    assert pid_namespace(int(child)) == pid_namespace(machine.pid)
    found = Process.of(int(child))
    assert found is not None
    return found


def test_a_terminal_passes_through(lab: Lab) -> None:
    ours, theirs = pty.openpty()
    try:
        command = lab.machine("client").command(["sh", "-c", "test -t 0 && stty size && read line && echo got $line"])
        subprocess.run(["stty", "rows", "33", "cols", "77"], stdin=theirs, check=True)
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.write(ours, b"hello\n")
            assert process.wait(timeout=10) == 0
        said = os.read(ours, 4096).decode()
        assert "33 77" in said
        assert "got hello" in said
    finally:
        os.close(ours)
        os.close(theirs)


def test_the_command_line_tool_passes_everything_through(lab: Lab) -> None:
    tool = [sys.executable, "-c", "from relevo.cli.lab import app; app()", "run", "--dir", str(lab.dir), "nodo2", "--"]
    program = "import os, sys; print(os.uname().nodename, sys.stdin.read(), sys.argv[1:]); sys.exit(9)"
    done = subprocess.run([*tool, PYTHON, "-c", program, "-l", "--json"], input=b"in", capture_output=True)
    assert (done.returncode, done.stdout) == (9, b"nodo2 in ['-l', '--json']\n")
