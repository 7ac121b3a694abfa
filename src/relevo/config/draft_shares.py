"""`smb` and `nfs` of a service: the folders of its files resource for other protocols, put where they belong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Network

from relevo.config.draft_mirror import MAX_PORT
from relevo.config.model import AddressResource, FilesResource, NfsExport, NfsResource, Resource, SmbResource
from relevo.config.table import Table, nearest, spell

SMB_PORT, NFS_PORT = 445, 2049
DEFAULT_GRACE_MS, MIN_GRACE_MS, MAX_GRACE_MS = 8000, 5000, 90_000
_EXPORT_EXAMPLE = 'share = "docs" and clients = ["192.168.0.0/24"]'
_WORKGROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}", re.ASCII)


def with_shares(service: Table, resources: Sequence[Resource]) -> tuple[Resource, ...]:
    """The resources of a service, and those that `smb` and `nfs` add: after everything else, before the addresses."""
    added = [found for read in (_smb, _nfs) if (found := read(service, resources)) is not None]
    first = next((n for n, one in enumerate(resources) if isinstance(one, AddressResource)), len(resources))
    return (*resources[:first], *added, *resources[first:])


def _smb(service: Table, resources: Sequence[Resource]) -> Resource | None:
    table = service.switch("smb")
    if table is None:
        return None
    files = _files(service, "smb", table, resources)
    workgroup = table.text("workgroup", "WORKGROUP", '"WORKGROUP"')
    if workgroup and not _WORKGROUP.fullmatch(workgroup):
        table.wrong("workgroup", f"is no workgroup: {workgroup!r}.", "Use up to 15 letters, digits, dots, _ and -.")
    port = table.integer("port", SMB_PORT, 1, MAX_PORT)
    encrypt = table.boolean("encrypt", default=False)
    durable = table.choice("durable", ("close", "write"), "close")
    table.finish()
    if files is None or not table.sound:
        service.sound = False
        return None
    return SmbResource(
        files=files.id, root=files.root, port=port, workgroup=workgroup, encrypt=encrypt, durable=durable
    )


def _nfs(service: Table, resources: Sequence[Resource]) -> Resource | None:
    table = service.switch("nfs")
    if table is None:
        return None
    files = _files(service, "nfs", table, resources)
    entries = table.tables("exports") if table.has("exports") else []
    if not entries and table.sound:
        remedy = f"Add a table [[{spell(table.path)}.exports]] with {_EXPORT_EXAMPLE}."
        table.wrong("exports", "is missing: NFS is for the hosts that are named.", remedy)
    exports = [_export(entry) for entry in entries]
    grace_ms = table.duration_ms("grace", DEFAULT_GRACE_MS)
    if grace_ms % 1000 or not MIN_GRACE_MS <= grace_ms <= MAX_GRACE_MS:
        table.wrong("grace", "is not a time that clients can keep.", "Write whole seconds from 5 s to 90 s.")
    names = [export.share for export in exports]
    for entry, export in zip(entries, exports, strict=True):
        if names.count(export.share) > 1:
            entry.wrong("share", f"is exported twice: {export.share!r}.", "Name all its clients in one table.")
    port = table.integer("port", NFS_PORT, 1, MAX_PORT)
    table.finish()
    if files is None or not table.sound or not all(entry.sound for entry in entries):
        service.sound = False
        return None
    return NfsResource(files=files.id, root=files.root, exports=tuple(exports), port=port, grace_ms=grace_ms)


def _export(table: Table) -> NfsExport:
    clients = table.texts("clients", '["192.168.0.0/24"]')
    if not clients:
        table.wrong("clients", "names nobody.", 'Write clients = ["192.168.0.0/24"], or addresses.')
    for client in clients:
        try:
            IPv4Network(client)
        except ValueError:
            what = f"has neither an IPv4 address nor a network: {client!r}."
            table.wrong("clients", what, 'Write such as "192.168.0.40" or "192.168.0.0/24".')
    export = NfsExport(
        share=table.name("share", example='"docs"'),
        clients=clients,
        write=table.boolean("write", default=False),
        root=table.boolean("root", default=False),
        user=table.name("user", example='"ana"') if table.has("user") else "",
    )
    if export.user and export.root:
        table.wrong("root", "means nothing where everyone acts as one user.", "Remove root or user.")
    table.finish()
    return export


def _files(service: Table, key: str, table: Table, resources: Sequence[Resource]) -> FilesResource | None:
    """The files resource whose folders are meant: the one that is named, or the only one."""
    found = {one.id: one for one in resources if isinstance(one, FilesResource)}
    wanted = table.name("files", example='"files"') if table.has("files") else ""
    if not found:
        remedy = 'Add a resource of type "files" before the address.'
        service.wrong(key, "has nothing to share: the service has no files resource.", remedy)
        return None
    if wanted:
        if wanted not in found:
            table.wrong("files", f"names no files resource of this service: {wanted!r}.", nearest(wanted, found))
        return found.get(wanted)
    if len(found) > 1:
        remedy = f'Name one: {key} = {{ files = "{next(iter(found))}" }}.'
        service.wrong(key, "does not say which of the files resources it shares.", remedy)
        return None
    return next(iter(found.values()))
