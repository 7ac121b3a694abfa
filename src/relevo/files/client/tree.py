"""Store a folder with everything in it, several files at a time."""

from __future__ import annotations

import asyncio
import os
import pathlib
from collections.abc import Iterator

import aiohttp
import yarl

from relevo.files import limits
from relevo.files.client import connection
from relevo.files.client.errors import GaveUp, Interrupted, TransferFailed
from relevo.files.client.patience import Patience, attempt, expect
from relevo.files.client.put import put_file
from relevo.files.client.report import SILENT, Observer, TreeReport


async def put_tree(
    source: pathlib.Path,
    url: str | yarl.URL,
    *,
    parallel: int = limits.PARALLEL,
    give_up_s: float = limits.GIVE_UP_S,
    observer: Observer = SILENT,
    http: aiohttp.ClientSession | None = None,
) -> TreeReport:
    """Store the content of a folder below the address `url`. Links to files are followed, links to folders are not.

    A file that the server refuses is reported and the others go on; when the server is away for too long, all stop.

    Args:
        source: the folder.
        url: the folder's address at the server; made when missing.
        parallel: files under way at the same time.
        give_up_s: longest time without any progress of a file.
        observer: is told what goes on.
        http: a session to use; by default one of its own.

    Raises:
        GaveUp: the server was away for too long.
    """
    base = connection.parse(url) if isinstance(url, str) else url
    report = TreeReport()
    work = iter(_walk(source, report))

    async def worker(using: aiohttp.ClientSession) -> None:
        for names, is_folder in work:
            path = source.joinpath(*names)
            try:
                if is_folder:
                    await _make_folder(using, base, names, give_up_s)
                else:
                    target = connection.below(base, *names)
                    report.stored.append(
                        await put_file(path, target, give_up_s=give_up_s, observer=observer, http=using)
                    )
            except GaveUp:
                raise
            except TransferFailed as error:
                report.failed.append(str(error))
                observer.failed(path, str(error))

    async with connection.session(http) as using:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(parallel):
                    group.create_task(worker(using))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors
    return report


def _walk(source: pathlib.Path, report: TreeReport) -> Iterator[tuple[tuple[str, ...], bool]]:
    """The files and the empty folders below a folder, sorted; what is neither is reported as skipped."""
    for folder, folders, files in os.walk(source):
        folders.sort()
        here = pathlib.Path(folder)
        names = here.relative_to(source).parts
        if not folders and not files:
            yield names, True
        for name in [*folders]:
            if (here / name).is_symlink():
                report.skipped.append(str(here / name))
        for name in sorted(files):
            if (here / name).is_file():
                yield (*names, name), False
            else:
                report.skipped.append(str(here / name))


async def _make_folder(http: aiohttp.ClientSession, base: yarl.URL, names: tuple[str, ...], give_up_s: float) -> None:
    """Make an empty folder and those above it; one that is there is fine."""
    every = (*connection.names_of(base), *names)
    root = connection.at_root(base, "/")
    for count in range(1, len(every) + 1):
        patience = Patience("/".join(every[:count]), give_up_s)
        while True:
            try:
                url = connection.below(root, *every[:count], folder=True)
                async with attempt(limits.ANSWER_S), http.request("MKCOL", url) as answer:
                    await expect(answer, 201, 405)
                break
            except Interrupted as error:
                await patience.pause(str(error))
