"""`relevo heartbeat run`: the shell around `Membership`: sockets, timer, disk, control socket. It decides nothing."""

from __future__ import annotations

import asyncio
import pathlib
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import structlog

from relevo.base.bootid import boot_id
from relevo.base.control import ControlServer, Message
from relevo.base.errors import RelevoError
from relevo.base.paths import Paths
from relevo.base.sole import sole
from relevo.config.model import Config
from relevo.heartbeat import events, realtime, wire
from relevo.heartbeat.events import EVERYDAY, Effect, Event, Mark, Reason
from relevo.heartbeat.handover_words import Told
from relevo.heartbeat.links import LinkNews, LinkSocket
from relevo.heartbeat.membership import Membership
from relevo.heartbeat.outbox import MAX_FACTS_BYTES
from relevo.heartbeat.store import Store

LINK_CHECK_S = 1.0
"""The cards are looked at so often even when no news came."""
PERSIST_RETRY_S = 1.0
COMPLAINT_INTERVAL_MS = 60_000
"""The same kind of bad datagram from the same sender is logged so often; all are counted."""
MAX_COMPLAINTS = 256
TTL = "3"
_LOADAVG = pathlib.Path("/proc/loadavg")
_REASONS: dict[type[wire.WireError], Reason] = {
    wire.Truncated: Reason.TRUNCATED,
    wire.TooLarge: Reason.TOO_LARGE,
    wire.UnknownKey: Reason.UNKNOWN_KEY,
    wire.BadSignature: Reason.BAD_SIGNATURE,
}
_log = structlog.get_logger()


class NotConfigured(RelevoError):
    """This node is not in the configuration."""


class BadRequest(RelevoError):
    """A control request lacks something or names something unknown."""


class FactsTooLarge(RelevoError):
    """Facts do not fit into one message."""


async def run(config: Config, me: str, paths: Paths) -> None:
    """Send and judge heartbeats until SIGTERM or SIGINT, then say goodbye.

    Args:
        config: the cluster.
        me: the name of this node.
        paths: where state, sockets and boot id lie.

    Raises:
        NotConfigured: `me` is not a node of the cluster.
        AlreadyRuns: another one does this here.
        StateUnreadable: a state file is damaged.
        OSError: the state cannot be written, or the control socket not made.
        Exception: a step failed; whoever started us is to start us again.
    """
    if me not in config.nodes:
        names = ", ".join(config.nodes)
        raise NotConfigured(f"{me} is not a node of the cluster.", f"Its nodes are {names}; `uname -n` must be one.")
    with sole(paths.run, "heartbeat"):
        await _Daemon(config, me, paths).run()


def _load() -> str:
    """What /proc/loadavg says; a heartbeat goes out without it as well."""
    try:
        return _LOADAVG.read_text().strip()
    except OSError:
        return ""


def _now_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class _Daemon:
    def __init__(self, config: Config, me: str, paths: Paths) -> None:
        self._config = config
        self._me = me
        self._loop = asyncio.get_running_loop()
        self._store = Store(paths.state)
        # ORDER: the generation is on disk before the first message of it can be made
        uuid, generation = self._store.begin_generation()
        settings = events.Settings(
            me=me,
            uuid=uuid,
            generation=generation,
            boot_id=boot_id(paths.run),
            peers=tuple(peer.name for peer in config.peers_of(me)),
            links=tuple(name for name in config.links if name in config.nodes[me].addresses),
            timings=config.heartbeat,
            config_hash=config.hash,
            marks=self._store.marks(),
        )
        self._membership = Membership(settings, _now_ms())
        self._links = {name: LinkSocket(config.links[name], self._receive) for name in settings.links}
        self._link_up = dict.fromkeys(settings.links, True)
        self._disk = ThreadPoolExecutor(1, "disk")
        self._marks: dict[str, Mark] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._goodbye_said = asyncio.Event()
        self._complained: dict[tuple[Reason, str], int] = {}
        self._joining = asyncio.Lock()
        self._stop = asyncio.Event()
        self._failure: Exception | None = None
        handlers = {name: getattr(self, f"_do_{name}") for name in ("status", "publish", "suspect", "leave", "join")}
        self._control = ControlServer(paths.socket("heartbeat"), handlers, {"watch": self._watch})

    async def run(self) -> None:
        """Everything from start to goodbye."""
        realtime.acquire()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop.set)
        self._loop.set_exception_handler(self._call_failed)
        await self._control.start()
        news = LinkNews(self._refresh_links)
        checker = self._start(self._check_links())
        self._refresh_links()
        self._step(events.Tick(_now_ms()))
        _log.info("started", node=self._me, links=sorted(self._links))
        try:
            await self._stop.wait()
            if self._failure is not None:
                raise self._failure
            if self._membership.may_say_goodbye:
                await self._leave()
            else:
                _log.warning("no_goodbye", why="the other node would start at once what still runs here")
        finally:
            checker.cancel()
            news.close()
            for link in self._links.values():
                link.close()
            if self._timer is not None:
                self._timer.cancel()
            await self._control.stop()
        await self._keep_final_marks()
        _log.info("ended", node=self._me)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task whose failure is one of ours."""
        task = asyncio.create_task(work)
        task.add_done_callback(lambda done: None if done.cancelled() else done.result())
        return task

    def _call_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A step that failed has planned no next one: we would fall silent. So the process ends, without a goodbye."""
        error = context.get("exception")
        if "handle" in context and isinstance(error, Exception):
            self._failure = error
            self._stop.set()
        else:
            loop.default_exception_handler(context)

    # --- the core and its effects -------------------------------------------------------------------------------------

    def _step(self, event: Event) -> None:
        for effect in self._membership.step(event):
            self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case events.Send():
                self._send(effect)
            case events.NextTick():
                self._set_timer(effect.at_ms)
            case events.Persist():
                self._persist(dict(effect.marks))
            case events.Dropped():
                self._complain(effect)
            case events.PeerChanged():
                if effect.before is not effect.state:
                    _log.info("peer", peer=effect.peer, before=effect.before.value, state=effect.state.value)
                self._tell_watchers()
            case events.FactsReceived() | events.SelfChanged():
                self._tell_watchers()
            case events.Paused():
                _log.warning("was_paused", for_ms=effect.for_ms)
            case events.SaidGoodbye():
                self._goodbye_said.set()

    def _set_timer(self, at_ms: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay_s = max(0, at_ms - _now_ms()) / 1000
        self._timer = self._loop.call_later(delay_s, lambda: self._step(events.Tick(_now_ms())))

    def _complain(self, dropped: events.Dropped) -> None:
        if dropped.reason in EVERYDAY:
            return
        kind, now_ms = (dropped.reason, dropped.sender), _now_ms()
        if now_ms >= self._complained.get(kind, 0):
            if len(self._complained) >= MAX_COMPLAINTS:
                self._complained.clear()
            self._complained[kind] = now_ms + COMPLAINT_INTERVAL_MS
            _log.warning("datagram_dropped", reason=dropped.reason.value, sender=dropped.sender, link=dropped.link)

    # --- network ------------------------------------------------------------------------------------------------------

    def _send(self, effect: events.Send) -> None:
        extra: tuple[tuple[str, str], ...] = (("ts", f"{int(time.time()):x}"), ("ttl", TTL))
        if effect.message.text("seq") is not None:
            extra = (("ld", _load()), *extra)
        message = wire.Message((*effect.message.fields, *extra))
        datagram = wire.encode(message, self._config.authkeys.signing)
        for name, sock in self._links.items():
            link = sock.link
            if effect.broadcast or not link.unicast:
                if link.broadcast:
                    sock.send(datagram, str(link.network.broadcast_address))
                if link.multicast is not None:
                    sock.send(datagram, str(link.multicast))
            if link.unicast:
                for peer in effect.to:
                    address = self._config.nodes[peer].addresses.get(name)
                    if address is not None:
                        sock.send(datagram, str(address))

    def _receive(self, sock: LinkSocket) -> None:
        for datagram, origin in sock.receive():
            try:
                message = wire.decode(datagram, self._config.authkeys.accepted)
            except wire.WireError as error:
                reason = _REASONS.get(type(error), Reason.MALFORMED)
                self._step(events.DatagramRefused(sock.link.name, reason, origin, _now_ms()))
            else:
                self._step(events.MessageReceived(sock.link.name, message, _now_ms()))

    def _refresh_links(self) -> None:
        for name, sock in self._links.items():
            sock.refresh()
            if sock.up != self._link_up[name]:
                self._link_up[name] = sock.up
                _log.info("link", link=name, up=sock.up)
                self._step(events.LinkChanged(name, sock.up, _now_ms()))

    async def _check_links(self) -> None:
        while True:
            await asyncio.sleep(LINK_CHECK_S)
            self._refresh_links()

    # --- disk ---------------------------------------------------------------------------------------------------------

    def _persist(self, marks: dict[str, Mark]) -> None:
        self._marks = marks
        if self._writer is None or self._writer.done():
            self._writer = self._start(self._write_marks())

    async def _write_marks(self) -> None:
        while (marks := self._marks) is not None:
            self._marks = None
            try:
                await self._loop.run_in_executor(self._disk, self._store.keep, marks)
            except OSError as error:
                _log.warning("marks_not_kept", error=str(error))
                await asyncio.sleep(PERSIST_RETRY_S)
                self._marks = self._marks or marks
            else:
                self._step(events.Persisted(marks, _now_ms()))

    async def _keep_final_marks(self) -> None:
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        try:
            await self._loop.run_in_executor(self._disk, self._store.keep, self._membership.final_marks())
        except OSError as error:
            _log.warning("marks_not_kept", error=str(error))
        self._disk.shutdown()

    # --- control socket -----------------------------------------------------------------------------------------------

    def _view(self) -> dict[str, Any]:
        return self._membership.view(_now_ms())

    def _tell_watchers(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _watch(self, _request: Message) -> AsyncIterator[Message]:
        while True:
            changed = self._changed
            yield self._view()
            await changed.wait()

    async def _do_status(self, _request: Message) -> Message:
        return self._view()

    async def _do_publish(self, request: Message) -> Message:
        facts = request.get("facts")
        if not isinstance(facts, dict):
            raise BadRequest("`publish` needs facts, a JSON object.")
        text = msgspec.json.encode(facts)
        if len(text) > MAX_FACTS_BYTES:
            raise FactsTooLarge(f"Facts of {len(text)} bytes cannot be published; {MAX_FACTS_BYTES} fit.")
        try:
            held = msgspec.convert(request["hold"], Told) if request.get("hold") is not None else None
        except msgspec.ValidationError as error:
            raise BadRequest(f"`publish`: hold is not what it should be ({error}).") from error
        self._step(events.Publish(text.decode(), _now_ms(), runs=bool(request.get("runs"))))
        if held is not None:
            self._step(events.Hold(held, _now_ms()))
        return {}

    async def _do_suspect(self, request: Message) -> Message:
        peer = request.get("peer")
        if not isinstance(peer, str) or peer not in self._config.nodes or peer == self._me:
            raise BadRequest(f"{peer!r} is not a peer of {self._me}.")
        self._step(events.Suspect(peer, _now_ms()))
        return {}

    async def _do_leave(self, _request: Message) -> Message:
        await self._leave()
        return {}

    async def _leave(self) -> None:
        async with self._joining:
            if not self._membership.left:
                self._goodbye_said.clear()
                self._step(events.Leave(_now_ms()))
                await self._goodbye_said.wait()

    async def _do_join(self, _request: Message) -> Message:
        async with self._joining:
            if self._membership.left:
                # ORDER: on disk before the core may use it
                _, generation = await self._loop.run_in_executor(self._disk, self._store.begin_generation)
                self._step(events.Join(generation, _now_ms()))
        return {}
