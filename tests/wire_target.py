"""A real core behind real decoders, for packets that nobody should send: what it does with them is watched.

Nothing may raise but what the decoder says of the peer (that ends the connection, as in the shell), no I/O may lie
outside of the disk or be longer than a request may be, every payload's buffer comes back, and one packet leads to a
bounded number of effects.
"""

from __future__ import annotations

import random
from typing import Any, Literal

from relevo.config.drbd_options import DrbdOptions
from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror import wire
from relevo.mirror.bitmap import Bitmap
from relevo.mirror.core import Mirror, Settings
from relevo.mirror.metadata import MetaFlag
from relevo.mirror.states import Connection, Disk, Role, State
from relevo.mirror.vli import BitmapSender

BLOCK = 4096
DISK_BYTES = 64 << 20
CURRENT = 0x1111_2222_3333_4440
FEATURES = int(p.Feature.TRIM | p.Feature.WSAME | p.Feature.WZEROES)
MAX_EFFECTS = 4096
"""Of one event: a peer's bitmap of this disk makes at most as many requests."""
MAX_IO_BYTES = 1 << 20
MAX_DISCARD_BYTES = DISK_BYTES
MAX_HELD_BYTES = 80 << 20
"""Payloads that wait: more than max-buffers allows is the shell's to refuse, which stops reading then."""
Start = Literal["new", "secondary", "primary", "source", "target"]
STARTS: tuple[Start, ...] = ("new", "secondary", "primary", "source", "target")
_GOOD = int(MetaFlag.CONSISTENT | MetaFlag.WAS_UP_TO_DATE | MetaFlag.AL_CLEAN)
_DISK = (
    *(e.DiskRead, e.DiskReadThin, e.DiskDigest, e.DiskWrite, e.DiskDiscard, e.DiskWriteSame, e.DiskFlush),
    *(e.WriteSuperblock, e.WriteActivityLog, e.WriteBitmap, e.PersistEpoch, e.PersistStale),
    *(e.DeviceUp, e.DeviceGrow, e.DeviceDown, e.SaveTarget, e.MeasureDisk, e.CloseDisk),
)
_READS = (e.DiskRead, e.DiskReadThin)
_WITHOUT_ANSWER = (
    *(e.ForgetTarget, e.WantConnection, e.SetTimer, e.StatusChanged, e.CommandDone, e.Resumed, e.Stopped, e.Log),
)


class Payload:
    """A buffer of the shell's; it goes back exactly once."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.released = False

    def release(self) -> None:
        assert not self.released, "a buffer was given back twice"
        self.released = True


class Target:
    """One mirror, attached and (but for `new`) in the middle of a conversation."""

    def __init__(self, start: Start, seed: int = 0) -> None:
        self._rng = random.Random(seed)
        self.core = Mirror(Settings(name="fuzzed", alone="risk", al_extents=7, options=DrbdOptions()))
        self.now = 1000
        self.up = False
        self.waiting: list[Any] = []
        self.payloads: list[Payload] = []
        self.reads: list[Payload] = []
        self._open: set[int] = set()
        self._tokens = 0
        behind = start in {"source", "target"}
        bitmap_uuid = CURRENT - 0x100 if start == "source" else 0
        meta = e.MetaState(CURRENT, bitmap_uuid, 0, 0, _GOOD, DISK_BYTES // 512)
        self.give(e.Attach(self.now, meta, DISK_BYTES, b"\x0f" if behind else b"", (), 0, 0, self._numbers(8)))
        self.finish()
        self.connect()
        if start != "new":
            self._meet(start)

    def _numbers(self, count: int) -> tuple[int, ...]:
        return tuple(self._rng.getrandbits(64) for _ in range(count))

    # ------------------------------------------------------------ the peer

    def connect(self) -> None:
        """A new connection, with new decoders."""
        if not self.up:
            self.up = True
            self.data = wire.Decoder(wire.DATA_COMMANDS, wire.Header.H100)
            self.meta = wire.Decoder(wire.META_COMMANDS, wire.Header.H100)
            self.give(e.Connected(self.now, FEATURES, bool(self._rng.getrandbits(1))))

    def hang_up(self) -> None:
        if self.up:
            self.up = False
            self.give(e.Disconnected(self.now))

    def receive(self, stream: bytes, *, meta: bool = False) -> None:
        """Bytes of the peer on one of the sockets."""
        decoder = self.meta if meta else self.data
        while stream and self.up:
            stream = stream[decoder.feed(stream) :]
            try:
                while self.up and (packet := decoder.next_packet()) is not None:
                    if wire.payload_bytes(packet):
                        stream = self._payload(decoder, packet, stream)
                    else:
                        self.give(e.PacketReceived(self.now, packet))
            except p.ProtocolError:
                self.hang_up()

    def _payload(self, decoder: wire.Decoder, packet: p.Packet, stream: bytes) -> bytes:
        """The payload may be cut off where the bytes end: then the connection ends, as if the peer had gone."""
        size = decoder.payload_left
        assert size <= p.MAX_PAYLOAD_BYTES
        left = size - decoder.take_payload(memoryview(bytearray(size)))
        if left > len(stream):
            self.hang_up()
            return b""
        if left:
            decoder.payload_came(left)
        payload = Payload(size)
        self.payloads.append(payload)
        held = sum(each.size_bytes for each in self.payloads if not each.released)
        assert held <= MAX_HELD_BYTES
        self.give(e.PacketReceived(self.now, packet, payload))
        return stream[left:]

    def send(self, packet: p.Packet) -> None:
        """A packet, with a payload of zeros, on the socket where it belongs."""
        stream = wire.encode(packet) + bytes(wire.payload_bytes(packet))
        self.receive(stream, meta=packet.command in wire.META_COMMANDS)

    def _meet(self, start: Start) -> None:
        sectors = DISK_BYTES // 512
        theirs = {
            "source": (CURRENT - 0x100, 0, 0, 0),
            "target": (CURRENT + 0x100, CURRENT, 0, 0),
        }.get(start, (CURRENT, 0, 0, 0))
        self.send(p.Protocol(3, 0, 0, 0, 0, 0, ""))
        self.send(p.SyncParam(0, "", "", 0, 0, 0, 0))
        self.send(p.Sizes(sectors, 0, sectors, 1 << 20, 0, 0))
        self.send(p.Uuids(*theirs, 0, 0))
        role = Role.PRIMARY if start == "target" else Role.SECONDARY
        self._state(role, Disk.UP_TO_DATE, Connection.WF_REPORT_PARAMS)
        self.finish()
        if start in {"source", "target"}:
            sender = BitmapSender(Bitmap(DISK_BYTES // BLOCK))
            while (packet := sender.next_packet()) is not None:
                self.send(packet)
            self.finish()
        if start == "target":
            self.send(p.SyncUuid(CURRENT + 0x2_0000))
            self._finish_meta()
        if start == "source":
            self._state(Role.SECONDARY, Disk.INCONSISTENT, Connection.SYNC_TARGET)
        if start == "primary":
            self.give(e.Promote(self.now, self._token(), False, 1))  # noqa: FBT003 - an event
            self.finish()
            self.send(p.StateChangeReply(1))
            self.finish()

    def _state(self, role: Role, disk: Disk, conn: Connection) -> None:
        self.send(p.StateWord(State(role=role, conn=conn, disk=disk).pack()))

    # ------------------------------------------------------------ the application, the disk, the time

    def _token(self) -> int:
        self._tokens += 1
        return self._tokens

    def write(self, block: int, blocks: int = 1) -> None:
        token = self._token()
        self._open.add(token)
        self.give(e.AppWrite(self.now, token, block * BLOCK, blocks * BLOCK, Payload(blocks * BLOCK)))

    def flush(self) -> None:
        token = self._token()
        self._open.add(token)
        self.give(e.AppFlush(self.now, token))

    def tick(self, delay_ms: int) -> None:
        self.now += delay_ms
        self.give(e.Tick(self.now))

    def finish_one(self, which: int, errno: int = 0) -> None:
        """One of the disk operations under way is done."""
        if self.waiting:
            effect = self.waiting.pop(which % len(self.waiting))
            buffer = None
            if isinstance(effect, e.MeasureDisk):
                self.give(e.DiskMeasured(self.now, effect.token, errno, DISK_BYTES))
                return
            if isinstance(effect, e.DiskDigest) and not errno:
                self.give(e.DiskDone(self.now, effect.token, 0, bytes(20)))
                return
            nothing_there = isinstance(effect, e.DiskReadThin) and self._rng.getrandbits(1)
            if isinstance(effect, _READS) and not errno and not nothing_there:
                buffer = Payload(effect.length)
                self.reads.append(buffer)
            self.give(e.DiskDone(self.now, effect.token, errno, buffer))

    def finish(self) -> None:
        """Everything that the disk was asked for is done."""
        while self.waiting:
            self.finish_one(0)

    def _finish_meta(self) -> None:
        """As `finish`, but data under way stays so."""
        while index := next((i for i, w in enumerate(self.waiting, 1) if not isinstance(w, _READS)), 0):
            self.finish_one(index - 1)

    # ------------------------------------------------------------ the core

    def give(self, event: Any) -> None:
        """One step; a core that fails ends its process, which no peer may bring about."""
        events = [event]
        while events:
            effects = self.core.step(events.pop(0))
            assert len(effects) <= MAX_EFFECTS, f"{len(effects)} effects of one event"
            for effect in effects:
                self._carry_out(effect, events)

    def _carry_out(self, effect: Any, events: list[Any]) -> None:
        kind = type(effect)
        if kind in _DISK:
            self._check(effect)
            self.waiting.append(effect)
        elif kind is e.SendData or kind is e.SendMeta:
            self._sent(effect, events)
        elif kind is e.DropConnection:
            self.up = False
            events.append(e.Disconnected(self.now))
        elif kind is e.NeedRandom:
            events.append(e.Random(self.now, self._numbers(effect.count)))
        elif kind is e.RunHandler:
            if effect.token is not None:
                events.append(e.HandlerDone(self.now, effect.token, 0))
        elif kind is e.ReleaseBuffer:
            effect.buffer.release()
        elif kind is e.CompleteRequest:
            self._open.discard(effect.token)
        else:
            assert kind in _WITHOUT_ANSWER, f"{kind.__name__}: who answers?"

    def _sent(self, effect: Any, events: list[Any]) -> None:
        assert len(wire.encode(effect.packet)) <= p.MAX_CONTROL_BYTES
        if isinstance(effect, e.SendData):
            if effect.release and effect.buffer is not None:
                effect.buffer.release()
            if effect.token is not None:
                events.append(e.Sent(self.now, effect.token))

    @staticmethod
    def _check(effect: Any) -> None:
        if not hasattr(effect, "offset"):
            return
        assert effect.length > 0
        assert 0 <= effect.offset <= DISK_BYTES - effect.length, "outside of the disk"
        if not isinstance(effect, e.DiskDiscard | e.DiskWriteSame):
            assert effect.length <= MAX_IO_BYTES, "longer than a request may be"
        if isinstance(effect, e.DiskWrite) and isinstance(effect.buffer, Payload):
            assert effect.length <= effect.buffer.size_bytes, "beyond the payload"

    def end(self) -> None:
        """The peer goes; nothing of what it sent is left then."""
        self.hang_up()
        self.finish()
        for _ in range(4):
            self.tick(10_000)
            self.finish()
        kept = [each for each in self.payloads + self.reads if not each.released]
        assert not kept, f"{len(kept)} buffers were not given back"
        assert not self._open, "a request was never completed"
