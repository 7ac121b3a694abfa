"""What the heartbeats keep on disk: who we are, which generation this is, and how far each peer was heard."""

from __future__ import annotations

import pathlib
import time
import uuid

import msgspec

from relevo.base.durable import write_durably
from relevo.base.errors import NOT_JSON, RelevoError
from relevo.heartbeat.events import Mark


class StateUnreadable(RelevoError):
    """A file in the state folder is damaged; nothing is guessed from it."""


class _Identity(msgspec.Struct, forbid_unknown_fields=True):
    uuid: uuid.UUID
    generation: int


class Store:
    """The folder `heartbeat` below the state folder: `identity.json` and `heard.json`.

    Args:
        folder: the state folder (`Paths.state`).
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._identity = folder / "heartbeat" / "identity.json"
        self._heard = folder / "heartbeat" / "heard.json"

    def begin_generation(self) -> tuple[bytes, int]:
        """Our 16 bytes and a generation higher than every earlier one, on stable storage when this returns.

        The first generation is the time, so that a node that lost its state still begins higher than before.

        Raises:
            StateUnreadable: the file is damaged.
            OSError: it cannot be written.
        """
        try:
            identity = msgspec.json.decode(self._identity.read_bytes(), type=_Identity)
            identity.generation += 1
        except FileNotFoundError:
            identity = _Identity(uuid.uuid4(), int(time.time()))
        except NOT_JSON as error:
            remedy = "Check the clock, then remove it: the node begins anew, with a generation made from the time."
            raise StateUnreadable(f"{self._identity} is damaged ({error}).", remedy) from error
        write_durably(self._identity, msgspec.json.encode(identity))
        return identity.uuid.bytes, identity.generation

    def marks(self) -> dict[str, Mark]:
        """How far each peer was heard; empty at the very first start.

        Raises:
            StateUnreadable: the file is damaged.
        """
        try:
            return msgspec.json.decode(self._heard.read_bytes(), type=dict[str, Mark])
        except FileNotFoundError:
            return {}
        except NOT_JSON as error:
            remedy = "Remove it; until the peers have been heard again, datagrams recorded earlier could be replayed."
            raise StateUnreadable(f"{self._heard} is damaged ({error}).", remedy) from error

    def keep(self, marks: dict[str, Mark]) -> None:
        """Replace the marks; on stable storage when this returns.

        Raises:
            OSError: they cannot be written.
        """
        write_durably(self._heard, msgspec.json.encode(marks))
