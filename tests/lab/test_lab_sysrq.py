"""The reset button of a machine: what is written to /proc/sysrq-trigger cuts that machine's power, and nothing else.

A kernel without the trigger cannot have it masked; there the same FIFO lies at /run/sysrq-trigger, and handlers write
there.
"""

from __future__ import annotations

import json
import pathlib
import sys

import pytest
from labtools import assert_masked, is_off

from relevo.base import sysrq
from relevo.lab.lab import Lab
from relevo.lab.process import wait_until
from relevo.lab.scene import MACHINES

LIMIT_S = 30.0


@pytest.mark.parametrize(("letter", "then"), [("b", "reboot -f"), ("o", "halt -f")])
def test_the_trigger_cuts_the_power_of_its_own_machine(lab: Lab, letter: str, then: str) -> None:
    for name in MACHINES:
        assert_masked(lab, name)
    command = assert_masked(lab, "nodo2").replace("echo b", f"echo {letter}")
    lab.popen("nodo2", ["sh", "-c", f"{command} ; {then}"]).wait()
    assert wait_until(lambda: is_off(lab, "nodo2"), LIMIT_S)
    assert not is_off(lab, "nodo1")
    assert not is_off(lab, "client")
    lab.boot("nodo2")
    assert_masked(lab, "nodo2")


def test_other_letters_do_nothing(lab: Lab) -> None:
    command = assert_masked(lab, "nodo1")
    for letter in "su":
        lab.run("nodo1", ["sh", "-c", command.replace("echo b", f"echo {letter}")], check=True)
    assert not is_off(lab, "nodo1")
    lab.stop("nodo1")
    lab.boot("nodo1")
    assert not is_off(lab, "nodo1")


def test_nobody_in_a_machine_may_reboot(lab: Lab) -> None:
    for name in MACHINES:
        bounding = lab.run(name, ["sh", "-c", "grep CapBnd /proc/self/status /proc/1/status"], check=True).stdout
        for line in bounding.decode().splitlines():
            assert not int(line.split()[-1], 16) >> 22 & 1, line


@pytest.mark.skipif(not pathlib.Path(sysrq.TRIGGER).exists(), reason="this kernel has no trigger to be masked")
def test_without_the_mask_no_handler_may_run(lab: Lab) -> None:
    """In a mount namespace of its own the mask is taken away; nothing is written there."""
    assert_masked(lab, "nodo1")
    program = "import json\nfrom relevo.base import sysrq\nprint(json.dumps(sysrq.refusal()))"
    uncovered = ["unshare", "--mount", "sh", "-c", f'umount {sysrq.TRIGGER} && exec "$0" -c "$1"']
    done = lab.run("nodo1", [*uncovered, sys.executable, program], check=True, timeout_s=20)
    assert "not masked" in json.loads(done.stdout)
