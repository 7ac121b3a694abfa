"""DELETE and MKCOL: one change of the tree, durable before it is answered."""

from __future__ import annotations

import structlog
from aiohttp import web

from relevo.files.conditions import require
from relevo.files.errors import FilesError
from relevo.files.http import Call, empty
from relevo.files.service import Service
from relevo.files.urls import check_new, url_of
from relevo.files.volume import Condition, Entry, no_condition

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
