"""What the control socket asks for: roles, leave and return, permissions.

A role changes in order: permission (vote epoch stable, peer asked), superblock stable, device, answer; and back:
device, everything in flight on both disks, bitmap and superblock stable, answer.
"""

from __future__ import annotations

import dataclasses
import errno as errnos
from collections.abc import Callable

from relevo.base.errors import RelevoError
from relevo.mirror import errors
from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.durable import Durable
from relevo.mirror.link import Link
from relevo.mirror.local_io import Gate, LocalIo
from relevo.mirror.outdate import Outdating, another_link
from relevo.mirror.peer_io import PeerIo
from relevo.mirror.requests import Then
from relevo.mirror.retcodes import (
    SS_CONCURRENT_CHANGE,
    SS_IN_TRANSIENT_STATE,
    SS_NO_UP_TO_DATE_DISK,
    SS_NOT_SUPPORTED,
    SS_SUCCESS,
    SS_TWO_PRIMARIES,
)
from relevo.mirror.state import SECTOR_BYTES, TARGET, Shared
from relevo.mirror.states import DISK_MASK, DISK_NAMES, DISK_SHIFT, ROLE_MASK, Connection, Disk, Role
from relevo.mirror.uuids import JUST_CREATED, PRIMARY_BIT

_UNDER_WAY = frozenset({Gate.WRITING, Gate.MOVING})


@dataclasses.dataclass(frozen=True, slots=True)
class Own:
    """Token of a command that nobody outside has given."""

    then: Callable[[RelevoError | None], None]


class Commands:
    """Carries out one change of role at a time; the other commands at any time."""

    def __init__(self, shared: Shared, durable: Durable, local: LocalIo, peer_io: PeerIo, link: Link) -> None:
        self._s = shared
        self._durable = durable
        self._local = local
        self._peer_io = peer_io
        self._link = link
        self._changing: e.Promote | e.Demote | None = None
        self._outdating = Outdating(shared, durable, link, self._done, self._refuse)
        link.meeting.become_secondary = self.become_secondary
        self._asked_link = 0
        """Number of the link on which the peer was asked for its consent; 0: no question is open."""

    def handle(self, command: e.Command) -> None:
        """Begin a command."""
        s = self._s
        if not s.attached or s.stopping:
            self._refuse(command, errors.NotAttached())
            return
        handlers: dict[type, Callable[..., None]] = {
            e.Promote: self._promote,
            e.Demote: self._demote,
            e.Outdate: self._outdating.outdate,
            e.Leave: self._leave_cluster,
            e.AllowAlone: self._allow_alone,
            e.DenyAlone: self._deny_alone,
            e.Connect: self._connect,
            e.Disconnect: self._disconnect,
            e.Discard: self._discard,
            e.Keep: self._connect,
            e.Down: self._down,
        }
        handlers[type(command)](command)

    def _done(self, command: e.Command) -> None:
        if isinstance(command.token, Own):
            command.token.then(None)
        else:
            self._s.out.append(e.CommandDone(command.token))
        self._s.changed()

    def _refuse(self, command: e.Command, error: RelevoError) -> None:
        if isinstance(command.token, Own):
            command.token.then(error)
        else:
            self._s.out.append(e.CommandDone(command.token, error))

    def become_secondary(self, then: Callable[[RelevoError | None], None]) -> None:
        """Demote this side because the core itself wants it; `then` is told why it could not be."""
        self._demote(e.Demote(self._s.now, Own(then)))

    # ------------------------------------------------------------ votes

    def _with_epoch(self, command: e.Promote | e.AllowAlone, then: Callable[[], None]) -> None:
        """Go on when the vote's epoch is stable; a lower one than seen before is refused."""
        s = self._s
        if command.epoch < s.epoch:
            self._refuse_vote(command, errors.AlreadyDenied(command.epoch, s.epoch))
            return
        if command.epoch == s.epoch:
            then()
            return
        s.epoch = command.epoch

        def stored(errno: int, _: e.Buffer) -> None:
            if errno:
                self._refuse_vote(command, errors.NoDisk("the vote's epoch cannot be stored"))
            else:
                then()

        s.out.append(e.PersistEpoch(Then(stored), command.epoch))

    def _refuse_vote(self, command: e.Command, error: RelevoError) -> None:
        if self._changing is command:
            self._changing = None
        self._refuse(command, error)

    # ------------------------------------------------------------ becoming Primary

    def _promote(self, command: e.Promote) -> None:
        if self._changing is not None:
            self._refuse(command, errors.CommandInProgress())
        elif self._s.role is Role.PRIMARY:
            self._with_epoch(command, lambda: self._done(command))
        else:
            self._changing = command
            self._with_epoch(command, lambda: self._s.when(self._quiet, lambda: self._promote_now(command)))

    def _quiet(self) -> bool:
        return self._s.settled and not self._s.asking and self._durable.idle and not self._peer_io.in_flight

    def _promote_now(self, command: e.Promote, *, fencing_tried: bool = False) -> None:
        s = self._s
        if s.disk <= Disk.FAILED:
            self._give_up(command, errors.NoDisk(s.problem))
        elif command.linked and not s.link:
            self._give_up(command, errors.PeerLost())
        elif s.link and s.peer_role is Role.PRIMARY:
            self._refuse_if_alive(command)
        elif self._link.fencing.due and not fencing_tried:
            self._link.fencing.run(lambda fenced: s.when(self._quiet, lambda: self._fenced(command, fenced=fenced)))
        elif (s.disk is not Disk.UP_TO_DATE and not command.force) or s.conn in TARGET:
            self._give_up(command, errors.DataNotUpToDate(DISK_NAMES[s.disk]))
        elif not s.link and not command.force and s.uuids.current & ~PRIMARY_BIT == JUST_CREATED:
            self._give_up(command, errors.NeverInUse())
        elif s.link:
            self._asked_link = s.link_number
            s.out.append(e.SendData(p.StateChangeRequest(ROLE_MASK, int(Role.PRIMARY))))
            self._link.alive.probe()  # a dead peer has to be noticed soon
            number = s.link_number
            s.when(
                lambda: self._asked_link != number or not s.link or s.link_number != number,
                lambda: self._question_ended(number),
            )
        else:
            self._become_primary(command)

    def _fenced(self, command: e.Promote, *, fenced: bool) -> None:
        """The lost peer was fenced, or could not be."""
        s = self._s
        if fenced and not s.link:
            s.peer_outdated = True
            if s.disk is Disk.CONSISTENT:
                s.disk = Disk.UP_TO_DATE  # nobody else can have anything newer
        elif not s.link and not command.force:
            self._give_up(command, errors.PeerNotFenced())
            return
        self._promote_now(command, fencing_tried=True)

    def _refuse_if_alive(self, command: e.Promote) -> None:
        """The peer was Primary when it was last heard: it stays so if it answers a ping."""
        s, number = self._s, self._s.link_number
        answer = self._link.alive.probe()

        def over() -> bool:
            return not s.link or s.link_number != number or s.pings_answered >= answer

        def go_on() -> None:
            if not s.link or s.link_number != number:
                self._peer_gone(command)
            elif s.peer_role is Role.PRIMARY:
                self._give_up(command, errors.PeerIsPrimary())
            else:
                s.when(self._quiet, lambda: self._promote_now(command))

        s.when(over, go_on)

    def _question_ended(self, number: int) -> None:
        if self._asked_link == number:
            self._asked_link = 0
            assert isinstance(self._changing, e.Promote)
            self._peer_gone(self._changing)

    def _peer_gone(self, command: e.Promote) -> None:
        """The link was lost in the middle: a permission to take over from a connected peer is none to start alone."""
        if self._s.settings.alone == "risk" and not command.linked:
            self._s.when(self._quiet, lambda: self._promote_now(command))
        else:
            self._give_up(command, errors.PeerLost())

    def _give_up(self, command: e.Command, error: RelevoError) -> None:
        self._changing = None
        self._link.changing = False
        self._refuse(command, error)

    def peer_asks(self, packet: p.StateChangeRequest) -> None:
        """The peer wants to become Primary (by force: with an UpToDate disk), or to let go of its disk."""
        if not packet.mask or packet.mask & ~(ROLE_MASK | DISK_MASK):
            self._s.log("warning", "change_not_known", mask=packet.mask, value=packet.value)
            retcode = SS_NOT_SUPPORTED
        elif packet.mask == DISK_MASK:
            retcode = self._judge_disk(packet.value)
        else:
            retcode = self._judge_role(packet.value)
        self._s.out.append(e.SendMeta(p.StateChangeReply(retcode)))

    def _judge_disk(self, value: int) -> int:
        """A Primary may do without its disk while this copy is good."""
        leaves = (value & DISK_MASK) >> DISK_SHIFT <= Disk.FAILED
        if leaves and self._s.peer_role is Role.PRIMARY and self._s.disk is not Disk.UP_TO_DATE:
            return SS_NO_UP_TO_DATE_DISK
        return SS_SUCCESS

    def _judge_role(self, value: int) -> int:
        s = self._s
        if value & ROLE_MASK != Role.PRIMARY:
            return SS_SUCCESS
        if s.role is Role.PRIMARY or self._link.changing:
            return SS_TWO_PRIMARIES
        if not s.settled:
            return SS_IN_TRANSIENT_STATE
        if self._asked_link and s.resolve_conflicts:
            return SS_CONCURRENT_CHANGE
        s.peer_role = Role.PRIMARY
        s.changed()
        return SS_SUCCESS

    def peer_answers(self, packet: p.StateChangeReply) -> None:
        """The peer's consent, or not."""
        command = self._changing
        if self._asked_link != self._s.link_number or not isinstance(command, e.Promote):
            return
        self._asked_link = 0
        if packet.retcode < SS_SUCCESS or self._s.peer_role is Role.PRIMARY:
            transient = packet.retcode == SS_IN_TRANSIENT_STATE
            self._give_up(command, errors.ResyncBegins() if transient else errors.PeerIsPrimary())
        elif not self._s.settled:
            self._give_up(command, errors.ResyncBegins())
        else:
            self._become_primary(command)

    def _become_primary(self, command: e.Promote) -> None:
        s = self._s
        self._link.changing = True
        forced = s.disk is not Disk.UP_TO_DATE
        created = s.uuids.current & ~PRIMARY_BIT == JUST_CREATED
        s.role = Role.PRIMARY
        s.disk = Disk.UP_TO_DATE
        s.al_clean = False
        s.size_agreed = True
        self._local.begin()
        alone = not s.link or s.peer_disk <= Disk.FAILED or (forced and s.steady)
        equal = s.steady and s.peer_disk is Disk.UP_TO_DATE
        again = forced or (created and not alone and not equal)  # two of JUST_CREATED are taken for equal for ever
        if created and not alone and equal:
            s.uuids.first_current(s.take_random(), primary=True)
        elif (alone and s.uuids.peer_may_have_current) or again:
            s.uuids.new_current(s.take_random(), primary=True)
        else:
            s.uuids.mark_primary(primary=True)
            created = False
        if alone:
            s.peer_outdated = True
        self._durable.superblock(lambda: self._primary_stable(command, created=created, again=again))

    def _primary_stable(self, command: e.Promote, *, created: bool, again: bool) -> None:
        s = self._s
        self._link.changing = False
        if s.disk <= Disk.FAILED:
            s.role = Role.SECONDARY
            self._local.close_down()
            self._give_up(command, errors.NoDisk(s.problem))
            return
        if s.link and s.conn >= Connection.CONNECTED:
            if again:
                self._link.drop("this copy begins a new generation: the copies have to be compared again")
            else:
                if created:
                    self._link.said.first_generation()
                s.out.append(e.SendData(p.StateWord(s.state_word())))
        s.changed()

        def made(errno: int, _: e.Buffer) -> None:
            self._changing = None
            if errno:
                self._changing = command
                self._secondary_again(command, errors.DeviceFailed(errno))
            else:
                self._done(command)

        s.out.append(e.DeviceUp(Then(made), s.size_sectors * SECTOR_BYTES))

    # ------------------------------------------------------------ becoming Secondary

    def _demote(self, command: e.Demote) -> None:
        if self._changing is not None:
            self._refuse(command, errors.CommandInProgress())
            return
        if self._s.role is not Role.PRIMARY:
            self._done(command)
            return
        self._changing = command
        if self._local.gate in {Gate.ASKING, Gate.RESUMING}:
            self._local.expire()

        def gone(errno: int, _: e.Buffer) -> None:
            if errno:
                self._give_up(command, errors.DeviceBusy() if errno == errnos.EBUSY else errors.DeviceFailed(errno))
            else:
                self._secondary_again(command, None)

        self._s.out.append(e.DeviceDown(Then(gone)))

    def _secondary_again(self, command: e.Command, error: RelevoError | None) -> None:
        """The device is gone: wait until everything is on both disks."""
        s = self._s
        if not self._local.drained:
            self._local.hurry()
        s.when(
            lambda: self._local.drained and s.settled and self._durable.idle and self._local.gate not in _UNDER_WAY,
            lambda: self._write_down(command, error),
        )

    def _write_down(self, command: e.Command, error: RelevoError | None) -> None:
        s = self._s
        self._link.changing = True
        s.role = Role.SECONDARY
        s.uuids.mark_primary(primary=False)
        if self._local.gate is not Gate.OPEN:
            if s.disk is Disk.UP_TO_DATE:
                s.crashed_primary = True  # this copy may hold writes of its generation that the peer has not
            self._local.close_down()
        self._durable.bitmap(lambda: None)
        s.al_clean = True
        self._durable.superblock(lambda: self._secondary_stable(command, error))

    def _secondary_stable(self, command: e.Command, error: RelevoError | None) -> None:
        s = self._s
        self._changing = None
        self._link.changing = False
        if s.link and s.conn >= Connection.CONNECTED:
            s.out.append(e.SendData(p.StateWord(s.state_word())))
        if error is not None:
            self._refuse(command, error)
        else:
            self._done(command)
        s.changed()

    # ------------------------------------------------------------ without the peer

    def _allow_alone(self, command: e.AllowAlone) -> None:
        self._with_epoch(command, lambda: self._alone_now(command))

    def _alone_now(self, command: e.AllowAlone) -> None:
        s = self._s
        if another_link(s, command.links):
            self._refuse(command, errors.LinkChanged())
            return
        if s.role is Role.PRIMARY and s.disk is Disk.UP_TO_DATE:
            if s.link:
                self._link.drop("the vote has left the peer out")
            if self._local.gate in {Gate.ASKING, Gate.RESUMING, Gate.EXPIRED}:
                if self._link.fencing.holds_back:
                    self._refuse(command, errors.PeerNotFenced())
                    return
                s.problem = ""
                self._local.go_alone()
        s.when(lambda: self._local.gate is not Gate.WRITING, lambda: self._done(command))

    def _deny_alone(self, command: e.DenyAlone) -> None:
        if self._local.gate is Gate.ASKING and not self._s.link:
            self._local.expire()
        self._done(command)

    # ------------------------------------------------------------ leave and return

    def _connect(self, command: e.Connect | e.Keep) -> None:
        if isinstance(command, e.Connect):
            self._s.dry_run = command.dry_run and not self._s.link
        self._look_for_peer()
        self._done(command)

    def _look_for_peer(self) -> None:
        s = self._s
        if not s.want:
            self._link.look_for_peer()
        elif s.link and s.steady and s.disk is Disk.OUTDATED:
            self._link.drop("the copies have to be compared again")

    def _disconnect(self, command: e.Disconnect) -> None:
        if command.force:
            self._link.drop("this side has cut the connection", stay_alone=True)
            self._done(command)
        else:
            self._link.leaving.take(lambda: self._done(command))

    def _discard(self, command: e.Discard) -> None:
        s = self._s
        if s.role is Role.PRIMARY:
            self._refuse(command, errors.StillPrimary())
            return
        if not s.link or not s.steady:
            s.discard_my_data = True
            if s.link:
                self._link.drop("this side gives up its changes: the copies have to be compared again")
        self._look_for_peer()
        self._done(command)

    def _leave_cluster(self, command: e.Leave) -> None:
        if self._changing is not None:
            self._refuse(command, errors.CommandInProgress())
        else:
            self._outdating.leave(command)

    def _down(self, command: e.Down) -> None:
        s = self._s
        if s.role is Role.PRIMARY or self._changing is not None:
            self._refuse(command, errors.StillPrimary())
            return
        s.stopping = True
        self._link.leaving.take(lambda: s.when(self._quiet, lambda: self._stop(command)))

    def _stop(self, command: e.Down) -> None:
        if self._s.disk <= Disk.FAILED:
            self._stopped(command)
            return
        self._durable.bitmap(lambda: None)
        self._durable.superblock(lambda: self._stopped(command))

    def _stopped(self, command: e.Down) -> None:
        self._done(command)
        self._s.out.append(e.Stopped())
