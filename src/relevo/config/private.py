"""Files that only their owner may read: the secrets and the heartbeat keys."""

from __future__ import annotations

import os
import pathlib
import stat

from relevo.config.errors import ConfigError

MAX_PRIVATE_BYTES = 1 << 16
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read_private(path: pathlib.Path, purpose: str) -> bytes:
    """The content of a file that must belong to root or to this user, and to nobody else (mode 0600).

    Args:
        path: the file.
        purpose: what is in it, for the sentence about a missing one.

    Raises:
        ConfigError: it is missing, not a file, too large, or others may read or change it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ConfigError(path, None, f"The file with {purpose} is missing.", "Create it with mode 0600.") from None
    except OSError as error:
        raise ConfigError(path, None, f"It cannot be read ({error.strerror}).", "Run as root.") from error
    try:
        _require_private(path, os.fstat(fd), purpose)
        data = _read_all(fd)
    finally:
        os.close(fd)
    if len(data) > MAX_PRIVATE_BYTES:
        raise ConfigError(path, None, f"It is larger than {MAX_PRIVATE_BYTES} bytes.", f"Leave only {purpose} in it.")
    return data


def _require_private(path: pathlib.Path, status: os.stat_result, purpose: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(path, None, "This is not a regular file.", f"Put a file with {purpose} there.")
    if status.st_uid not in {0, os.geteuid()}:
        raise ConfigError(path, None, f"It belongs to user {status.st_uid}.", f"Run chown root {path}.")
    if status.st_mode & _OTHERS:
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        raise ConfigError(path, None, f"Others than its owner may use it (mode {mode}).", f"Run chmod 600 {path}.")


def _read_all(fd: int) -> bytes:
    """The content, at most one byte more than is allowed."""
    data = b""
    while len(data) <= MAX_PRIVATE_BYTES and (part := os.read(fd, MAX_PRIVATE_BYTES + 1 - len(data))):
        data += part
    return data
