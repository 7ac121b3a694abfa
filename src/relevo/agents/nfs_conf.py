"""What NFS-Ganesha reads: its configuration, made from relevo.toml and the account store. Pure.

Sources: ganesha-core-config(8), ganesha-export-config(8), ganesha-vfs-config(8). NFS believes a host what it says of
its users: an export is for hosts, and below it only the uids and modes of files count. Version 4 alone: one port, no
rpcbind, and locks that are claimed again after a failover.
"""

from __future__ import annotations

import pathlib
import zlib

import msgspec

from relevo.agents.smb_conf import Drives
from relevo.config.model import NfsExport

FIRST_ID, IDS = 1, 65_000
"""Numbers of exports. They are part of every file handle, so they follow from the share's name and nothing else."""
NOBODY = 65_534


class NfsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What relevo.toml and this server say; `state` is the folder on the volume for what survives a failover."""

    root: pathlib.Path
    state: pathlib.Path
    port: int
    grace_s: int
    exports: tuple[NfsExport, ...]


def numbers(exports: tuple[NfsExport, ...]) -> dict[str, int]:
    """The number of each export."""
    found: dict[str, int] = {}
    for name in sorted(export.share for export in exports):
        number = zlib.crc32(name.encode()) % IDS
        while number + FIRST_ID in found.values():
            number = (number + 1) % IDS
        found[name] = number + FIRST_ID
    return found


def missing(drives: Drives, settings: NfsSettings) -> list[str]:
    """Sentences on exports that cannot be offered now."""
    shares, users = {share.name for share in drives.shares}, {user.name for user in drives.users}
    told_of = {one.share for one in settings.exports}
    told = [f"There is no share {one.share!r} to export." for one in settings.exports if one.share not in shares]
    odd = [share.name for share in drives.shares if share.name in told_of and quoted("/".join(share.path)) is None]
    told += [f"The name of the folder of {name!r} cannot be written for NFS-Ganesha (quotes)." for name in odd]
    lost = [one for one in settings.exports if one.user and one.user not in users]
    return told + [f"There is no user {one.user!r} for the export of {one.share!r}." for one in lost]


def ganesha_conf(drives: Drives, settings: NfsSettings) -> str:
    """The whole configuration of ganesha.nfsd."""
    blocks = [
        _block(
            "NFS_CORE_PARAM",
            [
                "Protocols = 4",
                f"NFS_Port = {settings.port}",
                "Enable_NLM = false",
                "Enable_RQUOTA = false",
                "Enable_UDP = false",
                "mount_path_pseudo = true",
            ],
        ),
        _block("NFS_KRB5", ["Active_krb5 = false"]),
        _block(
            "NFSV4",
            [
                f"Grace_Period = {settings.grace_s}",
                f"Lease_Lifetime = {settings.grace_s}",
                "RecoveryBackend = fs",
                f"RecoveryRoot = {quoted(str(settings.state))}",
                "Only_Numeric_Owners = true",
            ],
        ),
        # The pages and drives change the same files: nothing that was read a while ago is believed.
        _block("MDCACHE", ["Use_Getattr_Directory_Invalidation = true"]),
        _block(
            "EXPORT_DEFAULTS",
            ["Access_Type = None", "SecType = sys", "Protocols = 4", "Transports = TCP"],
        ),
    ]
    shares = {share.name: share for share in drives.shares}
    uids = {user.name: user.uid for user in drives.users}
    for export in settings.exports:
        share = shares.get(export.share)
        if share is not None and quoted("/".join(share.path)) and (not export.user or export.user in uids):
            folder = settings.root.joinpath(*share.path)
            number = numbers(settings.exports)[export.share]
            blocks.append(_export(export, folder, number, uids.get(export.user), whole=not share.path))
    return "".join(blocks)


def _export(export: NfsExport, folder: pathlib.Path, number: int, uid: int | None, *, whole: bool) -> str:
    # In a share of the whole volume root could read the accounts.
    squash = "All_Squash" if uid is not None else "No_Root_Squash" if export.root and not whole else "Root_Squash"
    anonymous = NOBODY if uid is None else uid
    client = [
        f"Clients = {', '.join(export.clients)}",
        f"Access_Type = {'RW' if export.write else 'RO'}",
        f"Squash = {squash}",
    ]
    lines = [
        f"Export_Id = {number}",
        f"Path = {quoted(str(folder))}",
        f"Pseudo = {quoted('/' + export.share)}",
        f"Anonymous_Uid = {anonymous}",
        f"Anonymous_Gid = {anonymous}",
        "Attr_Expiration_Time = 0",
        "FSAL { Name = VFS; }",
        f"CLIENT {{ {' '.join(f'{line};' for line in client)} }}",
    ]
    return _block("EXPORT", lines)


def _block(name: str, lines: list[str]) -> str:
    body = "".join(f"\t{line}{'' if line.endswith('}') else ';'}\n" for line in lines)
    return f"{name} {{\n{body}}}\n"


def quoted(text: str) -> str | None:
    """A text in quotes; in double ones a backslash means something, in single ones nothing. None: it has both."""
    if not set(text) & {'"', "\\"}:
        return f'"{text}"'
    return None if "'" in text else f"'{text}'"
