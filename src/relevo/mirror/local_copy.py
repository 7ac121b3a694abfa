"""The copy on this server's disk: attached, lost, attached again; and what a copy has to do that is the only one left.

A Primary that loses its disk goes on with the peer's copy. Before it completes anything that only the peer has, two
things are stable: the peer's copy is a generation of its own, and this server knows (not on the lost disk) that what
that disk holds is stale. A copy that serves a Primary without a disk marks what changes, for the disk that will come.
"""

from __future__ import annotations

from collections.abc import Collection
from errno import ETIMEDOUT

from relevo.mirror import errors, size_option
from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.activity_log import ActivityLog
from relevo.mirror.bitmap import Bitmap, bits_for
from relevo.mirror.durable import BITS_PER_EXTENT, Durable
from relevo.mirror.link import Link
from relevo.mirror.local_io import Gate, LocalIo
from relevo.mirror.metadata import MetaFlag
from relevo.mirror.peer_io import PeerIo
from relevo.mirror.requests import Then
from relevo.mirror.resume import Resume
from relevo.mirror.state import SECTOR_BYTES, Shared, Timer
from relevo.mirror.states import DISK_NAMES, Connection, Disk, Role
from relevo.mirror.uuids import PRIMARY_BIT, Generations

_ALIGN_SECTORS = 8


class LocalCopy:
    """Watches over the disk of this side."""

    def __init__(self, shared: Shared, durable: Durable, local: LocalIo, peer_io: PeerIo, link: Link) -> None:
        self._s = shared
        self._durable = durable
        self._local = local
        self._peer_io = peer_io
        self._link = link
        self.resume: Resume
        """Takes over a device in use; set once by the core."""
        self._moved = False
        self._stale_stored = False
        self._lost_generation = 0
        self._marked = False
        """This disk itself says, for good, that it is Inconsistent."""

    # ------------------------------------------------------------ the first disk

    def attach(self, event: e.Attach) -> None:
        """Take over what the disk says. After a crash everything in the activity log is out of sync."""
        s = self._s
        if s.attached:
            self._attach_again(event)
            return
        meta, flags = event.meta, event.meta.flags
        s.degraded_at_start = bool(flags & MetaFlag.PRIMARY_IND) and not flags & MetaFlag.CONNECTED_IND
        s.epoch = event.epoch
        s.size_agreed = meta.size_sectors != 0
        options = s.settings.options
        s.size_sectors = meta.size_sectors or size_option.limited(_whole(event.disk_bytes), options)
        s.disk = self._load(event)
        small = size_option.too_small(s.size_sectors, options)
        if s.size_sectors > s.disk_sectors or small:
            s.disk = Disk.DISKLESS
            s.problem = s.why_diskless = small or "The disk is smaller than the mirror."
            self.resume.attach(event)
            self._in_use(event)
            return
        s.was_primary_at_start = s.crashed_primary or s.peer_outdated
        self.resume.attach(event)
        self._durable.bitmap(_nothing)
        self._durable.superblock(lambda: self._attached(event))

    def _load(self, event: e.Attach) -> Disk:
        """Take everything from the disk; returns what the copy is worth."""
        s, meta = self._s, event.meta
        flags = MetaFlag(meta.flags)
        s.random.extend(event.random)
        s.uuids = Generations(meta.current, meta.bitmap, meta.history0, meta.history1)
        s.disk_sectors = _whole(event.disk_bytes)
        s.bitmap = Bitmap(bits_for(s.size_sectors), event.bitmap)
        self._marked = False
        self._local.new_log(ActivityLog(s.settings.al_extents, event.al_number))
        s.stale_noted = event.stale
        stale = event.stale != 0 and event.stale == meta.current & ~PRIMARY_BIT
        s.crashed_primary = bool(flags & (MetaFlag.PRIMARY_IND | MetaFlag.CRASHED_PRIMARY)) and not stale
        s.peer_outdated = bool(flags & MetaFlag.PEER_OUTDATED) and not stale
        if s.size_sectors <= s.disk_sectors:
            self._mark_active(flags, event.al_extents)
        found = _disk_from(flags, newest=s.crashed_primary or s.peer_outdated)
        if stale:
            s.log("warning", "stale_copy", reason="the peer's copy was used after this disk was lost")
            return Disk.INCONSISTENT  # whether or not the peer got so far as to name a generation of its own
        return found

    def _mark_active(self, flags: MetaFlag, extents: Collection[int] | None) -> None:
        """What may differ from the peer's copy. Only a Primary's activity log counts; it may be off, or unreadable."""
        s = self._s
        crashed = bool(flags & (MetaFlag.PRIMARY_IND | MetaFlag.CRASHED_PRIMARY))
        unknown = extents is None and bool(flags & MetaFlag.PRIMARY_IND)
        if flags & MetaFlag.FULL_SYNC or (crashed and flags & MetaFlag.AL_DISABLED) or unknown:
            s.log("warning", "everything_out_of_sync", flags=int(flags))
            s.bitmap.set_all()
        elif flags & MetaFlag.PRIMARY_IND:
            for extent in extents or ():
                first = extent * BITS_PER_EXTENT
                if first < s.bitmap.bits:
                    s.bitmap.set_range(first, min(first + BITS_PER_EXTENT, s.bitmap.bits))
            s.log("info", "activity_log_applied", extents=len(extents or ()))

    def _attached(self, event: e.Attach) -> None:
        s = self._s
        s.log("info", "attached", disk=DISK_NAMES[s.disk], current=f"{s.uuids.current:016x}")
        self._in_use(event)

    def _in_use(self, event: e.Attach) -> None:
        """From now on the peer is looked for."""
        s = self._s
        s.attached = True
        self._link.look_for_peer()
        self.resume.attached()
        if event.token is not None:
            s.out.append(e.CommandDone(event.token))
        s.changed()

    # ------------------------------------------------------------ a disk fails

    def failed(self, errno: int, *, whole: bool = False) -> None:
        """The disk refused something (on-io-error says what follows).

        Args:
            errno: what it said.
            whole: meta-data or a flush: what is on the disk is not known any more, and it cannot be kept.
        """
        s = self._s
        if s.disk <= Disk.FAILED:
            return
        policy = s.settings.options.on_io_error
        s.log("error", "disk_failed", errno=errno, policy=policy)
        if policy == "call-local-io-error":
            s.out.append(e.RunHandler(None, "local-io-error", {}))
        waiting = s.role is Role.PRIMARY and self._local.gate is not Gate.OPEN and s.disk is not Disk.INCONSISTENT
        kept = policy == "pass_on" and not whole and errno != ETIMEDOUT
        if kept and not waiting and s.disk is not Disk.NEGOTIATING:
            self._pass_on(errno)  # while writes wait for permission they are on this disk only: it would be overwritten
        else:
            what = "did not answer within disk-timeout" if errno == ETIMEDOUT else f"failed (error {errno})"
            self._detach(f"The backing disk {what}; it is not used any more.")

    def detach(self, command: e.Detach) -> None:
        """Give the disk up on request; a Primary goes on through the peer, if that has a good copy."""
        s = self._s
        if s.role is Role.PRIMARY and not self._peer_holds_everything:
            s.out.append(e.CommandDone(command.token, errors.LastCopy()))
            return
        if s.disk > Disk.FAILED:
            self._detach("")
        s.out.append(e.CommandDone(command.token))

    @property
    def _peer_holds_everything(self) -> bool:
        s = self._s
        return s.link and s.conn is Connection.CONNECTED and s.peer_disk is Disk.UP_TO_DATE

    def _pass_on(self, errno: int) -> None:
        """Go on with a disk that is not whole any more: that is stable before the peer alone may complete a write."""
        s = self._s
        if s.disk is Disk.INCONSISTENT:
            return
        s.problem = f"The backing disk failed (error {errno}): what is on it is not whole any more."
        s.disk = Disk.INCONSISTENT
        s.exposed = s.uuids.current & ~PRIMARY_BIT
        self._moved = self._stale_stored = self._marked = False
        if s.role is Role.PRIMARY and self._local.gate is Gate.OPEN:
            self._local.hold()
        self._durable.superblock(self._passed_on)
        s.changed()

    def _passed_on(self) -> None:
        if self._s.disk is Disk.INCONSISTENT:
            self._marked = True
            self._tell_peer("this side's disk is not whole any more")
            self._go_on()

    def _detach(self, problem: str) -> None:
        s = self._s
        good, was = self._peer_holds_everything, s.disk
        s.disk = Disk.DISKLESS
        s.problem = problem
        s.out.append(e.CloseDisk(Then(_closed)))
        if s.role is not Role.PRIMARY:
            self._local.detach()
            self._tell_peer("the disk of this side has failed")
        elif good and was is Disk.UP_TO_DATE and self._local.gate is Gate.OPEN:
            self._move_to_peer()
        elif good and was is Disk.INCONSISTENT and self._known:
            self._local.detach()
            self._tell_peer("")
        elif good and was is Disk.INCONSISTENT:
            self._move_to_peer()
        else:
            if was is Disk.UP_TO_DATE or not self._known:
                self._lost_generation = s.exposed = s.uuids.current & ~PRIMARY_BIT
                self._moved = self._stale_stored = self._marked = False
            self._local.no_data()
            if s.link:
                self._link.drop("the disk of this side has failed")
        s.changed()

    def _tell_peer(self, reason: str) -> None:
        s = self._s
        if s.link and s.conn is Connection.CONNECTED:
            s.out.append(e.SendData(p.StateWord(s.state_word())))
        elif s.link:
            self._link.drop(reason)

    def _move_to_peer(self) -> None:
        """From now on the peer's copy is the only one: nothing is completed before both sides know that for good.

        In this order: this side notes that its disk is stale; the peer learns of it and makes its copy a generation of
        its own. The other way round a crash of both in between would leave two copies that both claim to be the newest.
        New writes wait for the first step: the peer marks what changes only when it knows.
        """
        s = self._s
        s.log("warning", "through_the_peer")
        self._lost_generation = s.exposed = s.uuids.current & ~PRIMARY_BIT
        self._moved = self._stale_stored = self._marked = False
        self._local.hold()
        s.set_timer(Timer.MOVE, s.settings.timeout_ms)
        self._note_stale()
        self._local.detach()

    def _note_stale(self) -> None:
        self._local.silent = True
        self._s.out.append(e.PersistStale(Then(self._stale_is_stored), self._lost_generation))

    def _stale_is_stored(self, errno: int, _: e.Buffer) -> None:
        s = self._s
        self._local.silent = False
        if errno:
            s.log("error", "stale_copy_not_noted", errno=errno)
            self._local.no_data()
            if s.link:
                self._link.drop("this side cannot note that its disk is stale")
            s.problem = "The disk failed, and it could not be noted that it is stale: nothing goes through the peer."
            return
        self._stale_stored = True
        s.stale_noted = self._lost_generation
        if s.link and s.conn is Connection.CONNECTED and self._local.gate is Gate.MOVING:
            s.peer_disk = Disk.UP_TO_DATE
            s.out.append(e.SendData(p.StateWord(s.state_word())))
        self._go_on()

    def generation_moved(self, current: int) -> None:
        """The peer says which generation its copy is of: the one that this Primary's applications see from now on."""
        self._s.exposed = current & ~PRIMARY_BIT
        self._moved = True
        self._go_on()

    def _go_on(self) -> None:
        if self._local.gate is Gate.MOVING and self._known:
            self._s.clear_timer(Timer.MOVE)
            self._local.open_gate()

    @property
    def _known(self) -> bool:
        """Nobody can take this side's copy for a good one any more."""
        return self._marked or (self._moved and self._stale_stored)

    def move_timer(self) -> None:
        """The peer does not say that its copy is a generation of its own."""
        if self._local.gate is Gate.MOVING:
            self._link.drop("the peer does not take over in time")

    # ------------------------------------------------------------ a Primary without a whole disk meets its peer

    def stranger(self, current: int) -> bool:
        """Whether the peer's copy is another than what this Primary's applications have seen."""
        return current & ~PRIMARY_BIT != self._s.exposed

    def peer_is_back(self, disk: Disk) -> None:
        """The peer's copy is the one that was seen before: go on with it."""
        s = self._s
        if disk not in {Disk.CONSISTENT, Disk.UP_TO_DATE}:
            return
        if self._local.gate is Gate.NO_DATA:
            self._local.hold()
            s.set_timer(Timer.MOVE, s.settings.timeout_ms)
        if self._stale_stored or self._marked:
            s.peer_disk = Disk.UP_TO_DATE
            self._go_on()
        else:
            s.peer_disk = Disk.CONSISTENT  # not told yet that this side relies on it
            self._note_stale()

    def use_as_target(self, peer_disk: Disk) -> None:
        """A resync begins that makes this disk whole: the application's writes go to it again."""
        self._local.attach()
        self.peer_is_back(peer_disk)

    def refuse_peer(self, sentence: str) -> None:
        """The peer's copy and this disk do not go together; the peer's may be the one in use."""
        if self._s.conn is Connection.CONNECTED:
            self._reject(sentence)
        else:
            self._link.turn_away(sentence)

    # ------------------------------------------------------------ the only copy of a Primary without a disk

    def serve_alone(self) -> None:
        """The Primary has no disk (any more): a generation of its own, and every change is marked from now on."""
        s = self._s
        if s.full_sync or not s.link or s.disk not in {Disk.CONSISTENT, Disk.UP_TO_DATE}:
            return
        s.disk = Disk.UP_TO_DATE
        if s.uuids.peer_may_have_current:
            s.uuids.new_current(s.take_random(), primary=False)
        s.full_sync = True  # on the disk, until the marks are there
        number = s.link_number
        s.log("warning", "only_copy", current=f"{s.uuids.current:016x}")

        def stable() -> None:
            self._peer_io.let_go()
            if s.link_number == number:
                self._link.said.news()

        self._peer_io.hold()
        self._durable.superblock(stable)

    def link_lost(self) -> None:
        """The Primary that was served is gone: write the marks down. A disk that was being compared is what it was."""
        s = self._s
        s.clear_timer(Timer.MOVE)
        if s.disk is Disk.NEGOTIATING:
            s.disk = s.found_disk
        if s.full_sync and s.disk > Disk.FAILED:
            self._durable.bitmap(self._marks_stable)

    def _marks_stable(self) -> None:
        self._s.full_sync = False
        self._durable.superblock(_nothing)

    # ------------------------------------------------------------ another disk

    def _attach_again(self, event: e.Attach) -> None:
        self._s.when(self._may_attach, lambda: self._compare_disk(event))

    def _may_attach(self) -> bool:
        s = self._s
        return s.settled and self._durable.idle and not self._link.changing and not self._peer_io.in_flight

    def _refusal(self, event: e.Attach) -> errors.MirrorRefused | None:
        s = self._s
        if s.disk > Disk.FAILED:
            return errors.AlreadySet(
                "There is a disk in use already.", "Let go of it first: relevo mirror detach NAME."
            )
        if s.stopping:
            return errors.NotAttached()
        size = event.meta.size_sectors
        if _whole(event.disk_bytes) < s.size_sectors or (size and size != s.size_sectors):
            found = size or _whole(event.disk_bytes)
            return errors.DiskOfAnotherSize(s.size_sectors * SECTOR_BYTES, found * SECTOR_BYTES)
        if s.role is Role.PRIMARY and not (self._peer_holds_everything and self._local.gate is Gate.OPEN):
            return errors.NoDataToCompare()
        return None

    def _compare_disk(self, event: e.Attach) -> None:
        s = self._s
        refusal = self._refusal(event)
        if refusal is not None:
            s.out.append(e.CommandDone(event.token, refusal))
            if not isinstance(refusal, errors.AlreadySet):
                s.out.append(e.CloseDisk(Then(_closed)))
            return
        found = self._load(event)
        s.problem = s.why_diskless = ""
        if s.role is Role.PRIMARY:
            s.crashed_primary = s.peer_outdated = False
            found = min(found, Disk.CONSISTENT)
        else:
            s.al_clean = True
            self._local.attach()
        s.found_disk = found
        s.disk = Disk.NEGOTIATING if s.link else found
        s.log("info", "attached_again", disk=DISK_NAMES[found], current=f"{s.uuids.current:016x}")
        self._durable.bitmap(_nothing)
        self._durable.superblock(lambda: self._offer(event.token))

    def _offer(self, token: e.Token) -> None:
        s = self._s
        s.out.append(e.CommandDone(token))
        if s.link and s.disk is Disk.NEGOTIATING:
            self._link.offer_disk()
        s.changed()

    def _reject(self, sentence: str) -> None:
        """The disk that came does not fit the data in use: give it up again."""
        s = self._s
        s.log("error", "disk_rejected", reason=sentence)
        s.disk = Disk.DISKLESS
        s.out.append(e.CloseDisk(Then(_closed)))
        self._link.drop(sentence)
        s.problem = f"{sentence} The disk here is not used."
        s.changed()


def _whole(disk_bytes: int) -> int:
    return disk_bytes // SECTOR_BYTES // _ALIGN_SECTORS * _ALIGN_SECTORS


def _disk_from(flags: MetaFlag, *, newest: bool) -> Disk:
    """What the copy is worth before it has met its peer: UpToDate only if nobody can have a newer one."""
    if not flags & MetaFlag.CONSISTENT:
        return Disk.INCONSISTENT
    if not flags & MetaFlag.WAS_UP_TO_DATE:
        return Disk.OUTDATED
    return Disk.UP_TO_DATE if newest else Disk.CONSISTENT


def _nothing() -> None:
    """Nothing has to follow."""


def _closed(_errno: int, _: e.Buffer) -> None:
    """The disk is closed: nothing has to follow."""
