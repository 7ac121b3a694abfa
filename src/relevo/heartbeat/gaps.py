"""Which messages of a peer are missing: whom to ask for what again, and how far to acknowledge. Pure.

Heartbeat keeps what it sent until every node has acknowledged it, and an acknowledgement covers everything up to its
number. So it must stop below the first message that is still missing: what is acknowledged too early cannot be asked
for any more, and what never is fills the peer's history.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import msgspec

ASK_DELAY_MS = 60
"""A message that was overtaken is asked for after so long: reordering is normal and cures itself."""
ASK_GAP_MS = 300
"""It is asked for again so much later."""
ASK_TIMES = 10
"""After so many questions it is given up, and acknowledged with the rest, so that the peer can forget it."""
MAX_MISSING = 64
"""Of more messages only the newest are asked for: after so many the state that they told has changed."""
MAX_RANGE = 16
"""At most so many messages are asked for at once."""
ACK_EVERY_MESSAGES = 10
"""One message in so many is acknowledged: Heartbeat expects it of its peers."""


class _Missing(msgspec.Struct):
    asked: int
    next_ms: int


class Gaps:
    """The gaps in what was accepted of one run of a peer; what it sent before the first message heard is no gap.

    Attributes:
        recovered: so many messages came after they had been asked for.
        given_up: so many never did.
    """

    def __init__(self) -> None:
        self.recovered = 0
        self.given_up = 0
        self._highest = 0
        self._acknowledged = 0
        self._missing: dict[int, _Missing] = {}  # ascending: a new one is higher than all before

    def heard(self, sequence: int, now_ms: int, *, ask: bool) -> None:
        """A message was accepted.

        Args:
            sequence: its number.
            now_ms: on the membership's awake clock.
            ask: what it has overtaken is worth asking for.
        """
        missing = self._missing.pop(sequence, None)
        if missing is not None and missing.asked:
            self.recovered += 1
        if sequence <= self._highest:
            return
        if not ask:
            self._missing.clear()
        elif self._highest:
            for lost in range(max(self._highest + 1, sequence - MAX_MISSING), sequence):
                self._missing[lost] = _Missing(0, now_ms + ASK_DELAY_MS)
            self.given_up += max(0, sequence - MAX_MISSING - self._highest - 1)
            for surplus in list(self._missing)[:-MAX_MISSING]:
                self._give_up(surplus)
        self._highest = sequence

    def _give_up(self, sequence: int) -> None:
        del self._missing[sequence]
        self.given_up += 1

    def questions(self, now_ms: int) -> Iterator[tuple[int, int]]:
        """What is to be asked for now: ranges, first and last number. What was asked for in vain is given up."""
        due = [sequence for sequence, missing in self._missing.items() if now_ms >= missing.next_ms]
        asked = []
        for sequence in due:
            missing = self._missing[sequence]
            if missing.asked == ASK_TIMES:
                self._give_up(sequence)
                continue
            missing.asked += 1
            missing.next_ms = now_ms + ASK_GAP_MS
            asked.append(sequence)
        for _, run in itertools.groupby(enumerate(asked), lambda item: item[1] - item[0]):
            numbers = [sequence for _, sequence in run]
            for start in range(0, len(numbers), MAX_RANGE):
                part = numbers[start : start + MAX_RANGE]
                yield part[0], part[-1]

    def next_ms(self) -> int | None:
        """When `questions` has more to say; None while nothing is missing."""
        return min((missing.next_ms for missing in self._missing.values()), default=None)

    def acknowledge(self) -> int | None:
        """The number up to which everything is here, if the peer should be told now; it counts as told then."""
        complete = min(self._missing, default=self._highest + 1) - 1
        if complete // ACK_EVERY_MESSAGES <= self._acknowledged // ACK_EVERY_MESSAGES:
            return None
        self._acknowledged = complete
        return complete
