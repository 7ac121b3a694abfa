"""What both sides agree on while they are connected: a verify, a resync of everything or of what is marked, pauses.

A change of the connection's state needs the peer's consent (`StateChangeRequest`, as a change of role does); a pause is
just told; a resync of the marked blocks is a new comparison of the copies over the same link.
"""

from __future__ import annotations

from collections.abc import Callable

from relevo.base.errors import RelevoError
from relevo.mirror import errors
from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.bitmap import BLOCK_BYTES
from relevo.mirror.durable import Durable
from relevo.mirror.link import Link
from relevo.mirror.resync import Resync
from relevo.mirror.retcodes import (
    SS_CONCURRENT_CHANGE,
    SS_IN_TRANSIENT_STATE,
    SS_NO_UP_TO_DATE_DISK,
    SS_NOT_SUPPORTED,
    SS_SUCCESS,
)
from relevo.mirror.state import Shared, Timer
from relevo.mirror.states import CONN_MASK, CONNECTION_NAMES, DISK_NAMES, Connection, Disk, Role
from relevo.mirror.uuids import JUST_CREATED, PRIMARY_BIT
from relevo.mirror.verify import Verify

SS_RESYNC_RUNNING = -8
SS_NO_VERIFY_ALG = -14
_MIRRORED = {
    Connection.STARTING_SYNC_S: Connection.STARTING_SYNC_T,
    Connection.STARTING_SYNC_T: Connection.STARTING_SYNC_S,
    Connection.VERIFY_S: Connection.VERIFY_T,
}
"""What the peer asks for, as it is on this side."""


class AgreedChanges:
    """One question to the peer at a time."""

    def __init__(self, shared: Shared, durable: Durable, link: Link, resync: Resync) -> None:
        self._s = shared
        self._durable = durable
        self._link = link
        self._resync = resync
        self.verify: Verify
        """Set once by the core: a verify may end in a repair, which begins here."""
        self._command: e.Command | None = None
        self._agreed: Callable[[], None] = _nothing
        self._asked_with = Disk.DISKLESS
        """What this side's disk was worth when the peer was asked."""

    def handle(self, command: e.Command) -> None:
        """Carry out a command."""
        if not self._s.attached or self._s.stopping:
            self._refuse(command, errors.NotAttached())
        elif isinstance(command, e.Invalidate):
            self._invalidate(command)
        elif isinstance(command, e.Verify):
            self._verify(command)
        elif isinstance(command, e.StopVerify):
            self._stop_verify(command)
        elif isinstance(command, e.PauseResync):
            self._pause(command)
        elif isinstance(command, e.ResyncSpeed):
            self._speed(command)
        else:
            self._repair(command)

    def _done(self, command: e.Command) -> None:
        self._s.out.append(e.CommandDone(command.token))
        self._s.changed()

    def _refuse(self, command: e.Command, error: RelevoError) -> None:
        self._s.out.append(e.CommandDone(command.token, error))

    # ------------------------------------------------------------ the peer's consent

    def _ask(self, command: e.Command, conn: Connection, agreed: Callable[[], None]) -> None:
        s = self._s
        s.asking = True
        self._command, self._agreed, self._asked_with = command, agreed, s.disk
        s.out.append(e.SendData(p.StateChangeRequest(CONN_MASK, conn << 4)))
        s.set_timer(Timer.CONSENT, s.settings.timeout_ms)
        number = s.link_number
        s.when(
            lambda: self._command is not command or not s.link or s.link_number != number,
            lambda: self.unanswered() if self._command is command else None,
        )

    @property
    def asked(self) -> bool:
        """An answer of the peer's is awaited here (and not by a change of role)."""
        return self._command is not None

    def peer_answers(self, packet: p.StateChangeReply) -> None:
        """The peer's consent, or not."""
        command = self._over()
        if command is None:
            return
        if packet.retcode < SS_SUCCESS:
            self._refuse(command, errors.PeerRefused(packet.retcode))
        elif self._s.conn is not Connection.CONNECTED:
            self._refuse(command, errors.NotNow(CONNECTION_NAMES[self._s.conn]))
        elif self._s.disk is not self._asked_with:  # the peer has begun already, and may be giving up its copy
            self._refuse(command, errors.DataNotUpToDate(DISK_NAMES[self._s.disk]))
            self._link.drop("this side's disk has changed since the peer was asked")
        else:
            self._agreed()
            self._done(command)

    def unanswered(self) -> None:
        """The peer does not answer, or the link is lost."""
        command = self._over()
        if command is not None:
            self._refuse(command, errors.PeerLost())

    def _over(self) -> e.Command | None:
        command, self._command = self._command, None
        if command is not None:
            self._s.asking = False
            self._s.clear_timer(Timer.CONSENT)
        return command

    def peer_asks(self, packet: p.StateChangeRequest) -> None:
        """The peer wants to change the connection's state."""
        asked = (packet.value & CONN_MASK) >> 4
        mine = next((mirrored for conn, mirrored in _MIRRORED.items() if conn == asked), None)
        retcode = SS_NOT_SUPPORTED if mine is None else self._judge(mine)
        self._s.out.append(e.SendMeta(p.StateChangeReply(retcode)))
        if retcode != SS_SUCCESS:
            return
        if mine is Connection.STARTING_SYNC_S:
            self._resync.start_all_as_source()
        elif mine is Connection.STARTING_SYNC_T:
            self._resync.start_all_as_target()
        else:
            self.verify.begin_target()

    def _judge(self, mine: Connection) -> int:
        s = self._s
        if s.asking and s.resolve_conflicts:
            return SS_CONCURRENT_CHANGE
        if s.conn is not Connection.CONNECTED or self._link.changing:
            return SS_IN_TRANSIENT_STATE if not s.settled else SS_RESYNC_RUNNING
        if mine is Connection.VERIFY_T and not s.settings.options.verify_alg:
            return SS_NO_VERIFY_ALG
        good = s.disk is Disk.UP_TO_DATE and s.peer_disk > Disk.FAILED
        if mine is Connection.STARTING_SYNC_T:  # a peer without a good copy has nothing to replace this one with
            good = s.disk > Disk.FAILED and s.peer_disk is Disk.UP_TO_DATE and s.role is not Role.PRIMARY
        return SS_SUCCESS if good else SS_NO_UP_TO_DATE_DISK

    # ------------------------------------------------------------ commands

    def _wrong(self, *, source: bool) -> RelevoError | None:
        """Why this side cannot begin, as the source (or as one of two equals, or as the target)."""
        s = self._s
        if not s.link or s.conn is not Connection.CONNECTED or s.asking or self._link.changing:
            return errors.NotNow(CONNECTION_NAMES[s.conn])
        if source and s.disk is not Disk.UP_TO_DATE:
            return errors.DataNotUpToDate(DISK_NAMES[s.disk])
        if not source and s.role is Role.PRIMARY:
            return errors.StillPrimary()
        if source and s.peer_disk <= Disk.FAILED:
            return errors.NoDisk("the peer has none")
        return None

    def _invalidate(self, command: e.Invalidate) -> None:
        s = self._s
        error = self._wrong(source=command.peer)
        if error is None and command.peer and s.peer_role is Role.PRIMARY:
            error = errors.GivenByThePrimary(everything=True)
        if error is None and not command.peer and s.peer_disk is not Disk.UP_TO_DATE:
            error = errors.PeerNotUpToDate(DISK_NAMES[s.peer_disk])
        if error is not None:
            self._refuse(command, error)
        elif command.peer:
            self._ask(command, Connection.STARTING_SYNC_S, self._resync.start_all_as_source)
        else:
            self._ask(command, Connection.STARTING_SYNC_T, self._resync.start_all_as_target)

    def _verify(self, command: e.Verify) -> None:
        s = self._s
        bits = s.bitmap.bits
        first = command.first // BLOCK_BYTES
        end = min(bits, -(-command.end // BLOCK_BYTES)) if command.end else bits
        error = self._wrong(source=True)
        if error is None and not s.settings.options.verify_alg:
            error = errors.NoVerifyAlgorithm()
        elif error is None and s.peer_disk is not Disk.UP_TO_DATE:
            error = errors.PeerNotUpToDate(DISK_NAMES[s.peer_disk])
        elif error is None and not 0 <= first < end:
            error = errors.NothingToVerify()
        if error is not None:
            self._refuse(command, error)
            return
        begin = lambda: self.verify.begin_source(first, end, repair=command.repair)  # noqa: E731
        self._ask(command, Connection.VERIFY_S, begin)

    def _stop_verify(self, command: e.StopVerify) -> None:
        if self._s.conn is Connection.VERIFY_S:
            self.verify.stop()
            self._done(command)
        else:
            self._refuse(command, errors.NoVerifyHere())

    def _pause(self, command: e.PauseResync) -> None:
        s = self._s
        if s.user_isp != command.paused:
            s.user_isp = command.paused
            self._resync.apply_pause()
            if s.link and s.conn >= Connection.CONNECTED:
                s.out.append(e.SendData(p.StateWord(s.state_word())))
        self._done(command)

    def _speed(self, command: e.ResyncSpeed) -> None:
        s, resync = self._s, self._resync
        limits = resync.configured
        if command.speed == "fast":
            limits = limits.fast()
        elif command.speed == "gentle":
            limits = limits.gentle()
        resync.pace.limits = limits
        if s.link and s.conn >= Connection.CONNECTED:
            options = s.settings.options
            s.out.append(e.SendData(limits.said(options.verify_alg, options.csums_alg)))
        self._done(command)

    # ------------------------------------------------------------ what is marked

    def _repair(self, command: e.Command) -> None:
        error = self._wrong(source=True)
        if error is None and self._s.peer_role is Role.PRIMARY:
            error = errors.GivenByThePrimary(everything=False)
        if error is not None:
            self._refuse(command, error)
            return
        self.repair()
        self._done(command)

    def repair(self) -> None:
        """Send what is marked to the peer, if anything is and this side may be the source."""
        s = self._s
        if self._wrong(source=True) is None and s.peer_role is not Role.PRIMARY and s.bitmap.count:
            self._compare_again()

    def _compare_again(self) -> None:
        """Two copies that were never in use are equal by their generation alone: they get one of their own first."""
        s, number = self._s, self._s.link_number
        if s.uuids.current & ~PRIMARY_BIT != JUST_CREATED:
            self._link.compare_again()
            return
        s.uuids.first_current(s.take_random(), primary=s.role is Role.PRIMARY)

        def stable() -> None:
            if s.link and s.link_number == number and s.conn is Connection.CONNECTED:
                self._link.said.first_generation()
                self._link.compare_again()

        self._durable.superblock(stable)


def _nothing() -> None:
    """Nothing has to follow."""
