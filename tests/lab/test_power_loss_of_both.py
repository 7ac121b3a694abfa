"""Both servers lose power at the same moment: what was flushed is there, and only that is what a flush is for."""

from __future__ import annotations

import base64
import pathlib
import shutil
import subprocess

import pytest
from labtools import LabMaker

from relevo.lab import lab as lab_module
from relevo.lab.lab import Lab, Unit
from relevo.lab.scene import SERVICE_UNITS, URL
from relevo.lab.story import StageFailed, Story

FILES = 40
DISK_BYTES = 128 << 20
RETURN_LIMIT_S = 30.0
"""How long two servers may take after the power loss until they serve again (initdead is 10 s)."""


def _curl(lab: Lab, *arguments: str, data: bytes = b"") -> None:
    assert lab.run("client", ["curl", "-sf", *arguments], stdin=data).returncode == 0


def _store(lab: Lab) -> dict[str, bytes]:
    """Files that the service acknowledged, each stored, renamed or deleted by a request of its own; empty: deleted."""
    contents = {f"{number}.txt": f"{number}-".encode() * (2000 + number) for number in range(FILES)}
    for name, data in contents.items():
        _curl(lab, "-T", "-", URL + name, data=data)
    data = contents["tus"] = b"resumable" * 9000
    fields = {
        "Tus-Resumable": "1.0.0",
        "Upload-Length": str(len(data)),
        "Content-Type": "application/offset+octet-stream",
    }
    fields["Upload-Metadata"] = f"path {base64.b64encode(b'tus').decode()}"
    given = [part for field, value in fields.items() for part in ("-H", f"{field}: {value}")]
    _curl(lab, "-X", "POST", *given, "--data-binary", "@-", URL + ".relevo/tus/", data=data)
    for number in range(0, FILES, 4):
        _curl(lab, "-d", f"item={number}.txt&name=renamed-{number}", URL + "?action=rename")
        contents[f"renamed-{number}"], contents[f"{number}.txt"] = contents[f"{number}.txt"], b""
        _curl(lab, "-X", "DELETE", f"{URL}{number + 1}.txt")
        contents[f"{number + 1}.txt"] = b""
    return contents


def _lose_power(lab: Lab) -> None:
    lab.crash("nodo1")
    lab.crash("nodo2")
    lab.boot("nodo1")
    lab.boot("nodo2")


def _missing(lab: Lab, contents: dict[str, bytes]) -> list[str]:
    """What is not there any more, or has other contents; everything when the service does not come back."""
    try:
        Story(lab).await_service_on("nodo1", limit_s=RETURN_LIMIT_S)
    except StageFailed:
        return list(contents)
    return [
        name
        for name, data in contents.items()
        if lab.run("client", ["curl", "-sf", "--max-time", "5", URL + name], capture=True).stdout != data
    ]


def test_what_was_acknowledged_survives_a_power_loss_of_both_servers(make_lab: LabMaker) -> None:
    lab = make_lab(limit_s=120.0, disk_bytes=DISK_BYTES)
    lab.up()
    contents = _store(lab)
    _lose_power(lab)
    assert _missing(lab, contents) == []


def test_a_build_that_leaves_out_its_flushes_loses_data_here(
    make_lab: LabMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lab can tell: the same story with a mirror whose flushes are answered and not done."""
    lab = make_lab(limit_s=120.0, disk_bytes=DISK_BYTES)
    broken = lab.shared / "no_flush"
    shutil.copytree(pathlib.Path(__file__).parent / "no_flush", broken)
    units = [
        Unit(name=unit.name, argv=("env", f"PYTHONPATH={broken}", *unit.argv), goodbye=unit.goodbye)
        if unit.name == "mirror"
        else unit
        for unit in SERVICE_UNITS
    ]
    monkeypatch.setattr(lab_module, "SERVICE_UNITS", units)
    lab.up()
    said = subprocess.run(
        ["grep", "-c", "flushes are left out", lab.folder.machine("nodo1") / "log"], capture_output=True
    )
    assert int(said.stdout) > 0, "the broken build runs"
    contents = _store(lab)
    _lose_power(lab)
    assert _missing(lab, contents) != []


def test_a_copy_that_may_be_stale_waits_for_a_person(make_lab: LabMaker) -> None:
    """Only the server that was passive returns: it refuses, says why, and names the command that decides."""
    lab = make_lab(limit_s=120.0, disk_bytes=DISK_BYTES)
    lab.up()
    Story(lab).await_service_on("nodo1")
    contents = _store(lab)
    lab.crash("nodo2")
    lab.crash("nodo1")
    lab.boot("nodo2")
    story = Story(lab)
    refusal = story.await_status(
        "A refusal", "nodo2", lambda state: "relevo force" in state["services"]["web"]["remedy"], limit_s=RETURN_LIMIT_S
    )
    assert refusal["services"]["web"]["states"]["nodo2"] == "stopped"
    lab.run("nodo2", ["relevo", "force", "web", "--yes"], check=True)
    story.await_service_away_from("nodo1", limit_s=RETURN_LIMIT_S)
    lab.boot("nodo1")
    assert _missing(lab, contents) == []
