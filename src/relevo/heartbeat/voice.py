"""What this node says of itself and when: heartbeats, facts, the goodbye. Pure.

Times are on the membership's awake clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from relevo.heartbeat.events import Effect, PeerState, SaidGoodbye, Send, Settings
from relevo.heartbeat.outbox import Outbox

FACTS_INTERVAL_MS = 1000
"""Facts are repeated so often."""
HASTEN_GAP_MS = 20
"""Extra heartbeats (to a new, a doubtful or an unaware peer) keep this distance."""
GOODBYES = 3
GOODBYE_GAP_MS = 20
"""A goodbye is sent so many times, so far apart: nobody asks for it again."""


class Voice:
    """The own side of a membership.

    Args:
        settings: fixed for the life of this object.

    Attributes:
        outbox: numbers and keeps what is said.
        generations: all of our present run; a message that names one of them was made in it.
        state: what we call ourselves.
        left: we said goodbye and have not begun anew.
    """

    def __init__(self, settings: Settings) -> None:
        self._timings = settings.timings
        self._everyone = settings.peers
        self.outbox = Outbox(settings.me, settings.uuid, settings.boot_id, settings.config_hash, settings.generation)
        self.generations = {settings.generation}
        self.state = PeerState.INIT
        self.left = False
        self._facts: str | None = None
        self._facts_no = 0
        self._facts_sent_no = 0
        self._next_status_ms = 0
        self._last_status_ms = -HASTEN_GAP_MS
        self._next_facts_ms: int | None = None
        self._goodbye: tuple[Send, int, int] | None = None  # (what, how often still, when next)

    def said(self, generation: int, sequence: int) -> bool:
        """Whether a message with these numbers (0: without one) may be of our own making in this run."""
        newest = self.outbox.sequence if generation == self.outbox.generation else sequence
        return generation in self.generations and sequence <= newest

    # --- wishes -------------------------------------------------------------------------------------------------------

    def publish(self, facts: str, now_ms: int) -> None:
        """These are our facts from now on."""
        if facts == self._facts:
            return  # no news: the repetition goes on as it is
        self._facts = facts
        self._facts_no += 1
        self.facts_due(now_ms)

    def leave(self, heard: Mapping[str, int], now_ms: int) -> None:
        """Say goodbye, then be silent."""
        if not self.left:
            self.left = True
            self._goodbye = (self.outbox.goodbye(heard, self._everyone), GOODBYES, now_ms)

    def join(self, generation: int, now_ms: int) -> None:
        """Begin anew."""
        self.outbox.begin(generation)
        self.generations.add(generation)
        self.left = False
        self._goodbye = None
        self.state = PeerState.INIT
        self._next_status_ms = now_ms
        self.facts_due(now_ms)

    def settle(self, now_ms: int) -> None:
        """Every node was heard, or initdead is over."""
        if self.state is PeerState.UP:
            self.state = PeerState.ACTIVE
            self.hasten(now_ms)

    def hasten(self, now_ms: int) -> None:
        """The next heartbeat goes out at once."""
        self._next_status_ms = min(self._next_status_ms, max(now_ms, self._last_status_ms + HASTEN_GAP_MS))

    def facts_due(self, now_ms: int) -> None:
        """The facts go out at once."""
        if self._facts is not None:
            self._next_facts_ms = now_ms

    # --- what time brings ---------------------------------------------------------------------------------------------

    def due(self, now_ms: int, heard: Mapping[str, int], understanding: Sequence[str]) -> list[Effect]:
        """What is to be said now.

        Args:
            now_ms: the time.
            heard: the newest generation heard of each peer.
            understanding: the peers that understand facts.
        """
        if self.left:
            return self._farewell(now_ms)
        effects: list[Effect] = []
        if now_ms >= self._next_status_ms:
            deadtime_ms = self._timings.deadtime_ms
            effects.append(self.outbox.status(self.state.value, deadtime_ms, heard, self._everyone))
            self._last_status_ms = now_ms
            self._next_status_ms = now_ms + self._timings.keepalive_ms
            if self.state is PeerState.INIT:
                self.state = PeerState.UP
        if self._next_facts_ms is not None and now_ms >= self._next_facts_ms:
            effects += self._say_facts(now_ms, heard, tuple(understanding))
        return effects

    def _say_facts(self, now_ms: int, heard: Mapping[str, int], to: tuple[str, ...]) -> list[Effect]:
        assert self._facts is not None
        if not to:
            self._next_facts_ms = None  # becomes due when a peer turns out to understand them
            return []
        new = self._facts_sent_no != self._facts_no
        self._facts_sent_no = self._facts_no
        # new facts are repeated soon: a lost datagram must not cost a second
        self._next_facts_ms = now_ms + (self._timings.keepalive_ms if new else FACTS_INTERVAL_MS)
        return [self.outbox.facts(self._facts, self._facts_no, heard, to)]

    def _farewell(self, now_ms: int) -> list[Effect]:
        if self._goodbye is None:
            return []
        send, times, at_ms = self._goodbye
        if now_ms < at_ms:
            return []
        if times == 0:
            self._goodbye = None
            return [SaidGoodbye()]
        self._goodbye = (send, times - 1, now_ms + GOODBYE_GAP_MS)
        return [send]

    def next_ms(self) -> list[int]:
        """When `due` has something to say."""
        if self.left:
            return [] if self._goodbye is None else [self._goodbye[2]]
        return [self._next_status_ms] if self._next_facts_ms is None else [self._next_status_ms, self._next_facts_ms]
