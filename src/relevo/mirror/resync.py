"""Making two copies equal: exchange of bitmaps, then the target pulls block by block.

Order duties kept here: the target is Inconsistent on its disk before the source sends it anything; the source's new
bitmap generation is stable before the target learns of it; the target is UpToDate only after a flush, and says so only
when that is stable. A block on its way is out of bounds for the application's writes until the target has it.
"""

from __future__ import annotations

from collections.abc import Callable

from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.bitmap import BLOCK_BYTES
from relevo.mirror.durable import Durable
from relevo.mirror.peer_io import PeerIo, ResyncWrite, check_range
from relevo.mirror.ranges import Ranged, RangeOrder
from relevo.mirror.requests import PeerWrite, Served
from relevo.mirror.state import SECTOR_BYTES, Shared, Timer
from relevo.mirror.states import Connection, Disk, Role
from relevo.mirror.target_guard import TargetGuard
from relevo.mirror.vli import BitmapReceiver, BitmapSender

REQUEST_BITS = 256
"""A request is at most 1 MiB and does not cross a boundary of 1 MiB."""
WINDOW_BYTES = 8 << 20
"""What the target asks for at a time."""
RATE_SLICE_MS = 100
"""A bound on the rate is kept per slice of this length."""


class Resync:
    """Both roles of a resync. `forward` takes what is not a `Served` when its range becomes free."""

    def __init__(
        self,
        shared: Shared,
        durable: Durable,
        peer_io: PeerIo,
        ranges: RangeOrder,
        forward: Callable[[Ranged], None],
        disk_failed: Callable[[int], None],
        settled: Callable[[], None],
        target_marked: Callable[[], None],
        refuse: Callable[[str], None],
    ) -> None:
        self._s = shared
        self._durable = durable
        self._peer_io = peer_io
        self._ranges = ranges
        self._forward = forward
        self._disk_failed = disk_failed
        self._settled = settled
        self._target_marked = target_marked
        self.guard = TargetGuard(shared, refuse)
        self._receiver = BitmapReceiver(shared.bitmap)
        self._serving: dict[int, Served] = {}
        self._asked: dict[int, int] = {}
        self._places: dict[int, ResyncWrite] = {}
        """Sector -> the place that the answer will have among the writes, on a Primary."""
        self._asked_bytes = 0
        self._cursor = 0
        self._slice_bytes = 0
        self._progress_ms = 0
        self._finishing = False
        self._last_ping = 0

    # ------------------------------------------------------------ bitmaps

    def start_source(self, *, full: bool) -> None:
        """The peer lacks something: tell it what."""
        s = self._s
        s.set_conn(Connection.WF_BITMAP_S)
        if full:
            s.bitmap.set_all()
        self._receiver = BitmapReceiver(s.bitmap)
        s.out.append(e.SendData(p.StateWord(s.state_word())))
        self._send_bitmap()

    def start_target(self, *, full: bool, gives_up: bool = False) -> None:
        """The peer has something newer, or (`gives_up`) this side has lost a split brain: wait for its bitmap."""
        s = self._s
        self.guard.begin(gives_up=gives_up)
        s.set_conn(Connection.WF_BITMAP_T)
        if full:
            s.bitmap.set_all()
        self._receiver = BitmapReceiver(s.bitmap)
        s.out.append(e.SendData(p.StateWord(s.state_word())))

    def _send_bitmap(self) -> None:
        sender = BitmapSender(self._s.bitmap, compress=self._s.settings.options.use_rle)
        while (packet := sender.next_packet()) is not None:
            self._s.out.append(e.SendData(packet))

    def bitmap(self, packet: p.BitmapWords | p.CompressedBitmap) -> None:
        """A part of the peer's bitmap.

        Raises:
            ProtocolError: not now, or too much of it.
        """
        s = self._s
        if s.conn not in {Connection.WF_BITMAP_S, Connection.WF_BITMAP_T} or self._receiver.done:
            raise p.ProtocolError("The peer sent a bitmap that was not expected.")
        if not self._receiver.take(packet):
            return
        if s.conn is Connection.WF_BITMAP_T:
            self.guard.before_target(self._mark_inconsistent)
        else:
            self.guard.before_source(self._become_source)

    def _mark_inconsistent(self) -> None:
        self._s.disk = Disk.INCONSISTENT
        self._durable.bitmap(_nothing)
        self._durable.superblock(self._on_link(self._target_inconsistent))

    def _become_source(self) -> None:
        self._s.uuids.start_as_source()
        self._durable.superblock(self._on_link(self._source_stable))

    def _on_link(self, then: Callable[[], None]) -> Callable[[], None]:
        """Go on only if the link is still the same."""
        number = self._s.link_number

        def call() -> None:
            if self._s.link and self._s.link_number == number:
                then()

        return call

    def out_of_sync(self, packet: p.OutOfSync) -> None:
        """The source changed blocks that it did not send."""
        s = self._s
        if s.conn not in {Connection.WF_BITMAP_T, Connection.WF_SYNC_UUID, Connection.BEHIND}:
            raise p.ProtocolError("The peer sent OUT_OF_SYNC, but it is neither ahead nor about to be a source.")
        first = packet.sector * SECTOR_BYTES // BLOCK_BYTES
        end = -(-(packet.sector * SECTOR_BYTES + packet.size_bytes) // BLOCK_BYTES)
        if not 0 <= first <= end <= s.bitmap.bits:
            raise p.ProtocolError("The peer marks blocks outside of the device.")
        s.bitmap.set_range(first, end)

    def _target_inconsistent(self) -> None:
        self._s.set_conn(Connection.WF_SYNC_UUID)
        self._send_bitmap()

    def _source_stable(self) -> None:
        s = self._s
        s.out.append(e.SendData(p.SyncUuid(s.uuids.bitmap)))
        s.peer_disk = Disk.INCONSISTENT
        s.resync_total_bits = s.bitmap.count
        self._progress_ms = s.now
        s.set_conn(Connection.SYNC_SOURCE)
        self._settled()

    def fall_behind(self) -> None:
        """The peer's send buffer is full (its on-congestion is pull-ahead): it only tells what it changes.

        No bitmaps are exchanged when it comes back to this side: it says SYNC_UUID, and what it told is pulled.
        """
        s = self._s
        s.disk = Disk.OUTDATED
        s.set_conn(Connection.BEHIND)
        self._durable.superblock(_nothing)

    def sync_uuid(self, packet: p.SyncUuid) -> None:
        """The source is ready: take its sync generation."""
        s = self._s
        if s.conn is Connection.BEHIND:
            self.guard.begin(gives_up=False)
            s.disk = Disk.INCONSISTENT
        elif s.conn is not Connection.WF_SYNC_UUID:
            raise p.ProtocolError("The peer sent SYNC_UUID that was not expected.")
        s.uuids.start_as_target(packet.uuid)
        self._durable.bitmap(_nothing)  # with OUT_OF_SYNC: the source forgets a block as soon as it is written here
        self._durable.superblock(self._on_link(self._start_pulling))

    # ------------------------------------------------------------ target

    def _start_pulling(self) -> None:
        s = self._s
        s.set_conn(Connection.SYNC_TARGET)
        s.discard_my_data = False
        s.resync_total_bits = s.bitmap.count
        s.out.append(e.SendData(p.StateWord(s.state_word())))
        self._cursor = 0
        self._asked.clear()
        self._asked_bytes = 0
        self._finishing = False
        self._progress_ms = s.now
        if s.settings.resync_rate_bytes:
            self._new_slice()
        self._settled()
        self._pull()

    def _new_slice(self) -> None:
        self._slice_bytes = max(BLOCK_BYTES, self._s.settings.resync_rate_bytes * RATE_SLICE_MS // 1000)
        self._s.set_timer(Timer.RESYNC, RATE_SLICE_MS)

    def next_slice(self) -> None:
        """The time of a rate slice is over."""
        if self._s.conn is Connection.SYNC_TARGET:
            self._new_slice()
            self._pull()

    def _pull(self) -> None:
        s = self._s
        while self._asked_bytes < WINDOW_BYTES and not (s.settings.resync_rate_bytes and self._slice_bytes <= 0):
            first = s.bitmap.next_set(self._cursor)
            if first < 0:
                if self._asked or not s.bitmap.count:
                    break
                self._cursor = 0
                continue
            stop = s.bitmap.next_clear(first)
            limit = ((first // REQUEST_BITS) + 1) * REQUEST_BITS
            end = min(limit, s.bitmap.bits if stop < 0 else stop)
            self._cursor = end
            self._ask(first, end)
        if not s.bitmap.count and not self._asked and not self._finishing:
            self._finishing = True
            self._last_ping = s.send_ping()

    def _ask(self, first: int, end: int) -> None:
        s = self._s
        sector = first * BLOCK_BYTES // SECTOR_BYTES
        length = min(end * BLOCK_BYTES, s.size_sectors * SECTOR_BYTES) - first * BLOCK_BYTES
        self._asked[sector] = length
        self._asked_bytes += length
        self._slice_bytes -= length
        request = e.SendData(p.ResyncRequest(sector, p.SYNCER_ID, length))
        if s.role is Role.PRIMARY:
            offset = first * BLOCK_BYTES
            self._places[sector] = self._peer_io.reserve(
                offset, length, self._block_written, lambda: s.out.append(request)
            )
        else:
            s.out.append(request)
        if not s.has_timer(Timer.LATE):
            s.set_timer(Timer.LATE, s.settings.ping_timeout_ms)

    def block(self, packet: p.ResyncReply, buffer: e.Buffer) -> None:
        """A block that was asked for.

        Raises:
            ProtocolError: it was not.
        """
        if self._asked.get(packet.sector) != packet.size_bytes:
            raise p.ProtocolError(f"The peer sent a block at sector {packet.sector} that was not asked for.")
        self._progress_ms = self._s.now
        place = self._places.pop(packet.sector, None)
        if place is not None:
            self._peer_io.reserved_block(place, buffer)
        else:
            self._peer_io.resync_block(packet, buffer, self._block_written)

    def _block_written(self, write: PeerWrite, errno: int) -> None:
        s = self._s
        length = write.size_bytes
        if self._asked.pop(write.sector, None) is None or errno:
            return
        self._asked_bytes -= length
        self._progress_ms = s.now
        s.resync_bytes += length
        s.bitmap.clear_range(write.offset // BLOCK_BYTES, -(-write.end // BLOCK_BYTES))
        self._peer_io.acknowledge_resync(write)
        self._pull()

    def refused(self, packet: p.NegResyncReply | p.ResyncCancel) -> None:
        """The source cannot read a block (or not now)."""
        length = self._asked.pop(packet.sector, 0)
        self._asked_bytes -= length
        self._leave_place(packet.sector)
        if isinstance(packet, p.NegResyncReply):
            self._s.problem = f"The peer cannot read {length} bytes at sector {packet.sector}: the resync cannot end."
            self._s.log("error", "resync_refused", sector=packet.sector, length=length)
            self._s.changed()
        else:
            self._pull()

    def _leave_place(self, sector: int) -> None:
        place = self._places.pop(sector, None)
        if place is not None:
            self._peer_io.give_up(place)

    def pong(self) -> None:
        """The source has seen every acknowledgement: make the end stable."""
        s = self._s
        if not self._finishing or s.conn is not Connection.SYNC_TARGET or s.pings_answered < self._last_ping:
            return
        self._finishing = False
        self._durable.bitmap(self._on_link(self._end_target))

    def _end_target(self) -> None:
        s = self._s
        assert s.peer_uuids is not None
        s.uuids.end_as_target(s.peer_uuids)
        s.peer_uuids = s.uuids.copy()  # from here on the same: a later resync on this link starts from it
        s.uuids.mark_primary(primary=s.role is Role.PRIMARY)
        s.disk = Disk.UP_TO_DATE
        s.crashed_primary = False
        s.peer_outdated = False
        self._durable.superblock(self._on_link(self._target_done))

    def _target_done(self) -> None:
        s = self._s
        s.clear_timer(Timer.RESYNC)
        s.set_conn(Connection.CONNECTED)
        s.out.append(e.SendData(p.StateWord(s.state_word())))
        s.problem = ""
        s.log("info", "resync_done", as_="target", bytes=s.resync_bytes)
        self.guard.after(target=True)
        self._settled()

    # ------------------------------------------------------------ source

    def request(self, packet: p.ResyncRequest | p.ThinRequest) -> None:
        """The target asks for a block.

        Raises:
            ProtocolError: not now, or outside of the device.
        """
        s = self._s
        offset = check_range(packet.sector, packet.size_bytes, s.size_sectors)
        if s.conn is not Connection.SYNC_SOURCE or packet.sector in self._serving:
            raise p.ProtocolError("The peer asks for a block outside of a resync, or twice.")
        if packet.size_bytes > p.MAX_PAYLOAD_BYTES:
            raise p.ProtocolError(f"The peer asks for {packet.size_bytes} bytes at once.")
        self._target_marked()
        served = Served(self._read_done, offset, packet.size_bytes, packet.block_id)
        served.resync = True
        served.link = s.link_number
        self._serving[packet.sector] = served
        if self._ranges.enter(served):
            self.admit(served)

    def admit(self, served: Served) -> None:
        """No write is in flight there: read."""
        if served.link != self._s.link_number or not self._s.link:
            self._leave(served)
            return
        self._s.out.append(e.DiskRead(served, served.offset, served.end - served.offset, None))

    def _read_done(self, served: Served, errno: int, buffer: e.Buffer) -> None:
        s = self._s
        sector, length = served.offset // SECTOR_BYTES, served.end - served.offset
        if errno or not s.link or served.link != s.link_number:
            if buffer is not None:
                s.out.append(e.ReleaseBuffer(buffer))
            if s.link and served.link == s.link_number:
                del self._serving[sector]
                s.out.append(e.SendMeta(p.NegResyncReply(sector, served.block_id, length, s.next_seq())))
            self._leave(served)
            if errno:
                self._disk_failed(errno)
            return
        served.resync = False  # read: from now on a lost link ends its stay
        s.out.append(e.SendData(p.ResyncReply(sector, served.block_id, 0, 0, length), buffer, release=True))

    def written(self, packet: p.ResyncWriteAck) -> None:
        """The target has a block.

        Raises:
            ProtocolError: it was not sent.
        """
        s = self._s
        served = self._serving.pop(packet.sector, None)
        if served is None or served.resync or served.end - served.offset != packet.size_bytes:
            raise p.ProtocolError(f"The peer acknowledged a block at sector {packet.sector} that was not sent.")
        self._progress_ms = s.now
        s.resync_bytes += packet.size_bytes
        s.bitmap.clear_range(served.offset // BLOCK_BYTES, -(-served.end // BLOCK_BYTES))
        self._leave(served)

    def _leave(self, served: Served) -> None:
        for following in self._ranges.leave(served):
            self._forward(following)

    def peer_done(self) -> None:
        """The target says that it is UpToDate.

        Raises:
            ProtocolError: it cannot be.
        """
        s = self._s
        if s.bitmap.count or self._serving:
            raise p.ProtocolError("The peer says that the resync is done, but blocks are left.")
        s.uuids.end_as_source()
        s.peer_uuids = s.uuids.copy()
        s.full_sync = False
        s.crashed_primary = False
        s.peer_outdated = False
        s.peer_disk = Disk.UP_TO_DATE
        s.set_conn(Connection.CONNECTED)
        self._durable.bitmap(_nothing)
        self._durable.superblock(_nothing)
        s.out.append(e.SendData(p.StateWord(s.state_word())))
        s.log("info", "resync_done", as_="source", bytes=s.resync_bytes)
        self.guard.after(target=False)

    # ------------------------------------------------------------ the link

    @property
    def maybe_done(self) -> bool:
        """As source: the target has everything and may be UpToDate already."""
        return self._s.conn is Connection.SYNC_SOURCE and not self._s.bitmap.count and not self._serving

    @property
    def waiting_since_ms(self) -> int | None:
        """Since when nothing came although something is owed; None: nothing is owed."""
        return self._progress_ms if self._asked or self._serving else None

    def link_lost(self) -> None:
        """The resync is over; what was reached stays."""
        s = self._s
        s.clear_timer(Timer.RESYNC)
        if s.conn is Connection.SYNC_TARGET:
            self._durable.bitmap(_nothing)
        self._finishing = False
        self._asked.clear()
        self._asked_bytes = 0
        for sector in list(self._places):
            self._leave_place(sector)
        serving, self._serving = self._serving, {}
        for served in serving.values():
            if not served.resync:
                self._leave(served)


def _nothing() -> None:
    """Nothing has to follow."""
