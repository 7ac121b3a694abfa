"""Small programs that lab tests run in machines, and how to talk to them."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import lab_maker
from mirror_pair import Pair
from relevo.base import sysrq
from relevo.lab.lab import Lab

LabMaker = lab_maker.LabMaker
PairMaker = Callable[..., Pair]
PYTHON = sys.executable

ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", int(sys.argv[1]))); print("ready", flush=True)
while True:
    data, who = s.recvfrom(2048)
    s.sendto(socket.gethostname().encode(), who)
"""
ASK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(float(sys.argv[3]))
try:
    s.sendto(b"?", (sys.argv[1], int(sys.argv[2]))); print(s.recv(2048).decode())
except OSError:
    print("silence")
"""
PORT = 5000
ANSWER_LIMIT_S = 5.0
SILENCE_S = 0.4


def start(lab: Lab, node: str, program: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a Python program in a machine and wait for its first line, which must be `ready`."""
    argv = [PYTHON, "-c", program, *arguments]
    process = lab.popen(node, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == b"ready\n", line
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def python(lab: Lab, node: str, program: str, *arguments: str) -> Any:
    """Run a Python program in a machine; what it prints, as JSON."""
    done = lab.run(node, [PYTHON, "-c", program, *arguments], check=True, timeout_s=20)
    return json.loads(done.stdout)


def answer_of(lab: Lab, asker: str, address: str, *, silence: bool = False) -> str:
    """Who answers at an address: a host name, or `silence`."""
    limit = SILENCE_S if silence else ANSWER_LIMIT_S
    done = lab.run(asker, [PYTHON, "-c", ASK, address, str(PORT), str(limit)], check=True)
    return done.stdout.decode().strip()


LOOK = """
import json, os
from relevo.base import sysrq
found = [path for path in (sysrq.TRIGGER, os.environ[sysrq.STAND_IN_VARIABLE]) if os.path.exists(path)]
print(json.dumps({"modes": [os.stat(path).st_mode for path in found], "refusal": sysrq.refusal(),
                  "variable": os.environ.get(sysrq.MASK_VARIABLE),
                  "command": sysrq.adapted("echo b > " + sysrq.TRIGGER)}))
"""


def assert_masked(lab: Lab, name: str) -> str:
    """Before anything may be written to the trigger of a machine; returns the command that writes there."""
    found: dict[str, Any] = python(lab, name, LOOK)
    assert found["modes"]
    assert all(stat.S_ISFIFO(mode) for mode in found["modes"]), "this would be the host's own"
    assert found["refusal"] == ""
    assert found["variable"] == sysrq.REQUIRED
    return str(found["command"])


def is_off(lab: Lab, name: str) -> bool:
    return lab.machine(name).process is None
