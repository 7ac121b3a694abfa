"""DELETE and MKCOL: one change of the tree, durable before it is answered."""

from __future__ import annotations

import structlog
from aiohttp import web

from relevo.files import bin as rubbish
from relevo.files import guard, limits, tree, walk
from relevo.files.accounts.access import Verb
from relevo.files.conditions import require
from relevo.files.entries import Condition, Entry, no_condition
from relevo.files.errors import FilesError
from relevo.files.http import Call, empty
from relevo.files.service import Service
from relevo.files.urls import check_new, url_of

_log = structlog.get_logger()


async def remove(
    service: Service, names: tuple[str, ...], condition: Condition = no_condition, *, recursive: bool
) -> int:
    """Delete a file or a folder; on how many servers that is recorded.

    Raises:
        FilesError: nothing was deleted.
    """
    if not names:
        raise FilesError(403, "forbidden")
    await service.require_copies()
    volume = service.volume
    trash = await service.run(volume.remove, names, condition, recursive=recursive)
    if trash is not None:
        service.later(volume.purge, "trash", trash)
    copies = await service.copies()
    _log.info("deleted", path="/".join(names), copies=copies)
    return copies


async def create_folder(service: Service, names: tuple[str, ...]) -> int:
    """Make a folder; on how many servers it is.

    Raises:
        FilesError: there is something of this name, or no folder above.
    """
    check_new(names)
    await service.require_copies()
    await service.run(service.volume.make_folder, names)
    copies = await service.copies()
    _log.info("folder_made", path="/".join(names), copies=copies)
    return copies


async def discard(service: Service, names: tuple[str, ...], condition: Condition = no_condition) -> int:
    """Put a file or a folder into the bin, or delete it where there is none; on how many servers that is recorded.

    Raises:
        FilesError: nothing was deleted.
    """
    if service.resource.bin_expiry_ms == 0:
        return await remove(service, names, condition, recursive=True)
    await service.require_copies()
    bin_id = await service.run(rubbish.discard, service.volume, names, condition)
    copies = await service.copies()
    _log.info("discarded", path="/".join(names), bin=bin_id, copies=copies)
    return copies


async def restore(service: Service, bin_id: str) -> tuple[tuple[str, ...], int]:
    """Take something out of the bin again; where it is now, and on how many servers that is recorded.

    Raises:
        FilesError: it stays in the bin, or is not there.
    """
    await service.require_copies()
    names = await service.run(rubbish.restore, service.volume, bin_id)
    copies = await service.copies()
    _log.info("restored", path="/".join(names), bin=bin_id, copies=copies)
    return names, copies


async def purge(service: Service, bin_id: str) -> int:
    """Delete something in the bin for good; on how many servers that is recorded.

    Raises:
        FilesError: it is not there.
    """
    await service.require_copies()
    volume = service.volume
    service.later(volume.purge, "trash", await service.run(rubbish.purge, volume, bin_id))
    copies = await service.copies()
    _log.info("purged", bin=bin_id, copies=copies)
    return copies


async def _weigh(service: Service, source: tuple[str, ...], target: tuple[str, ...]) -> int:
    """How many bytes are in a folder that is to move; 0 for a file.

    Raises:
        FilesError: 507, it is more than the share that it comes into may hold.
    """
    guard.require(Verb.REMOVE, source)
    found, size_bytes, ended = walk.below(service.volume, source, [()]), 0, False
    while not ended:
        some, ended = await service.run(walk.some, found, limits.SEARCH_SLICE_S, limits.ZIP_FILES_MAX)
        size_bytes += sum(entry.size_bytes for _, entry in some)
        guard.require_share_room(target, size_bytes)
    return size_bytes


async def move(
    service: Service,
    source: tuple[str, ...],
    target: tuple[str, ...],
    *,
    replace: tree.Replace = tree.Replace.NOTHING,
    condition: Condition = no_condition,
) -> int:
    """Give something another name or place; on how many servers that is recorded.

    Raises:
        FilesError: nothing was changed.
    """
    check_new(target)
    await service.require_copies()
    volume = service.volume
    inside_bytes = await _weigh(service, source, target) if guard.weighs(source, target) else 0
    trash = await service.run(
        tree.move, volume, source, target, replace=replace, condition=condition, inside_bytes=inside_bytes
    )
    if trash is not None:
        service.later(volume.purge, "trash", trash)
    copies = await service.copies()
    _log.info("moved", path="/".join(source), to="/".join(target), copies=copies)
    return copies


async def copy(
    service: Service,
    source: tuple[str, ...],
    target: tuple[str, ...],
    *,
    replace: tree.Replace = tree.Replace.NOTHING,
    deep: bool = True,
) -> int:
    """Copy something, whole and durable, or not at all; on how many servers it is.

    Raises:
        FilesError: nothing was changed.
    """
    check_new(target)
    await service.require_copies()
    await tree.copy(service, source, target, replace=replace, deep=deep)
    copies = await service.copies()
    _log.info("copied", path="/".join(source), to="/".join(target), copies=copies)
    return copies


async def delete(service: Service, call: Call) -> web.Response:
    """Answer a DELETE: 204. A folder with content needs `?recursive=1` or `Depth: infinity`."""
    request = call.request
    headers = request.headers

    def expected(entry: Entry | None) -> None:
        if entry is not None and not entry.is_folder:
            if call.place.slash:
                raise FilesError(404, "not_found")
            require("DELETE", headers, entry.version)

    recursive = call.query.get("recursive") == "1" or headers.get("Depth", "").lower() == "infinity"
    copies = await remove(service, call.place.names, expected, recursive=recursive)
    return empty(204, {"Relevo-Copies": str(copies)})


async def make_folder(service: Service, call: Call) -> web.Response:
    """Answer a MKCOL (RFC 4918, 9.3): 201; 405 when something is there."""
    if call.request.can_read_body:
        raise FilesError(415, "form")
    names = call.place.names
    try:
        copies = await create_folder(service, names)
    except FilesError as error:
        if error.code in {"exists", "is_folder"}:
            raise FilesError(405, error.code, headers={"Allow": "OPTIONS, GET, HEAD, DELETE"}) from error
        raise
    return empty(201, {"Location": url_of(names, folder=True), "Relevo-Copies": str(copies)})
