"""What a file is, by its name: its media type, and how a browser can show it. Pure."""

from __future__ import annotations

import mimetypes

_TYPES = mimetypes.MimeTypes()
"""Python's own table, not this machine's /etc/mime.types: both servers must say the same."""
for _kind, _ending in (
    ("text/markdown", ".md"),
    ("text/plain", ".log"),
    ("text/plain", ".toml"),
    ("text/plain", ".ini"),
    ("text/plain", ".conf"),
    ("text/plain", ".yaml"),
    ("text/plain", ".yml"),
    ("application/xhtml+xml", ".xhtml"),
    ("image/webp", ".webp"),
    ("image/avif", ".avif"),
    ("audio/flac", ".flac"),
    ("audio/ogg", ".ogg"),
    ("audio/mp4", ".m4a"),
    ("video/x-matroska", ".mkv"),
):
    _TYPES.add_type(_kind, _ending)
_ENCODED = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
    "br": "application/x-brotli",
}
_MARKUP = frozenset({"text/html", "text/xml"})
"""Text that says itself how it is encoded."""
_AS_TEXT = frozenset(
    {"application/json", "application/xml", "application/javascript", "application/x-sh", "application/sql"}
)
_ARCHIVES = frozenset({"application/zip", "application/x-tar", "application/x-7z-compressed", *_ENCODED.values()})
SHOWN = frozenset({"image", "audio", "video", "pdf", "text"})
"""Kinds that have a preview."""


def content_type(name: str) -> str:
    """The media type that a name's extension stands for."""
    kind, encoding = _TYPES.guess_type(name, strict=False)
    if encoding is not None:
        return _ENCODED.get(encoding, "application/octet-stream")
    if kind is None:
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") and kind not in _MARKUP else kind


def kind_of(name: str) -> str:
    """`image`, `audio`, `video`, `pdf`, `text`, `archive`, or `file` for whatever else."""
    kind = content_type(name).partition(";")[0]
    main = kind.partition("/")[0]
    if main in {"image", "audio", "video", "text"}:
        return main
    if kind == "application/pdf":
        return "pdf"
    if kind in _AS_TEXT or kind.endswith(("+xml", "+json")):
        return "text"
    return "archive" if kind in _ARCHIVES else "file"
