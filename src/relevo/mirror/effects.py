"""What the mirror's core wants done. The contract: `events`."""

from __future__ import annotations

import dataclasses

from relevo.base.errors import RelevoError
from relevo.mirror.event_parts import AlTransaction, Buffer, MetaState, Token
from relevo.mirror.packets import Packet


@dataclasses.dataclass(slots=True)
class DiskRead:
    """Read from the data area."""

    token: Token
    offset: int
    length: int
    buffer: Buffer


@dataclasses.dataclass(slots=True)
class DiskReadThin:
    """As `DiskRead`, for whoever need not have zeroes: `DiskDone.buffer` is None when there is nothing else."""

    token: Token
    offset: int
    length: int


@dataclasses.dataclass(slots=True)
class DiskDigest:
    """Read from the data area and compute the digest (an algorithm as `csums-alg` names it): `DiskDone.buffer` is it.

    The digest is plain bytes, nothing that has to be released.
    """

    token: Token
    offset: int
    length: int
    algorithm: str


@dataclasses.dataclass(slots=True)
class DiskWrite:
    """Write to the data area; done when the disk has it, stable or not."""

    token: Token
    offset: int
    length: int
    buffer: Buffer


@dataclasses.dataclass(slots=True)
class DiskDiscard:
    """Discard in the data area; it must read as zeroes when this is done, and is stable after the next flush.

    `unmap`: the space may be given back; otherwise it stays allocated.
    """

    token: Token
    offset: int
    length: int
    unmap: bool = True


@dataclasses.dataclass(slots=True)
class DiskWriteSame:
    """Fill a range of the data area with what `buffer` holds, again and again; done when the disk has it."""

    token: Token
    offset: int
    length: int
    buffer: Buffer


@dataclasses.dataclass(slots=True)
class DiskFlush:
    """Done when every write and discard that was reported done before this effect was emitted is on stable storage."""

    token: Token


@dataclasses.dataclass(slots=True)
class WriteSuperblock:
    """Write the superblock. Done when it is stable. Everything reported done before is made stable first."""

    token: Token
    meta: MetaState


@dataclasses.dataclass(slots=True)
class WriteActivityLog:
    """Write one transaction of the activity log. Done when it is stable.

    `preflush`: everything reported done before (data and meta-data) is made stable first.
    """

    token: Token
    transaction: AlTransaction
    preflush: bool


@dataclasses.dataclass(slots=True)
class WriteBitmap:
    """Write pages of 4096 bytes (page number, content) of the bitmap. Done when all are stable.

    `preflush`: everything reported done before is made stable first.
    """

    token: Token
    pages: tuple[tuple[int, bytes], ...]
    preflush: bool


@dataclasses.dataclass(slots=True)
class MeasureDisk:
    """Look whether the disk has grown, and put the meta-data where it belongs then. `DiskMeasured` answers."""

    token: Token


@dataclasses.dataclass(slots=True)
class PersistEpoch:
    """Store the highest vote epoch seen; done when it is stable."""

    token: Token
    epoch: int


@dataclasses.dataclass(slots=True)
class PersistStale:
    """Note, elsewhere than on the backing disk, that a copy of this generation is stale; done when that is stable.

    0: what was noted before is no longer true.
    """

    token: Token
    generation: int


@dataclasses.dataclass(slots=True)
class RunHandler:
    """Run the administrator's command for an occasion (drbd.conf, section handlers), outside of the data path.

    Attributes:
        token: `HandlerDone` answers with it, once; None: nobody waits for the end.
        name: the handler's name in drbd.conf, such as `local-io-error`.
        fields: environment variables beyond those that every handler has (`DRBD_RESOURCE` and so on).
    """

    token: Token | None
    name: str
    fields: dict[str, str]


@dataclasses.dataclass(slots=True)
class SaveTarget:
    """Keep what this copy holds before it is made Inconsistent; done outside of the data path, `DiskDone` answers.

    The caller starts no overwriting and does not mark the disk Inconsistent before that. errno 0: saved and stable (or,
    with `required` False, perhaps not saved: the shell has said why). Otherwise nothing may be overwritten: ENOSPC when
    there is no room, ENOTSUP when the disk cannot give a snapshot, else as the system says.

    Attributes:
        reason: `split-brain` (this side's changes are about to be given up) or `resync` (a snapshot before a resync).
        ranges: (offset, length) in bytes of the blocks to copy where no snapshot can be made, in order, whole blocks
            of 4 KiB but for the end of the device. Empty: only a snapshot of the whole disk will do.
        required: without it the caller does not go on.
        generations: current, bitmap, history 0 and history 1 of this copy, for whoever looks for it later.
    """

    token: Token
    reason: str
    ranges: tuple[tuple[int, int], ...]
    required: bool
    generations: tuple[int, int, int, int]


@dataclasses.dataclass(slots=True)
class ForgetTarget:
    """The copy is complete again: what `SaveTarget` kept for the sake of a resync is needed no more."""


@dataclasses.dataclass(slots=True)
class SendData:
    """Send on the data socket. `release`: the buffer is the shell's again once it is sent (or the link is closed).

    `token`: `Sent` answers when it is out of this process; None: nobody asks. Not together with `release`.
    """

    packet: Packet
    buffer: Buffer = None
    release: bool = False
    token: Token | None = None


@dataclasses.dataclass(slots=True)
class SendMeta:
    """Send on the meta socket."""

    packet: Packet


@dataclasses.dataclass(slots=True)
class DropConnection:
    """Close both sockets (what was sent before may still go out, within reason). `Disconnected` answers.

    Until then nothing of the old link reaches the core any more.
    """

    reason: str


@dataclasses.dataclass(slots=True)
class WantConnection:
    """Whether to listen and connect while there is no link. False until the core says otherwise."""

    wanted: bool


@dataclasses.dataclass(slots=True)
class CompleteRequest:
    """An application's request is done: `errno` 0 or the error; `buffer` is what a read found."""

    token: Token
    errno: int
    buffer: Buffer = None


@dataclasses.dataclass(slots=True)
class DeviceUp:
    """Make the device; `DiskDone` answers."""

    token: Token
    size_bytes: int


@dataclasses.dataclass(slots=True)
class DeviceGrow:
    """Give the device a larger size while it is in use; `DiskDone` answers, also when there is no device."""

    token: Token
    size_bytes: int


@dataclasses.dataclass(slots=True)
class DeviceDown:
    """Take the device away; `DiskDone` answers (EBUSY: it is in use and stays)."""

    token: Token


@dataclasses.dataclass(slots=True)
class CloseDisk:
    """Give the backing disk back when nothing is under way on it any more; `DiskDone` answers. `Attach` may follow."""

    token: Token


@dataclasses.dataclass(slots=True)
class ReleaseBuffer:
    """The core needs this buffer no more."""

    buffer: Buffer


@dataclasses.dataclass(slots=True)
class SetTimer:
    """Send a `Tick` at this time; replaces the time said before. None: no tick needed."""

    at_ms: int | None


@dataclasses.dataclass(slots=True)
class StatusChanged:
    """`Mirror.status()` has changed in something other than a counter."""


@dataclasses.dataclass(slots=True)
class CommandDone:
    """A command is done, or refused with an error."""

    token: Token
    error: RelevoError | None = None


@dataclasses.dataclass(slots=True)
class NeedRandom:
    """Send `Random` with this many numbers."""

    count: int


@dataclasses.dataclass(slots=True)
class Resumed:
    """The device in use may be served: what a dead process has left unanswered is to be given again, in any order.

    `error`: it cannot be, from this disk.
    """

    error: RelevoError | None = None


@dataclasses.dataclass(slots=True)
class Stopped:
    """Everything is written down: the process may end."""


@dataclasses.dataclass(slots=True)
class Log:
    """A line for the log: `level` is a method of structlog (`info`, `warning`, `error`)."""

    level: str
    event: str
    fields: dict[str, object]


Effect = (
    DiskRead
    | DiskReadThin
    | DiskDigest
    | DiskWrite
    | DiskDiscard
    | DiskWriteSame
    | DiskFlush
    | WriteSuperblock
    | WriteActivityLog
    | WriteBitmap
    | MeasureDisk
    | PersistEpoch
    | PersistStale
    | RunHandler
    | SaveTarget
    | ForgetTarget
    | SendData
    | SendMeta
    | DropConnection
    | WantConnection
    | CompleteRequest
    | DeviceUp
    | DeviceDown
    | DeviceGrow
    | CloseDisk
    | ReleaseBuffer
    | SetTimer
    | StatusChanged
    | CommandDone
    | NeedRandom
    | Resumed
    | Stopped
    | Log
)
