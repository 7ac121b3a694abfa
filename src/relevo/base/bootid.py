"""Which boot of a server this is.

The kernel's own /proc/sys/kernel/random/boot_id is shared by everything on one kernel, so it cannot tell two servers
made of namespaces apart. Ours lies in the run folder, which is empty after a boot.
"""

from __future__ import annotations

import contextlib
import pathlib
import uuid


def boot_id(run: pathlib.Path) -> str:
    """The identity (a UUID as text) of this boot; made by whichever daemon asks first, the same for all of them.

    Args:
        run: the run folder (`Paths.run`), which must not survive a boot.

    Raises:
        OSError: the folder cannot be written.
    """
    path = run / "boot-id"
    run.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        identity = uuid.uuid4()
        beside = run / f"boot-id.{identity}"
        beside.write_text(f"{identity}\n", encoding="ascii")
        try:
            # link(2) fails if another daemon was faster, and never shows a file that is not yet written
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(beside)
        finally:
            beside.unlink()
    return path.read_text(encoding="ascii").strip()
