"""The shell around the mirror's core: one thread, one epoll loop. Events in, `Mirror.step`, effects out.

It never opens, mounts or looks at the device that it serves.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import secrets
import signal
from collections import deque
from collections.abc import Callable
from typing import Any

import structlog

from relevo.base.control import Message
from relevo.base.errors import RelevoError
from relevo.base.paths import Paths
from relevo.config.model import MirrorSite
from relevo.config.site import find_site
from relevo.device.buffers import Buffer, BufferPool
from relevo.device.held import CANNOT_RESUME
from relevo.device.keeper_client import KeeperClient
from relevo.device.keeper_proto import KeeperReply
from relevo.mirror import diskless, errors, requested
from relevo.mirror import events as ev
from relevo.mirror.adjusting import Adjuster
from relevo.mirror.control import Client, ControlEndpoint
from relevo.mirror.core import Mirror, Settings
from relevo.mirror.disk_content import OpenCopy
from relevo.mirror.epoch_store import EpochStore
from relevo.mirror.errors import CannotResume
from relevo.mirror.loop import READ, Loop
from relevo.mirror.metadata import MetaFlag, Superblock
from relevo.mirror.packets import Barrier, Packet
from relevo.mirror.parted import Parted
from relevo.mirror.shell_backing import Calls, ShellBacking
from relevo.mirror.shell_device import ShellDevice
from relevo.mirror.shell_errands import ShellErrands
from relevo.mirror.shell_link import ShellLink
from relevo.mirror.sockets import Stream
from relevo.mirror.verify_clock import VerifyClock

RECEIVE_POOL_MIN_BYTES = 32 << 20
"""Memory is handed out in arenas, and a few may be kept by their last piece: a smaller pool could stall the peer."""
PAGE_BYTES = 4096
START_QUIET_MS = 5000
"""Requests wait so long for the first look at the disk; one that hangs does not hold up answers any longer."""
RANDOM_NUMBERS = 8
EX_SOFTWARE = 70
_STOPPED = object()
_log = structlog.get_logger()


class NotAttached(RelevoError):
    """The backing disk cannot be used."""


class Worker:
    """One mirror.

    Args:
        site: the mirror as this node has it.
        paths: where state and sockets lie.
        keeper: who makes the device.
    """

    def __init__(self, site: MirrorSite, paths: Paths, keeper: KeeperClient) -> None:
        self._mirror = site.mirror
        self._minor = site.minor or 0
        name = site.mirror.name
        self._loop = Loop(after=self._after, spin_us=site.mirror.spin_us)
        self._epochs = EpochStore(self._loop, paths.state / f"mirror-{name}.epoch", self._done)
        self._stale = EpochStore(self._loop, paths.state / f"mirror-{name}.stale", self._done)
        self._loop.on_alarm(lambda: self.step(ev.Tick(self._loop.now_ms)))
        self._core: Mirror | None = None
        self._problem = ""
        self._events: deque[ev.Event] = deque()
        self._stepping = False
        self._status_changed = False
        self._stop_token = object()
        self._pool = BufferPool(max(RECEIVE_POOL_MIN_BYTES, self._mirror.options.max_buffers * PAGE_BYTES))
        self._resume = keeper.resume
        self._device = ShellDevice(self._loop, keeper, self.step, self._done, self._changed, hold=self._mirror.resume)
        self._errands = ShellErrands(site, site.source or paths.config, paths.state, keeper, self._handled, self._done)
        self._device.other_reply = self._errand_ended
        self._parted = Parted(paths.state / f"mirror-{name}.parted")
        self._verify = VerifyClock(
            self._loop, paths.state / f"mirror-{name}.verified", self._mirror.verify, self._core_status, self.step
        )
        self._link = ShellLink(
            self._loop,
            self._mirror,
            site.own.pair,
            site.other.pair,
            self._pool,
            self._connected,
            self._disconnected,
            self._received,
            self._probe,
        )
        self._link.problem_changed = self._changed
        # Until a device in use is served again there is nobody to ask: to others this is a pause (agents, node), and
        # what could be said in between would be taken for a Secondary's word.
        self._control = ControlEndpoint(
            self._loop, paths.socket(f"mirror-{name}"), self._request, listening=self._resume is None
        )
        self._adjuster = Adjuster(
            site,
            lambda: find_site(paths, site.me, name),
            self._configured,
            self.step,
            lambda: self._loop.now_ms,
            lambda: self._status()["connection"] != diskless.STATUS["connection"],
        )
        self._backing = ShellBacking(
            self._loop,
            site,
            paths.state / f"mirror-{name}.disk",
            (self._epochs, self._stale),
            Calls(
                began=self._disk_began,
                ended=self._disk_ended,
                failed=self._disk_unusable,
                done=self._done,
                disk_done=self._disk_done,
                status=self._core_status,
            ),
        )
        self._effects = self._effect_table()

    def run(self) -> None:
        """Until told to stop."""
        self._catch_signals()
        if self._resume is None:
            self._control.hold()  # what is said before the disk was looked at would not be worth much
            self._loop.call_in(START_QUIET_MS, self._control.go_on)
        self._backing.begin()
        self._verify.configure(self._mirror.verify)
        self._loop.run()
        self._control.close()
        self._link.close()
        self._backing.close()

    # ---- the disk ----------------------------------------------------------------------------------------------

    def _disk_began(self, copy: OpenCopy, token: ev.Token, epoch: int, stale: int) -> None:
        """A disk is in use: the core gets what it says."""
        content = copy.content
        self._problem = ""
        self._device.block_bytes = copy.data.block_bytes
        self._errands.data_bytes = content.layout.data_bytes
        if self._core is None:
            settings = Settings.from_config(self._mirror)
            self._core = Mirror(dataclasses.replace(settings, external_meta=content.layout.external))
        self._effects = self._effect_table()
        self.step(
            ev.Attach(
                self._loop.now_ms,
                _meta_state(content.superblock),
                content.layout.data_bytes,
                content.bitmap,
                content.active_extents,
                content.newest_transaction,
                epoch,
                _random(RANDOM_NUMBERS),
                resume_bytes=self._resume[0].size if self._resume is not None else 0,
                token=token,
                stale=stale,
            )
        )
        self._disk_tried()

    def _disk_unusable(self, token: ev.Token, error: Exception) -> None:
        """Who has asked is told; until there was one it is said in the status, and tried again."""
        if token is not None:
            token[0].refuse(error)
        if self._core is not None:
            return
        if self._problem != str(error):
            _log.error("disk_unusable", problem=str(error))
        if self._resume is not None:
            raise SystemExit(CANNOT_RESUME)
        self._problem = str(error)
        self._backing.retry()
        self._disk_tried()

    def _disk_tried(self) -> None:
        if self._resume is None:
            self._control.go_on()
        self._changed()

    def _disk_ended(self) -> None:
        self._effects = self._effect_table()

    def _detach_now(self, core: Mirror, event: ev.Event) -> None:
        """Without waiting for the disk: what is under way on it has failed. A Primary must be able to do without it."""
        disk = self._backing.disk
        if disk is not None and core.status()["role"] == "Secondary":
            disk.abandon()
        self.step(event)
        if disk is not None and core.status()["disk"] == diskless.STATUS["disk"]:
            disk.abandon()

    def _measured(self, token: ev.Token, number: int, data_bytes: int) -> None:
        if self._backing.disk is not None:
            self._errands.data_bytes = self._backing.disk.meta.layout.data_bytes
        self.step(ev.DiskMeasured(self._loop.now_ms, token, number, data_bytes))

    def _no_disk(self, effect: Any) -> None:
        self._done(effect.token, errno.ENODEV)

    # ---- events in ---------------------------------------------------------------------------------------------

    def step(self, event: ev.Event) -> None:
        """Give the core an event and carry out what it says; events that come of that follow in order.

        A failure in here ends the process, whoever called: half a step cannot be taken back, and nobody may catch it
        and go on. The keeper removes the device and starts anew.
        """
        events = self._events
        events.append(event)
        if self._stepping or self._core is None:
            return
        self._stepping = True
        effects, core_step = self._effects, self._core.step
        try:
            while events:
                for effect in core_step(events.popleft()):
                    effects[type(effect)](effect)
        except Exception as error:
            _log.critical("step_failed", exc_info=True)
            raise SystemExit(EX_SOFTWARE) from error
        self._stepping = False

    def _disk_done(self, token: ev.Token, number: int, buffer: Any) -> None:
        self.step(ev.DiskDone(self._loop.now_ms, token, number, buffer))

    def _done(self, token: ev.Token, number: int) -> None:
        self.step(ev.DiskDone(self._loop.now_ms, token, number))

    def _errand_ended(self, reply: KeeperReply) -> None:
        self._errands.reply(reply)
        self._changed()

    def _handled(self, token: ev.Token, status: int) -> None:
        self.step(ev.HandlerDone(self._loop.now_ms, token, status))

    def _received(self, packet: Packet, buffer: Buffer | None) -> None:
        self.step(ev.PacketReceived(self._loop.now_ms, packet, buffer))

    def _connected(self, features: int, resolve_conflicts: bool) -> None:
        _log.info("peer_connected", features=features, resolve_conflicts=resolve_conflicts)
        self.step(ev.Connected(self._loop.now_ms, features, resolve_conflicts))

    def _disconnected(self, reason: str) -> None:
        _log.info("peer_disconnected", reason=reason)
        self.step(ev.Disconnected(self._loop.now_ms, reason))

    def _probe(self) -> None:
        if self._link.up:
            self.step(ev.Probe(self._loop.now_ms))

    def _after(self) -> None:
        """The end of a round: send, submit, tell."""
        self._link.resume()
        self._link.flush()
        backing = self._backing
        if backing.disk is not None:
            backing.disk.submit()
        if backing.pending:
            backing.look()
        if self._status_changed:
            self._status_changed = False
            status = self._core_status()
            self._parted.follow(status)
            self._verify.follow(status)
            self._control.tell_watchers(self._status)

    # ---- effects out -------------------------------------------------------------------------------------------

    def _effect_table(self) -> dict[type[Any], Callable[[Any], None]]:
        table: dict[type[Any], Callable[[Any], None]] = {
            ev.SendData: self._send_data,
            ev.SendMeta: self._send_meta,
            ev.DropConnection: lambda effect: self._link.drop(effect.reason),
            ev.WantConnection: lambda effect: self._link.want(wanted=effect.wanted),
            ev.CompleteRequest: self._device.complete,
            ev.DeviceUp: self._device.up,
            ev.DeviceDown: self._device.down,
            ev.DeviceGrow: self._device.grow,
            ev.ReleaseBuffer: lambda effect: effect.buffer.release(),
            ev.SetTimer: lambda effect: self._loop.set_alarm(effect.at_ms),
            ev.StatusChanged: lambda _effect: self._changed(),
            ev.CommandDone: self._command_done,
            ev.NeedRandom: lambda effect: self.step(ev.Random(self._loop.now_ms, _random(effect.count))),
            ev.CloseDisk: self._backing.close_when_idle,
            ev.PersistEpoch: self._epochs.persist,
            ev.PersistStale: lambda effect: self._stale.persist(ev.PersistEpoch(effect.token, effect.generation)),
            ev.RunHandler: self._errands.run_handler,
            ev.SaveTarget: self._errands.save_target,
            ev.Resumed: self._resumed,
            ev.ForgetTarget: lambda _effect: self._errands.forget_target(),
            ev.Stopped: lambda _effect: self._loop.stop(),
            ev.Log: lambda effect: getattr(_log, effect.level)(effect.event, **effect.fields),
        }
        disk = self._backing.disk
        if disk is None:
            return table | dict.fromkeys(diskless.DISK_EFFECTS, self._no_disk)
        return table | {
            ev.DiskRead: disk.read,
            ev.DiskReadThin: disk.read_thin,
            ev.DiskDigest: disk.digest,
            ev.DiskWrite: disk.write,
            ev.DiskDiscard: disk.discard,
            ev.DiskWriteSame: disk.write_same,
            ev.DiskFlush: disk.flush,
            ev.WriteSuperblock: disk.meta.write_superblock,
            ev.WriteActivityLog: disk.meta.write_activity_log,
            ev.WriteBitmap: disk.meta.write_bitmap,
            ev.MeasureDisk: lambda effect: self._backing.measure(effect, self._measured),
        }

    def _resumed(self, effect: ev.Resumed) -> None:
        """The core has taken over (or not): have the kernel hand over what the dead process has left."""
        assert self._resume is not None
        resume, fuse_fd = self._resume
        problem = effect.error
        if problem is None:
            try:
                self._device.take_over(fuse_fd, resume)
            except OSError as error:
                problem = CannotResume(error.strerror or "the connection is gone")
        if problem is not None:
            _log.error("cannot_resume", problem=str(problem))
            raise SystemExit(CANNOT_RESUME)
        self._resume = None
        self._control.listen()

    def _send_data(self, effect: ev.SendData) -> None:
        data = self._link.data
        if data is None or not self._link.up:
            if effect.release and effect.buffer is not None:
                effect.buffer.release()
        elif effect.token is not None:
            self._send_noted(data, effect)
        elif effect.buffer is None:
            if type(effect.packet) is Barrier:  # who waits for its answer sends UNPLUG_REMOTE behind it
                data.send_later(effect.packet)
            else:
                data.send(effect.packet)
        else:
            data.send_with_payload(effect.packet, effect.buffer, release=effect.release)

    def _send_noted(self, data: Stream, effect: ev.SendData) -> None:
        def sent() -> None:
            self.step(ev.Sent(self._loop.now_ms, effect.token))

        if effect.buffer is None:
            data.send(effect.packet, sent=sent)
        else:
            data.send_with_payload(effect.packet, effect.buffer, release=False, sent=sent)

    def _send_meta(self, effect: ev.SendMeta) -> None:
        if self._link.meta is not None and self._link.up:
            self._link.meta.send(effect.packet)

    # ---- control -----------------------------------------------------------------------------------------------

    def _request(self, client: Client, name: str, arguments: Message) -> None:
        if name == "status":
            client.answer(self._status())
            return
        if name == "watch":
            client.watching = True
            client.tell(self._status())
            return
        if name == "probe":
            self._probe()
            client.answer({})
            return
        if name == "adjust":
            self._adjuster.begin(client)
            return
        if name == "attach":
            self._backing.attach((client, name))
            return
        event = requested.command(name, arguments, self._loop.now_ms, (client, name))
        if self._core is None:
            if name == "down":
                client.answer({})
                self._loop.stop()
                return
            if not self._problem:
                raise errors.NotAttached
            raise NotAttached(f"The mirror's disk cannot be used: {self._problem}")
        if name == "detach" and arguments.get("force"):
            self._detach_now(self._core, event)
        else:
            self.step(event)

    def _command_done(self, effect: ev.CommandDone) -> None:
        if effect.token is self._stop_token:
            if effect.error is not None:
                _log.error("cannot_stop", problem=str(effect.error))
            else:
                self.step(ev.Down(self._loop.now_ms, _STOPPED))
            return
        if effect.token is _STOPPED:
            if effect.error is not None:
                _log.error("cannot_stop", problem=str(effect.error))
            return
        if callable(effect.token):
            effect.token(effect.error)
            return
        client, name = effect.token
        if effect.error is not None:
            client.refuse(effect.error)
        elif name == "primary":
            client.answer({"device": self._device.path})
        else:
            client.answer({})

    def _configured(self, site: MirrorSite) -> None:
        """Another configuration holds from now on."""
        self._mirror = site.mirror
        self._backing.timeout_ms = site.mirror.options.disk_timeout_ms
        self._loop.spin(site.mirror.spin_us)
        self._errands.configure(site)
        self._verify.configure(site.mirror.verify)
        self._link.configure(site.mirror, site.own.pair, site.other.pair)
        if self._core is not None:
            self.step(ev.Configure(self._loop.now_ms, Settings.from_config(site.mirror)))

    def _changed(self) -> None:
        self._status_changed = True

    def _core_status(self) -> Message:
        return dict(diskless.STATUS) if self._core is None else dict(self._core.status())

    def _status(self) -> Message:
        fields = self._core_status()
        fields["split_brain_since"] = self._parted.since if fields["split_brain"] else ""
        problem = fields.get("problem") or self._problem or ("" if self._link.up else self._link.problem)
        own: Message = {"device": self._device.path, "problem": errors.named(str(problem), self._mirror.name)}
        own |= {"last_handler": self._errands.last_handler, "saved_copy": self._errands.saved}
        own["verify_schedule"] = self._verify.fields()
        own |= {"minor": self._minor, "protocol": self._mirror.options.protocol}
        return {"name": self._mirror.name, **fields, **own}

    # ---- signals -----------------------------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _noted)
        self._loop.add(reading, READ, lambda _events: self._stop(reading))

    def _stop(self, reading: int) -> None:
        """SIGTERM: become Secondary, then take leave. When the device is in use the process stays."""
        os.read(reading, 64)
        if self._core is None:
            self._loop.stop()
        else:
            self.step(ev.Demote(self._loop.now_ms, self._stop_token))


def _meta_state(superblock: Superblock) -> ev.MetaState:
    return ev.MetaState(
        current=superblock.current,
        bitmap=superblock.bitmap,
        history0=superblock.history0,
        history1=superblock.history1,
        flags=MetaFlag(superblock.flags),
        size_sectors=superblock.size_sectors,
    )


def _random(count: int) -> tuple[int, ...]:
    return tuple(secrets.randbits(64) for _ in range(count))


def _noted(_number: int, _frame: object) -> None:
    """The number was written to the wake-up descriptor; nothing else is done in a handler."""
