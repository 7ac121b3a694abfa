"""Tools of a daemon that was killed: ended before the next one looks what is here."""

from __future__ import annotations

import asyncio
import os
import pathlib
import sys

import pytest

from relevo.agents.ledger import LEDGER, Ledger
from relevo.agents.tools import run_tool
from relevo.base.paths import Paths
from relevo.config.load import load
from relevo.lab.scene import Options, configuration
from relevo.manager.executor import Executor
from relevo.node.daemon import Daemon

LIMIT_S = 20.0
KILLED = """
import asyncio, os, pathlib, sys
from relevo.agents.ledger import LEDGER, Ledger
from relevo.agents.tools import run_tool
LEDGER.set(Ledger(pathlib.Path(sys.argv[1])))
asyncio.run(run_tool(*sys.argv[2:], limit_s=1000))
"""


def names(folder: pathlib.Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def lives(pid: str) -> bool:
    """What is only not reaped yet has no open files any more."""
    return os.path.exists(f"/proc/{pid}/fd/0")  # noqa: PTH110 - a process that ends meanwhile is no error


async def killed_daemon(ledger: pathlib.Path, folder: pathlib.Path) -> tuple[str, str]:
    """A daemon that runs a shell with a child, both for ever, and is killed; the ids of child and shell."""
    tool = ("sh", "-c", f"sleep 1000 & echo $! $$ > {folder}/pids.new; mv {folder}/pids.new {folder}/pids; wait")
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, ledger, *tool)
    while not (folder / "pids").exists():  # noqa: ASYNC110 - the shell sends no event to us
        await asyncio.sleep(0.01)
    killed.kill()
    await killed.wait()
    child, leader = (folder / "pids").read_text().split()
    return child, leader


def test_what_a_killed_daemon_left_is_ended(tmp_path: pathlib.Path) -> None:
    async def scene() -> None:
        ledger = tmp_path / "tools"
        child, leader = await killed_daemon(ledger, tmp_path)
        assert names(ledger) == [leader]
        assert lives(child), "it outlives the daemon"
        (ledger / str(os.getpid())).write_text("1")  # another process has that number by now
        await Ledger(ledger).end_leftovers()
        assert not lives(leader)
        while lives(child):  # noqa: ASYNC110 - killed with it; nobody tells when it is gone
            await asyncio.sleep(0.01)
        assert names(ledger) == []

    asyncio.run(asyncio.wait_for(scene(), LIMIT_S))


def test_the_node_daemon_ends_it_before_it_looks_what_is_here(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "relevo.toml").write_text(configuration(Options()))
    for name, text in (("secrets.toml", '[mirror]\nr0 = "sesame"\n'), ("authkeys", "auth 1\n1 sha256 open\n")):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(text)
    paths = Paths(tmp_path, tmp_path / "state", tmp_path / "run")
    ledger = paths.run / "node" / "tools"

    async def scene() -> None:
        _, leader = await killed_daemon(ledger, tmp_path)
        found = asyncio.get_running_loop().create_future()

        async def look(_executor: Executor) -> None:
            found.set_result(lives(leader))
            assert isinstance(LEDGER.get(), Ledger), "what is run from now on is written down"

        monkeypatch.setattr(Executor, "run", look)
        task = asyncio.create_task(Daemon(load(paths.config), "nodo1", paths).run())
        assert not await found
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(asyncio.wait_for(scene(), LIMIT_S))


def test_a_tool_that_has_ended_is_not_written_down_any_more(tmp_path: pathlib.Path) -> None:
    async def scene() -> None:
        LEDGER.set(Ledger(tmp_path))
        until_noted = f'while [ -z "$(ls {tmp_path})" ]; do :; done; ls {tmp_path}'
        done = await run_tool("sh", "-c", until_noted, limit_s=LIMIT_S)
        assert done.output.strip().isdigit(), "while it runs it is"
        assert names(tmp_path) == []

    asyncio.run(scene())
