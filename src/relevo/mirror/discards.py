"""The application's discards: cut at extents, so many pieces at a time, answered when the last one is done.

Each piece goes the way of a write (`local_io`).
"""

from __future__ import annotations

from collections.abc import Callable

from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.activity_log import EXTENT_SHIFT
from relevo.mirror.requests import Discard, Write, WriteOwner
from relevo.mirror.state import Shared

DISCARD_WINDOW = 64
"""Pieces of one discard in flight at a time."""


class Discards:
    """Cuts discards into pieces.

    Args:
        shared: the core's state.
        owner: is told when the local disk is done with a piece.
        enter: sends a piece on its way.
    """

    def __init__(self, shared: Shared, owner: WriteOwner, enter: Callable[[Write], None]) -> None:
        self._s = shared
        self._owner = owner
        self._enter = enter

    @property
    def impossible(self) -> bool:
        """The peer has to discard as well, and knows no packet for it."""
        return self._s.replicating and not self._s.features & (p.Feature.TRIM | p.Feature.WZEROES)

    def begin(self, event: e.AppDiscard) -> None:
        """The application discards."""
        self._more(Discard(event.token, event.offset, event.offset + event.length, unmap=event.unmap))

    def _more(self, discard: Discard) -> None:
        discard.pieces += 1  # this loop: a piece may be done at once, and must not be the last one
        while discard.offset < discard.end and discard.pieces <= DISCARD_WINDOW and not discard.errno:
            boundary = ((discard.offset >> EXTENT_SHIFT) + 1) << EXTENT_SHIFT
            offset, end = discard.offset, min(discard.end, boundary)
            discard.offset = end
            discard.pieces += 1
            piece = Write(self._owner, None, offset, end - offset, None)
            piece.discard = discard
            self._enter(piece)
        self.piece_done(discard, 0)

    def piece_done(self, discard: Discard, errno: int) -> None:
        """A piece is done here and, as far as the protocol waits for that, on the peer."""
        discard.pieces -= 1
        discard.errno = discard.errno or errno
        if discard.errno or discard.offset == discard.end:
            if not discard.pieces:
                self._s.out.append(e.CompleteRequest(discard.token, discard.errno))
        elif discard.pieces < DISCARD_WINDOW:
            self._more(discard)
