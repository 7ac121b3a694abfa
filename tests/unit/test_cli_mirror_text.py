"""What `relevo mirror status` and `resolve` tell people: remedies that work where they are read."""

from __future__ import annotations

import asyncio
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

import drbd_conf_files as files
from relevo.base.control import ControlServer, Message
from relevo.base.paths import Paths
from relevo.cli.context import Context
from relevo.cli.mirror import _sentence
from relevo.cli.mirror_resolve import cost, way_back
from relevo.cli.mirror_saved import StillFilled, must_be_whole
from relevo.mirror import diskless

FOUND: dict[str, Any] = {
    **diskless.STATUS,
    "name": "r0",
    "device": None,
    "problem": "",
    "split_brain_since": "2026-11-26T07:00:00Z",
    "verify_schedule": {"every_ms": 0, "at": "", "last_ended": "", "last_blocks": None, "next_due": "", "waits": ""},
}
PARTED = {**FOUND, "split_brain": True, "split_brain_own_bytes": 8192, "split_brain_peer_bytes": 4096}
DISCARD = "relevo mirror connect --discard-my-data r0"


def test_a_split_brain_is_resolved_by_the_cluster_where_there_is_one() -> None:
    said = _sentence(PARTED)
    assert "apart since 2026-11-26T07:00:00Z: 8.0 KiB changed here, 4.0 KiB on the peer" in said
    assert "to resolve it: relevo mirror resolve r0 --keep NODE" in said
    assert DISCARD not in said


def test_with_a_drbd_conf_alone_the_remedy_is_drbdadms() -> None:
    said = _sentence(PARTED, decided_here=True)
    assert DISCARD in said
    assert "resolve r0" not in said


def test_resolve_without_a_cluster_names_what_to_do_instead(tmp_path: pathlib.Path) -> None:
    conf = tmp_path / "drbd.conf"
    conf.write_text(files.resource())
    places = ["--etc", str(tmp_path), "--run", str(tmp_path), "--state", str(tmp_path), "--drbd-conf", str(conf)]
    command = [sys.executable, "-m", "relevo", *places, "--node", "nodo1", "mirror", "resolve", "r0", "--keep", "nodo1"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
    assert done.returncode == 1
    assert DISCARD in done.stderr


def test_what_a_resolution_costs_names_the_loser_the_amount_and_the_place() -> None:
    told = {
        "mirror": "r0",
        "keep": "nodo1",
        "loser": "nodo2",
        "since": "2026-11-26T07:00:00Z",
        "changed_bytes": {"nodo1": 4096, "nodo2": 3 * 4096},
    }
    said = cost(told, "/var/lib/relevo/saved/r0")
    assert "nodo1 keeps its changes: 4.0 KiB in 1 changed block of 4 KiB." in said
    assert "nodo2 LOSES its changes: 12.0 KiB in 3 changed blocks of 4 KiB." in said
    assert "apart since 2026-11-26T07:00:00Z" in said
    assert "on nodo2 below /var/lib/relevo/saved/r0" in said
    assert "not heard" in cost({**told, "changed_bytes": {"nodo1": 4096, "nodo2": None}}, "/x")
    recipe = way_back("r0", "nodo2")
    assert "relevo mirror saved list r0" in recipe
    assert "relevo mirror saved image r0 COPY old.img" in recipe


def test_the_last_verify_and_the_next_one_are_told() -> None:
    schedule = {
        "every_ms": 86_400_000,
        "at": "03:00",
        "last_ended": "2026-11-25T03:10:00Z",
        "last_blocks": 2,
        "next_due": "2026-11-26T03:00:00Z",
        "waits": "no side is Primary",
    }
    said = _sentence({**FOUND, "verify_schedule": schedule})
    assert "verified: 2026-11-25T03:10:00Z, 8.0 KiB differed; due 2026-11-26T03:00:00Z" in said
    assert "waits: no side is Primary" in said
    assert "verified: never" in _sentence({**FOUND, "verify_schedule": {**schedule, "last_ended": ""}})
    assert "verified by itself: never (no verify_every is set)" in _sentence(FOUND)


def test_a_pause_and_a_verify_under_way_are_told() -> None:
    assert "paused" not in _sentence(FOUND)
    assert "resync is paused here: relevo mirror resume-sync r0 lets it go on" in _sentence({**FOUND, "paused": True})
    assert "resync is paused on the peer" in _sentence({**FOUND, "peer_paused": True})
    run = {"done_bytes": 4096, "total_bytes": 8192, "rate_bytes": 4096, "eta_ms": 1000, "out_of_sync_blocks": 1}
    said = _sentence({**FOUND, "verify": run})
    assert "verify: 4.0 KiB of 8.0 KiB, 1.0 s left, 4.0 KiB differ so far" in said
    last = {"blocks": 0, "bytes": 0, "sectors": [], "ended_ms": 1, "complete": False}
    assert "last verify (of a part) since the mirror's start: 0 B differed" in _sentence({**FOUND, "last_verify": last})


def test_what_differed_has_a_next_step_until_it_has_been_mended() -> None:
    last = {"blocks": 3, "bytes": 12288, "sectors": [], "ended_ms": 1, "complete": True}
    said = _sentence({**FOUND, "last_verify": last, "out_of_sync_bytes": 12288})
    assert "12.0 KiB differed" in said
    assert "there: relevo mirror resync r0" in said
    mended = _sentence({**FOUND, "last_verify": last})
    assert "made equal since" in mended
    assert "relevo mirror resync" not in mended


def test_what_stands_still_has_a_next_step() -> None:
    up = {**FOUND, "connection": "Connected", "disk": "UpToDate"}
    assert not any(word in _sentence(up) for word in ("held", "wait", "attach", "connect r0"))
    assert "relevo mirror resume-io r0 lets it go on" in _sentence({**up, "io_suspended": True})
    assert "writes wait" in _sentence({**up, "suspended": True})
    assert "relevo mirror connect r0 begins that again" in _sentence({**up, "connection": "StandAlone"})
    assert "relevo mirror attach r0" in _sentence({**up, "disk": "Diskless"})
    assert "begins that again" not in _sentence({**PARTED, "connection": "StandAlone"}), "that needs a decision"


@pytest.mark.parametrize("disk", ["Inconsistent", "UpToDate", "Outdated"])
def test_a_disk_that_a_resync_fills_is_no_base_for_an_image(tmp_path: pathlib.Path, disk: str) -> None:
    context = Context(Paths(tmp_path, tmp_path, tmp_path / "run"), "nodo1")

    async def status(_: Message) -> Message:
        return {"disk": disk}

    async def story() -> None:
        await asyncio.to_thread(must_be_whole, context, "r0")  # it is down: nobody writes to the disk
        server = ControlServer(context.paths.socket("mirror-r0"), {"status": status})
        await server.start()
        try:
            await asyncio.to_thread(must_be_whole, context, "r0")
        finally:
            await server.stop()

    if disk == "Inconsistent":
        with pytest.raises(StillFilled, match="a resync fills it"):
            asyncio.run(story())
    else:
        asyncio.run(story())
