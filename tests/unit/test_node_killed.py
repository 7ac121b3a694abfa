"""A node daemon that is killed in the middle of a start: what it was starting is stopped before anything else."""

from __future__ import annotations

import asyncio
import pathlib
import signal
import sys
from collections.abc import AsyncIterator

from relevo.base.control import ControlServer, Message
from relevo.base.paths import Paths

LIMIT_S = 60.0
TOML = """
[cluster]
name = "test"
[links.users]
interface = "lo"
network = "127.0.0.0/8"
[nodes.nodo1]
addresses = { users = "127.0.0.1" }
[nodes.nodo2]
addresses = { users = "127.0.0.2" }
[services.job]
prefer = "nodo1"
[[services.job.resources]]
type = "lsb"
script = "FOLDER/script"
"""
SCRIPT = """#!/bin/sh
cd FOLDER
case $1 in
start)  echo starting >> diary
        while [ ! -e go ]; do sleep 0.01; done
        touch up; echo up >> diary ;;
stop)   echo stopping >> diary; rm -f up; touch go ;;
status) [ -e up ] || exit 3 ;;
esac
"""
ALONE = {
    "initdead_passed": True,
    "peers": {"nodo2": {"state": "dead", "late": False, "facts": None, "boot_id": None, "links": {}, "original": None}},
}


class Heartbeats:
    """A heartbeat daemon whose other node is dead; what it is told of the service."""

    def __init__(self, paths: Paths) -> None:
        self.states: list[str] = []
        self.server = ControlServer(paths.socket("heartbeat"), {"publish": self._publish}, {"watch": self._watch})

    async def _publish(self, request: Message) -> Message:
        state = request["facts"]["services"]["job"]["state"]
        if not self.states or self.states[-1] != state:
            self.states.append(state)
        return {}

    async def _watch(self, _request: Message) -> AsyncIterator[Message]:
        yield dict(ALONE)
        await asyncio.Event().wait()


async def _node(folder: pathlib.Path) -> asyncio.subprocess.Process:
    places = (f"--etc={folder}", f"--state={folder}/state", f"--run={folder}/run", "--node=nodo1")
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "relevo", *places, "node", "run")


def _words(diary: pathlib.Path) -> tuple[str, ...]:
    return tuple(diary.read_text().split()) if diary.exists() else ()


async def _until(diary: pathlib.Path, *words: str) -> None:
    while _words(diary) != words:  # noqa: ASYNC110 - a script tells nobody
        await asyncio.sleep(0.02)


def test_what_it_was_starting_is_ended_and_stopped_before_it_is_started_again(tmp_path: pathlib.Path) -> None:
    (tmp_path / "relevo.toml").write_text(TOML.replace("FOLDER", str(tmp_path)))
    (tmp_path / "authkeys").touch(mode=0o600)
    (tmp_path / "authkeys").write_text("auth 1\n1 sha256 open\n")
    (tmp_path / "script").write_text(SCRIPT.replace("FOLDER", str(tmp_path)))
    (tmp_path / "script").chmod(0o755)
    diary = tmp_path / "diary"

    async def story() -> list[str]:
        heartbeats = Heartbeats(Paths(tmp_path, tmp_path / "state", tmp_path / "run"))
        await heartbeats.server.start()
        first = await _node(tmp_path)
        await _until(diary, "starting")
        first.send_signal(signal.SIGKILL)
        await first.wait()
        heartbeats.states.clear()
        second = await _node(tmp_path)
        try:
            await _until(diary, "starting", "stopping", "starting", "up")
            while heartbeats.states[-1] != "started":  # noqa: ASYNC110 - told with the next facts
                await asyncio.sleep(0.02)
        finally:
            second.terminate()
            await second.wait()
            await heartbeats.server.stop()
        return heartbeats.states

    states = asyncio.run(asyncio.wait_for(story(), LIMIT_S))
    told = [state for state in states if state != "unknown"]
    assert told[0] in {"failed", "stopping"}, "never `stopped` before a stop has said so"
    assert told.index("starting") > 0
