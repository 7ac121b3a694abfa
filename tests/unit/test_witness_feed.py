"""A node's way to the witness: a real desk behind a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from relevo.arbiter.ballot import Question
from relevo.arbiter.desk import MAX_NODES, Desk, Request, decode_request, encode_reply
from relevo.arbiter.events import Event, WitnessAnswered, WitnessSilent
from relevo.arbiter.register import Book, Read
from relevo.config.model import Witness
from relevo.node.witness import WitnessFeed

KEY = "sesame"
LIMIT_S = 10.0
QUESTION = Question(number=7, operations=(Read(mirror="r0"),), asked_ms=0)


class Server(asyncio.DatagramProtocol):
    """Answers by a desk, and counts."""

    def __init__(self) -> None:
        self.desk = Desk(Book(), "first", 0)
        self.requests = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        self.requests += 1
        reply = self.desk.serve(decode_request(data, {"office": KEY}), 0)
        self.transport.sendto(encode_reply(reply, KEY), addr)


Scene = Callable[[Server, WitnessFeed, Callable[[], Awaitable[Event]]], Awaitable[None]]


def with_a_witness(scene: Scene) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        transport, server = await loop.create_datagram_endpoint(Server, ("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        changed = asyncio.Event()
        settings = Witness(address="127.0.0.1", port=port, key=KEY, timeout_ms=2000)
        feed = WitnessFeed(settings, "office", "nodo1", lambda: 0, changed.set)
        task = asyncio.create_task(feed.run())

        async def asked() -> Event:
            changed.clear()
            feed.ask(QUESTION)
            await changed.wait()
            (event,) = feed.events()
            return event

        try:
            async with asyncio.timeout(LIMIT_S):
                await scene(server, feed, asked)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            transport.close()

    asyncio.run(run())


def test_it_learns_session_and_number_and_learns_them_anew_after_a_restart() -> None:
    async def scene(server: Server, feed: WitnessFeed, asked: Callable[[], Awaitable[Event]]) -> None:
        for session in ("first", "second"):
            server.desk = Desk(Book(), session, 0)
            event = await asked()
            assert isinstance(event, WitnessAnswered)
            assert [answer.ok for answer in event.answers] == [True]
            assert feed.trouble == ""
        assert server.requests == 4, "told the session, then carried out"

    with_a_witness(scene)


def test_a_witness_without_room_is_not_flooded_and_that_is_said() -> None:
    async def scene(server: Server, feed: WitnessFeed, asked: Callable[[], Awaitable[Event]]) -> None:
        for number in range(MAX_NODES):
            others = Request(
                cluster="office",
                node=f"n{number}",
                session="first",
                number=1,
                nonce="x",
                operations=QUESTION.operations,
            )
            assert server.desk.serve(others, 0).answers
        assert isinstance(await asked(), WitnessSilent)
        assert server.requests == 2
        assert "16 servers" in feed.trouble

    with_a_witness(scene)
