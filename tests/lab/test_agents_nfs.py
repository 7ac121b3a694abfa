"""NFS-Ganesha over a real file service: who may do what by host and uid, and exports that follow the shares."""

from __future__ import annotations

import asyncio
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from agents_inside import inside, sh

import nfs_put
from accounts_support import hashed, order
from files_bench import Bench, bench
from relevo.agents import processes
from relevo.agents.base import StartContext, State
from relevo.agents.nfs import NfsAgent
from relevo.base.paths import Paths
from relevo.config.model import NfsExport, NfsResource
from relevo.files.daemon import control

pytestmark = pytest.mark.skipif(shutil.which("ganesha.nfsd") is None, reason="NFS-Ganesha is not installed")
PORT = 20490
WAIT_S = 5
LOCAL = ("127.0.0.0/8",)
EXPORTS = (
    NfsExport(share="docs", clients=LOCAL, write=True),
    NfsExport(share="plans", clients=LOCAL, write=True, user="ana"),
    NfsExport(share="open", clients=LOCAL),
    NfsExport(share="far", clients=("192.0.2.0/24",)),
)


def url(path: str, uid: int = 0) -> str:
    """A file or folder, asked for by a user of this number."""
    return f"nfs://127.0.0.1/{path}?version=4&nfsport={PORT}&uid={uid}&gid={uid}"


async def nfs(*argv: str) -> str:
    """Why a tool of libnfs failed, empty when it did not; one that goes on trying has failed."""
    words = ["timeout", str(WAIT_S), *argv]
    done = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"status {done.returncode}: {done.stderr}"


async def put(source: pathlib.Path, to: str) -> str:
    """Store a file; as `nfs`."""
    return await nfs(sys.executable, nfs_put.__file__, str(source), to)


@inside
def test_nfs_is_by_host_and_uid_and_follows_the_shares(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        async with bench(tmp_path) as it:
            for name in ("root", "ana"):
                await order(it, "user-add", name=name, password=hashed(), admin=name == "root")
            for name in ("docs", "plans", "open", "far"):
                await order(it, "share-add", name=name, path=name)
            await _story(it, tmp_path)

    sh("ip", "link", "set", "lo", "up")
    asyncio.run(main())


async def _story(it: Bench, folder: pathlib.Path) -> None:
    paths = Paths(run=folder / "run")
    server = control(it.service, paths.socket("files-files"))
    await server.start()
    agent = NfsAgent(NfsResource(files="files", root=it.root, exports=EXPORTS, port=PORT, grace_ms=5000), paths)
    try:
        await agent.start(StartContext(epoch=1))
        assert (await agent.monitor()).state is State.RUNNING
        await _permissions(it, folder)
        await order(it, "share-remove", name="open")
        async with asyncio.timeout(20):
            while not await nfs("nfs-ls", url("open")):
                pass
        assert "no share 'open'" in (await agent.monitor()).reason
        assert await nfs("nfs-ls", url("docs")) == ""
    finally:
        await agent.stop()
        await server.stop()
    assert processes.marked(folder / "run/nfs-files") == []
    assert (await agent.probe()).state is State.STOPPED


async def _permissions(it: Bench, folder: pathlib.Path) -> None:
    source = folder / "source"
    source.write_bytes(os.urandom(300_000))
    for name, owner in (("docs", 4711), ("plans", 200001), ("open", 0)):
        os.chown(it.root / name, owner, owner)
    # the uid is what the host says it is
    assert await put(source, url("docs/a", 4711)) == ""
    assert (it.root / "docs/a").read_bytes() == source.read_bytes()
    assert (it.root / "docs/a").stat().st_uid == 4711
    assert "ACCES" in await put(source, url("docs/b", 4712))
    # root there is nobody here
    assert "ACCES" in await put(source, url("docs/b", 0))
    # everyone is ana
    assert await put(source, url("plans/a", 4712)) == ""
    assert (it.root / "plans/a").stat().st_uid == 200001
    # read-only, and not for this host
    (it.root / "open").chmod(0o777)
    (it.root / "open/hello").write_bytes(b"hello")
    assert await nfs("nfs-cp", url("docs/a", 4711), str(folder / "got")) == ""
    assert (folder / "got").read_bytes() == source.read_bytes()
    assert await nfs("nfs-cat", url("open/hello", 4711)) == ""
    assert "ROFS" in await put(source, url("open/b", 4711))
    assert await nfs("nfs-ls", url("far"))
