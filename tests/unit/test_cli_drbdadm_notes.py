"""What `relevo mirror` adds for people, and the executable named drbdadm does not. The test plays the daemons."""

from __future__ import annotations

import asyncio
import pathlib
import sys

import pytest

import drbd_conf_files as files
from relevo.base.control import ControlServer, Message
from relevo.mirror import diskless


async def _said(tmp_path: pathlib.Path, connection: str, *words: str, node: bool = False) -> tuple[int, str, list[str]]:
    """Exit status, standard error, and what the mirror's process was asked for besides its status."""
    asked: list[str] = []

    async def status(_request: Message) -> Message:
        return {"connection": connection, "role": "Secondary"}

    async def obey(name: str) -> Message:
        asked.append(name)
        return {}

    def obeys(name: str) -> object:
        return lambda _request: obey(name)

    requests = {name: obeys(name) for name in ("verify", "discard", "connect", "disconnect", "down")}
    servers = [ControlServer(tmp_path / "mirror-r0.sock", {"status": status, **requests}, {})]  # type: ignore[dict-item]
    if node:
        servers.append(ControlServer(tmp_path / "node.sock", {"status": status}, {}))
    for server in servers:
        await server.start()
    conf = tmp_path / "drbd.conf"
    conf.write_text(files.resource())
    places = ["--etc", str(tmp_path), "--run", str(tmp_path), "--drbd-conf", str(conf), "--node", "nodo1", "mirror"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "relevo", *places, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    for server in servers:
        await server.stop()
    assert process.returncode is not None
    return process.returncode, errors.decode(), asked


def test_a_mistake_in_the_configuration_does_not_hide_what_runs_from_who_watches_it(tmp_path: pathlib.Path) -> None:
    """As with /proc/drbd, which knows of no configuration."""

    async def story() -> tuple[bytes, bytes]:
        async def status(_request: Message) -> Message:
            up = {"connection": "Connected", "role": "Primary", "peer_role": "Secondary", "disk": "UpToDate"}
            return {**diskless.STATUS, **up, "peer_disk": "UpToDate", "minor": 3, "protocol": "A"}

        server = ControlServer(tmp_path / "mirror-r0.sock", {"status": status}, {})
        await server.start()
        (tmp_path / "drbd.conf").write_text(files.resource().replace("resource", "ressource"))
        places = ["--etc", str(tmp_path), "--run", str(tmp_path), "--drbd-conf", str(tmp_path / "drbd.conf")]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "relevo",
            *places,
            "mirror",
            "proc",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        told = await process.communicate()
        await server.stop()
        assert process.returncode == 0
        return told

    shown, errors = asyncio.run(story())
    assert b" 3: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate A r-----" in shown
    assert b"drbd.conf:1:1:" in errors


@pytest.mark.parametrize(
    ("connection", "words", "node", "code", "said", "asked"),
    [
        ("Connected", "verify r0", False, 0, "what differs: relevo mirror status r0", ["verify"]),
        ("Connected", "drbdadm -- verify r0", False, 0, "", ["verify"]),
        ("Connected", "down r0", True, 0, "a node daemon decides here. Again: relevo mirror up r0", ["disconnect"]),
        ("Connected", "drbdadm -- down r0", True, 0, "", ["disconnect"]),
        ("Connected", "down r0", False, 0, "", ["down"]),
        (
            "StandAlone",
            "connect --discard-my-data r0",
            False,
            0,
            "saved first: relevo mirror saved list r0",
            ["discard"],
        ),
        ("WFConnection", "connect --discard-my-data r0", False, 0, "saved first", ["discard"]),
        ("WFConnection", "drbdadm -- connect --discard-my-data r0", False, 10, "already", []),
        ("WFConnection", "connect r0", False, 10, "already", []),
        ("Connected", "connect --discard-my-data r0", False, 10, "already", []),
    ],
)
def test_people_are_told_how_to_go_on(
    tmp_path: pathlib.Path, connection: str, words: str, node: bool, code: int, said: str, asked: list[str]
) -> None:
    status, errors, requests = asyncio.run(_said(tmp_path, connection, *words.split(), node=node))
    assert (status, requests) == (code, asked)
    assert said in errors
    assert len(errors.splitlines()) == bool(said)
