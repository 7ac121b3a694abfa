"""How often somebody may guess a password. Pure: the time comes in with the question.

Two buckets of tries: one for each address, one for each name. The name's holds back only addresses from which that
name has not logged in lately, so that guessing does not lock the owner out. Kept in memory and bounded; a failover
starts it anew, which gives a guesser one more bucket full.
"""

from __future__ import annotations

from collections import OrderedDict

ADDRESS_TRIES = 10
ADDRESS_REFILL_S = 6.0
NAME_TRIES = 30
NAME_REFILL_S = 10.0
KEPT_MAX = 4096
"""Buckets, and addresses that are known for a name; what was not used for longest is forgotten first."""


class _Buckets:
    def __init__(self, tries: int, refill_s: float) -> None:
        self._tries = tries
        self._refill_s = refill_s
        self._missing: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, key: str, now_s: float) -> float:
        """How long until there is a try; 0: there is one."""
        missing = self._now(key, now_s)
        return max(0.0, (missing - self._tries + 1) * self._refill_s)

    def take(self, key: str, now_s: float) -> None:
        """One try fewer."""
        self._missing[key] = (min(self._now(key, now_s) + 1, self._tries), now_s)
        self._missing.move_to_end(key)
        while len(self._missing) > KEPT_MAX:
            self._missing.popitem(last=False)

    def _now(self, key: str, now_s: float) -> float:
        missing, at_s = self._missing.get(key, (0.0, now_s))
        return max(0.0, missing - max(0.0, now_s - at_s) / self._refill_s)


class Throttle:
    """Who has to wait before the next try."""

    def __init__(self) -> None:
        self._addresses = _Buckets(ADDRESS_TRIES, ADDRESS_REFILL_S)
        self._names = _Buckets(NAME_TRIES, NAME_REFILL_S)
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def wait_s(self, address: str, name: str, now_s: float) -> float:
        """How long somebody has to wait before they may try; 0: not at all."""
        wait = self._addresses.wait_s(address, now_s)
        if (address, name) in self._known:
            return wait
        return max(wait, self._names.wait_s(name, now_s))

    def failed(self, address: str, name: str, now_s: float) -> None:
        """A password was wrong."""
        self._addresses.take(address, now_s)
        self._names.take(name, now_s)

    def succeeded(self, address: str, name: str) -> None:
        """It was right."""
        self._known[address, name] = None
        self._known.move_to_end((address, name))
        while len(self._known) > KEPT_MAX:
            self._known.popitem(last=False)
