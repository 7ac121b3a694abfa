"""An orderly leave: what the others go by when this server is silent is told before the goodbye."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator

import pytest

from relevo.base.control import ControlServer, Message, acall
from relevo.base.paths import Paths
from relevo.config.load import load
from relevo.lab.scene import Options, configuration
from relevo.mirror.requested import UnknownRequest
from relevo.node.daemon import Daemon

LIMIT_S = 20.0
CONNECTED = {
    "role": "Secondary",
    "peer_role": "Secondary",
    "connection": "Connected",
    "disk": "UpToDate",
    "peer_disk": "UpToDate",
    "device": None,
}
ALONE = {
    "initdead_passed": True,
    "peers": {
        "nodo2": {"state": "active", "late": False, "facts": None, "boot_id": "b", "links": {}, "original": None}
    },
}


class Scene:
    """A heartbeat daemon and a mirror that do as they are told and note the order.

    `older`: the mirror's process is one of before `leave`.
    """

    def __init__(self, paths: Paths, *, older: bool = False) -> None:
        self.diary: list[str] = []
        self.outdated = asyncio.Event()
        self.connected = asyncio.Event()
        self.mirror: Message = dict(CONNECTED)
        self.heartbeat: Message = dict(ALONE)
        self.servers = (
            ControlServer(
                paths.socket("heartbeat"), {"publish": self._publish, "leave": self._leave}, {"watch": self._alone}
            ),
            ControlServer(
                paths.socket("mirror-r0"),
                {
                    "outdate": self._outdate,
                    "leave": self._not_known if older else self._leave_peer,
                    "connect": self._connect,
                    "status": self._status,
                    "probe": self._status,
                    "secondary": self._status,
                },
                {"watch": self._watch},
            ),
        )

    async def _publish(self, request: Message) -> Message:
        told = request["facts"]["mirrors"].get("r0")
        if told is not None:
            self.diary.append(f"told outdated={told.get('outdated', False)}")
        return {}

    async def _leave(self, _request: Message) -> Message:
        self.diary.append("goodbye")
        return {}

    async def _outdate(self, _request: Message) -> Message:
        self.outdated.set()
        self.diary.append("outdated")
        return {}

    async def _leave_peer(self, request: Message) -> Message:
        self.mirror |= {"connection": "StandAlone", "left": True}
        return await self._outdate(request)

    async def _not_known(self, _request: Message) -> Message:
        raise UnknownRequest("There is no request 'leave' here.", "Known: outdate.")

    async def _connect(self, _request: Message) -> Message:
        self.diary.append("connect")
        self.connected.set()
        return {}

    async def _status(self, _request: Message) -> Message:
        return self.mirror | {"outdated": self.outdated.is_set()}

    async def _alone(self, _request: Message) -> AsyncIterator[Message]:
        yield dict(self.heartbeat)
        await asyncio.Event().wait()

    async def _watch(self, _request: Message) -> AsyncIterator[Message]:
        yield dict(self.mirror)
        await self.outdated.wait()
        await asyncio.sleep(0.2)  # the word of the mirror is later than its answer
        yield {**self.mirror, "disk": "Outdated", "outdated": True}
        await asyncio.Event().wait()


def _configured(tmp_path: pathlib.Path) -> Paths:
    (tmp_path / "relevo.toml").write_text(configuration(Options()))
    for name, text in (("secrets.toml", '[mirror]\nr0 = "sesame"\n'), ("authkeys", "auth 1\n1 sha256 open\n")):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(text)
    return Paths(tmp_path, tmp_path / "state", tmp_path / "run")


@pytest.mark.parametrize("state", ["init", "left"])
def test_a_mirror_that_was_left_is_connected_when_its_node_is_back_and_not_before(
    tmp_path: pathlib.Path, state: str
) -> None:
    paths = _configured(tmp_path)

    async def story() -> list[str]:
        scene = Scene(paths)
        scene.heartbeat["state"] = state
        scene.mirror |= {"connection": "StandAlone", "disk": "Outdated", "outdated": True, "left": True}
        for server in scene.servers:
            await server.start()
        task = asyncio.create_task(Daemon(load(paths.config), "nodo1", paths).run())
        while not any(word.startswith("told outdated=True") for word in scene.diary):  # noqa: ASYNC110 - as below
            await asyncio.sleep(0.01)
        if state == "init":
            await scene.connected.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for server in scene.servers:
            await server.stop()
        return scene.diary

    assert ("connect" in asyncio.run(asyncio.wait_for(story(), LIMIT_S))) is (state == "init")


@pytest.mark.parametrize("older", [False, True])
def test_the_others_know_that_the_copy_is_outdated_before_the_goodbye(tmp_path: pathlib.Path, *, older: bool) -> None:
    paths = _configured(tmp_path)

    async def story() -> list[str]:
        scene = Scene(paths, older=older)
        for server in scene.servers:
            await server.start()
        task = asyncio.create_task(Daemon(load(paths.config), "nodo1", paths).run())
        while not any(word.startswith("told") for word in scene.diary):  # noqa: ASYNC110 - it begins by itself
            await asyncio.sleep(0.01)
        await acall(paths.socket("node"), "leave")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for server in scene.servers:
            await server.stop()
        return scene.diary

    diary = asyncio.run(asyncio.wait_for(story(), LIMIT_S))
    assert diary[-1] == "goodbye"
    assert diary.index("outdated") < diary.index("told outdated=True") < diary.index("goodbye")
