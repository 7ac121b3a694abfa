"""What goes into the mirror's core and what comes out: `Mirror.step(event) -> list of effects`.

Order. The effects of one step are UNORDERED, with one exception: `SendData` effects are one stream and keep their
order, and so do `SendMeta` effects. What must follow a write is emitted only by the step that handles its completion.
Effects of different steps are started in the order of the steps; disk completions may come in any order.

Tokens. An application request's token is the shell's (the core gives it back in `CompleteRequest`); the token of a
disk, meta-data or device effect is the core's (the shell gives it back in `DiskDone`, once). Both are opaque.

Buffers are opaque handles of the shell's; the core never looks inside.
- `AppWrite.buffer` stays the core's until `CompleteRequest` of that request: that is its release.
- A read (`DiskRead`) is answered with `DiskDone.buffer`; it is released by `CompleteRequest` that carries it, by a
  `SendData` that carries it with `release`, once it is sent or the link is closed, or by `ReleaseBuffer`.
- The payload of a `PacketReceived` stays the core's until `ReleaseBuffer` (or as above).
- A write's buffer may be in the shell's send queue as well as on its way to the disk: a core that completes or releases
  it has seen it acknowledged by the peer or the link closed. When a link is closed its send queue is dropped.

Times are milliseconds of one clock that never goes back; every event carries the present one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any, Literal

from relevo.base.errors import RelevoError
from relevo.mirror.packets import Packet

Token = Any
"""Whoever made it knows what it is; the other side gives it back."""
Buffer = Any
"""A piece of memory of the shell's."""


@dataclasses.dataclass(slots=True)
class MetaState:
    """What the superblock says that changes: generations, flags (`MetaFlag`), the agreed size."""

    current: int
    bitmap: int
    history0: int
    history1: int
    flags: int
    size_sectors: int


@dataclasses.dataclass(slots=True)
class AlTransaction:
    """One block of the activity log. Unused slots hold extent 0xffffffff.

    Attributes:
        number: `tr_number`; the block's place in the ring follows from it.
        updates: (slot, extent) of each change.
        context_size: number of slots of the whole log.
        context_start: first slot of `context`.
        context: extents of consecutive slots.
    """

    number: int
    updates: tuple[tuple[int, int], ...]
    context_size: int
    context_start: int
    context: tuple[int, ...]


# ---------------------------------------------------------------- events


@dataclasses.dataclass(slots=True)
class Attach:
    """The backing disk is open and its meta-data read: the first event of all, and again after a `CloseDisk`.

    Attributes:
        meta: the superblock's changing part.
        disk_bytes: size of the data area.
        bitmap: the whole bitmap as on the disk: 1 bit for 4 KiB, little endian. A bytearray is the core's from now on.
        al_extents: the extents that the activity log's ring says were active; None: it is unreadable.
        al_number: number of the newest transaction in the ring.
        epoch: the highest vote epoch this node has persisted.
        random: eight random 64-bit numbers (see `NeedRandom`).
        resume_bytes: size of the device that a dead process has left in use and this one shall serve on; 0: there is
            none. `Resumed` answers.
        token: `CommandDone` answers with it when the disk is in use; None: nobody waits.
        stale: the generation that was noted last with `PersistStale`; 0: none.
    """

    now_ms: int
    meta: MetaState
    disk_bytes: int
    bitmap: bytes | bytearray
    al_extents: Collection[int] | None
    al_number: int
    epoch: int
    random: tuple[int, ...]
    resume_bytes: int = 0
    token: Token | None = None
    stale: int = 0


@dataclasses.dataclass(slots=True)
class AppRead:
    """The device's user reads. `buffer` may be None: then the shell takes one for the `DiskRead`."""

    now_ms: int
    token: Token
    offset: int
    length: int
    buffer: Buffer


@dataclasses.dataclass(slots=True)
class AppWrite:
    """The device's user writes, at most 1 MiB."""

    now_ms: int
    token: Token
    offset: int
    length: int
    buffer: Buffer


@dataclasses.dataclass(slots=True)
class AppFlush:
    """The device's user wants everything that was completed so far on stable storage, on both servers."""

    now_ms: int
    token: Token


@dataclasses.dataclass(slots=True)
class AppDiscard:
    """The device's user discards (any length); the range reads as zeroes afterwards.

    `unmap`: the space may be given back; otherwise it stays allocated.
    """

    now_ms: int
    token: Token
    offset: int
    length: int
    unmap: bool = True


@dataclasses.dataclass(slots=True)
class DiskDone:
    """A disk, meta-data, epoch or device effect is done: `errno` is 0 or what went wrong; `buffer` is a read's."""

    now_ms: int
    token: Token
    errno: int = 0
    buffer: Buffer = None


@dataclasses.dataclass(slots=True)
class Sent:
    """What the `SendData` with this token carries is out of this process (or its link is closed: it says nothing)."""

    now_ms: int
    token: Token


@dataclasses.dataclass(slots=True)
class HandlerDone:
    """A `RunHandler` with a token has ended.

    `status`: the command's exit status; 0 too if none is configured for that name (as drbdadm does), and -1 if it could
    not be run or was ended because it took too long.
    """

    now_ms: int
    token: Token
    status: int


@dataclasses.dataclass(slots=True)
class DiskMeasured:
    """Answer to `MeasureDisk`: the size of the data area now, and 0 or what went wrong."""

    now_ms: int
    token: Token
    errno: int
    disk_bytes: int


@dataclasses.dataclass(slots=True)
class Connected:
    """Both sockets are there and the peer is authenticated: everything from P_PROTOCOL on is the core's.

    Attributes:
        features: those both sides have.
        resolve_conflicts: this side accepted the meta socket: it breaks ties.
    """

    now_ms: int
    features: int
    resolve_conflicts: bool


@dataclasses.dataclass(slots=True)
class Disconnected:
    """The sockets are gone: broken, closed by the peer, or as `DropConnection` asked. Disk I/O goes on."""

    now_ms: int
    reason: str = ""


@dataclasses.dataclass(slots=True)
class PacketReceived:
    """A packet of either socket. `buffer` holds the payload of those that have one (`size_bytes`)."""

    now_ms: int
    packet: Packet
    buffer: Buffer = None


@dataclasses.dataclass(slots=True)
class Tick:
    """The time of `SetTimer` has come (an early or additional one does no harm)."""

    now_ms: int


@dataclasses.dataclass(slots=True)
class Configure:
    """Other settings (`state.Settings`) hold from now on; those of which the peer is told, from the next link on."""

    now_ms: int
    settings: Any


@dataclasses.dataclass(slots=True)
class Probe:
    """The peer is suspected to be gone: ask it for a sign of life now (nothing is done when there is no link)."""

    now_ms: int


@dataclasses.dataclass(slots=True)
class Random:
    """Answer to `NeedRandom`: fresh random 64-bit numbers."""

    now_ms: int
    values: tuple[int, ...]


@dataclasses.dataclass(slots=True)
class Promote:
    """Become Primary. `epoch` is the vote's; a lower one than any seen before is refused."""

    now_ms: int
    token: Token
    force: bool
    epoch: int


@dataclasses.dataclass(slots=True)
class Demote:
    """Become Secondary: the device goes first."""

    now_ms: int
    token: Token


@dataclasses.dataclass(slots=True)
class Outdate:
    """Mark my copy as outdated, on the disk."""

    now_ms: int
    token: Token


@dataclasses.dataclass(slots=True)
class AllowAlone:
    """Writes may be completed without the peer (`alone = "ask"`)."""

    now_ms: int
    token: Token
    epoch: int


@dataclasses.dataclass(slots=True)
class Connect:
    """Look for the peer (the state after the start). `dry_run`: only find out what would have to be done, then part."""

    now_ms: int
    token: Token
    dry_run: bool = False


@dataclasses.dataclass(slots=True)
class Disconnect:
    """Take leave of the peer and stay alone (StandAlone). `force`: without asking it."""

    now_ms: int
    token: Token
    force: bool = False


@dataclasses.dataclass(slots=True)
class Discard:
    """After a split brain: give up what only my copy has, become the target of a resync."""

    now_ms: int
    token: Token


@dataclasses.dataclass(slots=True)
class Keep:
    """After a split brain: connect again and keep my data; the other side has to discard."""

    now_ms: int
    token: Token


@dataclasses.dataclass(slots=True)
class Detach:
    """Let go of the backing disk in order (`CloseDisk`); a Primary goes on through the peer."""

    now_ms: int
    token: Token


@dataclasses.dataclass(slots=True)
class SuspendIo:
    """Hold what the device's users ask for, until `ResumeIo`."""

    now_ms: int
    token: Token


@dataclasses.dataclass(slots=True)
class ResumeIo:
    """Go on with what was held, here or because the peer was lost (`alone = "ask"`: by hand, past the vote)."""

    now_ms: int
    token: Token


@dataclasses.dataclass(slots=True)
class NewGeneration:
    """Begin a new generation. `clear_bitmap`: two new, equal copies that are connected need no first resync."""

    now_ms: int
    token: Token
    clear_bitmap: bool = False


@dataclasses.dataclass(slots=True)
class Invalidate:
    """Give up this copy (`peer` False) or the peer's: all of it comes anew from the other side."""

    now_ms: int
    token: Token
    peer: bool = False


@dataclasses.dataclass(slots=True)
class Resync:
    """Send the marked blocks from this copy to the peer, without a break in the link (after a verify)."""

    now_ms: int
    token: Token


@dataclasses.dataclass(slots=True)
class PauseResync:
    """Pause whatever resync runs or will run, or (`paused` False) let it go on."""

    now_ms: int
    token: Token
    paused: bool


@dataclasses.dataclass(slots=True)
class ResyncSpeed:
    """`fast`: whatever the application does; `gentle`: in the background; `auto`: as configured. On both sides."""

    now_ms: int
    token: Token
    speed: Literal["auto", "fast", "gentle"]


@dataclasses.dataclass(slots=True)
class Verify:
    """Compare the copies from `first` up to `end` (bytes; `end` 0: to the end of the device). Done when it has begun.

    `repair`: when it is over, blocks that differ are sent from this copy to the peer.
    """

    now_ms: int
    token: Token
    first: int = 0
    end: int = 0
    repair: bool = False


@dataclasses.dataclass(slots=True)
class StopVerify:
    """End the verify that was started here where it stands."""

    now_ms: int
    token: Token


@dataclasses.dataclass(slots=True)
class Down:
    """Take leave, write everything down, end (`Stopped`)."""

    now_ms: int
    token: Token


@dataclasses.dataclass(slots=True)
class Resize:
    """Both disks have grown: take over the new size.

    Attributes:
        size_bytes: take over at most that; 0: all.
        assume_clean: what is added is equal on both sides: no resync of it.
        assume_peer_has_space: although the peer is not connected.
    """

    now_ms: int
    token: Token
    size_bytes: int = 0
    assume_clean: bool = False
    assume_peer_has_space: bool = False


Command = (
    Resize
    | Promote
    | Demote
    | Outdate
    | AllowAlone
    | Connect
    | Disconnect
    | Discard
    | Keep
    | Detach
    | SuspendIo
    | ResumeIo
    | NewGeneration
    | Invalidate
    | Resync
    | PauseResync
    | ResyncSpeed
    | Verify
    | StopVerify
    | Down
)
Event = (
    Attach
    | AppRead
    | AppWrite
    | AppFlush
    | AppDiscard
    | DiskDone
    | DiskMeasured
    | Sent
    | HandlerDone
    | Connected
    | Disconnected
    | PacketReceived
    | Tick
    | Configure
    | Probe
    | Random
) | Command

# ---------------------------------------------------------------- effects


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
