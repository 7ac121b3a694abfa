"""The agents that speak to other daemons; the test plays the daemon at the other end of the socket."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from relevo.agents.base import AgentFailed, StartContext, State
from relevo.agents.build import build
from relevo.agents.files import FilesAgent
from relevo.agents.mirror import MirrorAgent
from relevo.base.control import ControlServer, DaemonUnreachable, Message, Refused
from relevo.base.errors import RelevoError
from relevo.base.paths import Paths
from relevo.config.model import FilesResource, MirrorResource, Operation

SHORT = Operation(start_timeout_ms=300, stop_timeout_ms=300, monitor_timeout_ms=300)
LONG = Operation()
PRIMARY = {"role": "Primary", "disk": "UpToDate", "device": "/dev/loop7", "problem": "", "suspended": False}


class DeviceBusy(RelevoError):
    pass


class Daemon:
    """Answers each request with what is put down for it, and remembers the requests."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[Message] = []
        self.was_asked = asyncio.Event()

    async def _answer(self, do: str, request: Message) -> Message:
        self.asked.append({"do": do, **request})
        self.was_asked.set()
        answer = self.answers[do]
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            await asyncio.Event().wait()
        return answer

    @contextlib.asynccontextmanager
    async def at(self, path: pathlib.Path) -> AsyncIterator[Daemon]:
        def handler(do: str) -> Any:
            return lambda request: self._answer(do, request)

        server = ControlServer(path, {do: handler(do) for do in self.answers})
        await server.start()
        try:
            yield self
        finally:
            await server.stop()


def mirror(folder: pathlib.Path, operation: Operation = SHORT) -> tuple[MirrorAgent, pathlib.Path]:
    paths = Paths(folder, folder, folder)
    return MirrorAgent(MirrorResource(id="mirror", mirror="r0", operation=operation), paths), paths.socket("mirror-r0")


def files(folder: pathlib.Path, operation: Operation = SHORT) -> tuple[FilesAgent, pathlib.Path]:
    paths = Paths(folder, folder, folder)
    resource = FilesResource(id="web-files", root=pathlib.Path("/srv"), mirror="r0", operation=operation)
    return FilesAgent(resource, paths), paths.socket("files-web-files")


def test_mirror_promotes_and_demotes(tmp_path: pathlib.Path) -> None:
    async def scene() -> None:
        agent, path = mirror(tmp_path)
        async with Daemon(primary={"device": "/dev/loop7"}, secondary={}).at(path) as daemon:
            await agent.start(StartContext(epoch=5))
            await agent.start(StartContext(epoch=6, force=True))
            await agent.stop()
        assert daemon.asked == [
            {"do": "primary", "epoch": 5, "force": False, "linked": False},
            {"do": "primary", "epoch": 6, "force": True, "linked": False},
            {"do": "secondary"},
        ]

    asyncio.run(scene())


def test_mirror_refusals_reach_the_caller(tmp_path: pathlib.Path) -> None:
    async def scene() -> None:
        agent, path = mirror(tmp_path)
        busy = DeviceBusy("The device is mounted.", "Unmount it.")
        async with Daemon(primary={"device": None}, secondary=busy).at(path):
            with pytest.raises(AgentFailed, match="has no device"):
                await agent.start(StartContext(epoch=1))
            with pytest.raises(Refused, match="is mounted") as caught:
                await agent.stop()
        assert caught.value.error == "DeviceBusy"

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("changes", "state", "reason"),
    [
        ({}, State.RUNNING, ""),
        ({"role": "Secondary", "device": None}, State.STOPPED, ""),
        ({"device": None}, State.FAILED, "has no device"),
        ({"disk": "Failed"}, State.FAILED, "on a disk that is Failed"),
        ({"disk": "Failed", "problem": "The disk is gone."}, State.FAILED, "The disk is gone."),
        ({"problem": "The peer is not up to date."}, State.RUNNING, "The peer is"),
        ({"suspended": True}, State.RUNNING, "holds back writes"),
    ],
)
def test_mirror_health(tmp_path: pathlib.Path, changes: Message, state: State, reason: str) -> None:
    async def scene() -> None:
        agent, path = mirror(tmp_path)
        async with Daemon(status=PRIMARY | changes).at(path):
            health = await agent.monitor()
        assert (health.state, reason in health.reason) == (state, True)

    asyncio.run(scene())


def test_a_process_that_does_not_run_is_stopped(tmp_path: pathlib.Path) -> None:
    async def scene() -> None:
        for agent, _ in (mirror(tmp_path), files(tmp_path)):
            assert (await agent.probe()).state is State.STOPPED
            await agent.stop()
            with pytest.raises(DaemonUnreachable):
                await agent.start(StartContext(epoch=1))

    asyncio.run(scene())


def test_a_process_that_hangs_is_not_stopped(tmp_path: pathlib.Path) -> None:
    async def scene() -> None:
        for (agent, path), silent in (
            (mirror(tmp_path), {"secondary": None, "status": None}),
            (files(tmp_path), {"close": None, "status": None}),
        ):
            async with Daemon(**silent).at(path):
                with pytest.raises(DaemonUnreachable):
                    await agent.stop()
                health = await agent.monitor()
            assert health.state is State.FAILED
            assert "does not answer" in health.reason

    asyncio.run(scene())


def test_start_waits_for_a_process_that_is_being_restarted(tmp_path: pathlib.Path) -> None:
    async def scene() -> None:
        agent, path = mirror(tmp_path, LONG)
        starting = asyncio.ensure_future(agent.start(StartContext(epoch=1)))
        await asyncio.sleep(0)
        async with Daemon(primary={"device": "/dev/loop7"}).at(path):
            await starting

    asyncio.run(scene())


def test_stop_asks_again_when_the_process_dies_meanwhile(tmp_path: pathlib.Path) -> None:
    async def scene() -> None:
        agent, path = mirror(tmp_path, LONG)
        async with Daemon(secondary=None).at(path) as first:
            stopping = asyncio.ensure_future(agent.stop())
            await first.was_asked.wait()
        await stopping  # nobody listens any more: it is gone, and so is its device

    asyncio.run(scene())


def test_files(tmp_path: pathlib.Path) -> None:
    async def scene() -> None:
        agent, path = files(tmp_path)
        status = {"state": "open", "requests": 2, "problem": ""}
        async with Daemon(open={}, quiesce={}, close={}, status=status).at(path) as daemon:
            await agent.start(StartContext(epoch=1))
            assert (await agent.monitor()).state is State.RUNNING
            await agent.quiesce()
            status["state"] = "quiesced"
            health = await agent.monitor()
            assert (health.state, "quiesced" in health.reason) == (State.FAILED, True)
            await agent.stop()
            status["state"] = "closed"
            assert (await agent.monitor()).state is State.STOPPED
            status["problem"] = "The folder is gone."
            assert (await agent.monitor()).reason == "The folder is gone."
        assert [request["do"] for request in daemon.asked if request["do"] != "status"] == ["open", "quiesce", "close"]

    asyncio.run(scene())


def test_every_resource_has_its_agent(tmp_path: pathlib.Path) -> None:
    from test_config_load import written

    from relevo.config.load import load

    config = load(written(tmp_path))
    agents = [build(resource, config, Paths()) for resource in config.services["web"].resources]
    assert [type(agent).__name__ for agent in agents] == [
        "MirrorAgent",
        "FilesystemAgent",
        "FilesAgent",
        "AddressAgent",
    ]
    assert [agent.id for agent in agents] == ["mirror", "filesystem", "files", "address"]
