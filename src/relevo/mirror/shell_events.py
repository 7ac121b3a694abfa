"""Events of the mirror's core that come from disks, network, application and clock. The contract: `events`."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from relevo.mirror.event_parts import Buffer, MetaState, Token
from relevo.mirror.packets import Packet


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
