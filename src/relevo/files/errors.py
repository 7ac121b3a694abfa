"""What can go wrong with a request: a status, a code that names the sentence in `texts.py`, and its parameters."""

from __future__ import annotations

import errno

from relevo.base.errors import RelevoError
from relevo.files.limits import RETRY_AFTER_S
from relevo.files.texts import text


class FilesError(RelevoError):
    """A request that cannot be fulfilled.

    Args:
        status: HTTP status code.
        code: key of the sentence in `texts.TEXTS`.
        headers: fields that the answer carries.
        params: what the sentence mentions.
    """

    def __init__(self, status: int, code: str, *, headers: dict[str, str] | None = None, **params: object) -> None:
        super().__init__(text("en", code, **params))
        self.status = status
        self.code = code
        self.params = params
        self.headers = headers or {}

    def sentence(self, language: str) -> str:
        """The one sentence that tells a person what is wrong."""
        return text(language, self.code, **self.params)


class VolumeFault(FilesError):
    """The volume itself is sick (disk error, read-only): it is told in the status too, so that the manager acts."""


class NotMounted(RelevoError):
    """The volume's file system is not mounted: files would be stored on this server's own disk, and only there."""


class IgnoresCase(RelevoError):
    """Names at the root do not distinguish upper and lower case: our own folder would have names that nobody hides."""


def unavailable(code: str, **params: object) -> FilesError:
    """A 503 that asks the client to come again soon."""
    return FilesError(503, code, headers={"Retry-After": str(RETRY_AFTER_S)}, **params)


_BY_ERRNO = {
    errno.ENOENT: (404, "not_found"),
    errno.ENOTDIR: (404, "not_found"),
    errno.EISDIR: (409, "is_folder"),
    errno.EACCES: (403, "forbidden"),
    errno.EPERM: (403, "forbidden"),
    errno.ELOOP: (403, "link"),
    errno.ENXIO: (403, "not_regular"),
    errno.ENAMETOOLONG: (414, "name_too_long"),
    errno.EILSEQ: (400, "bad_name"),
    errno.EINVAL: (400, "bad_name"),
    errno.ENOSPC: (507, "full"),
    errno.EDQUOT: (507, "full"),
    errno.EMLINK: (507, "full"),
    errno.EFBIG: (413, "too_large"),
    errno.EEXIST: (409, "exists"),
    errno.ENOTEMPTY: (409, "not_empty"),
    errno.EMFILE: (503, "busy"),
    errno.ENFILE: (503, "busy"),
    errno.ENOMEM: (503, "busy"),
}
_FAULTS = {
    errno.EROFS: "read_only",
    errno.EIO: "disk_error",
    errno.ENODEV: "disk_error",
    errno.ENOTCONN: "disk_error",
    errno.ESHUTDOWN: "disk_error",
    errno.ESTALE: "disk_error",
    errno.EUCLEAN: "disk_error",
    errno.EBADMSG: "disk_error",
}


def from_os(error: OSError) -> FilesError:
    """The answer to a system call on the volume that failed."""
    number = error.errno or 0
    if number in _FAULTS:
        return VolumeFault(503, _FAULTS[number], headers={"Retry-After": str(RETRY_AFTER_S)})
    status, code = _BY_ERRNO.get(number, (500, "internal"))
    if status == 503:
        return unavailable(code)
    return FilesError(status, code)
