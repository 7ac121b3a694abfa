"""The source of a resync serves: it reads what the target asks for and keeps writes away until the target has it.

While the application works here, few blocks are read at a time, whatever the target asks for: requests wait in a queue,
and the application's own go first. An idle server reads as fast as it is asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.bitmap import BLOCK_BYTES
from relevo.mirror.pace import Pace
from relevo.mirror.peer_io import check_range
from relevo.mirror.progress import Progress
from relevo.mirror.ranges import Ranged, RangeOrder
from relevo.mirror.requests import Served
from relevo.mirror.state import SECTOR_BYTES, SOURCE, Shared

BUSY_READS = 1
"""So many blocks are read at a time while the application works."""
IDLE_READS = 32
"""So many while it does not."""
MAX_SERVING = 8192
"""Requests of the target that may wait for their answer; a peer that asks for more is out of its mind."""

Request = p.ResyncRequest | p.ThinRequest | p.ChecksumRequest


class ResyncSource:
    """Serves one target. `forward` takes what is not a `Served` when its range becomes free."""

    def __init__(
        self,
        shared: Shared,
        ranges: RangeOrder,
        pace: Pace,
        progress: Progress,
        forward: Callable[[Ranged], None],
        disk_failed: Callable[[int], None],
    ) -> None:
        self._s = shared
        self._ranges = ranges
        self._pace = pace
        self._progress = progress
        self._forward = forward
        self._disk_failed = disk_failed
        self._serving: dict[int, Served] = {}
        self._queue: deque[Served] = deque()
        self._reading = 0
        self.progress_ms = 0

    @property
    def waiting(self) -> bool:
        """The target owes something, or is owed it."""
        return bool(self._serving)

    @property
    def pending(self) -> int:
        """How many requests are not done with."""
        return len(self._serving)

    def check(self, packet: Request) -> None:
        """Whether the target may ask for that.

        Raises:
            ProtocolError: not now, or outside of the device.
        """
        s = self._s
        check_range(packet.sector, packet.size_bytes, s.size_sectors)
        if s.conn not in SOURCE or packet.sector in self._serving or len(self._serving) >= MAX_SERVING:
            raise p.ProtocolError("The peer asks for a block outside of a resync, twice, or for too many.")
        if packet.size_bytes > p.MAX_PAYLOAD_BYTES:
            raise p.ProtocolError(f"The peer asks for {packet.size_bytes} bytes at once.")
        if isinstance(packet, p.ChecksumRequest) and not s.settings.options.csums_alg:
            raise p.ProtocolError("The peer sends checksums, but none are agreed on (csums-alg).")

    def request(self, packet: Request) -> None:
        """The target asks for a block; `check` has allowed it."""
        s = self._s
        served = Served(self._read_done, packet.sector * SECTOR_BYTES, packet.size_bytes, packet.block_id)
        served.resync = True
        served.link = s.link_number
        served.thin = isinstance(packet, p.ThinRequest)
        served.digest = packet.digest if isinstance(packet, p.ChecksumRequest) else None
        served.admitted = self.admit
        self._serving[packet.sector] = served
        self.progress_ms = s.now
        if self._ranges.enter(served):
            self.admit(served)

    def admit(self, served: Served) -> None:
        """No write is in flight there: read, when it is its turn."""
        if not self._current(served):
            self._leave(served)
            return
        self._queue.append(served)
        self._read()

    def _current(self, served: Served) -> bool:
        return self._s.link and served.link == self._s.link_number

    def _read(self) -> None:
        s = self._s
        while self._queue and self._reading < (BUSY_READS if self._pace.busy(s.now) else IDLE_READS):
            served = self._queue.popleft()
            self._reading += 1
            offset, length = served.offset, served.end - served.offset
            s.counters.disk_read += length
            if served.digest is not None:
                s.out.append(e.DiskDigest(served, offset, length, s.settings.options.csums_alg))
            elif served.thin:
                s.out.append(e.DiskReadThin(served, offset, length))
            else:
                s.out.append(e.DiskRead(served, offset, length, None))

    def _read_done(self, served: Served, errno: int, found: e.Buffer) -> None:
        self._reading -= 1
        if errno or not self._current(served):
            self._not_read(served, errno, found)
        elif served.digest is not None:
            self._digested(served, found)
        else:
            served.resync = False  # read: from now on a lost link ends its stay
            self._answer(served, found)
        self._read()

    def _not_read(self, served: Served, errno: int, found: e.Buffer) -> None:
        s = self._s
        if found is not None and served.digest is None:
            s.out.append(e.ReleaseBuffer(found))
        if self._current(served):
            sector, length = served.offset // SECTOR_BYTES, served.end - served.offset
            del self._serving[sector]
            s.out.append(e.SendMeta(p.NegResyncReply(sector, served.block_id, length, s.next_seq())))
        self._leave(served)
        if errno:
            self._disk_failed(errno)

    def _digested(self, served: Served, digest: e.Buffer) -> None:
        """The target told the digest of what it has: send the data only when it differs."""
        s = self._s
        if digest != served.digest:
            served.digest = None
            self._queue.appendleft(served)
            return
        sector, length = served.offset // SECTOR_BYTES, served.end - served.offset
        del self._serving[sector]
        s.out.append(e.SendMeta(p.ResyncInSync(sector, served.block_id, length, s.next_seq())))
        self._equal(served)

    def _answer(self, served: Served, found: e.Buffer) -> None:
        s = self._s
        sector, length = served.offset // SECTOR_BYTES, served.end - served.offset
        if found is None:
            s.out.append(e.SendData(p.ResyncDeallocated(sector, length)))
            return
        s.counters.sent += length
        s.out.append(e.SendData(p.ResyncReply(sector, served.block_id, 0, 0, length), found, release=True))

    def written(self, packet: p.ResyncWriteAck) -> None:
        """The target has a block.

        Raises:
            ProtocolError: it was not sent.
        """
        served = self._serving.get(packet.sector)
        if served is None or served.resync or served.end - served.offset != packet.size_bytes:
            raise p.ProtocolError(f"The peer acknowledged a block at sector {packet.sector} that was not sent.")
        del self._serving[packet.sector]
        self._equal(served)

    def _equal(self, served: Served) -> None:
        s = self._s
        self.progress_ms = s.now
        s.resync_bytes += served.end - served.offset
        first, end = -(-served.offset // BLOCK_BYTES), served.end // BLOCK_BYTES
        if served.end == s.size_sectors * SECTOR_BYTES:
            end = s.bitmap.bits  # the last block may be a part of one; any other part says nothing of its block
        if first < end:
            s.bitmap.clear_range(first, end)
        self._progress.note(s.now, s.bitmap.count)
        self._leave(served)

    def _leave(self, served: Served) -> None:
        for following in self._ranges.leave(served):
            self._forward(following)

    def link_lost(self) -> None:
        """Nobody waits for an answer; what is being read leaves when it is read."""
        queued = list(self._queue)
        self._queue.clear()
        serving, self._serving = self._serving, {}
        sent = [served for served in serving.values() if not served.resync]
        for served in (*queued, *sent):
            self._leave(served)
