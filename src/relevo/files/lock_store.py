"""Locks on the volume: `.relevo/locks/ID`, a JSON object each, so that a failover ends none (docs/adr/0009).

Written beside, renamed and made stable (`commits.py`) before a LOCK is answered; unlinked, and that made stable, before
an UNLOCK is. ID is the token without its scheme. Runs in threads of the pool.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import secrets
import time

import msgspec
import structlog

from relevo.files import guard
from relevo.files.accounts.access import Verb
from relevo.files.entries import Condition, names_in, no_condition
from relevo.files.errors import FilesError
from relevo.files.limits import LOCK_GRACE_S
from relevo.files.locks import SCHEME, Lock, Path, acting
from relevo.files.volume import Volume
from relevo.files.whole import read_whole, replace_whole

FOLDER = "locks"
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MAX_BYTES = 64 << 10
_log = structlog.get_logger()


class _Record(msgspec.Struct, frozen=True):
    """A lock as it is written; names in hexadecimal, as in the bin: they may hold bytes that are not UTF-8."""

    names: list[str]
    deep: bool
    shared: bool
    owner: str
    creator: str
    timeout_s: int
    ends_s: float


def _write(volume: Volume, lock: Lock) -> None:
    name = lock.token.removeprefix(SCHEME)
    assert _ID.fullmatch(name), "a token of ours"
    fields = {field.name: getattr(lock, field.name) for field in dataclasses.fields(lock) if field.name != "token"}
    fields["names"] = [os.fsencode(part).hex() for part in lock.names]
    replace_whole(volume, FOLDER, name, msgspec.json.encode(_Record(**fields)) + b"\n", mark=secrets.token_hex(8))


def _read(volume: Volume, name: str) -> Lock | None:
    try:
        found = msgspec.json.decode(read_whole(volume, FOLDER, name, _MAX_BYTES) or b"", type=_Record)
        names = tuple(os.fsdecode(bytes.fromhex(part)) for part in found.names)
    except (ValueError, msgspec.DecodeError):
        return None
    fields = {field.name: getattr(found, field.name) for field in dataclasses.fields(Lock) if field.name != "token"}
    return Lock(token=SCHEME + name, **{**fields, "names": names})


def load(volume: Volume) -> None:
    """Take the locks of a volume that is being opened; what is over, damaged or on nothing any more is deleted.

    Nobody could refresh a lock while the servers changed: one that ended in the meantime holds for `LOCK_GRACE_S` more.
    """
    now_s, gone = time.time(), []
    for name in names_in(volume.work(FOLDER)):
        lock = _read(volume, name) if _ID.fullmatch(name) else None
        if lock is not None and lock.ends_s > now_s - LOCK_GRACE_S and _is_there(volume, lock.names):
            volume.locks.put(dataclasses.replace(lock, ends_s=max(lock.ends_s, now_s + LOCK_GRACE_S)))
        else:
            gone.append(name)
    volume.erase_locks(gone)


def _is_there(volume: Volume, names: Path) -> bool:
    with contextlib.suppress(FilesError, OSError):
        return volume.look(names) is not None
    return False


def take(volume: Volume, lock: Lock, condition: Condition = no_condition) -> None:
    """Take a lock, durably.

    Raises:
        FilesError: 423 another one contradicts it; 401, 403; what `condition` raises.
    """
    guard.require(Verb.REMOVE if lock.deep else Verb.WRITE, lock.names)  # no share below is locked with it
    expire(volume)  # what is over and still written down would come back after a failover, beside this one
    with volume.names_lock:  # whoever gives something a name has asked before, or sees this lock
        condition(volume.look(lock.names))
        volume.locks.add(lock)
    try:
        _write(volume, lock)
    except BaseException:
        volume.locks.drop(lock.token)
        raise
    _log.info("locked", path="/".join(lock.names), deep=lock.deep, shared=lock.shared, seconds=lock.timeout_s)


def refresh(volume: Volume, lock: Lock) -> None:
    """A lock holds longer, durably.

    Raises:
        FilesError: 412, it has ended while this was written down.
    """
    guard.require(Verb.WRITE, lock.names)
    _write(volume, lock)
    if not volume.locks.renew(lock):
        volume.erase_locks([lock.token])  # it lay there again
        raise FilesError(412, "lock_unknown")


def release(volume: Volume, lock: Lock) -> None:
    """A lock ends, durably.

    Raises:
        FilesError: 403, it is somebody else's, and whoever acts is no administrator.
    """
    who = guard.current()
    if lock.creator != acting() and not (who is not None and who.admin):
        raise FilesError(403, "lock_others")
    volume.locks.drop(lock.token)  # first: whoever refreshes it at this moment sees that it is over, and cleans up
    try:
        volume.erase_locks([lock.token])
    except BaseException:
        volume.locks.put(lock)
        raise
    _log.info("unlocked", path="/".join(lock.names))


def expire(volume: Volume) -> None:
    """Delete what is over."""
    volume.erase_locks(volume.locks.expired())
