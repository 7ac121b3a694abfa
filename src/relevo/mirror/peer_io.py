"""What the peer writes: to the local disk in the order of overlaps, acknowledged when it is there; epochs when stable.

Order duty: BARRIER_ACK follows a flush of this disk. One flush may cover several epochs and may be delayed by
`BARRIER_DELAY_MS`, unless the peer waits in a flush: it says so with UNPLUG_REMOTE right after a barrier.
"""

from __future__ import annotations

import errno as errnos
from collections.abc import Callable

from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.agreement import RECEIVE_ACK, WRITE_ACK
from relevo.mirror.bitmap import BLOCK_BYTES
from relevo.mirror.epochs import ReceivedEpochs
from relevo.mirror.ranges import Ranged, RangeOrder
from relevo.mirror.requests import PeerRead, PeerWrite, Served, Then
from relevo.mirror.state import BARRIER_DELAY_MS, SECTOR_BYTES, Shared, Timer
from relevo.mirror.states import Connection, Disk, Role

MAX_SPAN_BYTES = 128 << 20
"""The largest discard, or other write without its data, that a peer sends (drbd: DRBD_MAX_BATCH_BIO_SIZE)."""


class PeerIo:
    """The peer's writes and reads. `forward` takes what is not a `PeerWrite` when its range becomes free."""

    def __init__(
        self,
        shared: Shared,
        ranges: RangeOrder,
        forward: Callable[[Ranged], None],
        disk_failed: Callable[..., None],
    ) -> None:
        self._s = shared
        self._ranges = ranges
        self._forward = forward
        self._disk_failed = disk_failed
        self._epochs = ReceivedEpochs()
        self._flushing = False
        self._hurry = False
        self._after_barrier = False
        self.serve_alone: Callable[[], None] = _nothing
        """This copy is the only one that a Primary uses; set by the core."""
        self._held: list[PeerWrite] | None = None
        self.in_flight = 0
        """The peer's writes that the disk does not have yet, of this link and earlier ones."""
        self.application_writes = 0
        self.application_bytes = 0
        """What the peer's application wrote since the start."""

    # ------------------------------------------------------------ writes

    def data(self, packet: p.Data | p.Trim | p.Zeroes | p.WriteSame, buffer: e.Buffer) -> None:
        """The peer's application wrote or discarded; its flags say which answers the peer waits for (protocols A to C).

        Raises:
            ProtocolError: not now, outside of the device, or too much at once.
        """
        if self._s.role is Role.PRIMARY or self._s.conn < Connection.CONNECTED:
            raise p.ProtocolError("The peer writes, but this side is Primary, or the copies are not compared yet.")
        offset = self._check(packet.sector, packet.size_bytes)
        if packet.size_bytes > MAX_SPAN_BYTES:
            raise p.ProtocolError(f"The peer wants to change {packet.size_bytes} bytes at once.")
        write = PeerWrite(self, packet.sector, packet.size_bytes, buffer, packet.block_id, self._epochs)
        if self._s.peer_disk <= Disk.FAILED:  # what it will need when it gets a disk
            self.serve_alone()
            end = -(-(offset + packet.size_bytes) // BLOCK_BYTES)
            if end > self._s.bitmap.bits:
                raise p.ProtocolError("The peer, which has no disk, writes beyond what can be marked for it.")
            self._s.bitmap.set_range(offset // BLOCK_BYTES, end)
        flags = packet.flags
        if not isinstance(packet, p.Data):
            self._without_data(write, packet)
        write.answer = flags & WRITE_ACK != 0
        write.epoch = self._epochs.join()
        self._after_barrier = False
        self.application_writes += 1
        self.application_bytes += packet.size_bytes
        self._s.counters.received += packet.size_bytes
        if flags & RECEIVE_ACK:
            self._s.out.append(e.SendMeta(self._ack(p.ReceiveAck, write)))
        self._enter(write)

    @staticmethod
    def _without_data(write: PeerWrite, packet: p.Trim | p.Zeroes | p.WriteSame) -> None:
        if isinstance(packet, p.WriteSame):
            write.same = True
            return
        write.trim = True
        write.unmap = isinstance(packet, p.Trim) or packet.flags & p.DataFlag.DISCARD != 0

    def resync_block(
        self,
        packet: p.ResyncReply | p.ResyncDeallocated,
        buffer: e.Buffer,
        finish: Callable[[PeerWrite, int], None],
    ) -> None:
        """A block came that a resync asked for, or the word that it is all zeroes."""
        self._check(packet.sector, packet.size_bytes)
        write = ResyncWrite(self, packet.sector, packet.size_bytes, buffer, p.SYNCER_ID, self._epochs)
        write.finish = finish
        write.resync = True
        if isinstance(packet, p.ResyncDeallocated):
            write.trim = write.unmap = True
        else:
            self._s.counters.received += packet.size_bytes
        self._enter(write)

    def reserve(
        self, offset: int, length: int, finish: Callable[[PeerWrite, int], None], granted: Callable[[], None]
    ) -> ResyncWrite:
        """A Primary's own writes have to stay away from a block that it asks for: take the place of the answer now.

        Args:
            offset: where the block lies.
            length: its size.
            finish: told when the disk has the block.
            granted: called when nothing else is under way there: now the block may be asked for.
        """
        write = ResyncWrite(self, offset // SECTOR_BYTES, length, None, p.SYNCER_ID, self._epochs)
        write.finish = finish
        write.granted = granted
        write.resync = True
        if self._ranges.enter(write):
            granted()
        return write

    def reserved_block(self, write: ResyncWrite, buffer: e.Buffer) -> None:
        """The block came for which a place was taken."""
        write.granted = None
        write.buffer = buffer
        self.in_flight += 1
        self.admit(write)

    def give_up(self, write: ResyncWrite) -> None:
        """The block will not come."""
        write.granted = _nothing
        for following in self._ranges.leave(write):
            self._forward(following)

    def _check(self, sector: int, size_bytes: int) -> int:
        return check_range(sector, size_bytes, max(self._s.size_sectors, self._s.growing_sectors))

    def _enter(self, write: PeerWrite) -> None:
        self.in_flight += 1
        if self._ranges.enter(write):
            self.admit(write)

    def admit(self, write: PeerWrite) -> None:
        """The range is the write's: to the disk."""
        offset, length = write.sector * SECTOR_BYTES, write.size_bytes
        if isinstance(write, ResyncWrite) and write.granted is not None:
            write.granted()
        elif self._s.disk <= Disk.FAILED:
            self.write_done(write, errnos.EIO)
        elif self._held is not None and not write.resync:
            self._held.append(write)
        elif write.trim:
            self._s.out.append(e.DiskDiscard(write, offset, length, write.unmap))
        elif write.same:
            self._s.out.append(e.DiskWriteSame(write, offset, length, write.buffer))
        else:
            self._s.out.append(e.DiskWrite(write, offset, length, write.buffer))

    def hold(self) -> None:
        """What the application writes waits until the disk says that it alone has it: a crash would hide it."""
        if self._held is None:
            self._held = []

    def let_go(self) -> None:
        """The disk says so, or takes nothing any more."""
        held, self._held = self._held or [], None
        for write in held:
            self.admit(write)

    def write_done(self, write: PeerWrite, errno: int) -> None:
        """The disk is done with a write: acknowledge it, on the link that brought it."""
        self.in_flight -= 1
        if errno:
            self._disk_failed(errno)
        elif not write.trim:
            self._s.counters.disk_written += write.size_bytes
        if write.buffer is not None:
            self._s.out.append(e.ReleaseBuffer(write.buffer))
            write.buffer = None
        for following in self._ranges.leave(write):
            if isinstance(following, PeerWrite):
                self.admit(following)
            else:
                self._forward(following)
        if write.epochs is not self._epochs:
            return
        if isinstance(write, ResyncWrite):
            write.finish(write, errno)
            return
        assert write.epoch is not None
        write.epoch.pending -= 1
        if errno:
            write.epoch.failed = True
            self._s.out.append(e.SendMeta(self._ack(p.NegAck, write)))
        elif write.answer:
            self._s.out.append(e.SendMeta(self._ack(p.WriteAck, write)))
        self.consider_flush()

    def _ack(self, kind: type[p.BlockAck], write: PeerWrite) -> p.BlockAck:
        return kind(write.sector, write.block_id, write.size_bytes, self._s.next_seq())

    def acknowledge_resync(self, write: PeerWrite) -> None:
        """The disk has a resynchronised block."""
        self._s.out.append(e.SendMeta(self._ack(p.ResyncWriteAck, write)))

    # ------------------------------------------------------------ epochs

    def barrier(self, packet: p.Barrier) -> None:
        """The peer closed an epoch."""
        self._epochs.close(packet.number)
        self._after_barrier = True
        self.consider_flush()

    def unplug(self) -> None:
        """Right after a barrier: the peer's application waits for a flush."""
        if self._after_barrier:
            self.hurry_up()

    @property
    def owes(self) -> bool:
        """An epoch is closed and not acknowledged."""
        return self._epochs.waiting

    def hurry_up(self) -> None:
        """The peer is about to go, or writes no more: acknowledge what it has closed as soon as it is stable."""
        if self._epochs.waiting:
            self._hurry = True
            self.consider_flush()

    def consider_flush(self) -> None:
        """Flush now, later, or not at all."""
        if self._flushing or not self._epochs.any_written:
            return
        if self._hurry:
            self.flush()
        elif not self._s.has_timer(Timer.BARRIER):
            self._s.set_timer(Timer.BARRIER, BARRIER_DELAY_MS)

    def flush(self) -> None:
        """Make the epochs that are wholly on the disk stable."""
        count = self._epochs.written()
        if self._flushing or not count:
            return
        self._s.clear_timer(Timer.BARRIER)
        self._flushing = True
        epochs = self._epochs

        def done(errno: int, _: e.Buffer) -> None:
            if epochs is self._epochs:
                self._flushed(count, errno)

        self._s.out.append(e.DiskFlush(Then(done)))

    def _flushed(self, count: int, errno: int) -> None:
        self._flushing = False
        if errno:
            self._disk_failed(errno, whole=True)  # no acknowledgement: the peer takes these epochs as lost
            return
        for epoch in self._epochs.take(count):
            self._s.out.append(e.SendMeta(p.BarrierAck(epoch.number, epoch.size)))
        self._hurry = self._hurry and self._epochs.waiting
        self.consider_flush()

    # ------------------------------------------------------------ reads

    def read(self, packet: p.DataRequest) -> None:
        """A Primary without a whole disk of its own reads, after the writes that it has sent before.

        Raises:
            ProtocolError: not now, outside of the device, or too much at once.
        """
        if self._s.conn < Connection.CONNECTED:
            raise p.ProtocolError("The peer reads, but the copies are not compared yet.")
        offset = self._check(packet.sector, packet.size_bytes)
        if packet.size_bytes > p.MAX_PAYLOAD_BYTES:
            raise p.ProtocolError(f"The peer wants to read {packet.size_bytes} bytes at once.")
        served = PeerRead(self._read_done, offset, packet.size_bytes, packet.block_id)
        served.link = self._s.link_number
        if self._ranges.enter(served):
            self.admit_read(served)

    def admit_read(self, served: PeerRead) -> None:
        """The range is the read's."""
        s = self._s
        if s.disk <= Disk.FAILED or served.link != s.link_number or not s.link:
            self._read_done(served, errnos.EIO, None)
        else:
            s.out.append(e.DiskRead(served, served.offset, served.end - served.offset, None))

    def _read_done(self, served: Served, errno: int, buffer: e.Buffer) -> None:
        sector, length = served.offset // SECTOR_BYTES, served.end - served.offset
        for following in self._ranges.leave(served):
            self._forward(following)
        if served.link != self._s.link_number or not self._s.link or errno:
            if buffer is not None:
                self._s.out.append(e.ReleaseBuffer(buffer))
            if errno and self._s.disk > Disk.FAILED:
                self._disk_failed(errno)
            if errno and served.link == self._s.link_number and self._s.link:
                self._s.out.append(e.SendMeta(p.NegDataReply(sector, served.block_id, length, self._s.next_seq())))
            return
        self._s.counters.disk_read += length
        self._s.counters.sent += length
        packet = p.DataReply(sector, served.block_id, 0, 0, length)
        self._s.out.append(e.SendData(packet, buffer, release=True))

    def link_lost(self) -> None:
        """Nothing of the old link will be acknowledged any more; what is on its way to the disk goes on."""
        self._epochs = ReceivedEpochs()
        self._flushing = False
        self._hurry = False
        self._after_barrier = False
        self._s.clear_timer(Timer.BARRIER)


def check_range(sector: int, size_bytes: int, size_sectors: int) -> int:
    """The offset of whole sectors that lie on the device.

    Raises:
        ProtocolError: they do not.
    """
    if size_bytes <= 0 or size_bytes % SECTOR_BYTES:
        raise p.ProtocolError(f"The peer wants {size_bytes} bytes at sector {sector}: not whole sectors.")
    if sector + size_bytes // SECTOR_BYTES > size_sectors:
        raise p.ProtocolError(f"The peer wants {size_bytes} bytes at sector {sector}: outside of the device.")
    return sector * SECTOR_BYTES


class ResyncWrite(PeerWrite):
    """A block that a resync brought; `finish` is told when the disk has it."""

    __slots__ = ("finish", "granted")

    finish: Callable[[PeerWrite, int], None]

    def __init__(
        self, owner: PeerIo, sector: int, size_bytes: int, buffer: e.Buffer, block_id: int, epochs: ReceivedEpochs
    ) -> None:
        super().__init__(owner, sector, size_bytes, buffer, block_id, epochs)
        self.granted: Callable[[], None] | None = None
        """Of a place that was taken before the block was asked for: what to do when it is free."""


def _nothing() -> None:
    """Nothing has to follow."""
