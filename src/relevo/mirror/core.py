"""The mirror's core: events in, effects out, no I/O, no clock, no randomness of its own.

It puts the parts together: `local_io` (the application's requests), `peer_io` (the peer's writes), `resync`, `link`
(the conversation), `commands` (roles), `durable` (meta-data). docs/internals/mirror-core.md tells the whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.administration import Administration
from relevo.mirror.agreed import AgreedChanges
from relevo.mirror.bitmap import BLOCK_BYTES
from relevo.mirror.commands import Commands
from relevo.mirror.congestion import Congestion
from relevo.mirror.durable import Durable
from relevo.mirror.growth import Growth
from relevo.mirror.link import Link
from relevo.mirror.local_copy import LocalCopy
from relevo.mirror.local_io import Gate, LocalIo
from relevo.mirror.peer_io import PeerIo
from relevo.mirror.ranges import Ranged, RangeOrder
from relevo.mirror.requests import PeerRead, PeerWrite, Served, Write
from relevo.mirror.resume import Resume
from relevo.mirror.resync import Resync
from relevo.mirror.state import SECTOR_BYTES, Settings, Shared, Timer
from relevo.mirror.states import CONN_MASK, CONNECTION_NAMES, DISK_NAMES, ROLE_NAMES, Disk
from relevo.mirror.verify import Verify

__all__ = ["Mirror", "Settings"]

_ALIGN_SECTORS = 8
Handler = Callable[[Any], None]
PacketHandler = Callable[[Any, e.Buffer], object]


class Mirror:
    """One side of a mirror.

    Args:
        settings: the configured part.
    """

    def __init__(self, settings: Settings) -> None:
        s = self._s = Shared(settings)
        ranges = RangeOrder()
        self._durable = Durable(s, self._disk_failed)
        self._local = LocalIo(s, self._durable, ranges, self._admit, self._disk_failed)
        self._peer_io = PeerIo(s, ranges, self._admit, self._disk_failed)
        self._resync = Resync(
            *(s, self._durable, self._peer_io, ranges, self._admit, self._disk_failed),
            *(self._target_marked, self._refuse_resync, lambda: self._local.in_flight),
        )
        self._link = Link(s, self._durable, self._local, self._peer_io, self._resync)
        self._copy = self._link.copy = LocalCopy(s, self._durable, self._local, self._peer_io, self._link)
        self._peer_io.serve_alone = self._copy.serve_alone
        self._agreed = AgreedChanges(s, self._durable, self._link, self._resync)
        self._verify = self._link.verify = self._agreed.verify = Verify(
            *(s, self._durable, ranges, self._resync.activity, self._resync.pace),
            *(self._admit, self._disk_failed, self._agreed.repair),
        )
        self._growth = self._link.growth = Growth(
            *(s, self._durable, self._resync, self._link.said.sizes, self._link.drop)
        )
        self._congestion = Congestion(s, self._durable, self._local, self._resync, self._link)
        self._link.alive.verify_since = self._verify.waiting_since_ms
        self._commands = Commands(s, self._durable, self._local, self._peer_io, self._link)
        self._resume = self._copy.resume = Resume(s, self._local, self._link)
        self._events: dict[type, Handler] = {
            e.AppWrite: self._local.write,
            e.AppRead: self._local.read,
            e.DiskDone: _disk_done,
            e.HandlerDone: _handler_done,
            e.Sent: lambda event: self._local.sent(event.token),
            e.PacketReceived: self._packet,
            e.AppFlush: self._local.flush,
            e.AppDiscard: self._local.discard,
            e.Tick: self._tick,
            e.Connected: self._link.connected,
            e.Disconnected: lambda event: self._link.disconnected(event.reason),
            e.Probe: lambda _: self._link.alive.suspect(),
            e.Random: lambda event: s.random.extend(event.values),
            e.Attach: self._copy.attach,
            e.Configure: self._configure,
            e.Resize: self._growth.handle,
            e.DiskMeasured: lambda event: event.token.done(event.errno, event.disk_bytes // SECTOR_BYTES),
        }
        for command in (
            *(e.Promote, e.Demote, e.Outdate, e.AllowAlone, e.DenyAlone, e.Connect),
            *(e.Disconnect, e.Leave, e.Discard, e.Keep, e.Detach, e.Down),
        ):
            self._events[command] = self._commands.handle
        for change in (e.Invalidate, e.Resync, e.PauseResync, e.ResyncSpeed, e.Verify, e.StopVerify):
            self._events[change] = self._agreed.handle
        admin = self._admin = Administration(s, self._durable, self._local, self._peer_io, self._link, self._events)
        self._events |= dict.fromkeys(admin.commands, admin.handle)
        self._events[e.Demote] = self._demote
        self._packets = self._packet_handlers()
        self._link.late_packet = self._late_packet
        self._timers: dict[Timer, Callable[[], None]] = {
            Timer.BARRIER: self._peer_io.flush,
            Timer.PING: self._link.alive.ping_timer,
            Timer.PONG: self._link.alive.pong_timer,
            Timer.LATE: self._link.alive.late_timer,
            Timer.HANDSHAKE: self._link.handshake_timer,
            Timer.RESYNC: self._resync.next_slice,
            Timer.BITMAP: self._resync.portion,
            Timer.SAVE: self._resync.snapshot.go_on,
            Timer.CONSENT: self._agreed.unanswered,
            Timer.VERIFY: self._verify.next_slice,
            Timer.SUSPEND: self._local.expire,
            Timer.RESUME: self._resume.timer,
            Timer.LEAVE: self._link.leaving.answered,
            Timer.CLOSE: self._link.leaving.close_timer,
            Timer.MOVE: self._copy.move_timer,
            Timer.AHEAD: self._congestion.catch_up,
        }

    def _packet_handlers(self) -> dict[type, PacketHandler]:
        local, peer_io, resync, link = self._local, self._peer_io, self._resync, self._link
        return {
            p.Data: peer_io.data,
            p.WriteAck: lambda packet, _: local.acknowledged(packet),
            p.ReceiveAck: lambda packet, _: local.received(packet),
            p.Barrier: lambda packet, _: peer_io.barrier(packet),
            p.BarrierAck: lambda packet, _: local.barrier_acknowledged(packet),
            p.UnplugRemote: lambda _, __: peer_io.unplug(),
            p.Trim: peer_io.data,
            p.Zeroes: peer_io.data,
            p.WriteSame: peer_io.data,
            p.ResyncRequest: lambda packet, _: resync.request(packet),
            p.ThinRequest: lambda packet, _: resync.request(packet),
            p.ChecksumRequest: lambda packet, _: resync.request(packet),
            p.ResyncReply: resync.target.block,
            p.ResyncDeallocated: resync.target.block,
            p.ResyncInSync: lambda packet, _: resync.target.in_sync(packet),
            p.ResyncWriteAck: self._resync_write_ack,
            p.NegResyncReply: lambda packet, _: resync.target.refused(packet),
            p.ResyncCancel: lambda packet, _: resync.target.refused(packet),
            p.OutOfSync: lambda packet, _: resync.out_of_sync(packet),
            p.BitmapWords: lambda packet, _: resync.bitmap(packet),
            p.CompressedBitmap: lambda packet, _: resync.bitmap(packet),
            p.SyncUuid: lambda packet, _: self._growth.sync_uuid(packet),
            p.DataRequest: lambda packet, _: peer_io.read(packet),
            p.DataReply: local.reads.reply,
            p.NegDataReply: lambda packet, _: local.reads.refused(packet),
            p.NegAck: lambda packet, _: link.drop(f"the peer cannot write at sector {packet.sector}"),
            p.Ping: lambda _, __: self._s.out.append(e.SendMeta(p.PingAck())),
            p.PingAck: lambda _, __: link.alive.pong(),
            p.Protocol: lambda packet, _: link.protocol(packet),
            p.VerifyRequest: lambda packet, _: self._verify.request(packet),
            p.VerifyReply: lambda packet, _: self._verify.reply(packet),
            p.VerifyResult: lambda packet, _: self._verify.result(packet),
            p.SyncParam: lambda packet, _: link.sync_param(packet),
            p.Sizes: lambda packet, _: link.sizes(packet),
            p.Uuids: lambda packet, _: link.uuids(packet),
            p.StateWord: lambda packet, _: link.state(packet),
            p.StateChangeRequest: lambda packet, _: self._peer_asks(packet),
            p.StateChangeReply: lambda packet, _: self._peer_answers(packet),
            p.ConnStateChangeRequest: lambda packet, _: link.leaving.peer_leaves(packet),
            p.ConnStateChangeReply: lambda _, __: link.leaving.answered(),
            p.DelayProbe: lambda _, __: None,
        }

    # ------------------------------------------------------------ the step

    def step(self, event: e.Event) -> list[e.Effect]:
        """Take one event; returns what has to be done now (see `events` for the order)."""
        s = self._s
        s.now = event.now_ms
        self._events[type(event)](event)
        if s.waiting:
            s.wake()
        s.say_timer()
        out = s.out
        s.out = []
        return out

    def _demote(self, command: e.Demote) -> None:
        self._admin.release()  # whoever waits for held I/O could not let go of the device
        self._commands.handle(command)

    def _configure(self, event: e.Configure) -> None:
        s = self._s
        s.settings = dataclasses.replace(event.settings, external_meta=s.settings.external_meta)
        self._local.configured()
        self._congestion.configured()
        s.changed()

    def _tick(self, _: e.Tick) -> None:
        self._s.timer_fired()
        for timer in self._s.due_timers():
            self._timers[timer]()

    def _packet(self, event: e.PacketReceived) -> None:
        if not self._s.link:
            if event.buffer is not None:
                self._s.out.append(e.ReleaseBuffer(event.buffer))
            return
        self._link.alive.heard()
        packet = event.packet
        try:
            handler = self._packets.get(type(packet))
            if handler is None:
                raise p.UnknownPacket(f"The peer sent {type(packet).__name__}, which has no place here.")
            if self._link.begun:
                handler(packet, event.buffer)
            else:
                self._link.postpone(packet, event.buffer)
        except p.ProtocolError as error:
            if event.buffer is not None:
                self._s.out.append(e.ReleaseBuffer(event.buffer))
            self._protocol_error(error)

    def _late_packet(self, packet: p.Packet, buffer: e.Buffer) -> None:
        """One that was postponed; a packet before it may have ended the link."""
        try:
            if self._s.link:
                self._packets[type(packet)](packet, buffer)
                return
        except p.ProtocolError as error:
            self._protocol_error(error)
        if buffer is not None:
            self._s.out.append(e.ReleaseBuffer(buffer))

    def _protocol_error(self, error: p.ProtocolError) -> None:
        self._s.log("error", "protocol_error", what=error.what)
        self._link.drop(error.what)

    def _resync_write_ack(self, packet: p.ResyncWriteAck, _: e.Buffer) -> None:
        """Of a resynchronised block, or of a write that made its blocks equal."""
        if packet.block_id == p.SYNCER_ID:
            self._resync.source.written(packet)
            return
        write = self._local.acknowledged(packet)
        if write.end - write.offset != packet.size_bytes:
            raise p.ProtocolError(f"The peer acknowledged another range than that of the write at {write.offset}.")
        self._s.bitmap.clear_range(-(-write.offset // BLOCK_BYTES), write.end // BLOCK_BYTES)

    def _peer_asks(self, packet: p.StateChangeRequest) -> None:
        if packet.mask & CONN_MASK and not packet.mask & ~CONN_MASK:
            self._agreed.peer_asks(packet)
        else:
            self._commands.peer_asks(packet)

    def _peer_answers(self, packet: p.StateChangeReply) -> None:
        if self._agreed.asked:
            self._agreed.peer_answers(packet)
        else:
            self._commands.peer_answers(packet)

    def _admit(self, entry: Ranged) -> None:
        """A range became free for somebody else than the one who left it."""
        if isinstance(entry, Write):
            self._local.admit(entry)
        elif isinstance(entry, PeerWrite):
            self._peer_io.admit(entry)
        elif isinstance(entry, PeerRead):
            self._peer_io.admit_read(entry)
        else:
            assert isinstance(entry, Served)
            assert entry.admitted is not None
            entry.admitted(entry)

    def _disk_failed(self, errno: int, *, whole: bool = False) -> None:
        self._copy.failed(errno, whole=whole)

    def _refuse_resync(self, sentence: str) -> None:
        self._link.meeting.refuse_resync(sentence)

    def _target_marked(self) -> None:
        self._link.target_marked()

    # ------------------------------------------------------------ status

    def status(self) -> dict[str, object]:
        """What the control socket shows, without name and device."""
        s = self._s
        left = s.bitmap.count * BLOCK_BYTES
        return {
            "role": ROLE_NAMES[s.role],
            "peer_role": ROLE_NAMES[s.peer_role],
            "connection": CONNECTION_NAMES[s.conn],
            "disk": DISK_NAMES[s.disk],
            "peer_disk": DISK_NAMES[s.peer_disk],
            "size_bytes": s.size_sectors * SECTOR_BYTES,
            "out_of_sync_bytes": min(left, s.size_sectors * SECTOR_BYTES),
            "resync": self._resync.status(),
            "paused": s.user_isp,
            "peer_paused": s.peer_isp,
            "verify": self._verify.status(),
            "last_verify": self._verify.last,
            "counters": self._counters(),
            "resync_total_bytes": s.resync_bytes,
            "current_uuid": f"{s.uuids.current:016x}",
            "bitmap_uuid": f"{s.uuids.bitmap:016x}",
            "history_uuids": [f"{s.uuids.history0:016x}", f"{s.uuids.history1:016x}"],
            "meta_flags": s.meta_flags(),
            "split_brain": s.split_brain,
            "split_brain_own_bytes": s.parted_bits[0] * BLOCK_BYTES if s.split_brain else 0,
            "split_brain_peer_bytes": s.parted_bits[1] * BLOCK_BYTES if s.split_brain else 0,
            "suspended": self._local.gate in {Gate.ASKING, Gate.WRITING, Gate.MOVING},
            "io_suspended": s.io_suspended,
            "degraded_at_start": s.degraded_at_start,
            "was_primary_at_start": s.was_primary_at_start,
            "peer_lost_since_connect": s.peer_lost,
            "outdated": s.disk is Disk.OUTDATED,
            "left": s.left,
            "epoch": s.epoch,
            "links": s.link_number,
            "problem": s.problem,
        }

    def _counters(self) -> dict[str, object]:
        """What `cat /proc/drbd` counts: KiB, numbers, and the letter of the order that writes are kept in."""
        s, c = self._s, self._s.counters
        local, peer, resync, verify = self._local, self._peer_io, self._resync, self._verify
        return {
            "ns": c.sent >> 10,
            "nr": c.received >> 10,
            "dw": c.disk_written >> 10,
            "dr": (c.disk_read + c.application_read) >> 10,
            "al": c.log_writes,
            "bm": c.bitmap_writes,
            "lo": local.at_disk + peer.in_flight,
            "pe": local.unanswered + resync.target.pending + verify.pending,
            "ua": peer.in_flight + resync.source.pending,
            "ap": local.in_flight,
            "ep": local.epochs,
            "wo": "f",
            "oos": s.bitmap.count * BLOCK_BYTES >> 10,
        }


def _disk_done(event: e.DiskDone) -> None:
    event.token.done(event.errno, event.buffer)


def _handler_done(event: e.HandlerDone) -> None:
    event.token.done(event.status, None)
