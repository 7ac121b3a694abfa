"""The application's requests on the Primary: to the local disk and, at the same time, to the peer.

Order duties kept here: an extent is in the activity log before a write to it goes anywhere; an epoch is closed before
any of its writes is completed; a flush waits for the local disk and for the acknowledgement of every earlier epoch;
after the peer's copy is lost nothing is completed until the new generation is stable (and, with `alone = "ask"`,
permitted).
"""

from __future__ import annotations

import errno as errnos
from collections.abc import Callable

from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.activity_log import ActivityLog
from relevo.mirror.agreement import ANSWER_FLAGS, WRITE_ACK
from relevo.mirror.bitmap import BLOCK_BYTES
from relevo.mirror.completion import CompletionGate, Gate
from relevo.mirror.discards import Discards
from relevo.mirror.durable import Durable
from relevo.mirror.epochs import SentEpoch, TransferLog
from relevo.mirror.ranges import Ranged, RangeOrder
from relevo.mirror.remote_reads import RemoteReads
from relevo.mirror.requests import Flush, Reading, Write
from relevo.mirror.state import SECTOR_BYTES, TARGET, Shared, Timer
from relevo.mirror.states import Connection, Disk, Role

_RW_SYNC = int(p.DataFlag.RW_SYNC)
_DISCARD = int(p.DataFlag.DISCARD)
_ZEROES = int(p.DataFlag.ZEROES)
_U64 = 0xFFFF_FFFF_FFFF_FFFF
_OPEN = Gate.OPEN
_UP_TO_DATE = Disk.UP_TO_DATE
_IN_STEP = TARGET | {Connection.CONNECTED}
__all__ = ["Gate", "LocalIo"]


class LocalIo(CompletionGate):
    """The application's side. `forward` takes what is not a `Write` when its range becomes free."""

    def __init__(
        self,
        shared: Shared,
        durable: Durable,
        ranges: RangeOrder,
        forward: Callable[[Ranged], None],
        disk_failed: Callable[..., None],
    ) -> None:
        super().__init__(shared, durable)
        self._disk_failed = disk_failed
        self._ranges = ranges
        self._forward = forward
        self._discards = Discards(shared, self, self._enter)
        self._log = TransferLog()
        self._unanswered: dict[int, Write] = {}
        self._block_id = 0
        self.al = ActivityLog(shared.settings.al_extents, 0)
        self.replicate: Callable[[Write, int], None] = self._send
        """Takes a write that goes to the peer as well (`congestion` may stand before it)."""
        self.in_flight = 0
        """Writes, discard pieces and flushes not completed yet."""
        self.detached = False
        """The application's requests cannot use this disk; they go to the peer alone."""
        self.silent = False
        """The peer does not know yet that this disk is lost: nothing is sent that it would have to mark."""
        self.configured()
        self._writes_lost = False
        self.reads = RemoteReads(shared)

    def configured(self) -> None:
        """The settings are new, or have changed."""
        options = self._s.settings.options
        self._answer = ANSWER_FLAGS[options.protocol]
        self._early = self._answer != WRITE_ACK  # complete before the peer's disk has it
        self._epoch_max = options.max_epoch_size
        self._logless = self.detached or not options.al_updates

    # ------------------------------------------------------------ requests

    def read(self, event: e.AppRead) -> None:
        """The application reads: from the local disk, as long as that holds everything."""
        s = self._s
        if not self._fits(event.offset, event.length):
            s.out.append(e.CompleteRequest(event.token, errnos.EIO, event.buffer))
            return
        reading = Reading(self, event.token, event.offset, event.length)
        if s.disk is _UP_TO_DATE or self._holds(event.offset, event.length):
            s.counters.application_read += event.length
            s.out.append(e.DiskRead(reading, event.offset, event.length, event.buffer))
        else:
            self.reads.ask(reading)

    def _holds(self, offset: int, length: int) -> bool:
        """A copy that is not whole, but this part of it is in step with the peer's."""
        s = self._s
        if s.disk is not Disk.INCONSISTENT or s.conn not in _IN_STEP:
            return False
        first, end = offset // BLOCK_BYTES, -(-(offset + length) // BLOCK_BYTES)
        return not 0 <= s.bitmap.next_set(first) < end

    def write(self, event: e.AppWrite) -> None:
        """The application writes."""
        if self.failing or not self._fits(event.offset, event.length):
            self._s.out.append(e.CompleteRequest(event.token, errnos.EIO))
            return
        self._enter(Write(self, event.token, event.offset, event.length, event.buffer))

    def discard(self, event: e.AppDiscard) -> None:
        """The application discards."""
        if self.failing or not self._fits(event.offset, event.length):
            self._s.out.append(e.CompleteRequest(event.token, errnos.EIO))
            return
        if self._discards.impossible:
            self._s.out.append(e.CompleteRequest(event.token, errnos.EOPNOTSUPP))
            return
        self._discards.begin(event)

    def flush(self, event: e.AppFlush) -> None:
        """The application flushes. The first one after completed writes were lost with both disks says so."""
        if self.failing or self._writes_lost:
            self._writes_lost = self._writes_lost and self.failing
            self._s.out.append(e.CompleteRequest(event.token, errnos.EIO))
            return
        flush = Flush(self, event.token)
        self.in_flight += 1
        if self.detached:
            flush.local = False
        else:
            self._s.out.append(e.DiskFlush(flush))
        if self._log:
            newest = self.hurry()
            if newest is not None:
                flush.epoch = newest
                newest.flushes.append(flush)
        if not flush.local and flush.epoch is None:
            self._complete(flush)

    def _fits(self, offset: int, length: int) -> bool:
        return length > 0 and 0 <= offset <= self._s.size_sectors * SECTOR_BYTES - length

    # ------------------------------------------------------------ the way of a write

    def _enter(self, write: Write) -> None:
        self.in_flight += 1
        if self._ranges.enter(write):
            self.admit(write)

    def admit(self, write: Write) -> None:
        """The range is the write's: now the activity log."""
        if self._logless or self.al.enter(write):
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
        if self.detached:
            self._submit_to_peer(write)
            return
        if write.discard is not None and self._discards.impossible:  # another peer came while it waited
            write.errno = errnos.EOPNOTSUPP
            self._finish(write)
            return
        write.local = True
        length = write.end - write.offset
        s.counters.disk_written += length
        if s.replicating:
            self.replicate(write, length)
        else:
            self.only_here(write, length)
        if write.discard is None:
            s.out.append(e.DiskWrite(write, write.offset, length, write.buffer))
        else:
            s.out.append(e.DiskDiscard(write, write.offset, length, write.discard.unmap))

    def only_here(self, write: Write, length: int) -> None:
        """A write that the peer does not get now: it is marked, and a peer that is there is told."""
        s = self._s
        self._mark(write)
        if s.conn is Connection.WF_BITMAP_S or s.conn is Connection.AHEAD:
            s.out.append(e.SendData(p.OutOfSync(write.offset // SECTOR_BYTES, length)))

    def _submit_to_peer(self, write: Write) -> None:
        """This disk cannot be used. While a new one is compared with the peer's, writes wait: they would miss it."""
        s = self._s
        if self.silent or s.disk is Disk.NEGOTIATING:
            s.when(lambda: not self.silent and s.disk is not Disk.NEGOTIATING, lambda: self.admit(write))
        elif not self.reads.possible or (write.discard is not None and self._discards.impossible):
            write.errno = errnos.EOPNOTSUPP if self.reads.possible else errnos.EIO
            self._finish(write)
        else:
            self._send(write, write.end - write.offset)

    def _send(self, write: Write, length: int) -> None:
        s = self._s
        write.remote = True
        s.counters.sent += length
        write.sent_ms = s.now
        self._block_id = block_id = self._block_id % (_U64 - 1) + 1
        write.block_id = block_id
        answer = self._answer if s.disk is _UP_TO_DATE else WRITE_ACK  # the only whole disk has to have it
        token = None
        if answer:
            self._unanswered[block_id] = write
            write.on_disk = answer == WRITE_ACK
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
        """The local disk is done with a write. One that only the peer has is good as long as that can be read."""
        if errno:
            write.failed = True
            self._mark(write)
            self._disk_failed(errno)  # may drop the link, which must not find this write done on both sides
            if not (write.remote or write.answered):
                write.errno = errnos.EIO
        write.local = False
        if not write.remote:
            self._finish(write)

    def acknowledged(self, packet: p.BlockAck) -> Write:
        """The peer's disk has a write: which one.

        Raises:
            ProtocolError: no such write, or not there.
        """
        write = self._unanswered.pop(packet.block_id, None)
        if write is None:
            raise p.ProtocolError(f"The peer acknowledged a write that was not sent ({packet.block_id:#x}).")
        if write.offset != packet.sector * SECTOR_BYTES:
            raise p.ProtocolError(f"The peer acknowledged another range than that of the write at {write.offset}.")
        write.remote = False
        write.answered = True
        if not write.local:
            self._finish(write)
        return write

    def received(self, packet: p.ReceiveAck) -> None:
        """Protocol B: a write has arrived. That is no answer to one that has to be on the peer's disk.

        Raises:
            ProtocolError: such an answer, or one to no write.
        """
        write = self._unanswered.get(packet.block_id)
        if write is not None and write.on_disk:
            what = f"The peer says only that the write at {write.offset} arrived, not that it is on disk."
            raise p.ProtocolError(what)
        self.acknowledged(packet)

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
            if not self.failing and not errno:
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
        self._discards.piece_done(discard, errno)

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
            if not write.local and write.in_log:
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
            self._disk_failed(errno, whole=True)  # as for a write
            if not self.detached:
                flush.errno = errnos.EIO
        flush.local = False
        if flush.epoch is None:
            self._complete(flush)

    def read_done(self, reading: Reading, errno: int, buffer: e.Buffer) -> None:
        """The local disk is done with a read; what it cannot read, the peer may."""
        if errno:
            self._disk_failed(errno)
            if buffer is not None:
                self._s.out.append(e.ReleaseBuffer(buffer))
            self.reads.ask(reading)
            return
        self._s.out.append(e.CompleteRequest(reading.token, 0, buffer))

    @property
    def drained(self) -> bool:
        """Nothing in flight, here or on the peer."""
        return self.in_flight == 0 and not self._log

    @property
    def backlog(self) -> bool:
        """Something was sent that is not known to be stable on the peer."""
        return bool(self._log)

    @property
    def unanswered(self) -> int:
        """Writes that the peer owes an acknowledgement."""
        return len(self._unanswered)

    @property
    def at_disk(self) -> int:
        """Writes that the local disk does not have yet, as far as the peer has not acknowledged them."""
        return sum(write.local for write in self._unanswered.values())

    @property
    def epochs(self) -> int:
        """Epochs that are open or not acknowledged."""
        return self._log.count

    @property
    def oldest_ms(self) -> int | None:
        """Since when the peer owes an answer; None: it owes none."""
        oldest = self._log.oldest_closed_ms
        asked = self.reads.oldest_ms
        if asked is not None:
            oldest = asked if oldest is None else min(oldest, asked)
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
        if self._s.role is Role.PRIMARY and self._s.disk is not _UP_TO_DATE:
            self.no_data()
        elif copy_was_good and self._s.role is Role.PRIMARY:
            if ask:
                self._ask()
            else:
                self.go_alone()
        self._unanswered.clear()
        for epoch in list(self._log.drain()):
            for write in epoch.writes:
                self._forget_peer(write)
            self._end_flushes(epoch)
        self.reads.link_lost()
        if self.al.wants:
            self._push_log()

    def _forget_peer(self, write: Write) -> None:
        """The peer may or may not have a write; if this disk has not, nobody is known to."""
        self._mark(write)
        write.epoch = None
        if write.failed or self.detached:
            write.errno = errnos.EIO
        if write.remote:
            write.remote = False
            if not write.local:
                self._finish(write)
        elif not write.local and write.in_log:
            self.al.leave(write)

    # ------------------------------------------------------------ without this disk

    def no_data(self) -> None:
        """No copy can be used: errors, also for what is held back. What was completed and not flushed may be lost."""
        self._s.clear_timer(Timer.SUSPEND)
        self._writes_lost = self._writes_lost or bool(self._log)
        self.detach()
        self._set_gate(Gate.NO_DATA)
        self._release()

    def detach(self) -> None:
        """The application cannot use this disk any more: what waits for its activity log goes to the peer alone."""
        self.detached = self._logless = True
        for writer in self.al.forget_waiting():
            assert isinstance(writer, Write)
            self._submit(writer)

    def new_log(self, al: ActivityLog) -> None:
        """Another disk: its activity log knows nothing of what is under way."""
        self.al = al
        for entry in self._ranges.entries():
            if isinstance(entry, Write):
                entry.in_log = False
        for epoch in self._log.epochs():
            for write in epoch.writes:
                write.in_log = False

    def begin(self) -> None:
        """A new device: nothing of an earlier one matters."""
        assert self.gate is _OPEN
        self._writes_lost = False
        self.attach()

    def attach(self) -> None:
        """This disk takes part in the application's requests again."""
        self.detached = False
        self._logless = not self._s.settings.options.al_updates
