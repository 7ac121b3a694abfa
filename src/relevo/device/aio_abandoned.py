"""What becomes of a queue of disk operations whose disk does not answer: nothing more is asked of it.

What the kernel still has stays there: its memory is kept until it ends, however late, and nobody hears of it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from typing import cast

from relevo.device.aio import Aio, Token
from relevo.device.frontend import DiscardKind


class AbandonedAio(Aio[Token]):
    """An `Aio` after `abandon`: whatever is asked for fails at once with ETIMEDOUT, at the next `reap`."""

    def _refuse(self, token: Token) -> None:
        self._failed.append((token, -errno.ETIMEDOUT))
        os.eventfd_write(self._eventfd, 1)

    def read(self, _fd: int, _view: memoryview, _offset: int, token: Token) -> None:
        """Fails."""
        self._refuse(token)

    def write(self, _fd: int, _view: memoryview, _offset: int, token: Token) -> None:
        """Fails."""
        self._refuse(token)

    def readv(self, _fd: int, _views: Sequence[memoryview], _offset: int, token: Token) -> None:
        """Fails."""
        self._refuse(token)

    def writev(self, _fd: int, _views: Sequence[memoryview], _offset: int, token: Token) -> None:
        """Fails."""
        self._refuse(token)

    def fdsync(self, _fd: int, token: Token) -> None:
        """Fails."""
        self._refuse(token)

    def discard(self, _fd: int, _offset: int, _length: int, _kind: DiscardKind, token: Token) -> None:
        """Fails."""
        self._refuse(token)


def abandon(queue: Aio[Token], heir: Callable[[Token], Token]) -> list[Token]:
    """Give a queue up; returns the tokens of all that is under way.

    Args:
        queue: from now on it is an `AbandonedAio`.
        heir: gives what is reaped in the place of a token that the kernel still has.
    """
    tokens = queue.abandon(heir)
    queue.__class__ = cast("type[Aio[Token]]", AbandonedAio)
    return tokens
