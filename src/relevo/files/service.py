"""The service between its orders (`open`, `quiesce`, `close`) and its requests.

CLOSED -> OPENING -> OPEN -> QUIESCED -> CLOSING -> CLOSED
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import enum
import functools
import hashlib
import pathlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, ParamSpec, TypeVar

import msgspec
import structlog

from relevo.base.errors import RelevoError
from relevo.config.model import FilesResource
from relevo.files import bin as rubbish
from relevo.files import copies, limits, lock_store, selfmade, uploads
from relevo.files.accounts import audit, remote
from relevo.files.accounts import store as usage_store
from relevo.files.accounts.access import LINK_LABEL, Kind, Verb, Who, decide
from relevo.files.accounts.keeper import Change, Keeper
from relevo.files.accounts.model import Accounts
from relevo.files.accounts.quota import RECOUNT_S, STALE_S, Quotas, Usage
from relevo.files.accounts.seen import Saved, Seen
from relevo.files.claims import Claims
from relevo.files.clients import Clients
from relevo.files.entries import Entry, digest_slice
from relevo.files.errors import FilesError, VolumeFault, unavailable
from relevo.files.http import Call
from relevo.files.order import Orders
from relevo.files.pool import Pool
from relevo.files.tls import Tls
from relevo.files.traffic import Traffic
from relevo.files.urls import shown
from relevo.files.volume import Volume

P = ParamSpec("P")
T = TypeVar("T")
_log = structlog.get_logger()


class State(enum.Enum):
    """What the service may do with the volume."""

    CLOSED = "closed"
    OPENING = "opening"
    OPEN = "open"
    QUIESCED = "quiesced"
    CLOSING = "closing"


SOON = dt.timedelta(days=selfmade.RENEW_DAYS)


class CannotOpen(RelevoError):
    """The volume is not as it must be for serving."""


class StillBusy(RelevoError):
    """Something of ours hangs in the volume, so it cannot be unmounted yet."""


class Service:
    """The volume, the threads that touch it, and everything under way.

    Attributes:
        smb: network drives are on: passwords are stored as Windows compares them too.

    Args:
        resource: root, port, policies.
        node: the name of this node, told in the health answer.
        mirror_socket: the control socket of the mirror below the root.
        pool: the threads.
        mountpoint: where the file system of the root has to be mounted; None: it is not looked at.
        names: what a certificate that is made is for.
    """

    def __init__(
        self,
        resource: FilesResource,
        node: str,
        mirror_socket: pathlib.Path,
        pool: Pool | None = None,
        mountpoint: pathlib.Path | None = None,
        names: tuple[str, ...] = (),
    ) -> None:
        self.resource = resource
        self.node = node
        self.state = State.CLOSED
        self.problem = ""
        self.smb = False
        self.traffic = Traffic()
        self.claims = Claims()
        self.orders = Orders()
        self.accounts = Keeper()
        self.audit = audit.Audit()
        self.desk = remote.Desk(None)
        self.tls = Tls(resource.tls) if resource.tls is not None else None
        self._names = names or (node,)
        self.clients = Clients()
        self._mirror_socket = mirror_socket
        self._mountpoint = mountpoint
        self._pool = pool or Pool()
        self._volume: Volume | None = None
        self._order = asyncio.Lock()
        self._cleaner: asyncio.Task[None] | None = None
        self._counter: asyncio.Task[None] | None = None
        self._look_at_quotas = asyncio.Event()
        self._finishing: dict[str, asyncio.Task[Entry]] = {}
        self._followers: set[asyncio.Event] = set()

    # --- orders -------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """The volume is mounted at the root: serve it. An open one is left alone.

        Raises:
            CannotOpen: the root is not there or cannot be written.
        """
        async with self._order:
            if self.state is State.OPEN:
                return
            if self.state is not State.CLOSED:
                await self._close()
            self.state = State.OPENING
            self._volume = volume = Volume(self.resource.root, self._mountpoint)
            try:
                leftovers, seen = await self._load(volume)
            except (
                BaseException
            ) as error:  # whoever gives the order may go away too: nothing of ours stays on the volume
                await self._pool.run(volume.close)
                self._volume, self.state = None, State.CLOSED
                if not isinstance(error, RelevoError):
                    raise
                raise CannotOpen(
                    f"The volume at {self.resource.root} cannot be opened ({error.what})",
                    error.remedy or "Is its file system mounted there, and writable?",
                ) from error
            self.problem = ""
            self.state = State.OPEN
            self._cleaner = asyncio.create_task(self._keep_clean(volume, leftovers))
            loop = asyncio.get_running_loop()
            self.quotas.wake = lambda: loop.call_soon_threadsafe(self._look_at_quotas.set)
            self._counter = asyncio.create_task(self._keep_count(volume))
            self.audit.start(lambda lines: self.run(audit.append, volume, lines))
            self.seen.start(seen, lambda saved: self.run(usage_store.save_seen, volume, msgspec.json.encode(saved)))
            self.clients.start(lambda saved: self.run(usage_store.save_clients, volume, saved))
            self._tell_followers()
            _log.info("volume_opened", root=str(self.resource.root))

    async def _load(self, volume: Volume) -> tuple[list[tuple[str, str]], Saved]:
        """Take what lies on the volume; what an earlier run left there, and what was seen."""
        leftovers = await self._pool.run(volume.open)
        await self._pool.run(self.accounts.load, volume)
        seen = await self._pool.run(usage_store.load_seen, volume)
        await self._pool.run(lock_store.load, volume)
        await self._pool.run(self.clients.load, volume)
        await self._certify(volume)
        return leftovers, seen

    async def _certify(self, volume: Volume) -> None:
        """See to the certificate that lies on the volume, where none is given; without one plain HTTP goes on."""
        if self.tls is None or self.tls.wanted.given:
            return
        try:
            self.tls.take(await self._pool.run(selfmade.ensure, volume, self._names, dt.datetime.now(dt.UTC)))
            self.tls.problem = ""
        except RelevoError as error:
            self.tls.problem = f"There is no certificate on the volume, and none can be made ({error.what})."
            _log.error("certificate_missing", why=error.what)

    async def quiesce(self) -> None:
        """Answer what can be answered at once, end the rest, refuse what is new."""
        async with self._order:
            await self._quiesce()

    async def close(self) -> None:
        """Let go of the volume: no descriptor of ours lies on it when this returns.

        Raises:
            StillBusy: a system call on the volume does not come back.
        """
        async with self._order:
            if self.state is not State.CLOSED:
                await self._close()

    async def _quiesce(self) -> None:
        if self.state is not State.OPEN:
            return
        self.state = State.QUIESCED
        await self.traffic.settled(limits.QUIESCE_S)
        self._abort()

    def _abort(self) -> None:
        self.traffic.abort()
        for (
            task
        ) in self._finishing.values():  # complete uploads stay, and are finished by whoever opens the volume next
            task.cancel()

    async def _close(self) -> None:
        begun_s = time.monotonic()

        def left_s() -> float:
            return max(0.0, begun_s + limits.CLOSE_S - time.monotonic())

        await self._quiesce()
        self.state = State.CLOSING
        self._abort()
        for task in (self._cleaner, self._counter):
            if task is not None:
                task.cancel()
        ending = {task for task in (self._cleaner, self._counter, *self._finishing.values()) if task is not None}
        if ending:
            await asyncio.wait(ending, timeout=left_s())
        await self.seen.stop(left_s())
        await self.clients.stop(left_s())
        await self.audit.stop(left_s())
        ended = await self.traffic.settled(left_s()) and await self._pool.drained(left_s())
        if not ended:
            raise StillBusy(
                f"{self._pool.busy} operations hang in the volume, the oldest for {self._pool.oldest_s:.0f} s.",
                "The device below does not answer: see the mirror.",
            )
        if self._volume is not None:
            await self._pool.run(self._volume.close)
            left = await self._pool.run(self._volume.open_descriptors)
            assert not left, f"descriptors left on the volume: {left}"
        self._volume, self._cleaner, self._counter = None, None, None
        if self.tls is not None and not self.tls.wanted.given:
            self.tls.take(None)
        self.state = State.CLOSED
        _log.info("volume_closed", took_ms=round((time.monotonic() - begun_s) * 1000))

    def status(self) -> dict[str, Any]:
        """What the control socket tells."""
        problem = self.problem
        if self._pool.stuck:
            problem = f"The volume has not answered for {self._pool.oldest_s:.0f} s."
        return {
            "state": self.state.value,
            "requests": self.traffic.active,
            "served": self.traffic.served,
            "problem": problem,
            "operations": self._pool.busy,
            "oldest_ms": round(self._pool.oldest_s * 1000),
            "access": self._access(),
            "tls": self.tls.told() if self.tls is not None else None,
        }

    def _access(self) -> str:
        """`closed`, `everyone` (no accounts: everyone may do everything) or `accounts`."""
        if self.state is not State.OPEN:
            return "closed"
        return "accounts" if self.accounts.exist else "everyone"

    def require_open(self) -> None:
        """Refuse what only the server with the volume can do.

        Raises:
            FilesError: 503.
        """
        if self.state is not State.OPEN:
            raise unavailable("closed")

    # --- requests -----------------------------------------------------------------------------------------------------

    @property
    def volume(self) -> Volume:
        """The open volume; while quiesced too, for the requests that are being finished.

        Raises:
            FilesError: 503, it is not open here.
        """
        if self.state not in {State.OPEN, State.QUIESCED} or self._volume is None:
            raise unavailable("closed")
        return self._volume

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A blocking call on the volume, in a thread; a sick volume is remembered for the status.

        Raises:
            FilesError: as the call or the pool say.
        """
        try:
            return await self._pool.run(call, *args, **kwargs)
        except VolumeFault as fault:
            self.problem = fault.what
            raise

    def later(self, call: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """A blocking call whose end nobody waits for; `close` does."""
        self._pool.start(functools.partial(call, *args, **kwargs))

    async def sha256(self, fd: int) -> bytes:
        """The SHA-256 of a whole file, slice by slice: neither other requests nor a hand-over wait for a large one."""
        digest, offset = hashlib.sha256(), 0
        while count := await self.run(digest_slice, digest, fd, offset):
            offset += count
        return digest.digest()

    async def finish(self, upload: uploads.Upload) -> Entry:
        """Give a complete upload its name, durably, after its checksum was compared with the announced one.

        The work goes on when the caller is cancelled: the checksum of a large file takes longer than a client's
        patience, and would be begun anew at each of its attempts. `finishing` waits for it.

        Raises:
            ChecksumWrong: it differs; the upload is deleted.
            FilesError: its place is taken by a folder, one copy is left and that is refused, …; the upload stays.
        """
        task = asyncio.create_task(self._finish(self.volume, upload))
        self._finishing[upload.id] = task
        task.add_done_callback(lambda _: self._finishing.pop(upload.id, None))
        return await asyncio.shield(task)

    async def finishing(self, upload_id: str) -> None:
        """Wait for the end of a `finish` that is under way, if there is one.

        Raises:
            FilesError: as `finish`.
        """
        if (task := self._finishing.get(upload_id)) is not None:
            await asyncio.shield(task)

    async def _finish(self, volume: Volume, upload: uploads.Upload) -> Entry:
        handle = await self.run(uploads.open_complete, volume, upload)
        try:
            if upload.info.sha256 and (await self.sha256(handle.fd)).hex() != upload.info.sha256:
                await self.run(uploads.delete, volume, upload.id)
                raise uploads.ChecksumWrong
            await self.require_copies()
            entry = await self.run(uploads.finish, volume, upload, handle)
            self.note_put(upload.info.owner, (*upload.info.names[:-1], entry.name))
            return entry
        finally:
            self.later(handle.close)

    async def copies(self, timeout_s: float = limits.COPIES_TIMEOUT_S) -> int:
        """How many copies there are of everything that has been fsynced."""
        return await copies.ask(self._mirror_socket, timeout_s=timeout_s)

    async def require_copies(self) -> None:
        """Refuse a change when it would be stored once and the configuration asks for two copies.

        Raises:
            FilesError: 503.
        """
        if self.resource.when_degraded == "refuse" and await self.copies() < 2:
            raise unavailable("degraded")

    async def change_accounts(self, change: Change) -> Accounts:
        """Change the accounts, durably, on as many servers as the configuration asks for.

        Raises:
            FilesError: nothing was changed.
        """
        await self.require_copies()
        accounts = await self.accounts.change(self.run, self.volume, change)
        self._look_at_quotas.set()
        self._tell_followers()
        return accounts

    async def follow_accounts(self) -> AsyncIterator[dict[str, Any]]:
        """The number of the accounts' last change, now and after each change while the volume is open here."""
        event = asyncio.Event()
        self._followers.add(event)
        try:
            while True:
                accounts = self.accounts.policy.accounts
                yield {"open": self.state is State.OPEN, "generation": accounts.generation if accounts else 0}
                await event.wait()
                event.clear()
        finally:
            self._followers.discard(event)

    def _tell_followers(self) -> None:
        for event in self._followers:
            event.set()

    @property
    def quotas(self) -> Quotas:
        """What users and shares take up."""
        return self.accounts.quotas

    @property
    def seen(self) -> Seen:
        """Which sessions there are, and how often links were used."""
        return self.accounts.seen

    def note_put(self, owner: str, names: tuple[str, ...], call: Call | None = None) -> None:
        """Something was put by a link: counted and noted, by the name that it got."""
        if owner.startswith(LINK_LABEL):
            self.seen.link(owner.removeprefix(LINK_LABEL), stored=1)
            self.audit.note(owner, "link_put", call, path="/" + "/".join(map(shown, names)))

    async def _keep_count(self, volume: Volume) -> None:
        """Count what is used while anybody has a quota: now, when it is stale, and from time to time."""
        saved = None
        with contextlib.suppress(FilesError):  # it only shortens the time until there is a count
            saved = await self.run(usage_store.load_usage, volume)
        while True:
            if self.quotas.wanted:
                with contextlib.suppress(FilesError):
                    await self._count(volume, saved)
                saved = None
            self._look_at_quotas.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RECOUNT_S):
                    await self._look_at_quotas.wait()
                    if self.quotas.counted:  # changes come in bursts
                        await asyncio.sleep(STALE_S)

    async def _count(self, volume: Volume, saved: Usage | None) -> None:
        count = self.quotas.begin(saved)
        while not await self.run(count.go_on, volume):
            pass
        await self.run(usage_store.save_usage, volume, self.quotas.end(count))

    # --- housekeeping -------------------------------------------------------------------------------------------------

    async def _keep_clean(self, volume: Volume, leftovers: list[tuple[str, str]]) -> None:
        """Delete what an earlier run left, finish what only lacked its name, and let old uploads expire."""
        with contextlib.suppress(FilesError):
            for area, name in leftovers:
                await self.run(volume.purge, area, name)
        while True:
            with contextlib.suppress(FilesError):
                for upload_id in await self.run(uploads.ids, volume):
                    with contextlib.suppress(FilesError):
                        await self._look_after(volume, upload_id)
            with contextlib.suppress(FilesError):
                await self._empty_bin(volume)
                await self.run(lock_store.expire, volume)
            if self.tls is not None and (self.tls.pair is None or self.tls.pair.left(dt.datetime.now(dt.UTC)) < SOON):
                await self._certify(volume)
            await asyncio.sleep(limits.CLEAN_INTERVAL_S)

    async def _empty_bin(self, volume: Volume) -> None:
        """Delete for good what has been in the bin for too long."""
        for bin_id in await self.run(rubbish.expired, volume, self.resource.bin_expiry_ms):
            with contextlib.suppress(FilesError):
                await self.run(volume.purge, "trash", await self.run(rubbish.purge, volume, bin_id))
                _log.info("bin_expired", id=bin_id)
                self.quotas.stale()

    async def _look_after(self, volume: Volume, upload_id: str) -> None:
        """Delete an upload that is too old, finish one that only lacks its name; one in use is left alone."""
        async with self.claims.claim_idle(upload_id) as idle:
            if not idle or upload_id in self._finishing:
                return
            if await self.run(uploads.expired, volume, upload_id, self.resource.upload_expiry_ms):
                await self.run(uploads.delete, volume, upload_id)
                _log.info("upload_expired", id=upload_id)
            elif uploads.is_id(upload_id):
                upload = await self.run(uploads.load, volume, upload_id)
                if upload.complete and not upload.published and self._may_still_write(upload.info):
                    await self.finish(upload)

    def _may_still_write(self, info: uploads.Info) -> bool:
        """Whether whoever began an upload may still put it there; housekeeping ends it in their absence."""
        policy = self.accounts.policy
        if policy.accounts is None:
            return True
        who = Who(Kind.USER, info.owner)
        if info.owner.startswith(LINK_LABEL):
            link = policy.accounts.links.get(info.owner.removeprefix(LINK_LABEL))
            if link is None:
                return False
            who = Who(Kind.LINK, link.id, link)
        return decide(policy, who, Verb.WRITE, info.names).allowed
