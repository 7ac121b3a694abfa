"""The file system in an image that was put together: checked, mended where it has to be, and how to look into it.

The images are nobody's only copy, so everything that the tools propose is done to them.
"""

from __future__ import annotations

import pathlib
import shlex
import subprocess

from relevo.agents.superblock import NEEDED_BYTES, identify
from relevo.base.errors import RelevoError

_E2FSCK_MENDED = 1 | 2
"""Exit status bits of e2fsck(8): there was something, there is nothing any more."""
_XFS_LOG_DIRTY = 2
"""Exit status of xfs_repair(8): the log has to be replayed, which only a mount can, or given up (-L)."""
SAID_LINES = 5


class NoFileSystem(RelevoError):
    """An image holds nothing that can be mounted."""


class NotMended(RelevoError):
    """A file system is damaged, and the tool for it does not mend it."""


class ToolMissing(RelevoError):
    """The program that checks a file system is not installed."""


def check(image: pathlib.Path) -> tuple[str, str]:
    """Check the file system that begins with the image, and mend it.

    Returns:
        its type, and a sentence on what was found.

    Raises:
        NoFileSystem: there is none that we know.
        ToolMissing: it could not be checked.
        NotMended: it is damaged.
    """
    with image.open("rb") as file:
        found = identify(file.read(NEEDED_BYTES))
    if found is None:
        raise NoFileSystem(
            f"{image} begins with no file system that is known (ext2 to ext4, xfs, btrfs).",
            "Was the service's file system on this mirror? file -s says what lies there.",
        )
    if found.fstype.startswith("ext"):
        return found.fstype, _ext(image)
    if found.fstype == "xfs":
        return found.fstype, _xfs(image)
    return found.fstype, f"btrfs checks what it reads; btrfs check {shlex.quote(str(image))} looks at all of it."


def _ext(image: pathlib.Path) -> str:
    status, said = _run("e2fsprogs", "e2fsck", "-f", "-y", str(image))
    if status & ~_E2FSCK_MENDED:
        raise NotMended(f"e2fsck does not mend {image} (status {status}): {said}", "debugfs may still read it.")
    return "e2fsck has mended its file system." if status else "e2fsck finds nothing wrong with its file system."


def _xfs(image: pathlib.Path) -> str:
    status, said = _run("xfsprogs", "xfs_repair", "-f", str(image))
    given_up = status == _XFS_LOG_DIRTY
    if given_up:
        status, said = _run("xfsprogs", "xfs_repair", "-f", "-L", str(image))
    if status:
        raise NotMended(f"xfs_repair does not mend {image} (status {status}): {said}", "See man xfs_repair.")
    lost = ", without what was only in its log" if given_up else ""
    return f"xfs_repair has checked its file system{lost}."


def _run(package: str, *command: str) -> tuple[int, str]:
    """Exit status and last words; there is no time limit, for whoever asked watches."""
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    except FileNotFoundError:
        raise ToolMissing(
            f"{command[0]} is not installed: the file system in {command[-1]} was not checked.",
            f"Install {package}, then: {shlex.join(command)}.",
        ) from None
    words = (done.stdout + done.stderr).decode(errors="replace").splitlines()
    return done.returncode, " ".join(line.strip() for line in words[-SAID_LINES:])


def how_to_look(image: pathlib.Path, fstype: str) -> str:
    """The commands that read files in an image."""
    path = shlex.quote(str(image))
    options = "loop,ro,nouuid" if fstype == "xfs" else "loop,ro"  # the mirror's own file system has the same UUID
    lines = [f"Look into it: mount -t {fstype} -o {options} {path} /mnt"]
    if fstype.startswith("ext"):
        lines.append(f"Where there are no loop devices: debugfs -R 'cat /PATH/FILE' {path}")
    return "\n".join(lines)
