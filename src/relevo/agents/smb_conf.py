"""What smbd reads: its configuration, its users and their numbers, made from the account store. Pure.

Sources of the formats: smb.conf(5), smbpasswd(5), passwd(5), group(5). Whoever may do what is decided here once: smbd
lets in whom a share names, as reader or writer, and then nothing below is asked again. It works with each user's own
number, so what they make is theirs, but keeps the right to pass by modes (`smb.START`, module fake_perms): on the pages
too it is the share that decides, not who made a file.
"""

from __future__ import annotations

import pathlib
import re
from typing import Literal

import msgspec

GUEST = "relevo$guest"
"""Whom smbd takes visitors of public shares for; no user of the account store can be called so."""
GUEST_UID = 65534
RESERVED = frozenset({"global", "homes", "printers"})
"""Sections of smb.conf that are no shares."""
LAST_CHANGE = "LCT-7FFFFFFF"
"""When a password was set: in 2038, so that smbd lets nobody change it (the page does, for every way in at once)."""
_PLAIN_PATTERN = re.compile(r"[^\w .+,@()=\[\]{}~-]+|^\s|\s$")


class DriveUser(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who may log in; `nt` is empty where their NT hash is not known: then they cannot over SMB."""

    name: str
    uid: int
    nt: str = ""


class Drive(msgspec.Struct, frozen=True, kw_only=True):
    """One share.

    Attributes:
        path: names of its folder below the root.
        public: everyone may read it.
        readers, writers: names of users; nobody is both.
        hidden: names in its folder that are not shown: shares with permissions of their own.
    """

    name: str
    path: tuple[str, ...]
    public: bool = False
    readers: tuple[str, ...] = ()
    writers: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()


class Drives(msgspec.Struct, frozen=True, kw_only=True):
    """What the file service tells (`files/accounts/network.py`)."""

    accounts: bool = False
    generation: int = 0
    users: tuple[DriveUser, ...] = ()
    shares: tuple[Drive, ...] = ()

    def offered(self) -> tuple[Drive, ...]:
        """The shares that smbd can offer and that anybody may see."""
        return tuple(
            share
            for share in self.shares
            if share.name not in RESERVED and (share.public or share.readers or share.writers)
        )


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What relevo.toml and this server say.

    Attributes:
        run: folder of what lives as long as smbd does (configuration, locks, log).
        state: folder on the volume (users, secrets, what Samba keeps of shares).
        port, workgroup, encrypt, durable: as in `SmbResource`.
    """

    run: pathlib.Path
    state: pathlib.Path
    port: int
    workgroup: str
    encrypt: bool
    durable: Literal["close", "write"]

    @property
    def roots(self) -> pathlib.Path:
        """Folder of one link for each share: smb.conf would read more into a path than is there (`%`, `\\`)."""
        return self.run / "roots"


def passwd(drives: Drives) -> str:
    """Users and their numbers, for smbd alone (nss_wrapper): those of the account store go before the system's."""
    lines = [f"{user.name}:x:{user.uid}:{user.uid}::/:/usr/sbin/nologin" for user in drives.users]
    lines += ["root:x:0:0::/:/usr/sbin/nologin", f"{GUEST}:x:{GUEST_UID}:{GUEST_UID}::/:/usr/sbin/nologin"]
    return _text(lines)


def group(drives: Drives) -> str:
    """Everyone's own group: who may do what is said by shares, not by groups."""
    lines = [f"{user.name}:x:{user.uid}:" for user in drives.users]
    return _text([*lines, "root:x:0:", f"{GUEST}:x:{GUEST_UID}:"])


def smbpasswd(drives: Drives) -> str:
    """The NT hash of everyone who has one."""
    known = (user for user in drives.users if user.nt)
    return _text([f"{user.name}:{user.uid}:{'X' * 32}:{user.nt}:[U          ]:{LAST_CHANGE}:" for user in known])


def smb_conf(drives: Drives, settings: Settings) -> str:
    """The whole configuration of smbd."""
    lines = _section("global", _global(drives, settings))
    for share in drives.offered():
        lines += _section(share.name, _share(share, settings))
    return _text(lines)


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _section(name: str, entries: dict[str, str]) -> list[str]:
    return [f"[{name}]", *(f"{key} = {value}" for key, value in entries.items())]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _global(drives: Drives, settings: Settings) -> dict[str, str]:
    run, state = str(settings.run), str(settings.state)
    return {
        "server role": "standalone server",
        "workgroup": settings.workgroup,
        "server string": "Relevo",
        "smb ports": str(settings.port),
        "disable netbios": "yes",
        "server min protocol": "SMB2_02",
        "server smb encrypt": "required" if settings.encrypt else "default",
        "passdb backend": f"smbpasswd:{state}/smbpasswd",
        "private dir": state,
        "state directory": state,
        "lock directory": run,
        "cache directory": run,
        "pid directory": run,
        "ncalrpc dir": f"{run}/ncalrpc",
        "log file": f"{run}/log.smbd",
        "max log size": "5000",
        "guest account": GUEST,
        "map to guest": "Bad User" if any(share.public for share in drives.offered()) else "Never",
        "load printers": "no",
        "printcap name": "/dev/null",
        "disable spoolss": "yes",
        # Nothing of a share leads out of it, and what clients make is files and folders only.
        "wide links": "no",
        "follow symlinks": "no",
        "unix extensions": "no",
        "nt acl support": "no",
        # A second name for a file must not pass by what is hidden.
        "mangled names": "no",
        # The pages change files too: a client that keeps its own copy of one would not see that.
        "oplocks": "no",
        "smb2 leases": "no",
        "strict sync": "yes",
        "sync always": _yes(settings.durable == "write"),
        "vfs objects": "fake_perms syncops",
        "create mask": "0644",
        "directory mask": "0755",
        "store dos attributes": "yes",
        "map archive": "no",
        "map readonly": "no",
    }


def _share(share: Drive, settings: Settings) -> dict[str, str]:
    entries = {"path": str(settings.roots / share.name), "read only": "yes", "guest ok": _yes(share.public)}
    if not share.public:
        entries["valid users"] = " ".join(sorted({*share.readers, *share.writers}))
    if share.writers:
        entries["write list"] = " ".join(share.writers)
    if share.hidden:
        entries["veto files"] = f"/{'/'.join(_pattern(name) for name in share.hidden)}/"
    return entries


def _pattern(name: str) -> str:
    """A pattern of smb.conf that fits a name: what would mean something else there is left open (`*`)."""
    return _PLAIN_PATTERN.sub("*", name)


def withdrawn(before: Drives, now: Drives) -> tuple[list[str], list[str]]:
    """What open connections still have and may not have any more.

    Returns:
        Shares that somebody may do less in than before, and users whose password or number is another one, or who are
        gone.
    """
    new = {share.name: share for share in now.offered()}
    shares = [old.name for old in before.offered() if _less(old, new.get(old.name))]
    users = {user.name: user for user in now.users}
    return shares, [old.name for old in before.users if users.get(old.name) != old]


def _less(old: Drive, new: Drive | None) -> bool:
    if new is None or new.path != old.path or set(new.hidden) - set(old.hidden):
        return True
    readers, writers = {*new.readers, *new.writers}, set(new.writers)
    unread = not new.public and (old.public or not set(old.readers) <= readers)
    return unread or not set(old.writers) <= writers
