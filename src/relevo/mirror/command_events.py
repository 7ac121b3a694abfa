"""Events of the mirror's core that are somebody's orders; `CommandDone` answers each. The contract: `events`."""

from __future__ import annotations

import dataclasses
from typing import Literal

from relevo.mirror.event_parts import Token

ANY_LINKS = -1
"""A command that does not depend on how many links to the peer there have been."""


@dataclasses.dataclass(slots=True)
class Promote:
    """Become Primary. `epoch` is the vote's; a lower one than any seen before is refused.

    `linked`: only while the link lives; the permission rests on what it shows.
    """

    now_ms: int
    token: Token
    force: bool
    epoch: int
    linked: bool = False


@dataclasses.dataclass(slots=True)
class Demote:
    """Become Secondary: the device goes first."""

    now_ms: int
    token: Token


@dataclasses.dataclass(slots=True)
class Outdate:
    """Mark the disk Outdated: others write without this copy. `links`: as in `AllowAlone`."""

    now_ms: int
    token: Token
    links: int = ANY_LINKS


@dataclasses.dataclass(slots=True)
class AllowAlone:
    """Writes may be completed without the peer (`alone = "ask"`).

    Attributes:
        epoch: the vote's.
        links: how many links there had been when this was decided: there is none now, and was no other one since.
    """

    now_ms: int
    token: Token
    epoch: int
    links: int = ANY_LINKS


@dataclasses.dataclass(slots=True)
class DenyAlone:
    """No permission to go on alone will come: what waits for one fails now."""

    now_ms: int
    token: Token


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
class Leave:
    """The node leaves the cluster: take leave of a peer whose copy is good, and mark this one Outdated.

    `Connect` ends it. Without such a peer nothing happens: the copy here may be the newest.
    """

    now_ms: int
    token: Token


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
    | DenyAlone
    | Connect
    | Disconnect
    | Leave
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
