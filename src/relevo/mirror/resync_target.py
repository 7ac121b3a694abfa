"""The target of a resync pulls: it asks for the marked blocks, at its pace, and writes what comes.

Three ways to ask for a run of blocks: plainly; with the digest of what is here (the source answers "equal" instead of
the data); or saying that zeroes need not be sent (`ThinRequest`). The bits are cleared when the blocks are on the disk.
"""

from __future__ import annotations

from collections.abc import Callable

from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.activity import Activity
from relevo.mirror.bitmap import BLOCK_BYTES
from relevo.mirror.pace import SLICE_MS, Pace
from relevo.mirror.peer_io import PeerIo, ResyncWrite
from relevo.mirror.progress import Progress
from relevo.mirror.requests import PeerWrite, Then
from relevo.mirror.state import SECTOR_BYTES, Shared, Timer
from relevo.mirror.states import Connection, Role

REQUEST_BITS = 256
"""A request is at most 1 MiB and does not cross a boundary of 1 MiB."""
REQUESTS_AT_ONCE = 4
"""A window is asked for in at least so many requests."""
THIN_LEAST_BYTES = 64 << 10
"""A smaller piece is not worth a discard."""
CHECKSUM_BITS = 16
"""With checksums 64 KiB: a changed block costs the data of its whole request."""


class ResyncTarget:
    """Asks, writes, counts. `finished` is called once, when no marked block is left."""

    def __init__(
        self,
        shared: Shared,
        peer_io: PeerIo,
        activity: Activity,
        pace: Pace,
        progress: Progress,
        finished: Callable[[], None],
    ) -> None:
        self._s = shared
        self._peer_io = peer_io
        self._activity = activity
        self._pace = pace
        self._progress = progress
        self._finished = finished
        self._asked: dict[int, int] = {}
        self._places: dict[int, ResyncWrite] = {}
        """Sector -> the place that the answer will have among the writes, on a Primary."""
        self._asked_bytes = 0
        self._cursor = 0
        self._over = False
        self._checksums = ""
        self.progress_ms = 0

    def begin(self) -> None:
        """The source is ready."""
        s = self._s
        options = s.settings.options
        use = not options.csums_after_crash_only or s.crashed_primary or s.peer_crashed
        self._checksums = options.csums_alg if use else ""
        self._cursor = 0
        self._asked.clear()
        self._asked_bytes = 0
        self._places.clear()
        self._over = False
        self.progress_ms = s.now
        self._activity.look(self._pace)
        self._pace.begin(s.now)
        s.set_timer(Timer.RESYNC, SLICE_MS)

    @property
    def waiting(self) -> bool:
        """The source owes something."""
        return bool(self._asked)

    @property
    def pending(self) -> int:
        """How many requests are not answered."""
        return len(self._asked)

    def next_slice(self) -> None:
        """A slice of time is over."""
        s = self._s
        self._activity.look(self._pace)
        self._pace.next_slice(s.now)
        s.set_timer(Timer.RESYNC, SLICE_MS)
        self.pull()

    def pull(self) -> None:
        """Ask for as much as the pace allows."""
        s, bitmap = self._s, self._s.bitmap
        if self._over:
            return
        paused = s.conn is not Connection.SYNC_TARGET
        limit = CHECKSUM_BITS if self._checksums else REQUEST_BITS
        while not paused and self._pace.room(self._asked_bytes) > 0:
            first = bitmap.next_set(self._cursor)
            if first < 0:
                if self._asked or not bitmap.count:
                    break
                self._cursor = 0
                continue
            stop = bitmap.next_clear(first)
            end = min(first - first % limit + limit, bitmap.bits if stop < 0 else stop)
            end = min(end, first + self._most_bits(first))
            self._cursor = end
            self._ask(first, end)
        if not bitmap.count and not self._asked:
            self._over = True
            self._finished()

    def _most_bits(self, first: int) -> int:
        """Small requests in a small window, so that the application's writes get in between."""
        share = self._pace.window_bytes // (BLOCK_BYTES * REQUESTS_AT_ONCE)
        bits = 1 << (share.bit_length() - 1)
        return bits - first % bits

    def _ask(self, first: int, end: int) -> None:
        s = self._s
        sector = first * BLOCK_BYTES // SECTOR_BYTES
        length = min(end * BLOCK_BYTES, s.size_sectors * SECTOR_BYTES) - first * BLOCK_BYTES
        self._asked[sector] = length
        self._asked_bytes += length
        self._pace.asked(length)
        if not s.has_timer(Timer.LATE):
            s.set_timer(Timer.LATE, s.settings.ping_timeout_ms)
        if s.role is Role.PRIMARY:
            offset = sector * SECTOR_BYTES
            self._places[sector] = self._peer_io.reserve(
                offset, length, self._written, lambda: self._send_request(sector, length)
            )
        else:
            self._send_request(sector, length)

    def _send_request(self, sector: int, length: int) -> None:
        s = self._s
        if self._checksums:
            self._digest(sector, length)
        elif s.features & p.Feature.THIN_RESYNC and self._thin(length):
            s.out.append(e.SendData(p.ThinRequest(sector, p.SYNCER_ID, length)))
        else:
            s.out.append(e.SendData(p.ResyncRequest(sector, p.SYNCER_ID, length)))

    def _thin(self, length: int) -> bool:
        """Whole pieces of the granularity; or of what fits into a small window, if that is less."""
        granularity = self._s.settings.options.rs_discard_granularity_bytes
        return granularity > 0 and length % min(granularity, THIN_LEAST_BYTES) == 0

    def _digest(self, sector: int, length: int) -> None:
        s, number = self._s, self._s.link_number

        def done(errno: int, digest: e.Buffer) -> None:
            if s.link_number != number or not s.link or self._asked.get(sector) != length:
                return
            if errno:  # unreadable here: what the source has is what counts
                s.out.append(e.SendData(p.ResyncRequest(sector, p.SYNCER_ID, length)))
            else:
                s.out.append(e.SendData(p.ChecksumRequest(sector, p.SYNCER_ID, length, digest)))

        s.out.append(e.DiskDigest(Then(done), sector * SECTOR_BYTES, length, self._checksums))

    # ------------------------------------------------------------ answers

    def block(self, packet: p.ResyncReply | p.ResyncDeallocated, buffer: e.Buffer) -> None:
        """The content of blocks that were asked for.

        Raises:
            ProtocolError: they were not.
        """
        self._expect(packet.sector, packet.size_bytes)
        self.progress_ms = self._s.now
        place = self._places.pop(packet.sector, None)
        if place is None:
            self._peer_io.resync_block(packet, buffer, self._written)
            return
        if buffer is None:
            place.trim = place.unmap = True
        self._peer_io.reserved_block(place, buffer)

    def _leave_place(self, sector: int) -> None:
        place = self._places.pop(sector, None)
        if place is not None:
            self._peer_io.give_up(place)

    def _expect(self, sector: int, size_bytes: int) -> None:
        if self._asked.get(sector) != size_bytes:
            raise p.ProtocolError(f"The peer sent a block at sector {sector} that was not asked for.")

    def _written(self, write: PeerWrite, errno: int) -> None:
        if write.sector not in self._asked or errno:
            return
        self._peer_io.acknowledge_resync(write)
        self._equal(write.sector, write.size_bytes)

    def in_sync(self, packet: p.ResyncInSync) -> None:
        """The source has the same.

        Raises:
            ProtocolError: it was not asked.
        """
        self._expect(packet.sector, packet.size_bytes)
        self._leave_place(packet.sector)
        self._equal(packet.sector, packet.size_bytes)

    def _equal(self, sector: int, length: int) -> None:
        s = self._s
        del self._asked[sector]
        self._asked_bytes -= length
        self._pace.answered(length)
        self.progress_ms = s.now
        s.resync_bytes += length
        offset = sector * SECTOR_BYTES
        s.bitmap.clear_range(offset // BLOCK_BYTES, -(-(offset + length) // BLOCK_BYTES))
        self._progress.note(s.now, s.bitmap.count)
        self.pull()

    def refused(self, packet: p.NegResyncReply | p.ResyncCancel) -> None:
        """The source cannot read a block (or not now)."""
        s = self._s
        length = self._asked.pop(packet.sector, 0)
        self._asked_bytes -= length
        self._leave_place(packet.sector)
        if isinstance(packet, p.NegResyncReply):
            s.problem = f"The peer cannot read {length} bytes at sector {packet.sector}: the resync cannot end."
            s.log("error", "resync_refused", sector=packet.sector, length=length)
            s.changed()
        else:
            self.pull()

    def link_lost(self) -> None:
        """What was reached stays."""
        self._s.clear_timer(Timer.RESYNC)
        self._over = True
        self._asked.clear()
        self._asked_bytes = 0
        for sector in list(self._places):
            self._leave_place(sector)
