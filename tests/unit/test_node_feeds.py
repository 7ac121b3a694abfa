"""How the node daemon hears the other daemons of its server, and gives its facts to the heartbeats."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator

import msgspec
import pytest

from relevo.base.control import ControlServer, Message
from relevo.heartbeat.daemon import FactsTooLarge
from relevo.manager.model import (
    Failure,
    MirrorFacts,
    NodeFacts,
    Permission,
    ServiceFacts,
    ServiceState,
    Verdict,
    decode_facts,
)
from relevo.node.inputs import Feed, recount
from relevo.node.publisher import Publisher


class Peer:
    """A daemon with a watch stream that the test feeds."""

    def __init__(self, path: pathlib.Path) -> None:
        self.states: asyncio.Queue[Message] = asyncio.Queue()
        self.published: asyncio.Queue[Message] = asyncio.Queue()
        self.server = ControlServer(path, {"publish": self._publish}, {"watch": self._watch})

    async def _publish(self, request: Message) -> Message:
        await self.published.put(request)
        return {}

    async def _watch(self, _request: Message) -> AsyncIterator[Message]:
        while True:
            yield await self.states.get()


async def _until(changed: asyncio.Event, feed: Feed, wanted: object) -> None:
    async with asyncio.timeout(10):
        while (feed.latest or {}).get("state") != wanted:
            await changed.wait()
            changed.clear()


def test_a_feed_follows_a_daemon_through_its_restart(tmp_path: pathlib.Path) -> None:
    async def story() -> None:
        changed = asyncio.Event()
        path = tmp_path / "mirror-r0.sock"
        feed = Feed(path, changed)
        task = asyncio.create_task(feed.run())
        for state in ("first", "after its restart"):
            peer = Peer(path)
            await peer.server.start()
            await peer.states.put({"state": state})
            await _until(changed, feed, state)
            await peer.server.stop()
            await _until(changed, feed, None)
        task.cancel()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("connection", "answers", "shown"),
    [("WFConnection", True, 4096), ("WFConnection", False, 0), ("Connected", True, 0)],
)
def test_the_status_shows_what_was_written_since_the_mirror_lost_its_peer(
    tmp_path: pathlib.Path, connection: str, answers: bool, shown: int
) -> None:
    async def status(_request: Message) -> Message:
        return {"out_of_sync_bytes": 4096}

    async def story() -> None:
        path = tmp_path / "mirror-r0.sock"
        server = ControlServer(path, {"status": status}, {})
        if answers:
            await server.start()
        side: Message = {"connection": connection, "out_of_sync_bytes": 0}
        await recount(path, side)
        assert side["out_of_sync_bytes"] == shown
        if answers:
            await server.stop()

    asyncio.run(story())


def test_the_publisher_gives_the_newest_facts_and_gives_them_again_to_a_restarted_daemon(
    tmp_path: pathlib.Path,
) -> None:
    async def story() -> None:
        path = tmp_path / "heartbeat.sock"
        publisher = Publisher(path)
        task = asyncio.create_task(publisher.run())
        publisher.publish(NodeFacts(boot_id="b", config_hash="old"))
        publisher.publish(NodeFacts(boot_id="b", config_hash="new"))
        for _ in range(2):
            peer = Peer(path)
            await peer.server.start()
            async with asyncio.timeout(10):
                request = await peer.published.get()
            assert decode_facts(request["facts"]).config_hash == "new"
            assert request["runs"] is False
            await peer.server.stop()
        task.cancel()

    asyncio.run(story())


@pytest.mark.parametrize("state", ServiceState)
def test_the_heartbeats_are_told_whether_something_runs_here(tmp_path: pathlib.Path, state: ServiceState) -> None:
    async def story() -> None:
        peer = Peer(tmp_path / "heartbeat.sock")
        await peer.server.start()
        publisher = Publisher(tmp_path / "heartbeat.sock")
        task = asyncio.create_task(publisher.run())
        publisher.publish(NodeFacts(boot_id="b", config_hash="h", services={"web": ServiceFacts(state=state)}))
        async with asyncio.timeout(10):
            request = await peer.published.get()
        assert request["runs"] is (state is not ServiceState.STOPPED), "what is not looked at yet may run"
        task.cancel()
        await peer.server.stop()

    asyncio.run(story())


def test_facts_that_do_not_fit_are_told_without_their_words(tmp_path: pathlib.Path) -> None:
    """What the others have to know must not be held up by what is there for people."""
    wordy = ServiceFacts(state=ServiceState.FAILED, reason="x" * 1000, failures={"a": Failure(3, 7, "y" * 1000)})
    side = MirrorFacts(role="Primary", problem="z" * 1000)
    word = Permission(verdict=Verdict.YES, epoch=3, reason="v" * 1000, remedy="w" * 1000)
    facts = NodeFacts(
        boot_id="b",
        config_hash="h",
        services={"web": wordy},
        mirrors={"r0": side, "r1": None},
        permissions={"r0": word},
    )

    async def story() -> None:
        given: asyncio.Queue[Message] = asyncio.Queue()

        async def publish(request: Message) -> Message:
            if len(msgspec.json.encode(request["facts"])) > 2000:
                raise FactsTooLarge("Too large.")
            await given.put(request)
            return {}

        server = ControlServer(tmp_path / "heartbeat.sock", {"publish": publish})
        await server.start()
        publisher = Publisher(tmp_path / "heartbeat.sock")
        task = asyncio.create_task(publisher.run())
        publisher.publish(facts)
        async with asyncio.timeout(10):
            told = decode_facts((await given.get())["facts"])
        assert told.services["web"] == msgspec.structs.replace(wordy, reason="", failures={"a": Failure(3, 7)})
        assert told.mirrors == {"r0": msgspec.structs.replace(side, problem=""), "r1": None}
        assert told.permissions["r0"].epoch == 3
        task.cancel()
        await server.stop()

    asyncio.run(story())


def test_a_heartbeat_daemon_that_takes_no_facts_is_told(tmp_path: pathlib.Path) -> None:
    async def story() -> None:
        refused = asyncio.Event()

        async def publish(_request: Message) -> Message:
            refused.set()
            raise FactsTooLarge("Facts of 99999 bytes cannot be published.")

        server = ControlServer(tmp_path / "heartbeat.sock", {"publish": publish})
        await server.start()
        publisher = Publisher(tmp_path / "heartbeat.sock")
        assert publisher.trouble == ""
        task = asyncio.create_task(publisher.run())
        publisher.publish(NodeFacts(boot_id="b", config_hash="h"))
        async with asyncio.timeout(10):
            await refused.wait()
            while not publisher.trouble:  # noqa: ASYNC110 - it tells nobody: who asks for the status sees it
                await asyncio.sleep(0.01)
        assert "99999" in publisher.trouble
        task.cancel()
        await server.stop()

    asyncio.run(story())
