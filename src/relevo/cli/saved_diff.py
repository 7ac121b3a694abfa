"""`relevo mirror saved diff`: which files of an image differ from those of the volume as it is now."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import pathlib
import shlex
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from typing import Annotated

import msgspec
import typer

from relevo.agents.superblock import NEEDED_BYTES, identify
from relevo.base.errors import RelevoError
from relevo.base.units import format_bytes
from relevo.cli.context import Context, of, print_json
from relevo.cli.trees import Difference, Entry, Where, differences
from relevo.config.model import FilesystemResource, MirrorSite
from relevo.config.site import configured_by_drbd, find_site
from relevo.device.loop import attach

_WORDS = {Where.ONLY_LEFT: "only saved", Where.ONLY_RIGHT: "only now", Where.DIFFERENT: "different"}


class NotMountable(RelevoError):
    """The file system in an image cannot be looked into as it is."""


class NothingToCompare(RelevoError):
    """The volume as it is now is not to be seen on this server."""


def diff(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the mirror, such as r0.")],
    image: Annotated[pathlib.Path, typer.Argument(help="A whole image with the saved copy in it.")],
    against: Annotated[
        pathlib.Path | None,
        typer.Argument(help="A folder, or another image; left out: the volume, where it is mounted here."),
    ] = None,
    *,
    content: Annotated[bool, typer.Option("--content", help="Read also what has the same size and time.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Say which files differ between a saved copy's image and the volume as it is now; both are only read."""
    context = of(ctx)
    site = find_site(context.paths, context.node, name)
    if against is None:
        against = _volume(context, name)
    for place in (image, against):
        refuse_disk(site, place)
    with _looked_into(image, context.paths.run) as left, _looked_into(against, context.paths.run) as right:
        found = list(differences(left, right, content=content))
    if as_json:
        print_json({"differences": msgspec.to_builtins(found)})
        return
    for line in lines(found):
        typer.echo(line)


def refuse_disk(site: MirrorSite, place: pathlib.Path) -> None:
    """The mirror's own disk is never looked into, and never mended: a copy of it is. Raises NotMountable."""
    if place.exists() and site.disk.exists() and place.samefile(site.disk):
        raise NotMountable(
            f"{place} is the disk of mirror {site.mirror.name}.",
            f"Compare with a copy: cp --sparse=always {shlex.quote(str(place))} now.img; e2fsck -fy now.img.",
        )


def _volume(context: Context, name: str) -> pathlib.Path:
    """Where the file system on a mirror is mounted on this server. Raises NothingToCompare."""
    services = {} if configured_by_drbd(context.paths) else context.config().services
    for service in services.values():
        for resource in service.resources:
            if isinstance(resource, FilesystemResource) and resource.mirror == name:
                if resource.mountpoint.is_mount():
                    return resource.mountpoint
                raise NothingToCompare(
                    f"The volume of {name} is not mounted here, at {resource.mountpoint}.",
                    f"Bring it here (relevo move {service.name} {context.node}), or name a folder or another image.",
                )
    raise NothingToCompare(f"No service mounts the volume of {name}.", "Name a folder, or another image.")


@contextlib.contextmanager
def _looked_into(place: pathlib.Path, run: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder as it is; an image read-only, mounted until the end.

    Args:
        place: the one or the other.
        run: where the mount point is made, and the device's node if /dev has none: /tmp may allow no devices.

    Raises:
        NotMountable: it is no image of a file system that was closed in order.
    """
    if place.is_dir():
        yield place
        return
    fstype = _fstype(place)
    run.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="look-", dir=run))
    point, devices = folder / "files", folder / "devices"
    point.mkdir()
    devices.mkdir()
    try:
        with _device(place, devices / "device") as device:
            options = "ro,nosuid,nodev,noexec" + (",nouuid,norecovery" if fstype == "xfs" else "")
            _run("mount", "-t", fstype, "-o", options, str(device), str(point))
            try:
                yield point
            finally:
                _run("umount", str(point))
    finally:
        point.rmdir()  # not with what is in it: that would be the image's, were it still mounted
        shutil.rmtree(devices)
        folder.rmdir()


def _fstype(image: pathlib.Path) -> str:
    with image.open("rb") as file:
        found = identify(file.read(NEEDED_BYTES))
    if found is None:
        raise NotMountable(f"{image} begins with no file system that is known.", "Is it a whole image?")
    if found.recover or found.check:
        raise NotMountable(
            f"The file system in {image} was not closed in order.",
            f"e2fsck -fy {shlex.quote(str(image))} puts it in order; do that with copies only.",
        )
    return found.fstype


@contextlib.contextmanager
def _device(image: pathlib.Path, node: pathlib.Path) -> Iterator[pathlib.Path]:
    fd = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        loop = attach(fd, node, f"look:{os.getpid()}")
    finally:
        os.close(fd)
    try:
        yield loop.node
    finally:
        loop.detach()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotMountable(f"`{shlex.join(command)}` failed: {done.stderr.strip()}", "See the kernel's log.")


def lines(found: list[Difference]) -> Iterator[str]:
    """What people read: a line for each path, then how many of which kind."""
    for one in found:
        both = (f"saved {_what(one.left)}", f"now {_what(one.right)}")
        told = {Where.ONLY_LEFT: _what(one.left), Where.ONLY_RIGHT: _what(one.right)}.get(one.where, "; ".join(both))
        yield f"{_WORDS[one.where]:10}  {one.path}  ({told})"
    count = Counter(one.where for one in found)
    counted = ", ".join(f"{count[where]} {word}" for where, word in _WORDS.items() if count[where])
    yield f"{counted}." if found else "No file differs."


def _what(entry: Entry | None) -> str:
    if entry is None or entry.kind == "other":
        return "no plain file"
    if entry.kind == "link":
        return f"link to {entry.target}"
    if entry.kind == "folder":
        return "folder"
    when = dt.datetime.fromtimestamp(entry.changed_ns / 1e9).astimezone()
    return f"{format_bytes(entry.size)}, {when:%Y-%m-%d %H:%M:%S}"
