"""The order duties, watched from outside: each step's effects against what is stable at that moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.durable import BITS_PER_EXTENT
from relevo.mirror.metadata import MetaFlag
from relevo.mirror.requests import PeerWrite, Write
from relevo.mirror.state import TARGET
from relevo.mirror.states import Connection, Disk
from relevo.mirror.uuids import JUST_CREATED

if TYPE_CHECKING:
    from mirror_world import Node

EXTENT_BLOCKS = BITS_PER_EXTENT
EXTENT_SECTORS = 8192


class DutyBroken(AssertionError):
    """Something was started before what it depends on was stable."""


class Duties:
    """Watches one incarnation of one node."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.sent = 0
        self.last_barrier = 0
        self.position: dict[int, int] = {}  # block_id -> place in the stream of data packets
        self.writes: dict[Any, Write] = {}  # application's token -> its write
        self.epoch: list[int] = []  # block_ids received since the last barrier
        self.epochs: dict[int, list[int]] = {}
        self.entered: set[int] = set()  # extents that this incarnation put into the activity log
        self.marks: dict[int, int] = {}  # block_id -> number of disk writes done with it

    def new_link(self) -> None:
        self.sent = self.last_barrier = 0
        self.position.clear()
        self.epoch = []
        self.epochs.clear()
        self.marks.clear()

    def received(self, packet: p.Packet) -> None:
        if isinstance(packet, p.Data | p.Trim | p.Zeroes):
            self.epoch.append(packet.block_id)
        elif isinstance(packet, p.Barrier):
            self.epochs[packet.number] = self.epoch
            self.epoch = []

    def disk_done(self, effect: Any) -> None:
        if isinstance(effect, e.DiskWrite | e.DiskDiscard) and isinstance(effect.token, PeerWrite):
            self.marks[effect.token.block_id] = self.node.disk.done

    def effects(self, effects: list[e.Effect]) -> None:
        for effect in effects:
            kind = type(effect)
            if kind is e.SendData:
                self._sent(effect.packet)
            elif kind is e.DiskWrite or kind is e.DiskDiscard:
                self._disk_write(effect)
            elif kind is e.WriteActivityLog:
                self._evicts(effect)
            elif kind is e.SendMeta and isinstance(effect.packet, p.BarrierAck):
                self._barrier_ack(effect.packet)
        for effect in effects:
            if type(effect) is e.CompleteRequest and not effect.errno:
                self._completed(effect)

    def _sent(self, packet: p.Packet) -> None:
        self.sent += 1
        if isinstance(packet, p.Data | p.Trim | p.Zeroes):
            self.position[packet.block_id] = self.sent
            if self.node.core._local.detached:
                return  # there is no disk whose activity log could hold it
            last = (packet.sector + packet.size_bytes // 512 - 1) // EXTENT_SECTORS
            self._in_log(packet.sector // EXTENT_SECTORS, last, "sent")
        elif isinstance(packet, p.Barrier):
            if self.last_barrier and not any(at > self.last_barrier for at in self.position.values()):
                raise DutyBroken(f"{self.node}: a barrier for an empty epoch")
            self.last_barrier = self.sent

    def _disk_write(self, effect: Any) -> None:
        if not isinstance(effect.token, Write):
            return
        write = effect.token
        self.writes[write.token] = write
        self._in_log(write.extent_first, write.extent_last, "written")

    def _in_log(self, first: int, last: int, what: str) -> None:
        for extent in {first, last}:
            if extent not in self.node.disk.active:
                raise DutyBroken(f"{self.node}: a write to extent {extent} is {what} before it is in the activity log")

    def _evicts(self, effect: e.WriteActivityLog) -> None:
        """The bitmap of an evicted extent is stable, and so are (preflush) the data written to it."""
        slots = dict(effect.transaction.updates)
        self.entered.update(slots.values())
        disk, bitmap = self.node.disk, self.node.core._s.bitmap
        peer = self.node.world.nodes[1 - self.node.number].disk  # bits merged from the peer are stable there
        gone = disk.active - self._after(slots, effect)
        if gone & self.entered and not effect.preflush:
            raise DutyBroken(f"{self.node}: an eviction without a flush before it")
        if bitmap.count == bitmap.bits:
            return  # a full resync begins: it will begin again whatever the bitmap says
        if any(node.disk.superblock.flags & MetaFlag.FULL_SYNC for node in self.node.world.nodes):
            return  # what a Primary without a disk changed there is marked in memory, and everything on the disk
        for extent in gone:
            first = extent * EXTENT_BLOCKS
            for begin, end in bitmap.runs(first, min(first + EXTENT_BLOCKS, bitmap.bits)):
                if not all(disk.bit(block) or peer.bit(block) for block in range(begin, end)):
                    raise DutyBroken(f"{self.node}: extent {extent} is evicted before its bitmap is stable")

    def _after(self, slots: dict[int, int], effect: e.WriteActivityLog) -> frozenset[int]:
        transaction = effect.transaction
        held = dict(enumerate(transaction.context, transaction.context_start))
        held.update(slots)
        return frozenset(held.values())

    def _barrier_ack(self, packet: p.BarrierAck) -> None:
        ids = self.epochs.pop(packet.number)
        if len(ids) != packet.set_size:
            raise DutyBroken(f"{self.node}: epoch of {len(ids)} acknowledged with {packet.set_size}")
        for block_id in ids:
            mark = self.marks.pop(block_id, None)
            if mark is None or not self.node.disk.is_stable(mark):
                raise DutyBroken(f"{self.node}: epoch {packet.number} acknowledged before it is stable")

    def _completed_through_the_peer(self) -> None:
        """Only the peer has it: that is a generation of its own, and this disk is known to be stale."""
        node = self.node
        peer = node.world.nodes[1 - node.number].disk
        mine = node.disk.superblock.current & ~1
        if not node.disk.superblock.flags & MetaFlag.CONSISTENT:
            return  # nobody can take it for a good copy
        if mine not in {node.disk.stale, JUST_CREATED}:
            raise DutyBroken(f"{node}: a write is completed through the peer, but this disk is not known to be stale")
        if peer.superblock.current & ~1 == mine:
            raise DutyBroken(f"{node}: a write is completed through the peer in the generation of the lost disk")

    def _completed(self, effect: e.CompleteRequest) -> None:
        write = self.writes.pop(effect.token, None)
        if write is None:
            return
        at = self.position.get(write.block_id)
        state, superblock = self.node.core._s, self.node.disk.superblock
        if state.link and at is not None and at > self.last_barrier:
            raise DutyBroken(f"{self.node}: a write is completed before its epoch is closed")
        if state.disk is not Disk.UP_TO_DATE:
            self._completed_through_the_peer()
            return
        if superblock.current & ~1 != state.uuids.current & ~1 and state.conn not in TARGET:
            raise DutyBroken(f"{self.node}: a write is completed before the new generation is stable")
        alone = state.conn < Connection.CONNECTED or state.peer_disk <= Disk.FAILED
        if alone and superblock.bitmap == 0:
            raise DutyBroken(f"{self.node}: a write is completed alone in the peer's generation")
