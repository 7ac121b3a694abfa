"""`on-congestion`: what a Primary does when more is on its way to the peer than `congestion-fill` allows.

Pull ahead: it goes Ahead. From then on its writes are only told to the peer (`OutOfSync`), which is Behind: its copy is
Outdated. When everything that was sent before is on the peer's disk, what was told is resynchronised. Disconnect: it
leaves the peer. With protocol A only, as in drbd: with the others each write waits for the peer anyway.

Nothing of this is in the way of a write unless the option is set: then `LocalIo.replicate` goes through here.

Where this is stricter than drbd: the generation of a resync is written down when a Primary goes Ahead, so that its copy
stays the newer one whatever happens; a flush waits for what was sent before; and a link lost meanwhile counts as the
loss of a good copy, because the peer may not have read that it is Behind.
"""

from __future__ import annotations

import collections

from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.durable import Durable
from relevo.mirror.link import Link
from relevo.mirror.local_io import LocalIo
from relevo.mirror.requests import Write
from relevo.mirror.resync import Resync
from relevo.mirror.state import Shared, Timer
from relevo.mirror.states import Connection, Disk

CATCH_UP_MS = 1000
"""So long after the backlog is gone the resync begins; drbd waits as long."""


class Congestion:
    """Stands before `LocalIo.replicate` when the option is set."""

    def __init__(self, shared: Shared, durable: Durable, local: LocalIo, resync: Resync, link: Link) -> None:
        self._s = shared
        self._durable = durable
        self._local = local
        self._resync = resync
        self._link = link
        self._mirror = local.replicate
        self._under_way: collections.deque[Write] = collections.deque()
        self._bytes = 0
        self.configured()

    def configured(self) -> None:
        """The settings are new, or have changed."""
        options = self._s.settings.options
        self._pulls = options.on_congestion == "pull-ahead"
        self._fill_bytes = options.congestion_fill_bytes
        self._extents = options.congestion_extents
        wanted = options.on_congestion != "block" and options.protocol == "A"
        self._local.replicate = self._replicate if wanted else self._mirror
        if not wanted:
            self._under_way.clear()
            self._bytes = 0

    def _replicate(self, write: Write, length: int) -> None:
        """A write that goes to the peer, unless that cannot keep up."""
        if self._congested() and self._may_part():
            if self._pulls:
                self._pull_ahead()
            else:
                self._link.drop("more is on its way to the peer than congestion-fill allows", stay_alone=True)
            self._local.only_here(write, length)
            return
        self._mirror(write, length)
        if write.buffer is not None:
            self._under_way.append(write)
            self._bytes += length

    def _congested(self) -> bool:
        under_way = self._under_way
        while under_way and under_way[0].epoch is None:  # its epoch is on the peer's disk, or its link was lost
            write = under_way.popleft()
            self._bytes -= write.end - write.offset
        full = 0 < self._fill_bytes <= self._bytes
        return full or (self._local.al.held >= self._extents and bool(under_way))

    def _may_part(self) -> bool:
        """Both copies are good, and nothing else is being agreed on."""
        s = self._s
        good = s.disk is Disk.UP_TO_DATE and s.peer_disk is Disk.UP_TO_DATE
        return good and s.conn is Connection.CONNECTED and not s.asking and not s.growing_sectors

    # ------------------------------------------------------------ ahead

    def _pull_ahead(self) -> None:
        s = self._s
        s.log("warning", "pulls_ahead", bytes_under_way=self._bytes)
        s.peer_disk = Disk.OUTDATED
        s.set_conn(Connection.AHEAD)
        s.out.append(e.SendData(p.StateWord(s.state_word())))
        s.uuids.start_as_source()
        self._durable.superblock(_nothing)
        self._local.hurry()
        self._await_peer()

    def _await_peer(self) -> None:
        """Until everything that was sent is on the peer's disk."""
        s, number = self._s, self._s.link_number
        s.when(
            lambda: s.conn is not Connection.AHEAD or s.link_number != number or not self._local.backlog,
            lambda: s.set_timer(Timer.AHEAD, CATCH_UP_MS) if s.conn is Connection.AHEAD else None,
        )

    def catch_up(self) -> None:
        """Time to let the peer have what it was told of."""
        if self._s.conn is Connection.AHEAD and not self._local.backlog:
            self._resync.catch_up()


def _nothing() -> None:
    """Nothing has to follow."""
