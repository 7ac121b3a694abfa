"""Marking this copy as no longer current: by order, and because its node leaves the cluster.

A connected copy is current, whatever anybody says: an order is refused (SS_CONNECTED_OUTDATES; the kernel's 8.4.11 says
yes, and leaves the copy UpToDate). Who wants to go without being missed parts from the peer first.
"""

from __future__ import annotations

from collections.abc import Callable

from relevo.base.errors import RelevoError
from relevo.mirror import errors
from relevo.mirror import events as e
from relevo.mirror.command_events import ANY_LINKS
from relevo.mirror.durable import Durable
from relevo.mirror.link import Link
from relevo.mirror.state import Shared
from relevo.mirror.states import Connection, Disk, Role


def another_link(shared: Shared, links: int) -> bool:
    """Whether there is a link, or was one, since somebody counted `links` of them and none at that moment."""
    return links != ANY_LINKS and (shared.link or links != shared.link_number)


class Outdating:
    """Carries out `Outdate` and `Leave`.

    Args:
        shared, durable, link: of the core.
        done: a command was obeyed.
        refuse: a command is refused.
    """

    def __init__(
        self,
        shared: Shared,
        durable: Durable,
        link: Link,
        done: Callable[[e.Command], None],
        refuse: Callable[[e.Command, RelevoError], None],
    ) -> None:
        self._s = shared
        self._durable = durable
        self._link = link
        self._done = done
        self._refuse = refuse

    def outdate(self, command: e.Outdate) -> None:
        """Mark the copy Outdated once no handshake is under way; it is on the disk when that is answered."""
        self._s.when(lambda: self._s.settled, lambda: self._mark_by_order(command))

    def _mark_by_order(self, command: e.Outdate) -> None:
        s = self._s
        if another_link(s, command.links):
            self._refuse(command, errors.LinkChanged())
        elif s.disk is Disk.OUTDATED:
            self._done(command)
        elif s.link and s.conn >= Connection.CONNECTED and s.disk > Disk.OUTDATED:
            self._refuse(command, errors.ConnectedOutdates())
        elif s.role is Role.PRIMARY:
            self._refuse(command, errors.StillPrimary())
        elif s.disk < Disk.OUTDATED:
            self._refuse(command, errors.InconsistentAnyway())
        else:
            self._mark(command)

    def _mark(self, command: e.Command) -> None:
        self._s.disk = Disk.OUTDATED
        self._durable.superblock(lambda: self._done(command))

    def leave(self, command: e.Leave) -> None:
        """Part from a peer that holds the same data, in order, and be Outdated before that is answered."""
        self._s.when(lambda: self._s.settled, lambda: self._part(command))

    def _part(self, command: e.Leave) -> None:
        s = self._s
        if s.role is Role.PRIMARY:
            self._refuse(command, errors.StillPrimary())
        elif not s.steady or s.disk is not Disk.UP_TO_DATE or s.peer_disk is not Disk.UP_TO_DATE:
            self._done(command)  # the copy here may be the only good one, or is none anyway
        else:
            s.left = True
            self._link.leaving.take(lambda: self._parted(command))

    def _parted(self, command: e.Leave) -> None:
        """A Primary that stays has been told already; a Secondary may become one from now on.

        Of two that left each other at the same moment none goes on: both copies are what they were.
        """
        if self._s.disk <= Disk.OUTDATED or self._link.leaving.peer_left:
            self._done(command)
        else:
            self._mark(command)
