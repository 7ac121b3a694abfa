"""What an administrator does to a mirror beside roles and the link: its disk, suspended I/O, a new generation.

A disk is let go of in order: the peer is left as `Link.leave` does (so that a Primary there goes on without asking),
the meta-data is stable, nothing is under way on the disk any more; then the peer is looked for again, without a disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from relevo.base.errors import RelevoError
from relevo.mirror import errors
from relevo.mirror import events as e
from relevo.mirror.durable import Durable
from relevo.mirror.link import Link
from relevo.mirror.local_io import Gate, LocalIo
from relevo.mirror.peer_io import PeerIo
from relevo.mirror.requests import Then
from relevo.mirror.state import Shared
from relevo.mirror.states import CONNECTION_NAMES, Connection, Disk, Role
from relevo.mirror.uuids import JUST_CREATED, PRIMARY_BIT

Handler = Callable[[Any], None]
HELD = (e.AppRead, e.AppWrite, e.AppDiscard, e.AppFlush)
"""What is held while I/O is suspended."""


class Administration:
    """Carries out the commands.

    Args:
        handlers: the mirror's table of events: what is held goes through other handlers, so that it costs nothing
            while nothing is held.
    """

    def __init__(
        self,
        shared: Shared,
        durable: Durable,
        local: LocalIo,
        peer_io: PeerIo,
        link: Link,
        handlers: dict[type, Handler],
    ) -> None:
        self._s = shared
        self._durable = durable
        self._local = local
        self._peer_io = peer_io
        self._link = link
        self._handlers = handlers
        self._usual: dict[type, Handler] = {}
        self._held: list[Any] = []
        self._commands: dict[type, Handler] = {
            e.Detach: self._detach,
            e.SuspendIo: self._suspend_io,
            e.ResumeIo: self._resume_io,
            e.NewGeneration: self._new_generation,
            e.Invalidate: self._invalidate,
        }
        self._with_peer = handlers[e.Invalidate]

    @property
    def commands(self) -> tuple[type, ...]:
        """What is carried out here."""
        return tuple(self._commands)

    def handle(self, command: e.Command) -> None:
        """Begin a command."""
        s = self._s
        if not s.attached or s.stopping:
            self._refuse(command, errors.NotAttached())
            return
        self._commands[type(command)](command)

    def _done(self, command: e.Command) -> None:
        self._s.out.append(e.CommandDone(command.token))
        self._s.changed()

    def _refuse(self, command: e.Command, error: RelevoError) -> None:
        self._s.out.append(e.CommandDone(command.token, error))

    # ------------------------------------------------------------ the disk

    def _detach(self, command: e.Detach) -> None:
        s = self._s
        if self._link.changing:
            self._refuse(command, errors.CommandInProgress())
            return
        if s.role is Role.PRIMARY:
            self._link.copy.detach(command)
            return
        if s.disk <= Disk.FAILED:
            self._done(command)
            return
        wanted = s.want
        self._link.leaving.take(lambda: s.when(self._quiet, lambda: self._write_down(command, wanted=wanted)))

    def _quiet(self) -> bool:
        return not self._s.link and self._durable.idle and not self._peer_io.in_flight

    def _write_down(self, command: e.Detach, *, wanted: bool) -> None:
        if self._s.role is Role.PRIMARY:  # made so while the peer was left
            self._refuse(command, errors.LastCopy())
            return
        self._durable.bitmap(_nothing)
        self._durable.superblock(lambda: self._let_go(command, wanted=wanted))

    def _let_go(self, command: e.Detach, *, wanted: bool) -> None:
        s = self._s
        s.disk = Disk.DISKLESS
        s.problem = ""

        def closed(_errno: int, _: e.Buffer) -> None:
            s.log("info", "detached")
            if wanted:
                self._link.look_for_peer()
            self._done(command)

        s.out.append(e.CloseDisk(Then(closed)))

    # ------------------------------------------------------------ suspended I/O

    def _suspend_io(self, command: e.SuspendIo) -> None:
        s = self._s
        if not s.io_suspended:
            s.io_suspended = True
            self._usual = {kind: self._handlers[kind] for kind in HELD}
            for kind in HELD:
                self._handlers[kind] = self._held.append
            s.log("warning", "io_suspended", reason="the administrator has asked for it")
        self._done(command)

    def _resume_io(self, command: e.ResumeIo) -> None:
        self.release()
        if self._local.gate in {Gate.ASKING, Gate.EXPIRED}:
            self._s.problem = ""
            self._local.go_alone()
        self._s.when(lambda: self._local.gate is not Gate.WRITING, lambda: self._done(command))

    def release(self) -> None:
        """Go on with what was held, in order (also before the device goes: who uses it could not let go of it)."""
        s = self._s
        if not s.io_suspended:
            return
        s.io_suspended = False
        self._handlers.update(self._usual)
        held, self._held = self._held, []
        s.log("info", "io_resumed", requests=len(held))
        for event in held:
            self._usual[type(event)](event)
        s.changed()

    # ------------------------------------------------------------ generations

    def _new_generation(self, command: e.NewGeneration) -> None:
        s = self._s
        created = s.uuids.current & ~PRIMARY_BIT == JUST_CREATED
        skip = command.clear_bitmap and created and s.conn is Connection.CONNECTED and s.peer_disk > Disk.FAILED
        if s.disk <= Disk.FAILED:
            self._refuse(command, errors.NoDisk(s.problem))
        elif self._link.changing:
            self._refuse(command, errors.CommandInProgress())
        elif skip:
            self._equal_from_now_on(command)
        elif s.conn is not Connection.STANDALONE:
            self._refuse(command, errors.NeedStandAlone())
        else:
            s.uuids.new_current(s.take_random(), primary=s.role is Role.PRIMARY)
            if command.clear_bitmap:
                s.bitmap.clear_all()
            self._durable.bitmap(_nothing)
            self._durable.superblock(lambda: self._done(command))

    def _invalidate(self, command: e.Invalidate) -> None:
        """Without the peer: note down that one copy is worth nothing; the resync comes with the next connection."""
        s = self._s
        if s.conn is not Connection.STANDALONE or s.disk <= Disk.FAILED:
            self._with_peer(command)
        elif command.peer:
            self._invalidate_peer(command)
        elif s.role is Role.PRIMARY:
            self._refuse(command, errors.StillPrimary())
        elif self._link.changing:
            self._refuse(command, errors.CommandInProgress())
        else:
            s.bitmap.set_all()
            s.disk = Disk.INCONSISTENT
            self._durable.bitmap(_nothing)
            self._durable.superblock(lambda: self._done(command))

    def _invalidate_peer(self, command: e.Invalidate) -> None:
        """Only a Primary's copy is known to be the one that counts."""
        s = self._s
        if s.role is not Role.PRIMARY or self._link.changing:
            self._refuse(command, errors.NotNow(CONNECTION_NAMES[s.conn]))
            return
        if s.uuids.peer_may_have_current:
            s.uuids.new_current(s.take_random(), primary=True)
        s.bitmap.set_all()
        self._durable.bitmap(_nothing)
        self._durable.superblock(lambda: self._done(command))

    def _equal_from_now_on(self, command: e.NewGeneration) -> None:
        """The operator says that both copies hold the same: they are UpToDate, under a generation of their own."""
        s = self._s
        s.uuids.first_current(s.take_random(), primary=s.role is Role.PRIMARY)
        s.bitmap.clear_all()
        s.size_agreed = True
        s.disk = s.peer_disk = Disk.UP_TO_DATE
        number = s.link_number
        self._durable.bitmap(_nothing)

        def stable() -> None:
            if s.link and s.link_number == number:
                self._link.said.first_generation()
            self._done(command)

        self._durable.superblock(stable)


def _nothing() -> None:
    """Nothing has to follow."""
