"""A Primary that has lost its peer has it fenced, as drbd.conf's `fencing` says, by the handler fence-peer.

`resource-only`: the handler runs while writes go on as `alone` says. `resource-and-stonith`: writes are held back until
it has succeeded. A Secondary without a link that is to become Primary has its peer fenced first with either of them.
What the handler's exit status means is drbd 8.4's (`conn_try_outdate_peer`). Pure.
"""

from __future__ import annotations

from collections.abc import Callable

from relevo.mirror import events as e
from relevo.mirror.durable import Durable
from relevo.mirror.local_io import Gate, LocalIo
from relevo.mirror.requests import Then
from relevo.mirror.state import Shared
from relevo.mirror.states import Disk, Role

HANDLER = "fence-peer"
PEER_INCONSISTENT, PEER_OUTDATED, PEER_DOWN, PEER_PRIMARY, PEER_STONITHED = 3, 4, 5, 6, 7
"""Exit statuses of the handler; every other one is a failure."""
_MEANING = {
    PEER_INCONSISTENT: "the peer's copy is Inconsistent",
    PEER_OUTDATED: "the peer's copy is marked as Outdated",
    PEER_DOWN: "the peer is down",
    PEER_PRIMARY: "the peer is Primary",
    PEER_STONITHED: "the peer was switched off",
}
Outcome = Callable[[bool], None]


class Fencing:
    """Runs the handler and obeys it."""

    def __init__(self, shared: Shared, durable: Durable, local: LocalIo) -> None:
        self._s = shared
        self._durable = durable
        self._local = local

    @property
    def wanted(self) -> bool:
        """The configuration wants lost peers to be fenced."""
        return self._s.settings.options.fencing != "dont-care"

    @property
    def holds_back(self) -> bool:
        """Nothing may be completed before the lost peer is fenced."""
        return self._s.settings.options.fencing == "resource-and-stonith"

    def peer_lost(self) -> None:
        """This Primary has lost a peer whose copy was as good as its own."""
        if self.wanted:
            self.run(self._after_loss)

    def _after_loss(self, fenced: bool) -> None:
        s = self._s
        if not fenced:
            if self._local.gate in {Gate.ASKING, Gate.EXPIRED}:
                s.problem = f"The handler {HANDLER} did not fence the peer: writes stay suspended."
                s.changed()
        elif s.role is Role.PRIMARY and s.disk > Disk.FAILED:
            if self._local.gate in {Gate.ASKING, Gate.EXPIRED}:
                s.problem = ""
                self._local.go_alone()
            s.peer_disk = Disk.OUTDATED
            s.changed()

    @property
    def due(self) -> bool:
        """This Secondary cannot become Primary before its peer is fenced."""
        s = self._s
        return self.wanted and not s.link and not s.peer_outdated and s.disk >= Disk.CONSISTENT

    def run(self, then: Outcome) -> None:
        """Have the peer fenced; `then` is told whether it is."""
        s = self._s
        number = s.link_number

        def ended(status: int, _: e.Buffer) -> None:
            meaning = _MEANING.get(status, "the handler has failed")
            fenced = status in _MEANING and status != PEER_PRIMARY
            if status == PEER_DOWN:
                fenced = s.disk is Disk.UP_TO_DATE
            too_late = s.link or s.link_number != number
            fenced = fenced and not too_late
            level = "warning" if fenced else "error"
            s.log(level, "fencing", status=status, meaning=meaning, fenced=fenced, too_late=too_late)
            if status == PEER_PRIMARY and not too_late and s.role is Role.SECONDARY and s.disk > Disk.OUTDATED:
                s.disk = Disk.OUTDATED
                self._durable.superblock(lambda: then(fenced))
            else:
                then(fenced)

        s.out.append(e.RunHandler(Then(ended), HANDLER, {}))
