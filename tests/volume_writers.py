"""Changes made at once through the file service's own volume, which share their commits, and what was promised of each.

For power cuts: after each change the files that have to be there are known, and before it those that may be.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import random
import time
from collections.abc import Callable

import msgspec

from relevo.files import bin as rubbish
from relevo.files import lock_store, locks, properties, tree, uploads
from relevo.files.accounts import store
from relevo.files.accounts.model import Accounts
from relevo.files.dav import stored
from relevo.files.entries import write_all
from relevo.files.volume import Volume

MISSING = "missing"
NAMES = 8
SIZES = (10, 4096, 20_000)
ACCOUNTS = f".relevo/{store.FOLDER}/{store.FILE}"
PROPERTY = "property:"
"""Before a path: not the file's content is meant, but what WebDAV's clients have said about it."""
_SAID = ("u:", "said")


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def found(root: pathlib.Path, name: str) -> str:
    """The digest of what is there, or `MISSING`."""
    path = root / name.removeprefix(PROPERTY)
    try:
        if name.startswith(PROPERTY):
            said = properties.decode(properties.raw(os.fspath(path)))
            return digest_of(said[_SAID].encode()) if _SAID in said else MISSING
        return digest_of(path.read_bytes())
    except FileNotFoundError:
        return MISSING


class VolumeWriters:
    """Several threads call `run`, each with a number and a chance of its own, and change files of their own.

    Args:
        root: the volume, which belongs to nobody else.
        safe: path -> the digests of which one has to be there (or `MISSING`); kept up to date.
        offsets: upload -> how much of it is on stable storage, and the digest of that; kept up to date.
    """

    def __init__(self, root: pathlib.Path, safe: dict[str, set[str]], offsets: dict[str, tuple[int, str]]) -> None:
        self._root = root
        self._safe = safe
        self._offsets = offsets
        self._held: dict[int, locks.Lock] = {}
        self.volume = Volume(root)
        for area, name in self.volume.open():
            self.volume.purge(area, name)
        assert self.volume.commits.ordered, "ext4 or xfs: commits are shared"

    def run(self, number: int, chance: random.Random) -> None:
        """One change. Raises OSError when the disk fails."""
        changes: list[Callable[[int, random.Random], None]] = [
            *[self._put] * 3, self._remove, self._discard, self._rename, self._upload, self._permit,
            self._say, self._lock, self._over,
        ]  # fmt: skip
        chance.choice(changes)(number, chance)

    def _name(self, number: int, chance: random.Random) -> str:
        return f"writer-{number}/{chance.randrange(3)}/{chance.randrange(NAMES)}"

    def _present(self, number: int, chance: random.Random) -> str | None:
        """A file of ours that is there for certain."""
        known = [
            name for name in list(self._safe) if name.startswith(f"writer-{number}/")
        ]  # others add names meanwhile
        there = sorted(name for name in known if len(self._safe[name]) == 1 and MISSING not in self._safe[name])
        return chance.choice(there) if there else None

    def _may_be(self, name: str, *contents: str) -> None:
        self._safe[name] = self._safe.get(name, {MISSING}) | set(contents)

    def _put(self, number: int, chance: random.Random) -> None:
        self._put_at(self._name(number, chance), chance)

    def _put_at(self, name: str, chance: random.Random) -> str:
        data = chance.randbytes(chance.choice(SIZES))
        self._may_be(name, digest_of(data))
        temporary = self.volume.new_temporary()
        write_all(temporary.fd, [data])
        self.volume.commits.before(temporary.fd)
        self.volume.publish(temporary, tuple(name.split("/")))
        self._safe[name] = {digest_of(data)}
        self.volume.release(temporary)
        return digest_of(data)

    def _remove(self, number: int, chance: random.Random) -> None:
        if (name := self._present(number, chance)) is not None:
            self._may_be(name, MISSING)
            self.volume.remove(tuple(name.split("/")))
            self._safe[name] = {MISSING}

    def _discard(self, number: int, chance: random.Random) -> None:
        if (name := self._present(number, chance)) is not None:
            (content,) = self._safe[name]
            self._may_be(name, MISSING)
            bin_id = rubbish.discard(self.volume, tuple(name.split("/")))
            self._safe[name] = {MISSING}
            self._safe[f".relevo/bin/{bin_id}"] = {content}

    def _rename(self, number: int, chance: random.Random) -> None:
        old, new = self._present(number, chance), self._name(number, chance)
        if old is None or old == new or not (self._safe.get(new, {MISSING}) - {MISSING}):
            return  # the folder of a new name has to be there
        (content,) = self._safe[old]
        self._may_be(old, MISSING)
        self._may_be(new, content)
        tree.move(self.volume, tuple(old.split("/")), tuple(new.split("/")), replace=tree.Replace.FILE)
        self._safe[old], self._safe[new] = {MISSING}, {content}

    def _upload(self, number: int, chance: random.Random) -> None:
        """A resumable upload in two parts; sometimes the second one never comes."""
        name, data = self._name(number, chance), chance.randbytes(chance.choice(SIZES))
        upload = uploads.create(self.volume, uploads.Info(tuple(name.split("/")), len(data)))
        self._offsets[upload.id] = 0, digest_of(b"")
        half = len(data) // 2
        for part, end in ((data[:half], half), (data[half:], len(data))):
            if end > half and chance.random() < 0.3:
                return
            handle = uploads.open_to_append(self.volume, upload)
            write_all(handle.fd, [part])
            uploads.sync(self.volume, upload, handle)
            handle.close()
            self._offsets[upload.id] = end, digest_of(data[:end])
        self._may_be(name, digest_of(data))
        del self._offsets[upload.id]  # from here on its bytes may have their name
        handle = uploads.open_complete(self.volume, upload)
        uploads.finish(self.volume, upload, handle)
        self._safe[name] = {digest_of(data)}
        handle.close()

    def _say(self, number: int, chance: random.Random) -> None:
        """A property; what replaces the file takes it over. Whoever holds its lock may do both."""
        name, value = f"said-{number}", chance.randbytes(8).hex()
        held = self._held.get(number)
        with locks.submitting(frozenset({held.token} if held is not None else ())):
            if name not in self._safe or MISSING in self._safe[name] or chance.random() < 0.3:
                self._put_at(name, chance)
                return
            self._may_be(PROPERTY + name, digest_of(value.encode()))
            stored.change(self.volume, (name,), lambda _: {_SAID: value})
            self._safe[PROPERTY + name] = {digest_of(value.encode())}

    def _lock(self, number: int, chance: random.Random) -> None:
        """A lock is taken, and the next time released."""
        if (held := self._held.pop(number, None)) is not None:
            place = self._place(held)
            self._may_be(place, MISSING)
            lock_store.release(self.volume, held)
            self._safe[place] = {MISSING}
            return
        ends_s = time.time() + 3600
        lock = locks.Lock(locks.new_token(), (f"said-{number}",), False, False, "", "", 3600, ends_s)  # noqa: FBT003
        lock_store.take(self.volume, lock)
        self._safe[self._place(lock)] = {found(self._root, self._place(lock))}
        self._held[number] = lock

    @staticmethod
    def _place(lock: locks.Lock) -> str:
        return f".relevo/{lock_store.FOLDER}/{lock.token.removeprefix(locks.SCHEME)}"

    def _over(self, number: int, chance: random.Random) -> None:
        """A folder takes the place of another one, in one step for whoever looks."""
        old, new = f"pair-{number}/old/x", f"pair-{number}/new/x"
        content = self._put_at(new, chance)
        self._may_be(new, MISSING, *self._safe.get(old, {MISSING}))  # they may have changed places already
        self._may_be(old, content)
        source, target = tuple(new.split("/"))[:2], tuple(old.split("/"))[:2]
        trash = tree.move(self.volume, source, target, replace=tree.Replace.ANYTHING)
        self._safe[old], self._safe[new] = {content}, {MISSING}
        if trash is not None:
            self.volume.purge("trash", trash)

    def _permit(self, number: int, chance: random.Random) -> None:
        """Permissions, which are one file; one of the writers changes them."""
        if number == 0:
            accounts = Accounts(key=chance.randbytes(store.KEY_BYTES).hex())
            written = digest_of(msgspec.json.format(msgspec.json.encode(accounts), indent=1) + b"\n")
            self._may_be(ACCOUNTS, written)
            store.save(self.volume, accounts)
            self._safe[ACCOUNTS] = {written}


def lost_uploads(root: pathlib.Path, offsets: dict[str, tuple[int, str]]) -> list[str]:
    """Which uploads have less on the disk than was said; all others have at least that."""
    lost = []
    for upload_id, (offset, digest) in offsets.items():
        folder = root / ".relevo/uploads"
        try:
            recorded = int((folder / f"{upload_id}.info").read_bytes()[:20])
            fd = os.open(folder / upload_id, os.O_RDONLY)
            try:
                held = os.pread(fd, recorded, 0)
            finally:
                os.close(fd)
        except (OSError, ValueError) as error:
            lost.append(f"upload {upload_id}: {error}")
            continue
        if recorded < offset or len(held) != recorded or digest_of(held[:offset]) != digest:
            lost.append(f"upload {upload_id}: {recorded} recorded, {len(held)} there, {offset} promised")
    return lost
