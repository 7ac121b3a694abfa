"""Keeps what a copy holds before it is overwritten: a process of its own, started by the mirror's keeper.

`python -m relevo.mirror.saver ORDER`, where ORDER is JSON (`Order`) and standard input holds the ranges (as the file
`saved.RANGES`). It ends with status 0 when the copy is kept and stable, else with an errno: ENOSPC (no room), ENOTSUP
(no snapshot can be made of this disk), or whatever the system said. What it prints last says it in a sentence.
"""

from __future__ import annotations

import datetime as dt
import errno
import fcntl
import hashlib
import os
import pathlib
import shutil
import stat
import sys
import time

import msgspec

from relevo.base.durable import sync_folder, write_durably
from relevo.base.errors import RelevoError
from relevo.base.units import format_bytes
from relevo.mirror import lvm, saved

FREE_RESERVE_BYTES = 64 << 20
"""What stays free on the file system of the state folder: the daemons' own small files must always fit."""
LOCK_LIMIT_S = 600.0
"""How long to wait for another saver of this mirror, started for a link that is gone."""
_LOCK_STEP_S = 0.05
_NO_REFLINK = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM, errno.EACCES}


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to save.

    Attributes:
        disk: the backing disk.
        data_bytes: size of its data area.
        store: folder of the saved copies of this mirror.
        mirror, node, reason, generations: for the index.
        limit_bytes: upper bound of all saved copies of this mirror together.
    """

    disk: str
    data_bytes: int
    store: str
    mirror: str
    node: str
    reason: str
    generations: tuple[str, str, str, str]
    limit_bytes: int


class CopyNotSaved(RelevoError):
    """The copy cannot be kept; `errno` says why."""

    def __init__(self, errno: int, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.errno = errno


def save(order: Order, packed: bytes) -> str:
    """Keep a copy; returns a sentence that says where.

    Args:
        order: what and where.
        packed: the ranges, as `saved.pack_ranges` has them.

    Raises:
        CopyNotSaved: it is not kept.
        OSError: the disk or the store cannot be read or written.
    """
    # behind a symbolic link the image has to lie beside the file itself: only there can it share its blocks
    order = msgspec.structs.replace(order, disk=str(pathlib.Path(order.disk).resolve()))
    store = pathlib.Path(order.store)
    store.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = _lock(store)
    try:
        _remove_unfinished(store, pathlib.Path(order.disk))
        checksum = hashlib.sha256(packed).hexdigest()
        kept = saved.saved_copies(store.parent.parent, order.mirror)
        for copy in kept:
            same = (copy.index.generations, copy.index.reason, copy.index.ranges_sha256)
            if same == (order.generations, order.reason, checksum):
                return f"The copy is kept already: {copy.folder}."
        folder = _new_folder(store, order.reason)
        try:
            return _fill(order, folder, packed, sum(copy.index.saved_bytes for copy in kept))
        except BaseException:
            _discard(folder, pathlib.Path(order.disk))
            raise
    finally:
        os.close(lock)


def forget(store: pathlib.Path, reason: str) -> str:
    """Remove every copy that was kept for a reason; returns a sentence that says how many."""
    if not store.is_dir():  # nothing was ever kept here
        return "No saved copy had to be removed."
    lock = _lock(store)
    try:
        found = [copy for copy in saved.saved_copies(store.parent.parent, store.name) if copy.index.reason == reason]
        for copy in found:
            saved.remove(copy)
    finally:
        os.close(lock)
    return f"{len(found)} saved copies are removed: the resync has ended well."


def _lock(store: pathlib.Path) -> int:
    """One saver at a time."""
    fd = os.open(store / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    end_s = time.monotonic() + LOCK_LIMIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end_s:
                os.close(fd)
                raise CopyNotSaved(errno.EBUSY, f"Something else holds {store}.", "Wait for it.") from None
            time.sleep(_LOCK_STEP_S)
        else:
            return fd


def _remove_unfinished(store: pathlib.Path, disk: pathlib.Path) -> None:
    for folder in store.glob("*/"):
        if not (folder / saved.INDEX).exists():
            _discard(folder, disk)


def _discard(folder: pathlib.Path, disk: pathlib.Path) -> None:
    _beside(disk, folder).unlink(missing_ok=True)
    volume = lvm.volume_of(disk)
    if volume is not None:
        lvm.give_back(pathlib.Path("/dev", volume.group, _volume_name(folder)))
    shutil.rmtree(folder, ignore_errors=True)


def _beside(disk: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Where the image lies when the store is on another file system than the disk."""
    return disk.with_name(f".{disk.name}.saved-{folder.name}")


def _volume_name(folder: pathlib.Path) -> str:
    """What a snapshot of a logical volume is called: after the mirror and the time."""
    return f"relevo-{folder.parent.name}-{folder.name}"


def _new_folder(store: pathlib.Path, reason: str) -> pathlib.Path:
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    number = 0
    while True:
        folder = store / (f"{stamp}-{reason}" + (f"-{number}" if number else ""))
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            number += 1
        else:
            return folder


def _fill(order: Order, folder: pathlib.Path, packed: bytes, used_bytes: int) -> str:
    ranges = saved.unpack_ranges(packed)
    wanted_bytes = sum(length for _, length in ranges)
    kind: saved.Kind = "image"
    image = _snapshot(pathlib.Path(order.disk), folder)
    if image is None and not ranges:
        image, kind = _volume_snapshot(pathlib.Path(order.disk), folder), "lvm"
    digest = ""
    if image is None:
        kind = "blocks"
        if not ranges:
            raise CopyNotSaved(
                errno.ENOTSUP,
                f"No snapshot of {order.disk} can be made.",
                "A logical volume can have one, and a file on xfs or btrfs can share its blocks; other disks cannot.",
            )
        _check_room(order, folder, wanted_bytes, used_bytes)
        digest = _copy(pathlib.Path(order.disk), folder / saved.BLOCKS, ranges)
    write_durably(folder / saved.RANGES, packed)
    index = saved.Index(
        format=saved.FORMAT,
        mirror=order.mirror,
        node=order.node,
        reason=order.reason,
        saved_at=dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        kind=kind,
        data_bytes=order.data_bytes,
        saved_bytes=wanted_bytes,
        generations=order.generations,
        ranges_sha256=hashlib.sha256(packed).hexdigest(),
        blocks_sha256=digest,
        image="" if image is None else str(image),
    )
    write_durably(folder / saved.INDEX, msgspec.json.format(msgspec.json.encode(index), indent=2))
    sync_folder(folder.parent)
    what = f"{format_bytes(wanted_bytes)} in {len(ranges)} ranges" if image is None else f"an image ({image})"
    return f"The copy is kept in {folder}: {what}."


def _check_room(order: Order, folder: pathlib.Path, wanted_bytes: int, used_bytes: int) -> None:
    if used_bytes + wanted_bytes > order.limit_bytes:
        raise CopyNotSaved(
            errno.ENOSPC,
            f"{format_bytes(wanted_bytes)} would have to be kept; {format_bytes(used_bytes)} of at most "
            f"{format_bytes(order.limit_bytes)} are used by earlier copies.",
            f"relevo mirror saved list {order.mirror}; remove what is not needed.",
        )
    room = os.statvfs(folder)
    free_bytes = room.f_bavail * room.f_frsize - FREE_RESERVE_BYTES
    if wanted_bytes > free_bytes:
        raise CopyNotSaved(
            errno.ENOSPC,
            f"{format_bytes(wanted_bytes)} would have to be kept, but {folder.parent} has only "
            f"{format_bytes(max(0, free_bytes))} left.",
            "Make room there.",
        )


def _snapshot(disk: pathlib.Path, folder: pathlib.Path) -> pathlib.Path | None:
    """An image that shares the blocks of the backing file, in the store or beside the file; None: not on this disk."""
    if not stat.S_ISREG(disk.stat().st_mode):
        return None
    source = os.open(disk, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for image in (folder / saved.IMAGE, _beside(disk, folder)):
            if _shared(source, image):
                return image
    finally:
        os.close(source)
    return None


def _volume_snapshot(disk: pathlib.Path, folder: pathlib.Path) -> pathlib.Path | None:
    volume = lvm.volume_of(disk)
    return None if volume is None else lvm.take(volume, _volume_name(folder))


def _shared(source: int, image: pathlib.Path) -> bool:
    try:
        target = os.open(image, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            return False
        raise
    try:
        saved.share_blocks(source, target)
        os.fsync(target)
    except OSError as error:
        image.unlink()
        if error.errno not in _NO_REFLINK:
            raise
        return False
    finally:
        os.close(target)
    sync_folder(image.parent)
    return True


def _copy(disk: pathlib.Path, blocks: pathlib.Path, ranges: list[tuple[int, int]]) -> str:
    """Copy ranges one behind the other; returns their SHA-256."""
    digest = hashlib.sha256()
    source = os.open(disk, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with blocks.open("xb", buffering=saved.PIECE_BYTES) as target:
            for offset, length in ranges:
                at, end = offset, offset + length
                while at < end:
                    data = os.pread(source, min(saved.PIECE_BYTES, end - at), at)
                    if not data:
                        raise CopyNotSaved(errno.EIO, f"{disk} ends before byte {end}.", "Check the disk.")
                    digest.update(data)
                    target.write(data)
                    at += len(data)
            target.flush()
            os.fsync(target.fileno())
        os.posix_fadvise(source, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(source)
    return digest.hexdigest()


def main(arguments: list[str]) -> int:
    """Save (ORDER), or remove what was kept for a reason (forget STORE REASON); the exit status is 0 or an errno."""
    try:
        if arguments[0] == "forget":
            sys.stdout.write(forget(pathlib.Path(arguments[1]), arguments[2]) + "\n")
            return 0
        order = msgspec.json.decode(arguments[0].encode(), type=Order)
        sys.stdout.write(save(order, sys.stdin.buffer.read()) + "\n")
    except (CopyNotSaved, lvm.SnapshotFailed) as error:
        sys.stderr.write(f"{error.what} {error.remedy}\n")
        return error.errno
    except RelevoError as error:
        sys.stderr.write(f"{error}\n")
        return errno.EIO
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return error.errno or errno.EIO
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
