"""Making two copies equal: who gives, the exchange of bitmaps, the end; in between `resync_target` and `_source`.

Order duties kept here: the target is Inconsistent on its disk before the source sends it anything; the source's new
bitmap generation is stable before the target learns of it; the target is UpToDate only after a flush, and says so only
when that is stable. A good copy is saved, where its disk can do that, before it is made Inconsistent.
"""

from __future__ import annotations

from collections.abc import Callable

from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.activity import Activity
from relevo.mirror.bitmap import BLOCK_BYTES
from relevo.mirror.bitmap_exchange import BitmapExchange
from relevo.mirror.durable import Durable
from relevo.mirror.pace import Limits, Pace
from relevo.mirror.peer_io import PeerIo
from relevo.mirror.progress import Progress
from relevo.mirror.ranges import Ranged, RangeOrder
from relevo.mirror.resync_source import Request, ResyncSource
from relevo.mirror.resync_target import ResyncTarget
from relevo.mirror.snapshot import Snapshot
from relevo.mirror.state import SOURCE, SYNCING, TARGET, Shared, Timer
from relevo.mirror.states import Connection, Disk, Role
from relevo.mirror.target_guard import TargetGuard

_PAUSED = {
    Connection.SYNC_SOURCE: Connection.PAUSED_SYNC_S,
    Connection.SYNC_TARGET: Connection.PAUSED_SYNC_T,
}
_GOING = {paused: going for going, paused in _PAUSED.items()}


class Resync:
    """Both roles of a resync.

    `forward` takes what does not belong to it when its range becomes free; `target_marked` is told as soon as the
    peer's copy is known to be Inconsistent on its disk; `writes_in_flight` says how many of the application's are.
    """

    def __init__(
        self,
        shared: Shared,
        durable: Durable,
        peer_io: PeerIo,
        ranges: RangeOrder,
        forward: Callable[[Ranged], None],
        disk_failed: Callable[[int], None],
        target_marked: Callable[[], None],
        refuse: Callable[[str], None],
        writes_in_flight: Callable[[], int],
    ) -> None:
        self._s = shared
        self._durable = durable
        self._target_marked = target_marked
        self.guard = TargetGuard(shared, refuse)
        self.snapshot = Snapshot(shared)
        self.configured = Limits.configured(shared.settings.options, shared.settings.resync_rate_bytes)
        self.pace = Pace(self.configured)
        self.progress = Progress(BLOCK_BYTES)
        self._exchange = BitmapExchange(shared)
        self.activity = Activity(shared, peer_io, writes_in_flight)
        self.target = ResyncTarget(shared, peer_io, self.activity, self.pace, self.progress, self._all_written)
        self.source = ResyncSource(shared, ranges, self.pace, self.progress, forward, disk_failed)
        self._early_uuid: int | None = None
        self._added = False
        """Only what was added to the mirror's size is going to be replaced."""
        self._finishing = False
        self._last_ping = 0

    # ------------------------------------------------------------ the beginning

    def start_source(self, *, full: bool) -> None:
        """The peer lacks something: tell it what."""
        s = self._s
        s.set_conn(Connection.WF_BITMAP_S)
        if full:
            s.bitmap.set_all()
        self._exchange.begin()
        s.out.append(e.SendData(p.StateWord(s.state_word())))
        self._exchange.send(_nothing)

    def start_target(self, *, full: bool, gives_up: bool = False) -> None:
        """The peer has something newer, or (`gives_up`) this side has lost a split brain: wait for its bitmap."""
        s = self._s
        self.guard.begin(gives_up=gives_up)
        s.set_conn(Connection.WF_BITMAP_T)
        if full:
            s.bitmap.set_all()
        self._exchange.begin()
        s.out.append(e.SendData(p.StateWord(s.state_word())))

    def start_all_as_source(self) -> None:
        """Both agree that all of this copy replaces the peer's."""
        s = self._s
        s.set_conn(Connection.STARTING_SYNC_S)
        s.live_start = True
        s.bitmap.set_all()
        self._durable.bitmap(_nothing)
        self.guard.before_source(self._become_source)

    def start_all_as_target(self) -> None:
        """Both agree that all of this copy is replaced."""
        s = self._s
        s.set_conn(Connection.STARTING_SYNC_T)
        self._added = False
        if s.disk is Disk.UP_TO_DATE and s.peer_disk is Disk.UP_TO_DATE:
            s.peer_uuids = s.uuids.copy()  # what was told when the link began may be of before an earlier resync
        self._early_uuid = None

        self.guard.begin(gives_up=False)
        self.guard.before_target(self._give_up_copy)

    def start_added_as_source(self) -> None:
        """Both have grown, and have marked what was added: the peer gets this side's."""
        self._s.set_conn(Connection.STARTING_SYNC_S)
        self._s.live_start = True
        self.guard.before_source(self._become_source)

    def start_added_as_target(self) -> None:
        """Both have grown, and have marked what was added: this side gets the peer's."""
        s = self._s
        s.set_conn(Connection.STARTING_SYNC_T)
        if s.disk is Disk.UP_TO_DATE and s.peer_disk is Disk.UP_TO_DATE:
            s.peer_uuids = s.uuids.copy()
        self._early_uuid = None
        self._added = True
        self.guard.begin(gives_up=False)
        self.guard.before_target(self._mark_inconsistent)

    def bitmap(self, packet: p.BitmapWords | p.CompressedBitmap) -> None:
        """A part of the peer's bitmap.

        Raises:
            ProtocolError: not now, or too much of it.
        """
        s = self._s
        if s.conn not in {Connection.WF_BITMAP_S, Connection.WF_BITMAP_T}:
            raise p.ProtocolError("The peer sent a bitmap that was not expected.")
        if not self._exchange.take(packet):
            return
        if s.conn is Connection.WF_BITMAP_T:
            self.guard.before_target(self._give_up_copy)
        else:
            self.guard.before_source(self._become_source)

    def out_of_sync(self, packet: p.OutOfSync) -> None:
        """The source changed blocks that it did not send."""
        self._exchange.out_of_sync(packet)

    def _give_up_copy(self) -> None:
        """Nobody has anything against it: this copy is saved if it can be, then Inconsistent.

        Where a snapshot can be made, one was made of changes that are given up, too.
        """
        s = self._s
        changes = s.bitmap.count or s.conn is Connection.STARTING_SYNC_T
        if changes and not self.guard.kept:
            self.snapshot.before(self._on_link(self._mark_inconsistent))
        else:
            self._mark_inconsistent()

    def _mark_inconsistent(self) -> None:
        if self._s.conn is Connection.STARTING_SYNC_T and not self._added:
            self._s.bitmap.set_all()
        self._added = False
        self._s.disk = Disk.INCONSISTENT
        self._durable.bitmap(_nothing)
        self._durable.superblock(self._on_link(self._target_inconsistent))

    def _on_link(self, then: Callable[[], None]) -> Callable[[], None]:
        """Go on only if the link is still the same."""
        number = self._s.link_number

        def call() -> None:
            if self._s.link and self._s.link_number == number:
                then()

        return call

    def _target_inconsistent(self) -> None:
        s = self._s
        asked = s.conn is Connection.STARTING_SYNC_T
        s.set_conn(Connection.WF_SYNC_UUID)
        if not asked:
            self._exchange.send(_nothing)
        elif self._early_uuid is not None:
            self._take_uuid(self._early_uuid)

    def _become_source(self) -> None:
        self._s.uuids.start_as_source()
        self._durable.superblock(self._on_link(self._source_stable))

    def _source_stable(self) -> None:
        s = self._s
        s.out.append(e.SendData(p.SyncUuid(s.uuids.bitmap)))
        s.peer_disk = Disk.INCONSISTENT
        self._going(Connection.SYNC_SOURCE)
        self.source.progress_ms = s.now
        s.changed()

    def catch_up(self) -> None:
        """This side was Ahead: the peer gets what it was told of, when the generation of that is stable."""
        self.guard.before_source(lambda: self._durable.superblock(self._on_link(self._source_stable)))

    def fall_behind(self) -> None:
        """The peer's send buffer is full (its on-congestion is pull-ahead): it only tells what it changes.

        No bitmaps are exchanged when it comes back to this side: it says SYNC_UUID, and what it told is pulled.
        """
        s = self._s
        s.disk = Disk.OUTDATED
        s.set_conn(Connection.BEHIND)
        self._durable.superblock(_nothing)

    def sync_uuid(self, packet: p.SyncUuid) -> None:
        """The source is ready: take its sync generation.

        Raises:
            ProtocolError: not now.
        """
        if self._s.conn is Connection.STARTING_SYNC_T and self._early_uuid is None:
            self._early_uuid = packet.uuid
        elif self._s.conn is Connection.WF_SYNC_UUID:
            self._take_uuid(packet.uuid)
        elif self._s.conn is Connection.BEHIND:
            self.guard.begin(gives_up=False)
            self._s.disk = Disk.INCONSISTENT
            self._take_uuid(packet.uuid)
        else:
            raise p.ProtocolError("The peer sent SYNC_UUID that was not expected.")

    def _take_uuid(self, uuid: int) -> None:
        self._early_uuid = None
        self._s.uuids.start_as_target(uuid)
        self._durable.bitmap(_nothing)  # with OUT_OF_SYNC: the source forgets a block as soon as it is written here
        self._durable.superblock(self._on_link(self._start_pulling))

    def _start_pulling(self) -> None:
        s = self._s
        s.discard_my_data = False
        self._finishing = False
        self._going(Connection.SYNC_TARGET)
        s.out.append(e.SendData(p.StateWord(s.state_word())))
        self.target.begin()
        s.changed()
        self.target.pull()

    def _going(self, conn: Connection) -> None:
        """The resync itself begins; it may be paused already."""
        s = self._s
        self.progress.begin(s.now, s.bitmap.count)
        s.set_conn(conn)
        self.apply_pause()

    # ------------------------------------------------------------ on the way

    def apply_pause(self) -> None:
        """Pause or go on, as the two administrators say."""
        s = self._s
        if s.conn not in SYNCING:
            return
        change = _PAUSED if s.user_isp or s.peer_isp else _GOING
        following = change.get(s.conn)
        if following is None:
            return
        s.set_conn(following)
        self.progress.pause(s.now, s.bitmap.count)
        if following is Connection.SYNC_TARGET:
            self.pace.begin(s.now)
            self.target.pull()

    def request(self, packet: Request) -> None:
        """The target asks for a block.

        Raises:
            ProtocolError: not now, or outside of the device.
        """
        self.source.check(packet)
        self._target_marked()  # only a target asks, and it is Inconsistent on its disk before it does
        self.activity.look(self.pace)
        self.source.request(packet)

    def next_slice(self) -> None:
        """A slice of the pace's time is over."""
        if self._s.conn in TARGET:
            self.target.next_slice()

    # ------------------------------------------------------------ the end

    def _all_written(self) -> None:
        self._finishing = True
        self._last_ping = self._s.send_ping()

    def pong(self) -> None:
        """The source has seen every acknowledgement: make the end stable."""
        s = self._s
        if not self._finishing or s.conn not in TARGET or s.pings_answered < self._last_ping:
            return
        self._finishing = False
        self._durable.bitmap(self._on_link(self._forget_stale))

    def _forget_stale(self) -> None:
        """Before the copy is said to be whole: until then the superblock itself says that it is not."""
        self._durable.forget_stale(self._on_link(self._end_target))

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
        self.snapshot.after()
        s.problem = ""
        s.log("info", "resync_done", as_="target", bytes=s.resync_bytes)
        self.guard.after(target=True)
        s.changed()

    def peer_done(self) -> None:
        """The target says that it is UpToDate.

        Raises:
            ProtocolError: it cannot be.
        """
        s = self._s
        if s.bitmap.count or self.source.waiting:
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

    def portion(self) -> None:
        """The next portion of the bitmap may go out."""
        self._exchange.portion()

    @property
    def maybe_done(self) -> bool:
        """As source: the target has everything and may be UpToDate already."""
        return self._s.conn in SOURCE and not self._s.bitmap.count and not self.source.waiting

    @property
    def waiting_since_ms(self) -> int | None:
        """Since when nothing came although something is owed; None: nothing is owed."""
        if self.target.waiting:
            return self.target.progress_ms
        return self.source.progress_ms if self.source.waiting else None

    def link_lost(self) -> None:
        """The resync is over; what was reached stays."""
        s = self._s
        if s.conn in TARGET:
            self._durable.bitmap(_nothing)
        self._finishing = False
        self.snapshot.link_lost()
        s.live_start = False
        s.peer_isp = False
        self._exchange.link_lost()
        self.target.link_lost()
        self.source.link_lost()

    # ------------------------------------------------------------ views

    def status(self) -> dict[str, object] | None:
        """Progress of the resync under way; None: there is none."""
        s = self._s
        if s.conn not in SYNCING:
            return None
        paused = [name for name, flag in (("this side", s.user_isp), ("the peer", s.peer_isp)) if flag]
        return {**self.progress.status(s.now, s.bitmap.count), "paused_by": paused}


def _nothing() -> None:
    """Nothing has to follow."""
