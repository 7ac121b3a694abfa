"""The application's requests on the Primary: to the local disk and, at the same time, to the peer.

Order duties kept here: an extent is in the activity log before a write to it goes anywhere; an epoch is closed before
any of its writes is completed; a flush waits for the local disk and for the acknowledgement of every earlier epoch;
after the peer's copy is lost nothing is completed until the new generation is stable (and, with `alone = "ask"`,
permitted).
"""

from __future__ import annotations

import enum
import errno as errnos
from collections.abc import Callable

from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.activity_log import EXTENT_SHIFT, ActivityLog
from relevo.mirror.agreement import ANSWER_FLAGS, WRITE_ACK
from relevo.mirror.bitmap import BLOCK_BYTES
from relevo.mirror.durable import Durable
from relevo.mirror.epochs import SentEpoch, TransferLog
from relevo.mirror.ranges import Ranged, RangeOrder
from relevo.mirror.requests import Discard, Flush, Reading, Write
from relevo.mirror.state import SECTOR_BYTES, Shared, Timer
from relevo.mirror.states import Connection, Disk, Role

DISCARD_WINDOW = 64
"""Pieces of one discard in flight at a time."""
_RW_SYNC = int(p.DataFlag.RW_SYNC)
_DISCARD = int(p.DataFlag.DISCARD)
_ZEROES = int(p.DataFlag.ZEROES)
_U64 = 0xFFFF_FFFF_FFFF_FFFF


class Gate(enum.Enum):
    """Whether writes and flushes may be completed."""

    OPEN = enum.auto()
    ASKING = enum.auto()
    """The peer's copy is lost: permission to go on alone is awaited."""
    WRITING = enum.auto()
    """The new generation is on its way to the disk."""
    RESUMING = enum.auto()
    """A new process has taken over a device in use: the peer is awaited (`resume`)."""
    EXPIRED = enum.auto()
    """No permission came in time: errors."""


_OPEN = Gate.OPEN
_EXPIRED = Gate.EXPIRED


class LocalIo:
    """The application's side. `forward` takes what is not a `Write` when its range becomes free."""

    def __init__(
        self,
        shared: Shared,
        durable: Durable,
        ranges: RangeOrder,
        forward: Callable[[Ranged], None],
        disk_failed: Callable[[int], None],
    ) -> None:
        self._s = shared
        self._disk_failed = disk_failed
        self._durable = durable
        self._ranges = ranges
        self._forward = forward
        self._log = TransferLog()
        self._unanswered: dict[int, Write] = {}
        self._block_id = 0
        self._answer = ANSWER_FLAGS[shared.settings.options.protocol]
        self._early = self._answer != WRITE_ACK  # complete before the peer's disk has it
        self._epoch_max = shared.settings.options.max_epoch_size
        self._held: list[Write | Flush] = []
        self.al = ActivityLog(shared.settings.al_extents, 0)
        self.in_flight = 0
        """Writes, discard pieces and flushes not completed yet."""
        self.gate = Gate.OPEN

    # ------------------------------------------------------------ requests

    def read(self, event: e.AppRead) -> None:
        """The application reads: always from the local disk."""
        if not self._acceptable(event.offset, event.length):
            self._s.out.append(e.CompleteRequest(event.token, errnos.EIO, event.buffer))
            return
        self._s.out.append(e.DiskRead(Reading(self, event.token), event.offset, event.length, event.buffer))

    def write(self, event: e.AppWrite) -> None:
        """The application writes."""
        if self.gate is _EXPIRED or not self._acceptable(event.offset, event.length):
            self._s.out.append(e.CompleteRequest(event.token, errnos.EIO))
            return
        self._enter(Write(self, event.token, event.offset, event.length, event.buffer))

    def discard(self, event: e.AppDiscard) -> None:
        """The application discards."""
        if self.gate is Gate.EXPIRED or not self._acceptable(event.offset, event.length):
            self._s.out.append(e.CompleteRequest(event.token, errnos.EIO))
            return
        if self._cannot_discard:
            self._s.out.append(e.CompleteRequest(event.token, errnos.EOPNOTSUPP))
            return
        self._more_pieces(Discard(event.token, event.offset, event.offset + event.length, unmap=event.unmap))

    @property
    def _cannot_discard(self) -> bool:
        """The peer has to discard as well, and knows no packet for it."""
        return self._s.replicating and not self._s.features & (p.Feature.TRIM | p.Feature.WZEROES)

    def _more_pieces(self, discard: Discard) -> None:
        while discard.offset < discard.end and discard.pieces < DISCARD_WINDOW:
            boundary = ((discard.offset >> EXTENT_SHIFT) + 1) << EXTENT_SHIFT
            offset, end = discard.offset, min(discard.end, boundary)
            discard.offset = end
            discard.pieces += 1
            piece = Write(self, None, offset, end - offset, None)
            piece.discard = discard
            self._enter(piece)

    def flush(self, event: e.AppFlush) -> None:
        """The application flushes."""
        if self.gate is Gate.EXPIRED or self._s.disk <= Disk.FAILED:
            self._s.out.append(e.CompleteRequest(event.token, errnos.EIO))
            return
        flush = Flush(self, event.token)
        self.in_flight += 1
        self._s.out.append(e.DiskFlush(flush))
        if self._log:
            newest = self.hurry()
            if newest is not None:
                flush.epoch = newest
                newest.flushes.append(flush)

    def _acceptable(self, offset: int, length: int) -> bool:
        s = self._s
        return s.disk > Disk.FAILED and length > 0 and 0 <= offset <= s.size_sectors * SECTOR_BYTES - length

    # ------------------------------------------------------------ the way of a write

    def _enter(self, write: Write) -> None:
        self.in_flight += 1
        if self._ranges.enter(write):
            self.admit(write)

    def admit(self, write: Write) -> None:
        """The range is the write's: now the activity log."""
        if self.al.enter(write):
            self._submit(write)
        else:
            self._push_log()

    def _push_log(self) -> None:
        step = self.al.advance()
        if step is not None:
            if step.transaction is not None:
                self._durable.activity_log(step.transaction, step.evicted, self._log_stable)
            for writer in step.ready:
                assert isinstance(writer, Write)
                self._submit(writer)
        if self.al.starving:
            self.hurry()

    def _log_stable(self) -> None:
        for writer in self.al.committed():
            assert isinstance(writer, Write)
            self._submit(writer)
        self._push_log()

    def _submit(self, write: Write) -> None:
        s = self._s
        if s.disk <= Disk.FAILED:
            write.errno = errnos.EIO
            self._finish(write)
            return
        if write.discard is not None and self._cannot_discard:  # another peer came while it waited
            write.errno = errnos.EOPNOTSUPP
            self._finish(write)
            return
        write.local = True
        length = write.end - write.offset
        if s.replicating:
            self._send(write, length)
        else:
            self._mark(write)
            if s.conn is Connection.WF_BITMAP_S:
                s.out.append(e.SendData(p.OutOfSync(write.offset // SECTOR_BYTES, length)))
        if write.discard is None:
            s.out.append(e.DiskWrite(write, write.offset, length, write.buffer))
        else:
            s.out.append(e.DiskDiscard(write, write.offset, length, write.discard.unmap))

    def _send(self, write: Write, length: int) -> None:
        s = self._s
        write.remote = True
        write.sent_ms = s.now
        self._block_id = block_id = self._block_id % (_U64 - 1) + 1
        write.block_id = block_id
        answer = self._answer
        token = None
        if answer:
            self._unanswered[block_id] = write
        else:
            token = write
        if len(self._log.current.writes) >= self._epoch_max:
            self._close_epoch()
        self._log.add(write)
        sector = write.offset // SECTOR_BYTES
        packet: p.Packet
        if write.discard is None:
            packet = p.Data(sector, block_id, s.next_seq(), answer | _RW_SYNC, length)
        elif s.features & p.Feature.WZEROES:  # a discard must read as zeroes here, which TRIM alone does not promise
            flags = answer | (_ZEROES | _DISCARD if write.discard.unmap else _ZEROES)
            packet = p.Zeroes(sector, block_id, s.next_seq(), flags, length)
        else:
            packet = p.Trim(sector, block_id, s.next_seq(), answer | _DISCARD, length)
        s.out.append(e.SendData(packet, write.buffer, token=token))
        if not s.has_timer(Timer.LATE):
            s.set_timer(Timer.LATE, s.settings.ping_timeout_ms)

    def _mark(self, write: Write) -> None:
        self._s.bitmap.set_range(write.offset // BLOCK_BYTES, -(-write.end // BLOCK_BYTES))

    def write_done(self, write: Write, errno: int) -> None:
        """The local disk is done with a write."""
        if errno:
            write.errno = errnos.EIO
            self._disk_failed(errno)  # may drop the link, which must not find this write done on both sides
        write.local = False
        if not write.remote:
            self._finish(write)

    def acknowledged(self, block_id: int) -> Write:
        """The peer's disk has a write: which one.

        Raises:
            ProtocolError: no such write.
        """
        write = self._unanswered.pop(block_id, None)
        if write is None:
            raise p.ProtocolError(f"The peer acknowledged a write that was not sent ({block_id:#x}).")
        write.remote = False
        if not write.local:
            self._finish(write)
        return write

    def sent(self, write: Write) -> None:
        """Protocol A: a write is on its way to the peer. (One whose link was lost meanwhile waits for nothing.)"""
        if write.remote:
            write.remote = False
            if not write.local:
                self._finish(write)

    def _finish(self, write: Write) -> None:
        """Both sides are done, as far as the protocol waits for them."""
        if write.followers is not None and self._early and write.epoch is self._log.current:
            self._close_epoch()  # a peer orders overlapping writes by epochs if at all
        if write.epoch is None and write.in_log:
            self.al.leave(write)
            if self.al.wants:
                self._push_log()
        for following in self._ranges.leave(write):
            if isinstance(following, Write):
                self.admit(following)
            else:
                self._forward(following)
        self._complete(write)

    def _complete(self, item: Write | Flush) -> None:
        """Tell the application, or hold it back."""
        errno = item.errno
        if self.gate is not _OPEN:
            if self.gate is not Gate.EXPIRED and not errno:
                self._held.append(item)
                return
            errno = errno or errnos.EIO
        self.in_flight -= 1
        if isinstance(item, Flush):
            self._s.out.append(e.CompleteRequest(item.token, errno))
            return
        if item.epoch is self._log.current:
            self._close_epoch()
        discard = item.discard
        if discard is None:
            self._s.out.append(e.CompleteRequest(item.token, errno))
            return
        discard.pieces -= 1
        discard.errno = discard.errno or errno
        if discard.offset < discard.end and not discard.errno:
            self._more_pieces(discard)
        elif not discard.pieces:
            self._s.out.append(e.CompleteRequest(discard.token, discard.errno))

    # ------------------------------------------------------------ epochs and flushes

    def _close_epoch(self) -> SentEpoch | None:
        epoch = self._log.close(self._s.now)
        if epoch is not None:
            self._s.out.append(e.SendData(p.Barrier(epoch.number)))
        return epoch

    def hurry(self) -> SentEpoch | None:
        """Close the epoch and ask the peer not to wait; returns the newest epoch not acknowledged."""
        self._close_epoch()
        newest = self._log.newest_closed
        if newest is not None:
            self._s.out.append(e.SendData(p.UnplugRemote()))
        return newest

    def barrier_acknowledged(self, packet: p.BarrierAck) -> None:
        """The oldest epoch is stable on the peer.

        Raises:
            ProtocolError: it is not the oldest, or not complete.
        """
        epoch = self._log.acknowledge(packet.number, packet.set_size)
        for write in epoch.writes:
            write.epoch = None
            if not write.local:
                self.al.leave(write)
        self._end_flushes(epoch)
        if self.al.wants:
            self._push_log()

    def _end_flushes(self, epoch: SentEpoch, errno: int = 0) -> None:
        for flush in epoch.flushes:
            flush.epoch = None
            flush.errno = flush.errno or errno
            if not flush.local:
                self._complete(flush)

    def flush_done(self, flush: Flush, errno: int) -> None:
        """The local disk is done with a flush."""
        if errno:
            flush.errno = errnos.EIO
            self._disk_failed(errno)  # as for a write
        flush.local = False
        if flush.epoch is None:
            self._complete(flush)

    def read_done(self, reading: Reading, errno: int, buffer: e.Buffer) -> None:
        """The local disk is done with a read."""
        if errno:
            self._disk_failed(errno)
        self._s.out.append(e.CompleteRequest(reading.token, errnos.EIO if errno else 0, buffer))

    @property
    def drained(self) -> bool:
        """Nothing in flight, here or on the peer."""
        return self.in_flight == 0 and not self._log

    @property
    def oldest_ms(self) -> int | None:
        """Since when the peer owes an answer; None: it owes none."""
        oldest = self._log.oldest_closed_ms
        for write in self._unanswered.values():
            return write.sent_ms if oldest is None else min(oldest, write.sent_ms)
        return oldest

    # ------------------------------------------------------------ without the peer

    def peer_lost(self, *, copy_was_good: bool, ask: bool) -> None:
        """The link is gone: what was not known to be stable on the peer is out of sync now.

        Args:
            copy_was_good: the peer's copy was (or may have become) as good as this one.
            ask: permission is needed before anything is completed.
        """
        if copy_was_good and self._s.role is Role.PRIMARY and self._s.disk > Disk.FAILED:
            if ask:
                self._ask()
            else:
                self.go_alone()
        self._unanswered.clear()
        for epoch in list(self._log.drain()):
            for write in epoch.writes:
                self._mark(write)
                write.epoch = None
                if write.remote:
                    write.remote = False
                    if self._s.disk <= Disk.FAILED:
                        write.errno = errnos.EIO  # it may be on no disk now
                    if not write.local:
                        self._finish(write)
                elif not write.local:
                    self.al.leave(write)
            self._end_flushes(epoch, errnos.EIO if self._s.disk <= Disk.FAILED else 0)
        if self.al.wants:
            self._push_log()

    def wait_for_peer(self) -> None:
        """A new process under a device in use: nothing is completed until the peer is back, or known to be lost."""
        self.gate = Gate.RESUMING

    def peer_has_gone_on(self) -> None:
        """The peer was Primary while this process was away: what is written here will never be on another copy."""
        if self.gate is Gate.RESUMING:
            self.expire()

    def go_on_without_peer(self, *, ask: bool) -> None:
        """The peer of a device that was taken over does not return."""
        if ask:
            self._ask()
        else:
            self.go_alone()

    def _ask(self) -> None:
        self.gate = Gate.ASKING
        self._s.set_timer(Timer.SUSPEND, self._s.settings.suspend_ms)
        self._s.log("warning", "suspended", reason="the peer is lost; permission to go on alone is awaited")
        self._s.changed()

    def go_alone(self) -> None:
        """The peer's copy may be left behind: a new generation, stable before anything is completed."""
        self._s.clear_timer(Timer.SUSPEND)
        self.gate = Gate.WRITING
        self._s.uuids.new_current(self._s.take_random(), primary=True)
        self._s.peer_outdated = True
        self._s.crashed_primary = False
        self._durable.superblock(self._alone_stable)

    def _alone_stable(self) -> None:
        if self.gate is Gate.WRITING:
            self._s.log("warning", "alone", current=f"{self._s.uuids.current:016x}")
            self.open_gate()

    def open_gate(self) -> None:
        """Completions may go on."""
        self._s.clear_timer(Timer.SUSPEND)
        self.gate = Gate.OPEN
        self._s.changed()
        self._release()

    def expire(self) -> None:
        """No permission came in time: errors from now on."""
        self._s.clear_timer(Timer.SUSPEND)
        self.gate = Gate.EXPIRED
        self._s.problem = "The peer is lost and no permission to go on alone came: writes fail."
        self._s.log("error", "suspension_expired")
        self._s.changed()
        self._release()

    def close_down(self) -> None:
        """The device is gone: nobody waits for permission any more."""
        assert not self._held
        self._s.clear_timer(Timer.SUSPEND)
        self._s.problem = ""
        self.gate = Gate.OPEN

    def _release(self) -> None:
        held, self._held = self._held, []
        for item in held:
            self._complete(item)

    def disk_failed(self) -> None:
        """The local disk is gone: what waits for the activity log fails, and so does what is held back."""
        for writer in self.al.forget_waiting():
            assert isinstance(writer, Write)
            writer.errno = errnos.EIO
            self._finish(writer)
        for item in self._held:
            item.errno = errnos.EIO
        self._release()
