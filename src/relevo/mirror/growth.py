"""A mirror becomes larger while it is in use: both disks have grown, and one side is told to take that over.

As the kernel's drbd does it: the side that is asked tells its new size (P_SIZES with current size 0, which asks for an
answer); the peer looks at its own disk, grows to the smaller of both sizes and answers with its own; then the first one
grows. What is added is out of sync on both sides unless the operator says that it is equal, and the Primary (or who
breaks ties) becomes the source of a resync of it, without an exchange of bitmaps: both have the same bits.

Order duties: the new part of the bitmap is stable before the superblock that speaks of the new size; that before the
device, or the peer, is told of it.
"""

from __future__ import annotations

from collections.abc import Callable

from relevo.base.units import format_bytes
from relevo.mirror import errors
from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.bitmap import bits_for
from relevo.mirror.durable import Durable
from relevo.mirror.requests import Then
from relevo.mirror.resync import Resync
from relevo.mirror.state import SECTOR_BYTES, Shared
from relevo.mirror.states import CONNECTION_NAMES, Connection, Disk, Role

NO_RESYNC = 2
"""Flag of P_SIZES: what is added is equal on both sides."""
_ALIGN_SECTORS = 8
Next = Callable[[], None]


class Growth:
    """One change of size at a time.

    Args:
        shared: the mirror's state.
        durable: makes it stable.
        resync: of what is added.
        send_sizes: tells the peer; gets the current size to tell and the flags.
        drop: gives the link up.
    """

    def __init__(
        self,
        shared: Shared,
        durable: Durable,
        resync: Resync,
        send_sizes: Callable[[int, int], None],
        drop: Callable[[str], None],
    ) -> None:
        self._s = shared
        self._durable = durable
        self._resync = resync
        self._send_sizes = send_sizes
        self._drop = drop
        self._command: e.Resize | None = None
        self._busy = False
        self._waiting: p.Sizes | None = None
        self._early_uuid: p.SyncUuid | None = None

    # ------------------------------------------------------------ the side that is asked

    def handle(self, command: e.Resize) -> None:
        """The operator says that the disks have grown."""
        error = self._obstacle(command)
        if error is not None:
            self._s.out.append(e.CommandDone(command.token, error))
            return
        self._command = command
        self._measure(self._announce)

    def _obstacle(self, command: e.Resize) -> errors.MirrorRefused | None:
        s = self._s
        if not s.attached or s.stopping or s.disk <= Disk.FAILED:
            return errors.NoDisk(s.problem)
        if self._command is not None or self._busy:
            return errors.CommandInProgress()
        if command.size_bytes and command.size_bytes // SECTOR_BYTES < s.size_sectors:
            return errors.CannotResize("A mirror cannot become smaller.", "Ask for a larger size.")
        if not s.link and command.assume_peer_has_space:
            return None
        if s.conn is not Connection.CONNECTED:
            return errors.CannotResize(
                f"The mirror is {CONNECTION_NAMES[s.conn]}: only two that are Connected can agree on a size.",
                "Wait until it is Connected.",
            )
        if s.peer_disk <= Disk.FAILED:  # it would never tell the size of one
            return errors.NoDisk("the peer has none")
        if s.role is Role.SECONDARY and s.peer_role is Role.SECONDARY:
            return errors.CannotResize("Neither side is Primary.", "Make one of them Primary first.")
        return None

    def _announce(self) -> None:
        s, command = self._s, self._command
        assert command is not None
        wanted = self._bounded(s.disk_sectors)
        if wanted <= s.size_sectors < s.disk_sectors and not command.size_bytes:
            self._limited(s.settings.options.size_bytes, "this side")
        elif wanted <= s.size_sectors:
            size = format_bytes(s.disk_sectors * SECTOR_BYTES)
            self._refuse(f"The disk of this side has room for {size}, no more than before.", "Let it grow first.")
        elif not s.link:
            self._grow(wanted, resync=not command.assume_clean, then=self._done)
        else:
            s.growing_sectors = wanted  # a Primary that has grown writes there before its answer is dealt with
            self._send_sizes(0, NO_RESYNC if command.assume_clean else 0)

    def _limited(self, size_bytes: int, whose: str) -> None:
        size = format_bytes(size_bytes)
        self._refuse(f"The option size of {whose} limits the mirror to {size}.", "Raise it, and adjust both sides.")

    def _bounded(self, sectors: int) -> int:
        asked = self._command.size_bytes // SECTOR_BYTES if self._command is not None else 0
        bounds = [sectors, asked or sectors, self._s.settings.options.size_bytes // SECTOR_BYTES or sectors]
        return min(bounds) // _ALIGN_SECTORS * _ALIGN_SECTORS

    # ------------------------------------------------------------ what the peer says

    def sizes(self, packet: p.Sizes) -> None:
        """The peer tells its sizes while the link is in use."""
        s = self._s
        if not packet.disk_sectors or s.disk <= Disk.FAILED:
            return
        if packet.disk_sectors < s.size_sectors:
            self._drop("The peer's disk has become smaller than the mirror.")
        elif self._busy:
            self._waiting = packet
        else:
            self._measure(lambda: self._consider(packet))

    def _consider(self, packet: p.Sizes) -> None:
        s = self._s
        wanted = self._bounded(min(s.disk_sectors, packet.disk_sectors))
        if packet.user_sectors:
            wanted = min(wanted, packet.user_sectors // _ALIGN_SECTORS * _ALIGN_SECTORS)
        resync = not packet.dds_flags & NO_RESYNC and not (self._command is not None and self._command.assume_clean)
        if wanted > s.size_sectors:
            self._grow(wanted, resync=resync, then=lambda: self._answer(packet, grown=True, resync=resync))
        else:
            self._answer(packet, grown=False, resync=False)

    def _answer(self, packet: p.Sizes, *, grown: bool, resync: bool) -> None:
        """This side is done; the peer may not be."""
        s = self._s
        if s.link and packet.current_sectors != s.size_sectors and (grown or not packet.current_sectors):
            self._send_sizes(s.size_sectors, packet.dds_flags)
        if grown and resync and s.link and s.conn is Connection.CONNECTED:
            self._start_resync()
        if self._command is not None:
            if grown:
                self._done()
            elif 0 < packet.user_sectors <= s.size_sectors:
                self._limited(packet.user_sectors * SECTOR_BYTES, "the peer")
            else:
                size = format_bytes(packet.disk_sectors * SECTOR_BYTES)
                self._refuse(f"The disk of the peer has room for {size}.", "Let it grow as well.")

    def _start_resync(self) -> None:
        s = self._s
        source = s.resolve_conflicts if s.role is s.peer_role else s.role is Role.PRIMARY
        if source:
            self._resync.start_added_as_source()
        else:
            early, self._early_uuid = self._early_uuid, None
            self._resync.start_added_as_target()
            if early is not None:
                self._resync.sync_uuid(early)

    def sync_uuid(self, packet: p.SyncUuid) -> None:
        """The source is ready, perhaps before this side has taken over the new size.

        Raises:
            ProtocolError: not now.
        """
        if self._s.conn is Connection.CONNECTED and (self._busy or self._s.growing_sectors):
            self._early_uuid = packet
        else:
            self._resync.sync_uuid(packet)

    def at_connect(self, packet: p.Sizes) -> None:
        """Two that meet use what both disks have room for, as the kernel's drbd does."""
        s = self._s
        wanted = self._bounded(min(s.disk_sectors, packet.disk_sectors))
        if packet.user_sectors:
            wanted = min(wanted, packet.user_sectors // _ALIGN_SECTORS * _ALIGN_SECTORS)
        if wanted > s.size_sectors:
            self._enlarge(wanted, resync=True)
            self._durable.bitmap(_nothing)
            s.size_sectors = wanted
            self._durable.superblock(self._tell_device)

    def link_lost(self) -> None:
        """What was not agreed on is not."""
        self._s.growing_sectors = 0
        self._early_uuid = None
        self._waiting = None
        if self._command is not None and not self._busy:
            self._refuse("The peer was lost meanwhile.", "Try again when it is connected.")

    # ------------------------------------------------------------ this side

    def _measure(self, then: Next) -> None:
        """Look at the disk; meta-data moves to where it belongs."""
        self._busy = True

        def measured(errno: int, sectors: int) -> None:
            self._busy = False
            if errno:
                self._s.log("error", "disk_not_measured", errno=errno)
            else:
                self._s.disk_sectors = sectors // _ALIGN_SECTORS * _ALIGN_SECTORS
            then()
            self._next()

        self._s.out.append(e.MeasureDisk(Then(measured)))

    def _next(self) -> None:
        packet, self._waiting = self._waiting, None
        if packet is not None and not self._busy and self._s.link:
            self.sizes(packet)
        elif packet is not None:
            self._waiting = packet

    def _enlarge(self, sectors: int, *, resync: bool) -> None:
        s = self._s
        old = s.bitmap.bits
        s.bitmap.grow(bits_for(sectors))
        if resync:
            s.bitmap.set_range(old, s.bitmap.bits)
        s.log("info", "growing", old_sectors=s.size_sectors, new_sectors=sectors, resync=resync)

    def _grow(self, sectors: int, *, resync: bool, then: Next) -> None:
        s = self._s
        self._busy = True
        s.growing_sectors = sectors
        self._enlarge(sectors, resync=resync)

        def device_done(_errno: int, _: e.Buffer) -> None:
            self._busy = False
            s.growing_sectors = 0
            then()
            self._next()

        def size_stable() -> None:
            s.changed()
            s.out.append(e.DeviceGrow(Then(device_done), sectors * SECTOR_BYTES))

        def bitmap_stable() -> None:
            s.size_sectors = sectors
            self._durable.superblock(size_stable)

        self._durable.bitmap(bitmap_stable)

    def _tell_device(self) -> None:
        s = self._s
        s.changed()
        s.out.append(e.DeviceGrow(Then(_done_with), s.size_sectors * SECTOR_BYTES))

    def _done(self) -> None:
        command, self._command = self._command, None
        if command is not None:
            self._s.out.append(e.CommandDone(command.token))
        self._s.changed()

    def _refuse(self, what: str, remedy: str) -> None:
        command, self._command = self._command, None
        self._s.growing_sectors = 0
        assert command is not None
        self._s.out.append(e.CommandDone(command.token, errors.CannotResize(what, remedy)))


def _done_with(_errno: int, _: e.Buffer) -> None:
    """Nothing waits for the device."""


def _nothing() -> None:
    """Nothing has to follow."""
