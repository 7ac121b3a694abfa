"""A way back: a good copy is saved, where its disk can do that, before a resync makes it Inconsistent.

Should the source be lost in the middle, the copy as it was is still there. It is removed when the resync ended well.
"""

from __future__ import annotations

from collections.abc import Callable

from relevo.mirror import events as e
from relevo.mirror.requests import Then
from relevo.mirror.state import Shared, Timer
from relevo.mirror.states import Disk
from relevo.mirror.uuids import JUST_CREATED, PRIMARY_BIT

SAVE_LIMIT_MS = 30_000
"""A snapshot may take so long; then the resync goes on without it."""


class Snapshot:
    """Asks for a snapshot and waits for it, within a bound."""

    def __init__(self, shared: Shared) -> None:
        self._s = shared
        self._waiting: Callable[[], None] | None = None

    def before(self, then: Callable[[], None]) -> None:
        """Go on when this copy is saved, cannot be saved, is worth nothing, or saving it takes too long."""
        s = self._s
        created = s.uuids.current & ~PRIMARY_BIT in {0, JUST_CREATED}
        if s.disk <= Disk.INCONSISTENT or created or not s.settings.snapshot:
            then()
            return
        self._waiting = then

        def saved(_errno: int, _: e.Buffer) -> None:
            if self._waiting is then:
                self.go_on()

        u = s.uuids
        generations = (u.current, u.bitmap, u.history0, u.history1)
        s.out.append(e.SaveTarget(Then(saved), "resync", (), required=False, generations=generations))
        s.set_timer(Timer.SAVE, SAVE_LIMIT_MS)

    def go_on(self) -> None:
        """It is saved, or took too long."""
        self._s.clear_timer(Timer.SAVE)
        then, self._waiting = self._waiting, None
        if then is not None:
            then()

    def after(self) -> None:
        """The copy is complete again."""
        if self._s.settings.snapshot:
            self._s.out.append(e.ForgetTarget())

    def link_lost(self) -> None:
        """Nobody waits any more; what is being saved is saved."""
        self._waiting = None
        self._s.clear_timer(Timer.SAVE)
