"""Online verify: do both copies hold the same? One side asks (VerifyS), the other tells digests (VerifyT).

The asking side sends a range; the other reads it and answers with its digest; the asking side reads its own, compares
and tells the result. The application's writes stay out meanwhile: the Primary keeps the range to itself, whichever of
the two it is. (Only the Primary does: a Secondary that did could wait for a write that waits for it.)

No false alarms: a range that differs is looked at again, block by block and after a pause, before it is reported. What
a host writes anew while it is on its way to the two disks (pages changed under I/O) may differ for a moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.activity import Activity
from relevo.mirror.bitmap import BLOCK_BYTES
from relevo.mirror.durable import Durable
from relevo.mirror.pace import SLICE_MS, Pace
from relevo.mirror.peer_io import check_range
from relevo.mirror.progress import Progress
from relevo.mirror.ranges import Ranged, RangeOrder
from relevo.mirror.requests import Served
from relevo.mirror.state import SECTOR_BYTES, Shared, Timer
from relevo.mirror.states import Connection, Role

REQUEST_BITS = 16
"""A request is 64 KiB; where it differs, its blocks are compared one by one."""
WINDOW_BYTES = 4 << 20
"""What is compared at a time, at most."""
RECHECK_MS = 2000
"""A block that differs is looked at again after that pause."""
CHECKS = 2
"""So often a block has to differ before it is reported."""
MAX_SUSPECTS = 1 << 16
"""So many blocks may wait for their next check; beyond, what differs is reported at once."""
MAX_ASKED = 8192
"""So many requests of the asking side may wait for their answer."""
MAX_RANGES = 1000
"""So many ranges that differ are kept for the status; the bitmap knows all."""


class Findings:
    """What a verify found: how many blocks differ, and where."""

    def __init__(self) -> None:
        self.blocks = 0
        self.ranges: list[tuple[int, int]] = []

    def add(self, first: int, end: int) -> None:
        """The blocks [first, end) differ."""
        self.blocks += end - first
        if self.ranges and self.ranges[-1][1] == first:
            self.ranges[-1] = (self.ranges[-1][0], end)
        elif len(self.ranges) < MAX_RANGES:
            self.ranges.append((first, end))

    def sectors(self) -> list[list[int]]:
        """The ranges as [first sector, number of sectors]."""
        to = BLOCK_BYTES // SECTOR_BYTES
        return [[first * to, (end - first) * to] for first, end in sorted(self.ranges)]


class Verify:
    """Both roles of a verify; the range's owner is called back through `forward`."""

    def __init__(
        self,
        shared: Shared,
        durable: Durable,
        ranges: RangeOrder,
        activity: Activity,
        pace: Pace,
        forward: Callable[[Ranged], None],
        disk_failed: Callable[[int], None],
        repair: Callable[[], None],
    ) -> None:
        self._s = shared
        self._durable = durable
        self._ranges = ranges
        self._activity = activity
        self._pace = pace
        self._forward = forward
        self._disk_failed = disk_failed
        self._repair = repair
        self._progress = Progress(BLOCK_BYTES)
        self._asked: dict[int, Served] = {}
        self._asked_bytes = 0
        self._late: dict[int, Served] = {}
        """What the peer asked for and had not told the result of when it said, on the other socket, that it is done."""
        self._ending = False
        self._cursor = self._end = self._first = 0
        self._pieces: deque[int] = deque()
        self._suspects: deque[tuple[int, int]] = deque()
        self._checks: dict[int, int] = {}
        self._found = Findings()
        self._repairs = False
        self.last: dict[str, object] | None = None
        """The outcome of the last verify."""
        self.progress_ms = 0

    def waiting_since_ms(self) -> int | None:
        """Since when nothing came although the peer owes an answer; None: it owes none."""
        return self.progress_ms if self._asked or self._late else None

    @property
    def pending(self) -> int:
        """How many requests are not done with."""
        return len(self._asked)

    # ------------------------------------------------------------ asking

    def begin_source(self, first: int, end: int, *, repair: bool) -> None:
        """Both agree: compare the blocks [first, end)."""
        s = self._s
        self._begin(end - first)
        self._first, self._cursor, self._end, self._repairs = first, first, end, repair
        s.set_conn(Connection.VERIFY_S)
        s.log("info", "verify_started", first=first, end=end)
        self._pace.begin(s.now)
        s.set_timer(Timer.VERIFY, SLICE_MS)
        self.pull()

    def _begin(self, blocks: int) -> None:
        if self._ending:
            self._ended()
        self._pieces.clear()
        self._suspects.clear()
        self._checks.clear()
        self._found = Findings()
        self._progress.begin(self._s.now, blocks)
        self.progress_ms = self._s.now

    def stop(self) -> None:
        """No further than this."""
        self._end = self._cursor
        self.pull()

    def next_slice(self) -> None:
        """A slice of the pace's time is over."""
        s = self._s
        if s.conn is not Connection.VERIFY_S:
            return
        self._activity.look(self._pace)
        self._pace.next_slice(s.now)
        s.set_timer(Timer.VERIFY, SLICE_MS)
        self.pull()

    def pull(self) -> None:
        """Ask for as much as the pace allows; end when everything has been looked at."""
        s = self._s
        if s.conn is not Connection.VERIFY_S:
            return
        while self._asked_bytes < WINDOW_BYTES and self._pace.room(self._asked_bytes) > 0:
            following = self._following()
            if following is None:
                break
            self._ask(*following)
        if not self._asked and not self._pieces and not self._suspects and self._cursor >= self._end:
            self._finish()

    def _following(self) -> tuple[int, int] | None:
        """The blocks to look at next; None: nothing now."""
        if self._pieces:
            block = self._pieces.popleft()
            return block, block + 1
        if self._suspects and self._suspects[0][0] <= self._s.now:
            _, block = self._suspects.popleft()
            return block, block + 1
        if self._cursor >= self._end:
            return None
        first = self._cursor
        end = min(first - first % REQUEST_BITS + REQUEST_BITS, self._end)
        self._cursor = end
        self._progress.note(self._s.now, self._end - end)
        return first, end

    def _ask(self, first: int, end: int) -> None:
        s = self._s
        offset = first * BLOCK_BYTES
        length = min(end * BLOCK_BYTES, s.size_sectors * SECTOR_BYTES) - offset
        entry = Served(self._own_read, offset, length, p.SYNCER_ID)
        entry.link = s.link_number
        self._asked[offset // SECTOR_BYTES] = entry
        self._asked_bytes += length
        self._pace.asked(length)
        if s.role is Role.PRIMARY:
            entry.resync = True  # the range stays this side's until the result is there
            entry.admitted = self._send_request
            if self._ranges.enter(entry):
                self._send_request(entry)
        else:
            self._send_request(entry)

    def _current(self, entry: Served) -> bool:
        return self._s.link and entry.link == self._s.link_number

    def _send_request(self, entry: Served) -> None:
        s = self._s
        if not self._current(entry):
            self._leave(entry)
            return
        sector, length = entry.offset // SECTOR_BYTES, entry.end - entry.offset
        s.out.append(e.SendData(p.VerifyRequest(sector, p.SYNCER_ID, length)))
        if not s.has_timer(Timer.LATE):
            s.set_timer(Timer.LATE, s.settings.ping_timeout_ms)

    def reply(self, packet: p.VerifyReply) -> None:
        """The peer's digest: now this side's.

        Raises:
            ProtocolError: it was not asked for.
        """
        entry = self._asked.get(packet.sector)
        if entry is None or entry.end - entry.offset != packet.size_bytes or entry.digest is not None:
            raise p.ProtocolError(f"The peer sent a digest of sector {packet.sector} that was not asked for.")
        self.progress_ms = self._s.now
        entry.digest = packet.digest
        if entry.resync:
            self._read(entry)
            return
        entry.resync = True  # what of the peer's writes came before its answer has to be on the disk
        entry.admitted = self._read
        if self._ranges.enter(entry):
            self._read(entry)

    def _read(self, entry: Served) -> None:
        if not self._current(entry):
            self._leave(entry)
            return
        s, length = self._s, entry.end - entry.offset
        s.counters.disk_read += length
        s.out.append(e.DiskDigest(entry, entry.offset, length, s.settings.options.verify_alg))

    def _own_read(self, entry: Served, errno: int, digest: e.Buffer) -> None:
        s = self._s
        current = self._current(entry)
        self._leave(entry)
        if errno:
            self._disk_failed(errno)
        if errno or not current or not s.link:
            return
        sector, length = entry.offset // SECTOR_BYTES, entry.end - entry.offset
        del self._asked[sector]
        self._asked_bytes -= length
        self._pace.answered(length)
        reported = digest != entry.digest and self._differs(entry.offset // BLOCK_BYTES, -(-entry.end // BLOCK_BYTES))
        result = p.ID_OUT_OF_SYNC if reported else p.ID_IN_SYNC
        s.out.append(e.SendMeta(p.VerifyResult(sector, result, length, s.next_seq())))
        if digest == entry.digest:
            self._checks.pop(entry.offset // BLOCK_BYTES, None)
        self.pull()

    def _differs(self, first: int, end: int) -> bool:
        """What to do about blocks that differ; True: it is certain, they are marked."""
        if len(self._checks) >= MAX_SUSPECTS:
            self._mark(first, end)
            return True
        if end - first > 1:
            self._pieces.extend(range(first, end))
            return False
        checks = self._checks.get(first, 0) + 1
        if checks < CHECKS:
            self._checks[first] = checks
            self._suspects.append((self._s.now + RECHECK_MS, first))
            return False
        self._checks.pop(first, None)
        self._mark(first, end)
        return True

    def _mark(self, first: int, end: int) -> None:
        self._found.add(first, end)
        self._s.bitmap.set_range(first, end)

    def _finish(self) -> None:
        s = self._s
        s.clear_timer(Timer.VERIFY)
        s.set_conn(Connection.CONNECTED)
        s.out.append(e.SendData(p.StateWord(s.state_word())))
        self._ended()
        if self._repairs and self._found.blocks:
            self._repair()

    def _ended(self) -> None:
        """Both roles: keep what was found, and tell."""
        s, found = self._s, self._found
        self._ending = False
        self.last = {
            "blocks": found.blocks,
            "bytes": found.blocks * BLOCK_BYTES,
            "sectors": found.sectors(),
            "ended_ms": s.now,
            "complete": self._first == 0 and self._cursor >= s.bitmap.bits,
        }
        self._durable.bitmap(_nothing)
        level = "warning" if found.blocks else "info"
        s.log(level, "verify_done", out_of_sync_blocks=found.blocks, sectors=found.sectors()[:20])
        if found.blocks:
            s.out.append(e.RunHandler(None, "out-of-sync", {}))
        s.changed()

    # ------------------------------------------------------------ answering

    def begin_target(self) -> None:
        """The peer asks from now on."""
        self._begin(self._s.bitmap.bits)
        self._cursor, self._first, self._end = 0, self._s.bitmap.bits, self._s.bitmap.bits
        self._s.set_conn(Connection.VERIFY_T)

    def request(self, packet: p.VerifyRequest) -> None:
        """The peer wants a digest.

        Raises:
            ProtocolError: not now, or outside of the device.
        """
        s = self._s
        offset = check_range(packet.sector, packet.size_bytes, s.size_sectors)
        if s.conn is not Connection.VERIFY_T or packet.sector in self._asked or len(self._asked) >= MAX_ASKED:
            raise p.ProtocolError("The peer wants to compare blocks outside of a verify, twice, or too many.")
        size = packet.size_bytes
        if size > p.MAX_PAYLOAD_BYTES:
            raise p.ProtocolError(f"The peer wants to compare {size} bytes at once.")
        entry = Served(self._answer, offset, size, packet.block_id)
        entry.link = s.link_number
        entry.resync = True
        entry.admitted = self._read
        self._asked[packet.sector] = entry
        self.progress_ms = s.now
        self._first = min(self._first, offset // BLOCK_BYTES)
        self._cursor = max(self._cursor, -(-(offset + size) // BLOCK_BYTES))
        self._progress.note(s.now, self._end - self._cursor)
        if self._ranges.enter(entry):
            self._read(entry)

    def _answer(self, entry: Served, errno: int, digest: e.Buffer) -> None:
        s = self._s
        current = self._current(entry)
        if errno or not current or s.role is not Role.PRIMARY:
            self._leave(entry)
        if errno:
            self._disk_failed(errno)
        elif current:
            sector, length = entry.offset // SECTOR_BYTES, entry.end - entry.offset
            entry.digest = digest
            s.out.append(e.SendData(p.VerifyReply(sector, entry.block_id, length, digest)))

    def result(self, packet: p.VerifyResult) -> None:
        """What the peer's comparison said.

        Raises:
            ProtocolError: of blocks that it did not ask for.
        """
        late = self._late.get(packet.sector)
        asked = self._asked if late is None else self._late  # of two results the earlier one is of the earlier verify
        entry = asked.get(packet.sector)
        if entry is None or entry.digest is None or entry.end - entry.offset != packet.size_bytes:
            raise p.ProtocolError(f"The peer tells the result of sector {packet.sector}, which it did not ask for.")
        del asked[packet.sector]
        self.progress_ms = self._s.now
        if packet.block_id == p.ID_OUT_OF_SYNC:
            self._mark(entry.offset // BLOCK_BYTES, -(-entry.end // BLOCK_BYTES))
        self._leave(entry)
        if self._ending and not self._late:
            self._ended()

    def peer_done(self) -> None:
        """The asking side says that it is over (or has been asked to stop).

        That comes on the data socket, results on the other one: some may still be on their way, and a kernel that
        stops at a sector may even lack answers, which it counts. Those entries keep their place until the result.
        """
        self._late |= self._asked
        self._asked = {}
        self._s.set_conn(Connection.CONNECTED)
        self._ending = True
        if not self._late:
            self._ended()

    # ------------------------------------------------------------ both

    def _leave(self, entry: Served) -> None:
        """Give the range back, if it was entered and has not been left."""
        if not entry.resync:
            return
        entry.resync = False
        for following in self._ranges.leave(entry):
            self._forward(following)

    def _drop_all(self) -> None:
        """Nobody waits for an answer: what only waited for the peer leaves; the rest leaves when it is read."""
        asking = self._s.conn is Connection.VERIFY_S
        waiting = [entry for entry in self._asked.values() if (entry.digest is None) is asking]
        waiting += [entry for entry in self._late.values() if entry.digest is not None]
        self._asked, self._late = {}, {}
        self._asked_bytes = 0
        for entry in waiting:  # no disk I/O of these is under way
            if entry.waits == 0:
                self._leave(entry)

    def link_lost(self) -> None:
        """The verify is over; what was found stays marked."""
        s = self._s
        if s.conn not in {Connection.VERIFY_S, Connection.VERIFY_T} and not self._late:
            return
        self._ending = False
        s.clear_timer(Timer.VERIFY)
        self._drop_all()
        s.log("warning", "verify_broken_off", block=self._cursor)
        self._durable.bitmap(_nothing)

    def status(self) -> dict[str, object] | None:
        """Progress of the verify under way; None: there is none."""
        s = self._s
        if s.conn not in {Connection.VERIFY_S, Connection.VERIFY_T}:
            return None
        left = self._end - self._cursor
        return {**self._progress.status(s.now, left), "out_of_sync_blocks": self._found.blocks}


def _nothing() -> None:
    """Nothing has to follow."""
