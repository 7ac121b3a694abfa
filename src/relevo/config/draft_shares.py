"""`smb` of a service: the folders of its files resource as network drives, put where they belong in its order."""

from __future__ import annotations

import re
from collections.abc import Sequence

from relevo.config.draft_mirror import MAX_PORT
from relevo.config.model import AddressResource, FilesResource, Resource, SmbResource
from relevo.config.table import Table, nearest

SMB_PORT = 445
_WORKGROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}", re.ASCII)


def with_shares(service: Table, resources: Sequence[Resource]) -> tuple[Resource, ...]:
    """The resources of a service, and those that `smb` adds: after everything else, before the addresses."""
    added = [found for found in (_smb(service, resources),) if found is not None]
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
