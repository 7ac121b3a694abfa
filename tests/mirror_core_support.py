"""One mirror core with a scripted disk and a scripted peer: nothing is done unless the test says so."""

from __future__ import annotations

from typing import Any

from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.core import Mirror, Settings
from relevo.mirror.metadata import MetaFlag
from relevo.mirror.states import Connection, Disk, Role, State
from relevo.mirror.vli import BitmapSender

BLOCK = 4096
EXTENT = 4 << 20
EXTENTS = 16
GOOD = int(MetaFlag.CONSISTENT | MetaFlag.WAS_UP_TO_DATE | MetaFlag.AL_CLEAN)
CURRENT = 0x1111_2222_3333_4440
FEATURES = int(p.Feature.TRIM | p.Feature.WSAME)
META = (e.WriteSuperblock, e.WriteActivityLog, e.WriteBitmap, e.PersistEpoch, e.PersistStale, e.SaveTarget)


class Bench:
    """Keeps every effect until the test takes it."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("al_extents", 7)
        self.core = Mirror(Settings(**settings))
        self.now = 1000
        self.effects: list[Any] = []
        self.tokens = 0

    def give(self, event: Any) -> list[Any]:
        found = self.core.step(event)
        self.effects += found
        return found

    def take(self, kind: type) -> list[Any]:
        """All effects of that kind that were not taken yet."""
        found = [effect for effect in self.effects if isinstance(effect, kind)]
        self.effects = [effect for effect in self.effects if not isinstance(effect, kind)]
        return found

    def one(self, kind: type) -> Any:
        found = self.take(kind)
        assert len(found) == 1, found
        return found[0]

    def done(self, effect: Any, errno: int = 0, buffer: Any = None) -> list[Any]:
        return self.give(e.DiskDone(self.now, effect.token, errno, buffer))

    def meta_done(self) -> None:
        """Finish meta-data writes until none is left."""
        while found := [effect for kind in META for effect in self.take(kind)]:
            for effect in found:
                self.done(effect)

    def all_done(self) -> None:
        """Finish every disk effect until none is left (payloads of reads are made up)."""
        kinds = (*META, e.DiskWrite, e.DiskFlush, e.DiskDiscard, e.DiskRead, e.DeviceUp, e.DeviceDown)
        while found := [effect for kind in kinds for effect in self.take(kind)]:
            for effect in found:
                self.done(effect, 0, object() if isinstance(effect, e.DiskRead) else None)

    def token(self) -> int:
        self.tokens += 1
        return self.tokens

    # ------------------------------------------------------------ beginnings

    def attach(
        self,
        *,
        flags: int = GOOD,
        bitmap_uuid: int = 0,
        current: int = CURRENT,
        al: tuple[int, ...] = (),
        epoch: int = 0,
        bitmap: bytes = b"",
        resume_bytes: int = 0,
    ) -> Bench:
        meta = e.MetaState(current, bitmap_uuid, 0, 0, flags, EXTENTS * EXTENT // 512)
        numbers = tuple(range(0x5000, 0x5000 + 8 * 0x10, 0x10))
        self.give(e.Attach(self.now, meta, EXTENTS * EXTENT, bitmap, al, 0, epoch, numbers, resume_bytes))
        self.meta_done()
        assert self.one(e.WantConnection).wanted
        return self

    def meet(
        self,
        *,
        role: Role = Role.SECONDARY,
        disk: Disk = Disk.UP_TO_DATE,
        uuids: tuple[int, int, int, int] = (CURRENT, 0, 0, 0),
        flags: int = 0,
        resolve_conflicts: bool = False,
        features: int = FEATURES,
        protocol: int = 3,
        integrity: str = "",
        bits: int = 0,
        after_sb: tuple[int, int, int] = (0, 0, 0),
        conn_flags: int = 0,
    ) -> None:
        """The peer connects and tells its parameters."""
        self.give(e.Connected(self.now, features, resolve_conflicts))
        sectors = EXTENTS * EXTENT // 512
        self.packet(p.Protocol(protocol, *after_sb, conn_flags | flags & 1, 0, integrity))
        self.packet(p.Sizes(sectors, 0, sectors, 1 << 20, 0, 0))
        if disk > Disk.FAILED:
            self.packet(p.Uuids(*uuids, bits, flags))
        self.peer_state(role, disk, Connection.WF_REPORT_PARAMS)

    def peer_state(self, role: Role, disk: Disk, conn: Connection) -> None:
        self.packet(p.StateWord(State(role=role, conn=conn, disk=disk).pack()))

    def packet(self, packet: p.Packet, buffer: Any = None) -> list[Any]:
        return self.give(e.PacketReceived(self.now, packet, buffer))

    def peer_bitmap(self) -> None:
        """The peer marks nothing."""
        from relevo.mirror.bitmap import Bitmap

        sender = BitmapSender(Bitmap(EXTENTS * 1024))
        while (packet := sender.next_packet()) is not None:
            self.packet(packet)

    def promote(self, *, force: bool = False, epoch: int = 0) -> None:
        """Become Primary, with whatever that needs, and forget the effects."""
        token = self.token()
        self.give(e.Promote(self.now, token, force, epoch))
        self.meta_done()
        if any(isinstance(packet, p.StateChangeRequest) for packet in self.sent()):
            self.packet(p.StateChangeReply(1))
            self.meta_done()
        self.done(self.one(e.DeviceUp))
        assert self.one(e.CommandDone).error is None
        self.effects.clear()

    def pair(self, **meeting: Any) -> Bench:
        """Attached, connected, Primary, both UpToDate; the arguments are those of `meet`."""
        self.attach()
        self.meet(**meeting)
        self.meta_done()
        self.promote()
        return self

    # ------------------------------------------------------------ the application

    def write(self, block: int, count: int = 1, token: Any = None) -> Any:
        token = token if token is not None else self.token()
        self.give(e.AppWrite(self.now, token, block * BLOCK, count * BLOCK, f"buffer{token}"))
        return token

    def flush(self) -> Any:
        token = self.token()
        self.give(e.AppFlush(self.now, token))
        return token

    def write_through(self, block: int) -> p.Data:
        """A write that both disks have; returns what was sent."""
        self.write(block)
        self.meta_done()
        data = self.sent_data()[-1]
        self.done(self.take(e.DiskWrite)[-1])
        self.ack(data)
        return data

    def ack(self, data: p.Data) -> list[Any]:
        return self.packet(p.WriteAck(data.sector, data.block_id, data.size_bytes, 0))

    # ------------------------------------------------------------ what went out

    def sent(self) -> list[p.Packet]:
        """Packets on the data socket, taken."""
        return [effect.packet for effect in self.take(e.SendData)]

    def sent_data(self) -> list[p.Data]:
        return [packet for packet in self.sent() if isinstance(packet, p.Data)]

    def meta_sent(self) -> list[p.Packet]:
        """Packets on the meta socket, taken."""
        return [effect.packet for effect in self.take(e.SendMeta)]

    def completed(self) -> dict[Any, int]:
        """Application's requests that were completed: token -> errno."""
        return {effect.token: effect.errno for effect in self.take(e.CompleteRequest)}

    def tick(self, after_ms: int) -> None:
        """Let time pass; timers fire when they are due."""
        end = self.now + after_ms
        while self.now < end:
            self.now = min(end, self.now + 10)
            self.give(e.Tick(self.now))

    @property
    def status(self) -> dict[str, Any]:
        return self.core.status()
