"""The accounts on the volume: `.relevo/accounts/accounts.json`, replaced whole and fsynced (docs/adr/0008).

Either the old or the new accounts are there after a power cut, on both servers, since the volume is the same one. A
file that cannot be read closes the service: to take it for "no accounts" would open everything to everyone.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter

import msgspec

from relevo.base.errors import NOT_JSON, RelevoError
from relevo.files.accounts.access import Policy
from relevo.files.accounts.model import FORMAT, Accounts
from relevo.files.accounts.quota import Usage
from relevo.files.accounts.seen import Saved
from relevo.files.volume import Volume, write_all

FOLDER = "accounts"
FILE = "accounts.json"
_USAGE = "usage.json"
_CLIENTS = "clients.json"
_SEEN = "seen.json"
_MODE = 0o600
MAX_BYTES = 16 << 20
KEY_BYTES = 32


class AccountsDamaged(RelevoError):
    """The file of the accounts is there, but is not what was written."""


class _SavedUsage(msgspec.Struct):
    users: dict[int, int] = {}
    shares: dict[str, int] = {}


def new() -> Accounts:
    """Accounts of nobody, with a new secret."""
    return Accounts(key=secrets.token_hex(KEY_BYTES))


def load(volume: Volume) -> Policy:
    """What the volume says; a volume without the file is open to everyone.

    Raises:
        AccountsDamaged: the file cannot be understood.
        OSError: as the system calls do.
    """
    if (raw := _read(volume, FILE)) is None:
        return Policy(None)
    try:
        accounts = msgspec.json.decode(raw, type=Accounts, strict=True)
        if accounts.format != FORMAT or len(bytes.fromhex(accounts.key)) < KEY_BYTES or not accounts.users:
            raise ValueError("unknown format")
    except (ValueError, msgspec.DecodeError) as error:
        raise AccountsDamaged(
            f"The accounts on the volume (.relevo/{FOLDER}/{FILE}) cannot be read ({error}).",
            "Restore the file from a backup; removing it would open the volume to everyone.",
        ) from error
    return Policy(accounts)


def save(volume: Volume, accounts: Accounts) -> Policy:
    """Replace the accounts, durably.

    Raises:
        OSError: as the system calls do; the old ones are then still in place.
    """
    _replace(volume, FILE, msgspec.json.format(msgspec.json.encode(accounts), indent=1) + b"\n")
    return Policy(accounts)


def _replace(volume: Volume, name: str, data: bytes) -> None:
    folder = volume.work(FOLDER)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(f"{name}.new", flags, _MODE, dir_fd=folder)
    try:
        os.fchmod(fd, _MODE)  # a leftover of a power cut may have another one
        write_all(fd, [data])
        volume.commits.before(fd)
    finally:
        os.close(fd)
    os.rename(f"{name}.new", name, src_dir_fd=folder, dst_dir_fd=folder)
    volume.commits.sync(folder)


def _read(volume: Volume, name: str) -> bytes | None:
    """A file of ours, None when there is none.

    Raises:
        OSError: as the system calls do.
    """
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=volume.work(FOLDER))
    except FileNotFoundError:
        return None
    try:
        raw = b""
        while piece := os.read(fd, MAX_BYTES + 1 - len(raw)):
            raw += piece
        return raw
    finally:
        os.close(fd)


def load_usage(volume: Volume) -> Usage | None:
    """The last count that was saved, None when there is none that can be read."""
    try:
        saved = msgspec.json.decode(_read(volume, _USAGE) or b"", type=_SavedUsage)
    except NOT_JSON:
        return None
    return Usage(Counter(saved.users), Counter(saved.shares))


def load_seen(volume: Volume) -> Saved:
    """What was seen of links and sessions, as it was saved; nothing when it cannot be read."""
    try:
        return msgspec.json.decode(_read(volume, _SEEN) or b"", type=Saved)
    except NOT_JSON:
        return Saved()


def save_seen(volume: Volume, saved: bytes) -> None:
    """Save what was seen; nothing rests on it.

    Raises:
        OSError: as the system calls do.
    """
    _replace(volume, _SEEN, saved)


def load_clients(volume: Volume) -> bytes | None:
    """Who was connected (`clients.py`), None when nobody has ever said."""
    return _read(volume, _CLIENTS)


def save_clients(volume: Volume, clients: bytes) -> None:
    """Save who is connected; only how soon they notice a failover rests on it.

    Raises:
        OSError: as the system calls do.
    """
    _replace(volume, _CLIENTS, clients)


def save_usage(volume: Volume, usage: Usage) -> None:
    """Save a count; nothing rests on it but the time until the next one is done.

    Raises:
        OSError: as the system calls do.
    """
    _replace(volume, _USAGE, msgspec.json.encode(_SavedUsage(dict(usage.users), dict(usage.shares))) + b"\n")
