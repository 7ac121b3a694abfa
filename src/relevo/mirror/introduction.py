"""What this side tells the peer of itself: settings, sizes, generations, state; as a link begins, and later."""

from __future__ import annotations

from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.agreement import told
from relevo.mirror.bitmap import BLOCK_BYTES
from relevo.mirror.local_io import Gate, LocalIo
from relevo.mirror.resync import Resync
from relevo.mirror.state import SECTOR_BYTES, Shared
from relevo.mirror.states import Disk

_LIMITS = p.QueueLimits(BLOCK_BYTES, BLOCK_BYTES, 0, BLOCK_BYTES, 0, 1, 1, 0)


class Introduction:
    """Says what there is; decides nothing.

    Args:
        shared, local, resync: of the core.
    """

    def __init__(self, shared: Shared, local: LocalIo, resync: Resync) -> None:
        self._s = shared
        self._local = local
        self._resync = resync

    def begin(self) -> None:
        """Everything that the peer has to know before the copies can be compared."""
        s = self._s
        options = s.settings.options
        s.out.append(e.SendData(self.settings))
        s.out.append(e.SendData(self._resync.pace.limits.said(options.verify_alg, options.csums_alg)))
        self.sizes(s.size_sectors, 0)
        if s.disk > Disk.FAILED:
            self.generations()
        self.state()

    @property
    def settings(self) -> p.Protocol:
        """What both sides have to agree on, as it is told."""
        s = self._s
        return told(s.settings.options, discard=s.discard_my_data, dry_run=s.dry_run)

    def sizes(self, current_sectors: int, flags: int) -> None:
        """The sizes of this side's disk and of the device."""
        s = self._s
        own = s.disk_sectors if s.disk > Disk.FAILED else 0
        user = s.settings.options.size_bytes // SECTOR_BYTES
        limits = _LIMITS if s.features & p.Feature.WSAME else None
        s.out.append(e.SendData(p.Sizes(own, user, current_sectors, p.MAX_PAYLOAD_BYTES, 0, flags, limits)))

    def state(self) -> None:
        """The state."""
        self._s.out.append(e.SendData(p.StateWord(self._s.state_word())))

    def generations(self, flags: int = 0) -> None:
        """The generations of the copy here."""
        s, u = self._s, self._s.uuids
        s.told_bits = s.bitmap.count
        if s.discard_my_data:
            flags |= p.UuidFlag.DISCARD_MY_DATA
        if self.crashed_primary:
            flags |= p.UuidFlag.CRASHED_PRIMARY
        if Disk.INCONSISTENT is (s.found_disk if s.disk is Disk.NEGOTIATING else s.disk):
            flags |= p.UuidFlag.INCONSISTENT
        s.out.append(e.SendData(p.Uuids(u.current, u.bitmap, u.history0, u.history1, s.bitmap.count, int(flags))))

    @property
    def crashed_primary(self) -> bool:
        """Crashed, or suspended: either way this copy may hold writes of its generation that the peer has not."""
        return self._s.crashed_primary or self._local.gate in {Gate.ASKING, Gate.EXPIRED}

    def news(self) -> None:
        """The generations have changed while connected, and with them perhaps what the disk is worth."""
        self.generations()
        self.state()

    def first_generation(self) -> None:
        """Two equal, just created copies come into use: the peer takes over the first generation."""
        self.generations(int(p.UuidFlag.SKIP_INITIAL_SYNC))
        self._s.peer_uuids = self._s.uuids.copy()
