"""Reads of a Primary whose own disk cannot answer: the peer is asked (P_DATA_REQUEST)."""

from __future__ import annotations

import errno as errnos

from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.requests import Reading
from relevo.mirror.state import SECTOR_BYTES, TARGET, Shared, Timer
from relevo.mirror.states import Connection, Disk

_CARRYING = frozenset({Connection.CONNECTED, Connection.WF_BITMAP_T, Connection.WF_SYNC_UUID}) | TARGET
_U64 = 0xFFFF_FFFF_FFFF_FFFF


class RemoteReads:
    """What the peer was asked for and has not answered yet."""

    def __init__(self, shared: Shared) -> None:
        self._s = shared
        self._asked: dict[int, Reading] = {}
        self._block_id = 0

    @property
    def possible(self) -> bool:
        """The peer is there and its copy is good."""
        s = self._s
        return s.link and s.conn in _CARRYING and s.peer_disk is Disk.UP_TO_DATE

    @property
    def oldest_ms(self) -> int | None:
        """Since when the peer owes an answer; None: it owes none."""
        for reading in self._asked.values():
            return reading.sent_ms
        return None

    def ask(self, reading: Reading) -> None:
        """Read from the peer; without it the application gets an error."""
        s = self._s
        if not self.possible:
            s.out.append(e.CompleteRequest(reading.token, errnos.EIO))
            return
        self._block_id = self._block_id % (_U64 - 1) + 1
        reading.sent_ms = s.now
        self._asked[self._block_id] = reading
        s.out.append(e.SendData(p.DataRequest(reading.offset // SECTOR_BYTES, self._block_id, reading.length)))
        if not s.has_timer(Timer.LATE):
            s.set_timer(Timer.LATE, s.settings.ping_timeout_ms)

    def _take(self, packet: p.DataReply | p.NegDataReply) -> Reading:
        reading = self._asked.get(packet.block_id)
        if reading is None or reading.offset // SECTOR_BYTES != packet.sector:
            raise p.ProtocolError(f"The peer answered a read at sector {packet.sector} that was not asked for.")
        del self._asked[packet.block_id]
        return reading

    def reply(self, packet: p.DataReply, buffer: e.Buffer) -> None:
        """The peer's copy holds this.

        Raises:
            ProtocolError: it was not asked for, or this is not all of it.
        """
        if (reading := self._asked.get(packet.block_id)) and reading.length != packet.size_bytes:
            raise p.ProtocolError(f"The peer answered a read of {reading.length} bytes with {packet.size_bytes}.")
        self._s.out.append(e.CompleteRequest(self._take(packet).token, 0, buffer))

    def refused(self, packet: p.NegDataReply) -> None:
        """The peer cannot read this either.

        Raises:
            ProtocolError: it was not asked for.
        """
        reading = self._take(packet)
        self._s.log("error", "no_copy_can_be_read", offset=reading.offset, length=reading.length)
        self._s.out.append(e.CompleteRequest(reading.token, errnos.EIO))

    def link_lost(self) -> None:
        """No answer will come any more."""
        asked, self._asked = self._asked, {}
        for reading in asked.values():
            self._s.out.append(e.CompleteRequest(reading.token, errnos.EIO))
