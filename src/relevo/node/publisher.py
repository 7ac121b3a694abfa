"""This node's facts on their way to its heartbeat daemon, the newest always replacing what was not sent yet."""

from __future__ import annotations

import asyncio
import pathlib

import msgspec
import structlog

from relevo.base.control import Refused, acall
from relevo.base.errors import RelevoError
from relevo.manager.model import Failure, NodeFacts, ServiceState, encode_facts
from relevo.manager.original import Wishes

RETRY_MS = 100
REFRESH_MS = 2000
"""The same facts are given again after this time: a heartbeat daemon that was restarted has none."""
LIMIT_S = 2.0
"""A heartbeat daemon that takes longer to take them is asked again, with the facts of then."""
TOO_LARGE = "FactsTooLarge"
"""The heartbeat daemon's error for facts that do not fit into one message."""
_log = structlog.get_logger()


class Publisher:
    """Gives the newest facts to the heartbeat daemon, which repeats them.

    Args:
        path: its control socket.

    Attributes:
        trouble: why it has not taken the newest facts, one sentence; empty when it has.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.trouble = ""
        self._path = path
        self._facts: NodeFacts | None = None
        self._sent: tuple[NodeFacts, Wishes | None] | None = None
        self._wishes: Wishes | None = None
        self._news = asyncio.Event()
        self._taken = asyncio.Condition()

    def publish(self, facts: NodeFacts, wishes: Wishes | None = None) -> None:
        """These are the facts from now on, and what is wished for the hand-over with an original Heartbeat."""
        self._facts, self._wishes = facts, wishes
        if (facts, wishes) != self._sent:
            self._news.set()

    async def published(self) -> None:
        """Until the heartbeat daemon has taken the newest facts; then they are on their way."""
        async with self._taken:
            await self._taken.wait_for(lambda: self._sent is not None and self._sent[0] == self._facts)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with asyncio.timeout(REFRESH_MS / 1000):
                    await self._news.wait()
            except TimeoutError:
                self._sent = None
            self._news.clear()
            facts, wishes = self._facts, self._wishes
            if facts is None or (facts, wishes) == self._sent:
                continue
            try:
                await self._give(facts, wishes)
                self._sent = facts, wishes
                self.trouble = ""
                async with self._taken:
                    self._taken.notify_all()
            except RelevoError as error:
                self._sent = None
                if self.trouble != str(error):
                    _log.warning("facts_not_published", why=str(error))
                self.trouble = str(error)
                await asyncio.sleep(RETRY_MS / 1000)
                self._news.set()

    async def _give(self, facts: NodeFacts, wishes: Wishes | None) -> None:
        hold = {} if wishes is None else {"hold": msgspec.to_builtins(wishes)}
        runs = any(told.state is not ServiceState.STOPPED for told in facts.services.values())
        for told in (facts, without_words(facts)):
            try:
                await acall(self._path, "publish", timeout_s=LIMIT_S, facts=encode_facts(told), runs=runs, **hold)
            except Refused as error:
                if error.error != TOO_LARGE or told is not facts:
                    raise
                _log.warning("facts_without_words", why=str(error))
            else:
                return


def without_words(facts: NodeFacts) -> NodeFacts:
    """The facts without what is there for people only: what others have to know must fit, whatever went wrong."""
    services = {
        name: msgspec.structs.replace(
            told, reason="", failures={part: Failure(one.count, one.last_ms) for part, one in told.failures.items()}
        )
        for name, told in facts.services.items()
    }
    mirrors = {
        name: msgspec.structs.replace(side, problem="") if side is not None else None
        for name, side in facts.mirrors.items()
    }
    permissions = {
        name: msgspec.structs.replace(word, reason="", remedy="") for name, word in facts.permissions.items()
    }
    return msgspec.structs.replace(facts, services=services, mirrors=mirrors, permissions=permissions)
