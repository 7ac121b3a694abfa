"""When a ping target is reached, doubtful or lost: answers and the time go in, words come out. No I/O, no clock.

Three words, so that two servers that look at slightly different moments do not take that for a difference: a target
that falls silent for all is doubtful everywhere before it is lost anywhere, and one that comes back is doubtful
everywhere before it is reached anywhere. Only lost here and reached there moves a service.
"""

from __future__ import annotations

from relevo.config.ping import DOUBT_INTERVALS, Ping
from relevo.manager.model import Reach


class Watch:
    """The targets of one server.

    Times count only while this process runs: what stood still (a suspended machine, a stopped process) has heard no
    answer, and that is nobody's silence.

    Args:
        settings: what is asked, and how long each word takes.
        now_ms: any monotonic clock.
    """

    def __init__(self, settings: Ping, now_ms: int) -> None:
        self._settings = settings
        self._last_ms = now_ms
        self._awake_ms = 0
        self._heard_ms = dict.fromkeys(settings.targets, 0)
        self._steady_ms: dict[str, int] = {}

    @property
    def _doubt_ms(self) -> float:
        return DOUBT_INTERVALS * self._settings.interval_ms

    def _pass(self, now_ms: int) -> None:
        self._awake_ms += min(max(0, now_ms - self._last_ms), self._settings.interval_ms)
        self._last_ms = now_ms

    def answered(self, name: str, now_ms: int) -> None:
        """One of the addresses of a target has answered."""
        self._pass(now_ms)
        if self._awake_ms - self._heard_ms[name] >= self._doubt_ms:
            self._steady_ms.pop(name, None)
        self._steady_ms.setdefault(name, self._awake_ms)
        self._heard_ms[name] = self._awake_ms

    def look(self, now_ms: int) -> dict[str, Reach]:
        """The word on each target; to be asked for at least once in each interval."""
        self._pass(now_ms)
        return {name: self._word(name) for name in self._settings.targets}

    def _word(self, name: str) -> Reach:
        silent_ms = self._awake_ms - self._heard_ms[name]
        if silent_ms >= self._settings.deadping_ms:
            return Reach.LOST
        since_ms = self._steady_ms.get(name)
        steady = since_ms is not None and self._awake_ms - since_ms >= self._settings.settle_ms
        return Reach.REACHED if steady and silent_ms < self._doubt_ms else Reach.DOUBTFUL
