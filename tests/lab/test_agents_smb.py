"""Samba's smbd over a real file service: who gets in, what they may do, and that a withdrawn right is gone at once."""

from __future__ import annotations

import asyncio
import pathlib
import shutil
import stat
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from agents_inside import inside, sh

from accounts_support import hashed, order
from files_bench import Bench, bench, until
from relevo.agents import processes
from relevo.agents.base import AgentFailed, StartContext, State
from relevo.agents.smb import SmbAgent
from relevo.agents.tools import run_tool
from relevo.base.paths import Paths
from relevo.config.model import SmbResource
from relevo.files.accounts import nt
from relevo.files.daemon import control

pytestmark = pytest.mark.skipif(shutil.which("smbd") is None, reason="Samba is not installed")
PORT = 445
WAIT_S = 20.0
ODD = "100%U \u00f1"
"""A folder whose name means something else in smb.conf."""


def client(share: str, who: str, *commands: str) -> list[str]:
    return ["smbclient", f"//127.0.0.1/{share}", "-p", str(PORT), "-U", who, "-c", "; ".join(commands)]


async def smb(share: str, who: str, *commands: str) -> tuple[bool, str]:
    """Run smbclient; whether everything went well, and what it said."""
    argv = client(share, who, *commands)
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, timeout=WAIT_S, check=False)
    said = done.stdout + done.stderr
    return done.returncode == 0 and "NT_STATUS" not in said, said


def served(folder: pathlib.Path, story: Callable[[Bench], Awaitable[None]]) -> None:
    """Run a story with an open file service on a folder, loopback up."""

    async def main() -> None:
        async with bench(folder) as it:
            await story(it)

    sh("ip", "link", "set", "lo", "up")
    asyncio.run(main())


async def people(it: Bench) -> None:
    for name in ("root", "ana", "leo"):
        password = {"password": hashed(), "nt": nt.nt_hash(f"secret-{name}")}
        await order(it, "user-add", name=name, admin=name == "root", **password)
    for name, path in (("docs", "docs"), ("plans", "docs/plans"), ("odd", ODD), ("open", "open")):
        await order(it, "share-add", name=name, path=path)
    await order(it, "share-permit", name="docs", holder="ana", level="write")
    await order(it, "share-permit", name="docs", holder="leo", level="read")
    await order(it, "share-permit", name="odd", holder="leo", level="write")
    await order(it, "share-set", name="open", public=True)


@asynccontextmanager
async def drives(it: Bench, folder: pathlib.Path) -> AsyncIterator[SmbAgent]:
    """smbd over a file service, and nothing of it left afterwards."""
    paths = Paths(run=folder / "run")
    server = control(it.service, paths.socket("files-files"))
    await server.start()
    agent = SmbAgent(SmbResource(files="files", root=it.root, port=PORT), paths)
    try:
        await agent.start(StartContext(epoch=1))
        yield agent
    finally:
        await agent.stop()
        await server.stop()
    assert processes.marked(folder / "run/smb-files") == []
    assert (await agent.probe()).state is State.STOPPED


@inside
def test_smb_knows_the_accounts_and_their_changes(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        await people(it)
        async with drives(it, tmp_path) as agent:
            assert (await agent.monitor()).state is State.RUNNING
            await _permissions(it, tmp_path)
            await _withdrawn(it, agent)

    served(tmp_path, story)


async def _permissions(it: Bench, folder: pathlib.Path) -> None:
    own, other = folder / "own", folder / "other"
    own.write_bytes(b"of ana")
    other.write_bytes(b"of leo, longer")
    assert (await smb("docs", "ana%secret-ana", f"put {own} a", "mkdir sub", f"put {own} sub/b"))[0]
    found = (it.root / "docs/a").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (200001, 200001, 0o644)
    for who in ("ana%wrong", "leo%secret-ana", "nobody%x", "%"):
        assert not (await smb("docs", who, "ls"))[0], who
    # a reader reads what others made, and changes nothing
    assert (await smb("docs", "leo%secret-leo", f"get a {folder}/got"))[0]
    assert (folder / "got").read_bytes() == b"of ana"
    for change in (f"put {other} a", f"put {other} new", "del a", "mkdir x", "rename a c"):
        assert not (await smb("docs", "leo%secret-leo", change))[0], change
    assert (it.root / "docs/a").read_bytes() == b"of ana"
    # an administrator changes what another one made, as on the pages; it stays theirs
    assert (await smb("docs", "root%secret-root", f"put {other} a", "del sub/b", "rmdir sub"))[0]
    assert ((it.root / "docs/a").read_bytes(), (it.root / "docs/a").stat().st_uid) == (b"of leo, longer", 200001)
    # a share inside another one has permissions of its own, and its folder cannot be moved from above
    for try_ in ("cd plans", "rename plans gone", "ls plans/*", "rmdir plans"):
        assert not (await smb("docs", "ana%secret-ana", try_))[0], try_
    assert (await smb("plans", "root%secret-root", "ls"))[0]
    # a password is changed on the page, for every way in at once
    known = it.root / ".relevo/smb/smbpasswd"
    before = known.read_bytes()
    argv, new = ["smbpasswd", "-s", "-r", "127.0.0.1", "-U", "ana"], "secret-ana\nanother-one\nanother-one\n"
    done = await asyncio.to_thread(subprocess.run, argv, input=new, text=True, capture_output=True, check=False)
    assert (done.returncode == 0, known.read_bytes() == before) == (False, True)
    # names that mean something in smb.conf, and everyone's share
    assert (await smb("odd", "leo%secret-leo", f"put {other} z"))[0]
    assert (it.root / ODD / "z").exists()
    (it.root / "open/hello").write_text("hello")
    assert (await smb("open", "%", f"get hello {folder}/hello"))[0]
    assert not (await smb("open", "%", f"put {other} hello"))[0]
    assert not (await smb("odd", "%", "ls"))[0]


async def _withdrawn(it: Bench, agent: SmbAgent) -> None:
    """Leo is connected while his rights change; each change is told by an order, and nobody asks the monitor."""
    argv = client("odd", "leo%secret-leo")[:-2]
    pipe = subprocess.PIPE
    talking = await asyncio.to_thread(subprocess.Popen, argv, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT)
    assert talking.stdin is not None
    talking.stdin.write(b"mkdir before\n")
    talking.stdin.flush()
    await until((it.root / ODD / "before").exists)
    await order(it, "share-permit", name="odd", holder="leo", level="read")
    await _until_nobody_has("odd", agent)
    said, _ = await asyncio.to_thread(talking.communicate, b"mkdir during\nls\nquit\n", WAIT_S)
    assert b"NETWORK_NAME_DELETED" in said
    assert not (it.root / ODD / "during").exists()
    await order(it, "user-set", name="leo", password=hashed(), nt=nt.nt_hash("another-one"))
    await _until_refused("odd", "leo%secret-leo", "ls")
    assert (await smb("odd", "leo%another-one", "ls"))[0]
    await order(it, "user-set", name="leo", enabled=False)
    await _until_refused("odd", "leo%another-one", "ls")
    assert (await agent.monitor()).state is State.RUNNING


async def _until_nobody_has(share: str, agent: SmbAgent) -> None:
    """Wait until no connection has a share: smbd's processes follow an order when they come to it."""
    argv = ["smbstatus", "-s", str(agent.conf), "--shares"]
    async with asyncio.timeout(WAIT_S):
        while share.encode() in (await run_tool(*argv, limit_s=WAIT_S)).output:
            pass


async def _until_refused(share: str, who: str, command: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while (await smb(share, who, command))[0]:
            pass


@inside
def test_a_port_that_is_taken_is_named(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", PORT)
        async with taken:
            with pytest.raises(AgentFailed, match=f"another program has port {PORT}"):
                async with drives(it, tmp_path):
                    pass

    served(tmp_path, story)
