"""The node's way to the witness: sends one question at a time, repeats it until it is answered or out of time.

Nothing here knows what the answers mean; the arbiter does.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable

import structlog

from relevo.arbiter.ballot import Question
from relevo.arbiter.desk import MAX_NODES, BadDatagram, Reply, Request, decode_reply, encode_request
from relevo.arbiter.events import Event, WitnessAnswered, WitnessSilent
from relevo.base.errors import RelevoError
from relevo.config.model import Witness

REPEATS = 4
"""A question is sent this often within its time, evenly spread."""
NONCE_BYTES = 8
_log = structlog.get_logger()


class NoRoom(RelevoError):
    """The witness knows too many servers of this cluster."""


class _Line(asyncio.DatagramProtocol):
    """The socket to the witness; the replies that are signed with the right key."""

    def __init__(self, key: str) -> None:
        self._key = key
        self.replies: asyncio.Queue[Reply] = asyncio.Queue()
        self.problem = ""

    def datagram_received(self, data: bytes, _addr: object) -> None:
        try:
            self.replies.put_nowait(decode_reply(data, self._key))
        except BadDatagram as error:
            self.problem = str(error)

    def error_received(self, exc: Exception) -> None:
        self.problem = str(exc)  # "connection refused": nobody listens there; it is asked again until time is up


class WitnessFeed:
    """Asks the witness what the arbiter wants to know.

    Args:
        settings: where the witness is, and the key.
        cluster, me: who asks.
        now_ms: the clock of the arbiter.
        changed: called when there is an event to take.

    Attributes:
        trouble: why the last question was not answered, one sentence; empty when it was.
    """

    def __init__(
        self, settings: Witness, cluster: str, me: str, now_ms: Callable[[], int], changed: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._me = me
        self._now_ms = now_ms
        self._changed = changed
        self._questions: asyncio.Queue[Question] = asyncio.Queue()
        self._events: list[Event] = []
        self._session = ""
        self._last = 0
        self.trouble = ""

    def ask(self, question: Question) -> None:
        """Send this; its outcome is an event."""
        self._questions.put_nowait(question)

    def events(self) -> list[Event]:
        """What has come since the last call."""
        events, self._events = self._events, []
        return events

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            question = await self._questions.get()
            answered = await self._settle(question)
            self._events.append(
                answered if answered is not None else WitnessSilent(number=question.number, now_ms=self._now_ms())
            )
            self._changed()

    async def _settle(self, question: Question) -> WitnessAnswered | None:
        line = _Line(self._settings.key)
        loop = asyncio.get_running_loop()
        transport: asyncio.DatagramTransport | None = None
        try:
            async with asyncio.timeout(self._settings.timeout_ms / 1000):
                transport, _ = await loop.create_datagram_endpoint(
                    lambda: line, remote_addr=(self._settings.address, self._settings.port)
                )
                reply = await self._asked(transport, line, question)
        except TimeoutError:
            self._note(line.problem or "it does not answer")
            return None
        except NoRoom as error:
            self._note(error.what)
            return None
        except OSError as error:  # a name that cannot be resolved, no route
            self._note(error.strerror or str(error))
            return None
        finally:
            if transport is not None:
                transport.close()
        self.trouble = ""
        return WitnessAnswered(number=question.number, answers=reply.answers)

    def _note(self, why: str) -> None:
        where = f"{self._settings.address}, UDP port {self._settings.port}"
        sentence = f"The witness at {where} cannot be asked: {why.rstrip('.')}."
        if sentence != self.trouble:
            _log.warning("witness_silent", why=why)
        self.trouble = sentence

    async def _asked(self, transport: asyncio.DatagramTransport, line: _Line, question: Question) -> Reply:
        """The reply to a question that was carried out.

        Raises:
            NoRoom: the witness will not carry out anything of this node.
        """
        while True:
            request = Request(
                cluster=self._cluster,
                node=self._me,
                session=self._session,
                number=self._last + 1,
                nonce=secrets.token_hex(NONCE_BYTES),
                operations=question.operations,
            )
            reply = await self._reply(transport, line, request)
            refused = not reply.answers and reply.session == request.session and reply.number < request.number
            self._session, self._last = reply.session, reply.number
            if reply.answers:
                return reply
            if refused:  # neither session nor number was wrong: asking again at once would only flood it
                raise NoRoom(f"it remembers {MAX_NODES} servers of a cluster, and {self._me} is one more")

    async def _reply(self, transport: asyncio.DatagramTransport, line: _Line, request: Request) -> Reply:
        datagram = encode_request(request, self._settings.key)
        reply: Reply | None = None
        while reply is None or reply.nonce != request.nonce:
            transport.sendto(datagram)
            with contextlib.suppress(TimeoutError):  # sent again, until the question's own time is over
                async with asyncio.timeout(self._settings.timeout_ms / 1000 / REPEATS):
                    while (reply := await line.replies.get()).nonce != request.nonce:
                        pass
        return reply
