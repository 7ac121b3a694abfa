"""Leave-taking in order: each side knows then whether the other one goes on alone, and whose copy that outdates."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.durable import Durable
from relevo.mirror.peer_io import PeerIo
from relevo.mirror.retcodes import SS_SUCCESS
from relevo.mirror.state import CLOSE_LIMIT_MS, Shared, Timer
from relevo.mirror.states import CONN_MASK, DISK_MASK, Connection, Disk, Role

if TYPE_CHECKING:
    from relevo.mirror.link import Link

LEAVE_PINGS = 4
"""A peer asked for its leave has that many ping-timeouts to answer."""


class LeaveTaking:
    """The end of a link in order, from either side.

    Attributes:
        goodbye: one of the two has taken its leave.
        peer_left: the peer has taken its leave.
        peer_outdated: the peer has left, with its copy marked as Outdated.
    """

    def __init__(self, shared: Shared, durable: Durable, peer_io: PeerIo, link: Link) -> None:
        self._s = shared
        self._durable = durable
        self._peer_io = peer_io
        self._link = link
        self._leaving: list[Callable[[], None]] = []
        self._closing = False
        self.goodbye = False
        self.peer_left = False
        self.peer_outdated = False

    def begin(self) -> None:
        """A new link."""
        self.goodbye = self.peer_left = self.peer_outdated = False

    def closed(self) -> None:
        """The sockets are gone."""
        self._closing = False
        self._s.clear_timer(Timer.CLOSE)

    @property
    def _left_behind(self) -> bool:
        """When the two part in order, the peer goes on alone as Primary, with a disk of its own."""
        s = self._s
        serves = s.role is Role.SECONDARY and s.peer_role is Role.PRIMARY
        return serves and s.disk is Disk.UP_TO_DATE and s.peer_disk > Disk.FAILED

    def take(self, then: Callable[[], None]) -> None:
        """Take leave of the peer in order, then go on (in any case)."""
        s = self._s
        if not s.link or not s.settled:
            self._link.drop("this side leaves", stay_alone=True)
            then()
            return
        self._leaving.append(then)
        if len(self._leaving) > 1:
            return
        if self._left_behind:
            s.disk = Disk.OUTDATED
            number = s.link_number
            # on a later link nobody has asked for it: this one's end has told whoever waited
            self._durable.superblock(lambda: self._ask_for_leave() if s.link and s.link_number == number else None)
        else:
            self._ask_for_leave()

    def _ask_for_leave(self) -> None:
        s = self._s
        mask, value = CONN_MASK, Connection.DISCONNECTING << 4
        if s.disk is Disk.OUTDATED:
            mask, value = mask | DISK_MASK, value | Disk.OUTDATED << 9
        s.out.append(e.SendData(p.ConnStateChangeRequest(mask, value)))
        s.set_timer(Timer.LEAVE, LEAVE_PINGS * s.settings.ping_timeout_ms)

    def answered(self) -> None:
        """The peer let this side go, or does not answer."""
        self._s.clear_timer(Timer.LEAVE)
        if self._leaving:
            self.goodbye = True
            self._link.drop("this side took its leave", stay_alone=True)

    def ended(self) -> None:
        """There is no link any more: go on with what waited for that."""
        self._s.clear_timer(Timer.LEAVE)
        leaving, self._leaving = self._leaving, []
        if leaving:
            self._link.drop("this side leaves", stay_alone=True)
        for then in leaving:
            then()

    def peer_leaves(self, packet: p.ConnStateChangeRequest) -> None:
        """The peer takes its leave. One that leaves as Primary goes on alone: this copy is outdated then.

        Raises:
            ProtocolError: it asks for something else.
        """
        s = self._s
        if not packet.mask & CONN_MASK or (packet.value & CONN_MASK) >> 4 != Connection.DISCONNECTING:
            raise p.ProtocolError("The peer asks for a change of the connection that is not a leave.")
        self.goodbye = self.peer_left = True
        self.peer_outdated = packet.mask & DISK_MASK != 0 and (packet.value & DISK_MASK) >> 9 == Disk.OUTDATED
        number = s.link_number
        self._peer_io.hurry_up()
        s.when(
            lambda: not self._peer_io.owes or s.link_number != number,
            lambda: self._peer_may_go() if s.link and s.link_number == number else None,
        )

    def _peer_may_go(self) -> None:
        """It has an answer to each of its barriers: what it lost sight of it would take as out of sync."""
        s = self._s
        if self._left_behind:
            s.disk = Disk.OUTDATED
            number = s.link_number
            self._durable.superblock(lambda: self._let_go() if s.link and s.link_number == number else None)
        else:
            self._let_go()

    def _let_go(self) -> None:
        self._s.out.append(e.SendMeta(p.ConnStateChangeReply(SS_SUCCESS)))
        self.await_close("the peer took its leave")

    def await_close(self, reason: str) -> None:
        """The link is over, but it is the peer that closes it: a close from here could overtake what it has to read."""
        self._closing = True
        self._s.set_timer(Timer.CLOSE, CLOSE_LIMIT_MS)
        self._link.lost(reason)

    def close_timer(self) -> None:
        """A peer that has to close the sockets keeps them open."""
        if self._closing:
            self._closing = False
            self._s.out.append(e.DropConnection("the peer did not close the link in time"))
