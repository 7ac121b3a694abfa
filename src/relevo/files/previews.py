"""A file shown in the page: pictures, sound, films and PDF by the browser from the file's own address, text by us."""

from __future__ import annotations

import codecs
import os

from aiohttp import web

from relevo.files import limits, pages
from relevo.files.entries import Entry
from relevo.files.errors import FilesError
from relevo.files.http import Call
from relevo.files.kinds import SHOWN, kind_of
from relevo.files.pages import views
from relevo.files.service import Service
from relevo.files.urls import shown
from relevo.files.volume import Volume

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def decode(raw: bytes) -> str:
    """A text of unknown encoding: by its mark, else UTF-8, else Latin-1, which everything is."""
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return raw.decode(encoding, "replace")
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(raw)  # the last character may be cut
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _text(volume: Volume, names: tuple[str, ...]) -> str:
    handle = volume.open_file(names)
    if isinstance(handle, Entry):
        raise FilesError(404, "not_found")
    try:
        return decode(os.pread(handle.fd, limits.PREVIEW_TEXT_BYTES, 0))
    finally:
        handle.close()


async def answer(service: Service, call: Call, entry: Entry) -> web.Response:
    """Answer GET FILE?preview=1, for an entry that is a file."""
    names, kind = call.place.names, kind_of(shown(entry.name))
    body = await service.run(_text, service.volume, names) if kind == "text" else ""
    context = views.preview(names, entry, kind if kind in SHOWN else "file", call.language, call.query)
    return pages.answer(call, "preview.html", **context, body=body)
