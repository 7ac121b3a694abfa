"""The conversation with the peer: settings and states at its beginning, and its end (in between: `vitality`).

From P_PROTOCOL on; sockets, features and authentication are the shell's. Losing the link while Primary starts what the
order duties demand (`local_io.LocalIo.peer_lost`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror import size_option
from relevo.mirror.agreement import DRY_RUN_FLAG, disagreement
from relevo.mirror.bitmap import Bitmap, bits_for
from relevo.mirror.durable import Durable
from relevo.mirror.fencing import Fencing
from relevo.mirror.growth import Growth
from relevo.mirror.handshake import Copy, Direction, decide
from relevo.mirror.introduction import Introduction
from relevo.mirror.leave import LeaveTaking
from relevo.mirror.local_io import Gate, LocalIo
from relevo.mirror.meeting import BOTH_PRIMARY, Meeting
from relevo.mirror.parameters import sync_disagreement
from relevo.mirror.peer_io import PeerIo
from relevo.mirror.resync import Resync
from relevo.mirror.state import SOURCE, STEADY, TARGET, Shared, Timer
from relevo.mirror.states import Connection, Disk, Role, State
from relevo.mirror.uuids import JUST_CREATED, PRIMARY_BIT, Generations, Side
from relevo.mirror.verify import Verify
from relevo.mirror.vitality import Vitality

if TYPE_CHECKING:
    from relevo.mirror.local_copy import LocalCopy

PEER_TOO_SMALL = (
    "The peer's disk is smaller than the mirror. Put in a larger one there (relevo mirror create NAME), then connect "
    "again here: relevo mirror connect NAME."
)
OTHER_DATA = "The peer's copy is not the one that this Primary without a whole disk has used."
_EARLY_LIMIT = 64


class Link:
    """Begins and ends a link."""

    def __init__(self, shared: Shared, durable: Durable, local: LocalIo, peer_io: PeerIo, resync: Resync) -> None:
        self.late_packet: Callable[[p.Packet, e.Buffer], None] = _no_packet
        """Takes what came before this side had begun; releases the buffer when the link is gone."""
        self._s = shared
        self._durable = durable
        self._local = local
        self._peer_io = peer_io
        self._resync = resync
        self.said = Introduction(shared, local, resync)
        self.growth: Growth
        self.verify: Verify
        """Set once by the core."""
        self._early: list[tuple[p.Packet, e.Buffer]] | None = None
        self.fencing = Fencing(shared, durable, local)
        self.alive = Vitality(shared, local, resync, self.drop)
        self._protocol_seen = False
        self._sizes_seen = False
        self._uuid_flags = 0
        self._peer_dry_run = False
        self.leaving = LeaveTaking(shared, durable, peer_io, self)
        self.changing = False
        """A change of role is being made stable: no link begins meanwhile."""
        self.copy: LocalCopy
        """What becomes of this side's disk; set once by the core."""
        self._offered = False
        self._generations_fresh = False
        self.meeting = Meeting(shared, durable, local, resync, self)

    # ------------------------------------------------------------ beginning

    def connected(self, event: e.Connected) -> None:
        """Both sockets are there."""
        s = self._s
        self.lost("a new link came")
        self.leaving.closed()
        if not s.want:
            s.out.append(e.DropConnection("no connection is wanted"))
            return
        s.link = True
        s.link_number += 1
        s.features = event.features
        s.resolve_conflicts = event.resolve_conflicts
        s.peer_uuids = None
        s.peer_disk = Disk.UNKNOWN
        s.peer_role = Role.UNKNOWN
        s.pings_sent = s.pings_answered = 0
        self._protocol_seen = self._sizes_seen = False
        self.leaving.begin()
        self._offered = self._generations_fresh = False
        self._early = []
        self.alive.begin()
        s.set_conn(Connection.WF_REPORT_PARAMS)
        s.set_timer(Timer.HANDSHAKE, s.settings.timeout_ms)
        number = s.link_number
        s.when(
            lambda: s.link_number != number or not s.link or self._may_begin(),
            lambda: self._begin() if s.link and s.link_number == number else None,
        )

    def _may_begin(self) -> bool:
        """What is said of this side has to be stable, and to stay so until the peer has compared it."""
        return self._durable.idle and not self._peer_io.in_flight and not self.changing

    def _begin(self) -> None:
        self.said.begin()
        early, self._early = self._early or [], None
        for packet, buffer in early:
            self.late_packet(packet, buffer)

    @property
    def begun(self) -> bool:
        """This side has told its parameters."""
        return self._early is None

    def postpone(self, packet: p.Packet, buffer: e.Buffer) -> None:
        """A packet waits until this side has begun.

        Raises:
            ProtocolError: too many of them.
        """
        assert self._early is not None
        if len(self._early) >= _EARLY_LIMIT:
            raise p.ProtocolError("The peer sends too much before the conversation has begun.")
        self._early.append((packet, buffer))

    def protocol(self, packet: p.Protocol) -> None:
        """Settings that have to agree. When they do not it is tried again: the other server may be adjusted next."""
        self._expect_parameters()
        self._peer_dry_run = bool(packet.conn_flags & DRY_RUN_FLAG)
        wrong = disagreement(self.said.settings, packet)
        if wrong:
            self.turn_away(wrong)
        self._protocol_seen = True

    def sync_param(self, packet: p.SyncParam) -> None:
        """How the peer resynchronises; told at the beginning, and again when its administrator changes something."""
        s, pace, options = self._s, self._resync.pace, self._s.settings.options
        wrong = sync_disagreement(options, packet)
        if s.conn is Connection.WF_REPORT_PARAMS:
            if wrong:
                self.turn_away(wrong)
            return
        pace.limits = pace.limits.heard(packet)
        if wrong:
            s.log("warning", "settings_differ", what=wrong)

    def _expect_parameters(self) -> None:
        if self._s.conn is not Connection.WF_REPORT_PARAMS:
            raise p.ProtocolError("The peer repeats the beginning of the conversation.")

    def refuse(self, sentence: str, *, retry: bool = False) -> None:
        """The copies are not put together. A peer that is still comparing them shall find out by itself, and why."""
        s = self._s
        if s.problem != sentence:
            s.problem = sentence
            s.changed()
        if s.link and s.conn is Connection.WF_REPORT_PARAMS:
            if not retry:
                self._want_no_more()
            self.leaving.await_close(sentence)
        else:
            self.drop(sentence, stay_alone=not retry)

    def _want_no_more(self) -> None:
        if self._s.want:
            self._s.want = False
            self._s.out.append(e.WantConnection(wanted=False))

    def turn_away(self, sentence: str) -> None:
        """The peer cannot be used as it is; that may be gone by itself later."""
        self.refuse(sentence, retry=True)

    def sizes(self, packet: p.Sizes) -> None:
        """Agree on the size of the device."""
        s = self._s
        if s.conn > Connection.WF_REPORT_PARAMS:
            self.growth.sizes(packet)
            return
        if s.conn is not Connection.WF_REPORT_PARAMS or not packet.disk_sectors or s.disk <= Disk.FAILED:
            self._sizes_seen = True
            return
        if s.size_agreed:
            small = size_option.too_small(s.size_sectors, s.settings.options, packet.user_sectors)
            if packet.disk_sectors < s.size_sectors or small:
                self.refuse(small or PEER_TOO_SMALL)
            else:
                self.growth.at_connect(packet)
        else:
            size = min(s.disk_sectors, packet.disk_sectors, packet.current_sectors or packet.disk_sectors)
            size = size_option.limited(size, s.settings.options, packet.user_sectors)
            if size != s.size_sectors:
                pages = b"".join(s.bitmap.take_page(page) for page in range(s.bitmap.pages))
                s.size_sectors = size
                s.bitmap = Bitmap(bits_for(size), pages)
        self._sizes_seen = True

    def uuids(self, packet: p.Uuids) -> None:
        """The peer's generations."""
        s = self._s
        first = s.peer_uuids is None
        s.peer_uuids = Generations(packet.current, packet.bitmap, packet.history0, packet.history1)
        self._uuid_flags = packet.flags
        if first:
            s.peer_told_bits = packet.bits
        elif s.disk is Disk.NEGOTIATING:
            self._generations_fresh = self._offered
        elif s.role is Role.PRIMARY and s.disk <= Disk.FAILED:
            self.copy.generation_moved(packet.current)
        created = s.uuids.current & ~PRIMARY_BIT == JUST_CREATED
        skip = packet.flags & p.UuidFlag.SKIP_INITIAL_SYNC
        if not first and s.steady and created and skip and s.disk > Disk.FAILED:
            s.uuids = Generations(packet.current & ~PRIMARY_BIT, 0, packet.history0, packet.history1)
            s.bitmap.clear_all()
            s.disk = s.peer_disk = Disk.UP_TO_DATE
            self._durable.superblock(_nothing)
            s.changed()

    # ------------------------------------------------------------ states

    def state(self, packet: p.StateWord) -> None:
        """The peer's state; the first one ends the exchange of parameters."""
        s = self._s
        try:
            peer = State.unpack(packet.word)
        except ValueError as error:
            raise p.ProtocolError(f"The peer's state cannot be: {error}.") from None
        if s.conn is Connection.WF_REPORT_PARAMS:
            self._meet(peer)
            return
        if peer.role is Role.PRIMARY and s.role is Role.PRIMARY:
            self.meeting.split_brain(BOTH_PRIMARY)
            return
        if peer.role is not s.peer_role:
            s.peer_role = peer.role
            self._peer_io.hurry_up()
            s.changed()
        if (peer.aftr_isp or peer.user_isp) is not s.peer_isp:
            s.peer_isp = not s.peer_isp
            self._resync.apply_pause()
            s.changed()
        if s.conn is Connection.CONNECTED and peer.disk is Disk.NEGOTIATING:
            self._answer_offer(peer)
        elif s.conn is Connection.CONNECTED and s.disk is Disk.NEGOTIATING:
            self._offer_answered(peer)
        elif s.conn is Connection.CONNECTED and peer.conn in {Connection.WF_BITMAP_S, Connection.WF_BITMAP_T}:
            self._compare(peer)
        else:
            self._peer_disk(peer)
            self._serve(peer)

    def _peer_disk(self, peer: State) -> None:
        s = self._s
        if peer.disk <= Disk.FAILED < s.peer_disk and s.peer_disk is not Disk.UNKNOWN:
            s.log("warning", "peer_disk_failed")
            if s.role is Role.PRIMARY or s.conn is not Connection.CONNECTED:
                self.drop("the peer's disk has failed")
                return
            s.peer_disk = Disk.DISKLESS
            if s.peer_role is Role.PRIMARY:
                self.copy.serve_alone()
            s.changed()
        elif s.conn in SOURCE:
            self._target_says(peer)
        elif s.conn is Connection.CONNECTED and peer.conn is Connection.AHEAD:
            self._resync.fall_behind()
        elif s.conn is Connection.CONNECTED and s.disk is Disk.INCONSISTENT and peer.disk is Disk.UP_TO_DATE:
            self.drop("the peer's copy was forced to be UpToDate: the copies have to be compared again")
        elif s.conn in STEADY:
            if s.conn is Connection.VERIFY_T and peer.conn is Connection.CONNECTED:
                self.verify.peer_done()
            disk = Disk.UP_TO_DATE if peer.disk >= Disk.OUTDATED and s.disk is Disk.UP_TO_DATE else peer.disk
            if s.role is Role.PRIMARY and s.peer_disk is Disk.UP_TO_DATE and disk is Disk.INCONSISTENT:
                self.drop("the peer's copy is not whole any more: it has to be made so by a resync")
            elif disk is not s.peer_disk:
                s.peer_disk = disk
                s.changed()

    def _target_says(self, peer: State) -> None:
        if peer.conn in TARGET and peer.disk is Disk.INCONSISTENT:
            self.target_marked()
        elif peer.conn is Connection.CONNECTED and peer.disk is Disk.UP_TO_DATE:
            self._resync.peer_done()

    def _serve(self, peer: State) -> None:
        """A Primary without a disk says that it goes on with this copy (a kernel may just begin to read and write)."""
        if peer.role is Role.PRIMARY and peer.disk <= Disk.FAILED and peer.pdsk is Disk.UP_TO_DATE:
            self.copy.serve_alone()

    # ------------------------------------------------------------ a disk comes while connected

    def offer_disk(self) -> None:
        """Tell the peer of a disk that was attached; it answers with its generations and its state."""
        s = self._s
        self._offered = True
        self._generations_fresh = False
        self.said.sizes(s.size_sectors, 0)
        self.said.news()
        s.set_timer(Timer.HANDSHAKE, s.settings.timeout_ms)

    def _answer_offer(self, peer: State) -> None:
        """The peer has attached a disk: say what is here, and decide as at the beginning."""
        s = self._s
        if s.disk > Disk.FAILED:
            self.said.generations()
        self.said.state()
        if s.disk > Disk.FAILED:
            inconsistent = self._uuid_flags & p.UuidFlag.INCONSISTENT
            self._compare(msgspec.structs.replace(peer, disk=Disk.INCONSISTENT if inconsistent else Disk.CONSISTENT))

    def _offer_answered(self, peer: State) -> None:
        s = self._s
        if peer.disk <= Disk.FAILED:
            s.disk = s.found_disk
            self.said.state()
        elif self._generations_fresh:
            self._compare(peer)
        else:
            return  # said before it knew of the disk
        self._offered = self._generations_fresh = False
        s.clear_timer(Timer.HANDSHAKE)

    def target_marked(self) -> None:
        """The target is Inconsistent on its disk: it cannot become Primary, so this side may complete writes alone."""
        self._s.live_start = False
        if self._local.gate in {Gate.ASKING, Gate.RESUMING, Gate.EXPIRED}:
            self._s.problem = ""
            self._local.open_gate()

    def _meet(self, peer: State) -> None:
        s = self._s
        if not self._protocol_seen or not self._sizes_seen or (peer.disk > Disk.FAILED and s.peer_uuids is None):
            raise p.ProtocolError("The peer sent its state before its parameters.")
        s.clear_timer(Timer.HANDSHAKE)
        s.peer_role = peer.role
        s.peer_isp = peer.aftr_isp or peer.user_isp
        self._compare(peer)

    def compare_again(self) -> None:
        """The blocks that are marked here go to the peer: it learns that this copy is the one that counts."""
        s = self._s
        s.live_start = True
        self.said.generations(int(p.UuidFlag.CRASHED_PRIMARY))
        self._resync.start_source(full=False)

    def _compare(self, peer: State) -> None:
        """Who has the newer copy, and what follows from that. A Primary whose disk is not whole keeps to the peer's."""
        s = self._s
        served = s.conn is Connection.CONNECTED and s.peer_disk <= Disk.FAILED and peer.role is Role.PRIMARY
        s.peer_disk = peer.disk
        depends = s.role is Role.PRIMARY and s.disk is not Disk.UP_TO_DATE
        if depends and s.peer_uuids is not None and self.copy.stranger(s.peer_uuids.current):
            self.copy.refuse_peer(OTHER_DATA)
            return
        if s.disk is Disk.NEGOTIATING:
            s.disk = s.found_disk
        me = Copy(
            Side(s.uuids, s.role is Role.PRIMARY and not depends, self.said.crashed_primary),
            s.disk,
            s.discard_my_data,
            s.told_bits,
        )
        crashed = s.peer_crashed = bool(self._uuid_flags & p.UuidFlag.CRASHED_PRIMARY)
        theirs = s.peer_uuids or Generations(0, 0, 0, 0)
        discard = bool(self._uuid_flags & p.UuidFlag.DISCARD_MY_DATA)
        him = Copy(Side(theirs, peer.role is Role.PRIMARY, crashed), peer.disk, discard, s.peer_told_bits)
        found = decide(
            me,
            him,
            features=s.features,
            resolve_conflicts=s.resolve_conflicts,
            options=s.settings.options,
            dry_run=s.dry_run or self._peer_dry_run,
        )
        s.log("info", "handshake", rule=found.rule, direction=found.direction.name, full=found.full)
        if depends and s.disk > Disk.FAILED and found.direction is not Direction.TARGET:
            self.copy.refuse_peer(found.sentence or OTHER_DATA)
        elif served and found.direction is not Direction.SOURCE:
            self.drop("the disk that the peer attached does not hold what it uses")
        else:
            self.meeting.carry_out(found, him, peers_dry_run=self._peer_dry_run)

    # ------------------------------------------------------------ the end

    @property
    def asks(self) -> bool:
        """Nothing is completed without the peer before somebody has permitted it, or the peer is fenced."""
        return self._s.settings.alone == "ask" or self.fencing.holds_back

    def handshake_timer(self) -> None:
        """The peer has not told its parameters."""
        if self._s.link:
            self.drop("the peer did not finish the handshake in time")

    def drop(self, reason: str, *, stay_alone: bool = False) -> None:
        """Close the link; it is lost at once."""
        s = self._s
        if stay_alone:
            self._want_no_more()
        if s.link:
            s.out.append(e.DropConnection(reason))
            self.lost(reason)
        elif stay_alone and s.conn is Connection.WF_CONNECTION:
            s.set_conn(Connection.STANDALONE)

    def disconnected(self, reason: str) -> None:
        """The sockets are gone."""
        self.leaving.closed()
        self.lost(reason or "the link broke")

    def lost(self, reason: str) -> None:
        """Nothing more comes from the peer, and what was sent may or may not have arrived."""
        s = self._s
        if not s.link:
            return
        s.link = False
        for _, buffer in self._early or ():
            if buffer is not None:
                s.out.append(e.ReleaseBuffer(buffer))
        self._early = None
        whole = s.steady or (s.conn in TARGET and s.disk is Disk.UP_TO_DATE)
        ahead = s.conn is Connection.AHEAD  # the peer may not know yet that it is Behind
        good = self._resync.maybe_done or s.live_start or ahead or (whole and s.peer_disk is Disk.UP_TO_DATE)
        was_target_of_primary = (good or s.full_sync) and s.peer_role is Role.PRIMARY and s.disk is Disk.UP_TO_DATE
        if s.role is Role.SECONDARY and was_target_of_primary and not self.leaving.goodbye:
            s.peer_lost = True
        for timer in (Timer.PING, Timer.PONG, Timer.LATE, Timer.HANDSHAKE, Timer.AHEAD):
            s.clear_timer(timer)
        s.log("warning" if good else "info", "link_lost", reason=reason)
        self.verify.link_lost()
        self.growth.link_lost()
        self._resync.link_lost()
        self._peer_io.link_lost()
        self.copy.link_lost()
        s.set_conn(Connection.WF_CONNECTION if s.want else Connection.STANDALONE)
        s.peer_role = Role.UNKNOWN
        s.peer_disk = Disk.OUTDATED if self.leaving.peer_outdated else Disk.UNKNOWN
        s.peer_outdated = s.peer_outdated or self.leaving.peer_outdated
        ask = self.asks and not self.leaving.peer_outdated
        self._local.peer_lost(copy_was_good=good, ask=ask)
        if good and s.role is Role.PRIMARY and s.disk > Disk.FAILED and not self.leaving.peer_outdated:
            self.fencing.peer_lost()
        self.leaving.ended()
        s.changed()

    def look_for_peer(self) -> None:
        """From now on there shall be a link."""
        s = self._s
        if not s.want:
            s.want = True
            s.left = False
            s.out.append(e.WantConnection(wanted=True))
            if s.conn is Connection.STANDALONE:
                s.set_conn(Connection.WF_CONNECTION)


def _no_packet(_packet: p.Packet, _buffer: e.Buffer) -> None:
    """Until somebody takes packets."""


def _nothing() -> None:
    """Nothing has to follow."""
