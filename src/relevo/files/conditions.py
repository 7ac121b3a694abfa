"""Conditional and range requests (RFC 9110, sections 13 and 14). Pure."""

from __future__ import annotations

import dataclasses
import email.utils
import enum
import re
from collections.abc import Mapping

from relevo.files.errors import FilesError

_ENTITY_TAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_RANGE = re.compile(r"bytes\s*=\s*([0-9]{0,40})\s*-\s*([0-9]{0,40})\s*", re.IGNORECASE)
"""As many digits as any honest client sends; a number of thousands of them is no range but a trick."""


@dataclasses.dataclass(frozen=True, slots=True)
class Version:
    """Which version of a file it is.

    Attributes:
        etag: strong entity tag, quotes included. Made of inode number, modification time and size: the file system is
            the same on both servers, so it survives a failover; an upload is always a new inode.
        mtime_s: modification time in whole seconds, as HTTP dates have it.
        size_bytes: length of the file.
    """

    etag: str
    mtime_s: int
    size_bytes: int


class Verdict(enum.Enum):
    """What the conditions of a request say."""

    PROCEED = "proceed"
    NOT_MODIFIED = "not modified"
    FAILED = "precondition failed"


def version_of(inode: int, mtime_ns: int, size_bytes: int) -> Version:
    """The version that a file's inode describes."""
    return Version(f'"{inode:x}-{mtime_ns:x}-{size_bytes:x}"', mtime_ns // 1_000_000_000, size_bytes)


def http_date(seconds: float) -> str:
    """A moment as HTTP writes it."""
    return email.utils.formatdate(seconds, usegmt=True)


def _seconds(date: str | None) -> int | None:
    if date is None:
        return None
    try:
        return int(email.utils.parsedate_to_datetime(date).timestamp())
    except (ValueError, TypeError, OverflowError):
        return None


def _matches(field: str, version: Version | None, *, weak: bool) -> bool:
    if field.strip() == "*":
        return version is not None
    if version is None:
        return False
    return any(tag == version.etag and (weak or not prefix) for prefix, tag in _ENTITY_TAG.findall(field))


def judge(method: str, headers: Mapping[str, str], version: Version | None) -> Verdict:
    """Evaluate the preconditions in the order of RFC 9110, 13.2.2.

    Args:
        method: GET and HEAD may be answered 304.
        headers: of the request; looked up without regard to case.
        version: of the file there is, None when there is none.
    """
    if (field := headers.get("If-Match")) is not None:
        if not _matches(field, version, weak=False):
            return Verdict.FAILED
    elif (since := _seconds(headers.get("If-Unmodified-Since"))) is not None:  # noqa: SIM102 - reads as the RFC does
        if version is None or version.mtime_s > since:
            return Verdict.FAILED
    reading = method in {"GET", "HEAD"}
    if (field := headers.get("If-None-Match")) is not None:
        if _matches(field, version, weak=True):
            return Verdict.NOT_MODIFIED if reading else Verdict.FAILED
    elif reading and version and (since := _seconds(headers.get("If-Modified-Since"))) is not None:  # noqa: SIM102
        if version.mtime_s <= since:
            return Verdict.NOT_MODIFIED
    return Verdict.PROCEED


def require(method: str, headers: Mapping[str, str], version: Version | None) -> None:
    """The preconditions of a change.

    Raises:
        FilesError: 412.
    """
    if judge(method, headers, version) is Verdict.FAILED:
        raise FilesError(412, "precondition")


def range_of(headers: Mapping[str, str], version: Version) -> tuple[int, int] | None:
    """Offset and length of the part asked for; None when the whole file is to be sent.

    Several ranges, other units and malformed fields are ignored, as RFC 9110, 14.2 allows.

    Raises:
        FilesError: 416.
    """
    match = _RANGE.fullmatch(headers.get("Range", "").strip())
    if match is None or not (match[1] or match[2]):
        return None
    validator = headers.get("If-Range")
    if validator is not None and not _unchanged(validator.strip(), version):
        return None
    size = version.size_bytes
    if match[1]:
        first = int(match[1])
        last = min(int(match[2]), size - 1) if match[2] else size - 1
        if match[2] and int(match[2]) < first:
            return None
    else:
        first, last = max(0, size - int(match[2])), size - 1
    if first >= size or last < first:
        raise FilesError(416, "range", headers={"Content-Range": f"bytes */{size}"})
    return first, last - first + 1


def _unchanged(validator: str, version: Version) -> bool:
    if validator.startswith(('"', "W/")):
        return validator == version.etag
    return _seconds(validator) == version.mtime_s
