"""What the node daemon must find again after a power cut: the cluster record and the arbiter's state."""

from __future__ import annotations

import pathlib
from typing import TypeVar

import msgspec
import structlog

from relevo.base.durable import write_durably
from relevo.base.errors import NOT_JSON

T = TypeVar("T")
_log = structlog.get_logger()


class Store:
    """A folder of small JSON files, each replaced whole and fsynced.

    Args:
        folder: where they lie.

    Attributes:
        damaged: a sentence for each that could not be read and was put aside.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.damaged: list[str] = []

    def load(self, name: str, kind: type[T], otherwise: T) -> T:
        """The value stored under a name; `otherwise` when there is none. A damaged one is put aside, and said."""
        path = self.folder / f"{name}.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except FileNotFoundError:
            return otherwise
        except NOT_JSON as error:
            self.put_aside(name, str(error))
            return otherwise

    def put_aside(self, name: str, why: str) -> None:
        """What is stored under a name cannot be used: keep it for people, begin without it, and say so."""
        path = self.folder / f"{name}.json"
        aside = path.with_suffix(".damaged")
        path.replace(aside)
        self.damaged.append(f"{path} is damaged ({why}); it lies in {aside} now, and this server began without it.")
        _log.error("damaged_state", file=str(path), put_aside=str(aside), why=why)

    def save(self, name: str, value: object) -> None:
        """Put a value on stable storage. Raises OSError; the old value is then still there."""
        write_durably(self.folder / f"{name}.json", msgspec.json.encode(value))
