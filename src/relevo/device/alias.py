"""The name that drbd.conf gives a device (`/dev/drbd0`), as a link to where the device appears.

The link leads nowhere while this side is Secondary: the device does not exist then.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

import structlog

_log = structlog.get_logger()


@contextlib.contextmanager
def alias(name: pathlib.Path | None, device: pathlib.Path) -> Iterator[None]:
    """Let `name` lead to `device` meanwhile. What somebody else has put there stays, and is logged.

    Args:
        name: the additional name; None is none.
        device: where the device appears, see `attachment.py`.
    """
    made = name is not None and _link(name, device)
    try:
        yield
    finally:
        if name is not None and made:
            with contextlib.suppress(OSError):
                if name.readlink() == device:
                    name.unlink()


def _link(name: pathlib.Path, device: pathlib.Path) -> bool:
    try:
        if name.is_symlink() and (name.readlink() == device or not name.readlink().parent.is_dir()):
            name.unlink()  # ours, or of a folder that is gone: left by a power cut
        name.symlink_to(device)
    except OSError as error:
        _log.warning("device_name_taken", name=str(name), error=error.strerror, device=str(device))
        return False
    return True
