"""What follows when two copies have been compared: a resync, nothing, or both stay apart and somebody is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from relevo.base.errors import RelevoError
from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.durable import Durable
from relevo.mirror.handshake import SPLIT_BRAIN, Copy, Decision, Direction
from relevo.mirror.local_io import Gate, LocalIo
from relevo.mirror.resync import Resync
from relevo.mirror.state import Shared
from relevo.mirror.states import Connection, Disk, Role

if TYPE_CHECKING:
    from relevo.mirror.link import Link

BOTH_PRIMARY = "Both servers are Primary."
NOT_YET_SECONDARY = "The peer has been left out by a vote, and is still Primary: it has to stop first."


class Meeting:
    """Carries out the decisions of `handshake`."""

    def __init__(self, shared: Shared, durable: Durable, local: LocalIo, resync: Resync, link: Link) -> None:
        self._s = shared
        self._durable = durable
        self._local = local
        self._resync = resync
        self._link = link
        self.become_secondary: Callable[[Callable[[RelevoError | None], None]], None] = _nobody
        """Demotes this side; tells the outcome (`commands`)."""

    def carry_out(self, found: Decision, peer: Copy, *, peers_dry_run: bool) -> None:
        """Do what both sides have come to."""
        s = self._s
        if found.parted:
            self._handler("initial-split-brain")
        if found.direction is Direction.REFUSE:
            self._not_together(found, peers_dry_run=peers_dry_run)
            return
        if s.role is Role.PRIMARY and peer.side.primary and found.direction is not Direction.GIVE_UP_ROLE:
            self._local.peer_has_gone_on()
            if found.direction is Direction.SOURCE and not found.parted and s.settings.alone == "ask":
                # it completed nothing since: it waited for a permission that this side got, and will be the target
                self._link.refuse(NOT_YET_SECONDARY, retry=True)
            else:
                self.split_brain(BOTH_PRIMARY)
            return
        if found.direction is Direction.GIVE_UP_ROLE:
            self._give_up_role()
            return
        s.size_agreed = True
        if found.corrected is not None:
            s.uuids = found.corrected
        s.peer_lost = False
        s.split_brain = False
        if found.direction is not Direction.TARGET:
            s.discard_my_data = False  # a target keeps the wish until the source's generation is its own
        if self._local.gate is Gate.OPEN:
            s.problem = s.why_diskless
        if found.direction is Direction.SOURCE:
            s.disk = Disk.UP_TO_DATE
            self._resync.start_source(full=found.full)
        elif found.direction is Direction.TARGET:
            if s.role is Role.PRIMARY:
                self._link.copy.use_as_target(peer.disk)
            self._resync.start_target(full=found.full, gives_up=found.gives_up)
        else:
            self._nothing_to_do(peer)

    def _not_together(self, found: Decision, *, peers_dry_run: bool) -> None:
        """The copies are not put together now."""
        s = self._s
        if found.handler:
            self._handler(found.handler)
        if s.dry_run or peers_dry_run:
            s.log("info", "dry_run", sentence=found.sentence)
            if s.dry_run:
                s.dry_run = False
                self._link.refuse(found.sentence)
            else:
                self._link.leaving.await_close("the peer wanted to know only what would be done")
            return
        self._local.peer_has_gone_on()
        if found.split_brain:
            self.split_brain(found.sentence)
        else:
            self._link.refuse(found.sentence, retry=found.retry)

    def _handler(self, name: str) -> None:
        """Call the administrator; nothing waits for the end of that."""
        self._s.out.append(e.RunHandler(None, name, {}))

    def _give_up_role(self) -> None:
        """call-pri-lost-after-sb: this side lost the split brain. Secondary first; then the copies meet again."""
        self._link.drop("this Primary has lost the split brain: it becomes Secondary")
        self.become_secondary(self._gave_up_role)

    def _gave_up_role(self, error: RelevoError | None) -> None:
        if error is not None:
            self._s.log("error", "role_not_given_up", problem=str(error))
            self._handler("pri-lost-after-sb")
            self.split_brain(f"{SPLIT_BRAIN} This side has lost it, but stays Primary: {error.what}")

    def _nothing_to_do(self, peer: Copy) -> None:
        s = self._s
        if s.disk >= Disk.OUTDATED and peer.disk >= Disk.OUTDATED:
            s.disk = s.peer_disk = Disk.UP_TO_DATE
            s.crashed_primary = False
            s.peer_outdated = False
            if s.bitmap.count:
                s.log("warning", "bits_without_resync", bits=s.bitmap.count)
        s.set_conn(Connection.CONNECTED)
        if s.role is Role.PRIMARY and s.disk <= Disk.FAILED:
            self._link.copy.peer_is_back(peer.disk)
        s.out.append(e.SendData(p.StateWord(s.state_word())))
        if s.disk > Disk.FAILED:
            self._durable.superblock(_nothing)

    def refuse_resync(self, sentence: str) -> None:
        """The resync that was agreed on must not begin: leave the peer until told otherwise."""
        s = self._s
        s.discard_my_data = False
        s.log("error", "resync_refused", sentence=sentence)
        self._link.refuse(sentence)

    def split_brain(self, sentence: str) -> None:
        """Both went on alone, and nothing says whose changes go: stay apart."""
        s = self._s
        s.split_brain = True
        s.discard_my_data = False
        s.parted_bits = (s.told_bits, s.peer_told_bits)
        self._link.refuse(sentence)
        s.log("error", "split_brain", sentence=sentence)


def _nobody(_: Callable[[RelevoError | None], None]) -> None:
    raise AssertionError("nobody can demote this side")


def _nothing() -> None:
    """Nothing has to follow."""
