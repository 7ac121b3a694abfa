"""Taking over a device in use: a new process of the mirror goes on as Primary where a dead one has stopped.

The device has never been away, so neither the role nor the generation changes. Everything that was in flight comes
again from whoever carries the device (the kernel); everything in the activity log is out of sync. Completions wait for
the peer, which still has all that was ever completed: it returns and becomes the target of a resync, or this side goes
on alone like any Primary that has lost it. A copy that was alone before goes on at once.
"""

from __future__ import annotations

from relevo.mirror import events as e
from relevo.mirror.errors import CannotResume
from relevo.mirror.link import Link
from relevo.mirror.local_io import Gate, LocalIo
from relevo.mirror.metadata import MetaFlag
from relevo.mirror.state import SECTOR_BYTES, Shared, Timer
from relevo.mirror.states import Connection, Disk, Role

_WAITING = "This process was started anew while its device was in use: writes wait for the peer."


class Resume:
    """The first moments of such a process."""

    def __init__(self, shared: Shared, local: LocalIo, link: Link) -> None:
        self._s = shared
        self._local = local
        self._link = link
        self._asked = False
        self._obstacle = ""
        self._since_ms = 0

    def attach(self, event: e.Attach) -> None:
        """Called when the disk's state is known, before any of it is written: take the role, or say that it cannot be.

        Everything that the dead process had completed is on this disk, and on the peer's or in this disk's bitmap.
        """
        s = self._s
        self._asked = event.resume_bytes != 0
        self._obstacle = self._look_for_obstacle(event)
        if not self._asked or self._obstacle:
            return
        s.role = Role.PRIMARY
        s.al_clean = False
        if s.uuids.peer_may_have_current:
            self._since_ms = s.now
            s.problem = _WAITING
            self._local.wait_for_peer()
            s.set_timer(Timer.RESUME, s.settings.resume_peer_ms)

    def _look_for_obstacle(self, event: e.Attach) -> str:
        s = self._s
        if not event.meta.flags & MetaFlag.PRIMARY_IND:
            return "this copy was not Primary"
        if s.disk is not Disk.UP_TO_DATE:
            return "this copy is not up to date"
        if s.size_sectors * SECTOR_BYTES != event.resume_bytes:
            return "the device has another size than this copy"
        return ""

    def attached(self) -> None:
        """What `attach` decided is stable: the device may be served."""
        s = self._s
        if not self._asked:
            return
        if not self._obstacle and s.disk > Disk.FAILED:
            s.log("warning", "resumed", current=f"{s.uuids.current:016x}", waits=self._local.gate is not Gate.OPEN)
            s.out.append(e.Resumed())
        else:
            s.out.append(e.Resumed(CannotResume(self._obstacle or s.problem)))

    def timer(self) -> None:
        """The peer has had its time. One that is on its way gets more, but not without end."""
        s = self._s
        if self._local.gate is not Gate.RESUMING:
            return
        on_its_way = s.link and s.conn is not Connection.CONNECTED
        if on_its_way and s.now - self._since_ms < s.settings.suspend_ms:
            s.set_timer(Timer.RESUME, s.settings.resume_peer_ms)
            return
        if on_its_way:
            self._link.drop("the peer did not become the target of the resync in time")
        s.problem = ""
        self._local.go_on_without_peer(ask=self._link.asks)
        self._link.fencing.peer_lost()
