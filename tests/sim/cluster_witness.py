"""The witness of the cluster simulation: the real desk behind a network that loses, delays and repeats."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from relevo.arbiter.ballot import Question
from relevo.arbiter.desk import Desk, Reply, Request
from relevo.arbiter.events import Event, WitnessAnswered, WitnessSilent
from relevo.arbiter.register import Book

if TYPE_CHECKING:
    from sim.cluster_world import World

TIMEOUT_S = 1.0
REPEATS = 4
STORE_S = 0.01


class SimWitness:
    """What survives its power cuts, and its present life."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._stored = msgspec.json.encode(Book())
        self._session = 0
        self._desk: Desk | None = None
        self.cuts: set[str] = set()
        self.start()

    def start(self) -> None:
        """Boot, or boot again: only what was stored is known."""
        self._session += 1
        book = msgspec.json.decode(self._stored, type=Book)
        self._desk = Desk(book, f"s{self._session}", self._world.now_ms())

    def stop(self) -> None:
        """It loses its power."""
        self._desk = None

    async def serve(self, request: Request) -> Reply | None:
        """What it answers after the change is stored; None: it died before."""
        desk = self._desk
        if desk is None:
            return None
        reply = desk.serve(request, self._world.now_ms())
        if desk.register.changed:
            written = msgspec.json.encode(desk.register.book)
            self._stored = written
            desk.register.changed = False
            await asyncio.sleep(self._world.random.uniform(0, STORE_S))
        return reply if self._desk is desk else None

    @property
    def book(self) -> Book:
        return msgspec.json.decode(self._stored, type=Book)


class Line:
    """One life of a node daemon's way to the witness."""

    def __init__(self, world: World, node: str) -> None:
        self._world = world
        self._node = node
        self._session = ""
        self._last = 0
        self._nonces = 0
        self._replies: asyncio.Queue[Reply] = asyncio.Queue()
        self._life = world.random.getrandbits(40)

    async def ask(self, question: Question) -> Event:
        """The outcome of a question."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while True:
                    self._nonces += 1
                    request = Request(
                        cluster="sim",
                        node=self._node,
                        session=self._session,
                        number=self._last + 1,
                        nonce=f"{self._life:x}-{self._nonces}",
                        operations=question.operations,
                    )
                    reply = await self._reply(request)
                    self._session, self._last = reply.session, reply.number
                    if reply.answers:
                        return WitnessAnswered(number=question.number, answers=reply.answers)
        except TimeoutError:
            return WitnessSilent(number=question.number, now_ms=self._world.now_ms())

    async def _reply(self, request: Request) -> Reply:
        while True:
            self._send(request)
            try:
                async with asyncio.timeout(TIMEOUT_S / REPEATS):
                    while (reply := await self._replies.get()).nonce != request.nonce:
                        pass
                    return reply
            except TimeoutError:
                pass

    def _send(self, request: Request) -> None:
        """Datagrams outlive their sender: they arrive, late or twice, whatever has become of it."""
        world = self._world
        for _ in range(2 if world.random.random() < 0.1 else 1):
            if not world.loses():
                world.spawn(self._travel(request))

    async def _travel(self, request: Request) -> None:
        world = self._world
        await asyncio.sleep(world.delay_s())
        witness = world.witness
        assert witness is not None
        if self._node in witness.cuts:
            return
        reply = await witness.serve(request)
        await asyncio.sleep(world.delay_s())
        if reply is not None and self._node not in witness.cuts and not world.loses():
            self._replies.put_nowait(reply)
