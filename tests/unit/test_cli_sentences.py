"""What goes wrong at the edge is one sentence: what, where, what to do; no traceback, and the right exit status."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from relevo.cli.drbdadm import _PANELS

NOWHERE = "{tmp}/nope"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["import", NOWHERE], 1, ["There is no folder {tmp}/nope.", "such as /etc/ha.d"]),
        (
            ["lab", "run", "--dir", NOWHERE, "nodo1", "true"],
            1,
            ["There is no lab in {tmp}/nope. Start one: relevo lab up --dir"],
        ),
        (["lab", "boot", "--dir", NOWHERE, "nodo1"], 1, ["Start one: relevo lab up --dir {tmp}/nope."]),
        (["lab", "logs", "--dir", NOWHERE, "nodo1"], 1, ["There is no lab in {tmp}/nope."]),
        (["heartbeat", "dump", "--file", NOWHERE], 1, ["{tmp}/nope cannot be read (No such file or directory)."]),
        (["check", "--drbd", NOWHERE], 1, ["{tmp}/nope: There is no such file."]),
        (["mirror", "role"], 10, ["{tmp}/relevo.toml: There is no such file, and no {tmp}/drbd.conf either"]),
        (["mirror", "status"], 1, ["and no {tmp}/drbd.conf either"]),
        (["mirror", "shims", "--into", "/proc/nope"], 1, ["/proc/nope: No such file or directory."]),
    ],
)
def test_a_place_that_is_not_there(tmp_path: pathlib.Path, words: list[str], status: int, said: list[str]) -> None:
    tmp = str(tmp_path)
    places = ["--etc", tmp, "--run", tmp, "--state", tmp, "--drbd-conf", f"{tmp}/drbd.conf", "--node", "nodo1"]
    command = [sys.executable, "-m", "relevo", *places, *(word.replace("{tmp}", tmp) for word in words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2, "a sentence, and for check the count"
    for part in said:
        assert part.replace("{tmp}", tmp) in done.stderr


def test_every_verb_of_the_mirror_has_its_part_of_the_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "relevo", "mirror", "--help"], capture_output=True, text=True, check=True
    )
    panels = [line.strip("╭─╮ ") for line in done.stdout.splitlines() if line.startswith("╭")]
    assert panels[1:] == list(_PANELS), "and none is left over"


def test_the_help_keeps_the_daemons_apart_from_the_orders() -> None:
    done = subprocess.run([sys.executable, "-m", "relevo", "--help"], capture_output=True, text=True, check=True)
    orders, daemons = done.stdout.split("Daemons (started by systemd")
    assert "Every day" in orders
    first = {line.split()[1] for line in daemons.splitlines() if line.startswith("│") and line[2:3].strip()}
    assert first == {"heartbeat", "node", "witness", "files"}


def test_a_permission_that_there_is_not_names_those_that_there_are() -> None:
    command = [sys.executable, "-m", "relevo", "share", "permit", "docs", "ana", "reed"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert all(f"'{word}'" in done.stderr for word in ("reed", "none", "read", "write", "manage", "unset"))
