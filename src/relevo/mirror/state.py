"""What all parts of the core share: settings, the state of both sides, the effects of the step under way, deadlines."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Literal

from relevo.config.drbd_options import DrbdOptions
from relevo.config.model import Mirror as MirrorConfig
from relevo.mirror import events as e
from relevo.mirror.bitmap import Bitmap
from relevo.mirror.metadata import MetaFlag
from relevo.mirror.packets import Ping
from relevo.mirror.states import Connection, Disk, Role, State
from relevo.mirror.uuids import Generations

SECTOR_BYTES = 512
MIN_AL_EXTENTS = 7
"""Fewer could not hold the extents of the writes that come at once (drbd: DRBD_AL_EXTENTS_MIN)."""
MAX_AL_EXTENTS = 6433
"""What 8 blocks of 919 slots can repeat, less one (drbd: 32 KiB of activity log)."""
BARRIER_DELAY_MS = 50
"""How long the peer may wait for more epochs before it flushes and acknowledges them."""
RESUME_PEER_MS = 3000
"""How long a device that a new process has taken over waits for its peer, before it is seen whether it may go alone."""
CLOSE_LIMIT_MS = 1000
"""How long a peer that has taken its leave may keep the sockets open."""


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """The configured part; times in milliseconds (see `config.model.Mirror`).

    `external_meta`: the meta-data lies on another disk than the data. `snapshot`: save a copy before a resync makes it
    Inconsistent. `options`: what drbd.conf can say beyond this.
    """

    name: str = ""
    alone: Literal["risk", "ask"] = "ask"
    timeout_ms: int = 6000
    ping_interval_ms: int = 10_000
    ping_timeout_ms: int = 500
    al_extents: int = 1237
    resync_rate_bytes: int = 0
    suspend_ms: int = 60_000
    resume_peer_ms: int = RESUME_PEER_MS
    external_meta: bool = False
    snapshot: bool = True
    options: DrbdOptions = dataclasses.field(default_factory=lambda: DrbdOptions(ko_count=1))

    @classmethod
    def from_config(cls, mirror: MirrorConfig) -> Settings:
        """Take over what `relevo.toml` says."""
        return cls(
            name=mirror.name,
            alone=mirror.alone,
            timeout_ms=mirror.timeout_ms,
            ping_interval_ms=mirror.ping_interval_ms,
            ping_timeout_ms=mirror.ping_timeout_ms,
            al_extents=max(MIN_AL_EXTENTS, min(MAX_AL_EXTENTS, mirror.al_extents)),
            resync_rate_bytes=mirror.resync_rate_bytes,
            suspend_ms=mirror.suspend_ms,
            options=mirror.options,
        )


class Timer(enum.Enum):
    """Deadlines that the core keeps."""

    __hash__ = object.__hash__  # Enum's own is a slow Python function, and a deadline is looked up for every write

    BARRIER = enum.auto()
    PING = enum.auto()
    PONG = enum.auto()
    LATE = enum.auto()
    HANDSHAKE = enum.auto()
    RESYNC = enum.auto()
    BITMAP = enum.auto()
    SAVE = enum.auto()
    CONSENT = enum.auto()
    VERIFY = enum.auto()
    SUSPEND = enum.auto()
    RESUME = enum.auto()
    LEAVE = enum.auto()
    CLOSE = enum.auto()
    MOVE = enum.auto()
    AHEAD = enum.auto()


_CONNECTED, _SYNC_SOURCE, _PAUSED_SYNC_T = Connection.CONNECTED, Connection.SYNC_SOURCE, Connection.PAUSED_SYNC_T
_INCONSISTENT, _UP_TO_DATE = Disk.INCONSISTENT, Disk.UP_TO_DATE
_WF_BITMAP_T, _WF_SYNC_UUID = Connection.WF_BITMAP_T, Connection.WF_SYNC_UUID
SETTLING = frozenset(
    {
        Connection.WF_REPORT_PARAMS,
        Connection.WF_BITMAP_S,
        Connection.WF_BITMAP_T,
        Connection.WF_SYNC_UUID,
        Connection.STARTING_SYNC_S,
        Connection.STARTING_SYNC_T,
    }
)
"""Between the first packet and a settled state: roles and generations must not change meanwhile."""
SOURCE = frozenset({Connection.SYNC_SOURCE, Connection.PAUSED_SYNC_S})
TARGET = frozenset({Connection.SYNC_TARGET, Connection.PAUSED_SYNC_T})
SYNCING = SOURCE | TARGET
VERIFYING = frozenset({Connection.VERIFY_S, Connection.VERIFY_T})
STEADY = VERIFYING | {Connection.CONNECTED}
"""Connected, and no resync changes what the copies are worth."""
_LOST = frozenset({Connection.WF_CONNECTION, Connection.STANDALONE})
_STARTS = frozenset(
    {Connection.WF_BITMAP_S, Connection.WF_BITMAP_T, Connection.STARTING_SYNC_S, Connection.STARTING_SYNC_T}
)

TRANSITIONS: dict[Connection, frozenset[Connection]] = {
    Connection.STANDALONE: frozenset({Connection.WF_CONNECTION}),
    Connection.WF_CONNECTION: frozenset({Connection.WF_REPORT_PARAMS, Connection.STANDALONE}),
    Connection.WF_REPORT_PARAMS: _LOST | {Connection.CONNECTED, Connection.WF_BITMAP_S, Connection.WF_BITMAP_T},
    Connection.WF_BITMAP_S: _LOST | {Connection.SYNC_SOURCE},
    Connection.WF_BITMAP_T: _LOST | {Connection.WF_SYNC_UUID},
    Connection.STARTING_SYNC_S: _LOST | {Connection.SYNC_SOURCE},
    Connection.STARTING_SYNC_T: _LOST | {Connection.WF_SYNC_UUID},
    Connection.WF_SYNC_UUID: _LOST | {Connection.SYNC_TARGET},
    Connection.SYNC_SOURCE: _LOST | {Connection.CONNECTED, Connection.PAUSED_SYNC_S},
    Connection.SYNC_TARGET: _LOST | {Connection.CONNECTED, Connection.PAUSED_SYNC_T},
    Connection.PAUSED_SYNC_S: _LOST | {Connection.CONNECTED, Connection.SYNC_SOURCE},
    Connection.PAUSED_SYNC_T: _LOST | {Connection.CONNECTED, Connection.SYNC_TARGET},
    Connection.VERIFY_S: _LOST | {Connection.CONNECTED},
    Connection.VERIFY_T: _LOST | {Connection.CONNECTED},
    Connection.CONNECTED: _LOST | _STARTS | VERIFYING | {Connection.AHEAD, Connection.BEHIND},
    Connection.AHEAD: _LOST | {Connection.SYNC_SOURCE},
    Connection.BEHIND: _LOST | {Connection.SYNC_TARGET},
}
"""Which connection state may follow which."""


@dataclasses.dataclass(slots=True)
class Counters:
    """What `/proc/drbd` counts, in bytes and numbers since the start."""

    sent: int = 0
    received: int = 0
    disk_written: int = 0
    disk_read: int = 0
    application_read: int = 0
    log_writes: int = 0
    bitmap_writes: int = 0


class Shared:
    """The state of one mirror. Components read it freely; each field has one component that writes it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.out: list[e.Effect] = []
        self.now = 0
        self.random: list[int] = []
        self._deadlines: dict[Timer, int] = {}
        self._timer_said: int | None = None
        self._timers_changed = False
        self._data_lost = False
        # this side
        self.attached = False
        self.stopping = False
        self.role = Role.SECONDARY
        self.disk = Disk.DISKLESS
        self.found_disk = Disk.DISKLESS
        """What a disk that is being compared with the peer's (Negotiating) is worth by itself."""
        self.exposed = 0
        """The generation that the applications of a Primary without a whole disk have seen."""
        self.uuids = Generations(0, 0, 0, 0)
        self.size_sectors = 0
        self.size_agreed = False
        self.disk_sectors = 0
        self.growing_sectors = 0
        """The size that is being agreed on; 0: none. The peer may use it already."""
        self.bitmap = Bitmap(0)
        self.epoch = 0
        self.crashed_primary = False
        self.peer_outdated = False
        self.full_sync = False
        self.al_clean = True
        self.discard_my_data = False
        self.dry_run = False
        self.told_bits = 0
        self.parted_bits = (0, 0)
        self.problem = ""
        self.why_diskless = ""
        """Why the disk was not taken at the start: meeting the peer does not make that better."""
        self.split_brain = False
        self.was_primary_at_start = False
        self.stale_noted = 0
        """The generation of which is noted, elsewhere than on the disk, that this copy of it is stale; 0: none."""
        self.degraded_at_start = False
        """A crashed Primary that had been without its peer."""
        self.io_suspended = False
        """The administrator holds what the device's users ask for."""
        self.peer_lost = False
        # the peer and the way to it
        self.conn = Connection.STANDALONE
        self.want = False
        self.left = False
        """The peer was left because this node left the cluster: whoever brings the node back connects again."""
        self.link = False
        self.link_number = 0
        self.features = 0
        self.resolve_conflicts = False
        self.peer_role = Role.UNKNOWN
        self.peer_disk = Disk.UNKNOWN
        self.peer_uuids: Generations | None = None
        self.peer_told_bits = 0
        self.packet_seq = 0
        self.pings_sent = 0
        self.pings_answered = 0
        self.resync_bytes = 0
        self.live_start = False
        """A resync begins between copies that are in use together: writes go to both all the while."""
        self.user_isp = False
        """The administrator has paused the resync here."""
        self.peer_isp = False
        """And there."""
        self.peer_crashed = False
        """The peer said that it crashed as Primary."""
        self.asking = False
        """The peer is asked to agree to a change of state; one question at a time."""
        self.counters = Counters()
        self.waiting: list[tuple[Callable[[], bool], Callable[[], None]]] = []

    # ------------------------------------------------------------ effects

    def log(self, level: str, event: str, **fields: object) -> None:
        """Emit a line for the log."""
        self.out.append(e.Log(level, event, fields))

    def changed(self) -> None:
        """Tell the watchers; a Primary that has good data nowhere any more calls its administrator."""
        self.out.append(e.StatusChanged())
        lost = self.role is Role.PRIMARY and self.disk < Disk.UP_TO_DATE and self.peer_disk < Disk.UP_TO_DATE
        if lost and not self._data_lost:
            self.out.append(e.RunHandler(None, "pri-on-incon-degr", {}))
        self._data_lost = lost

    def take_random(self) -> int:
        """One of the random numbers in stock; orders a new one."""
        self.out.append(e.NeedRandom(1))
        assert self.random, "the stock of random numbers is spent within one step"
        return self.random.pop()

    def next_seq(self) -> int:
        """The number of a data packet or acknowledgement."""
        self.packet_seq = (self.packet_seq + 1) & 0xFFFF_FFFF
        return self.packet_seq

    def send_ping(self) -> int:
        """Ask the peer for a sign of life; returns the number of the answer that will be its own."""
        self.pings_sent += 1
        self.out.append(e.SendMeta(Ping()))
        return self.pings_sent

    def set_conn(self, conn: Connection) -> None:
        """Go to another connection state, along `TRANSITIONS`."""
        if conn is self.conn:
            return
        assert conn in TRANSITIONS[self.conn], f"{self.conn.name} -> {conn.name}"
        self.log("info", "connection", old=self.conn.name, new=conn.name)
        self.conn = conn
        self.changed()

    # ------------------------------------------------------------ deadlines

    def set_timer(self, timer: Timer, after_ms: int) -> None:
        """Set (or move) a deadline."""
        self._deadlines[timer] = self.now + after_ms
        self._timers_changed = True

    def clear_timer(self, timer: Timer) -> None:
        """Forget a deadline."""
        self._deadlines.pop(timer, None)
        self._timers_changed = True

    def has_timer(self, timer: Timer) -> bool:
        """Whether a deadline is set."""
        return timer in self._deadlines

    def due_timers(self) -> list[Timer]:
        """Take out the deadlines that have come."""
        due = [timer for timer, at in self._deadlines.items() if at <= self.now]
        for timer in due:
            del self._deadlines[timer]
        self._timers_changed = True
        return due

    def say_timer(self) -> None:
        """Emit the next deadline if it is another than before."""
        if not self._timers_changed:
            return
        self._timers_changed = False
        following = min(self._deadlines.values()) if self._deadlines else None
        if following != self._timer_said:
            self._timer_said = following
            self.out.append(e.SetTimer(following))

    def timer_fired(self) -> None:
        """The shell's timer is spent."""
        self._timer_said = None
        self._timers_changed = True

    # ------------------------------------------------------------ waiting for a condition

    def when(self, condition: Callable[[], bool], then: Callable[[], None]) -> None:
        """Go on at once, or at the end of the step that makes the condition true."""
        if condition():
            then()
        else:
            self.waiting.append((condition, then))

    def wake(self) -> None:
        """Go on with what waited and may go on now, in order."""
        while self.waiting:
            for index, (condition, then) in enumerate(self.waiting):
                if condition():
                    del self.waiting[index]
                    then()
                    break
            else:
                return

    # ------------------------------------------------------------ views

    @property
    def settled(self) -> bool:
        """No handshake is under way."""
        return self.conn not in SETTLING

    @property
    def replicating(self) -> bool:
        """A write goes to the peer as well: where it is connected and has a disk."""
        conn = self.conn  # compared, not looked up: an enum's hash is slow, and this is asked for every write
        if conn is _CONNECTED or _SYNC_SOURCE <= conn <= _PAUSED_SYNC_T:
            return self.peer_disk >= _INCONSISTENT
        if conn is _WF_BITMAP_T or conn is _WF_SYNC_UUID:
            return True  # a Primary whose disk is new
        return self.live_start and self.peer_disk is _UP_TO_DATE

    @property
    def steady(self) -> bool:
        """Connected, and no resync is under way."""
        return self.conn in STEADY

    def state_word(self) -> int:
        """What P_STATE says of this side."""
        return State(
            role=self.role,
            peer=self.peer_role,
            conn=self.conn,
            disk=self.disk,
            pdsk=self.peer_disk,
            peer_isp=self.peer_isp,
            user_isp=self.user_isp,
        ).pack()

    def meta_flags(self) -> int:
        """The superblock's flags."""
        flags = MetaFlag(0)
        disk = self.found_disk if self.disk is Disk.NEGOTIATING else self.disk
        if disk > Disk.INCONSISTENT:
            flags |= MetaFlag.CONSISTENT
        if disk >= Disk.CONSISTENT:
            flags |= MetaFlag.WAS_UP_TO_DATE
        if self.role is Role.PRIMARY:
            flags |= MetaFlag.PRIMARY_IND
        if self.conn >= Connection.CONNECTED:
            flags |= MetaFlag.CONNECTED_IND
        for on, flag in (
            (self.full_sync, MetaFlag.FULL_SYNC),
            (self.peer_outdated, MetaFlag.PEER_OUTDATED),
            (self.crashed_primary, MetaFlag.CRASHED_PRIMARY),
            (self.al_clean, MetaFlag.AL_CLEAN),
            (not self.settings.options.al_updates, MetaFlag.AL_DISABLED),
        ):
            if on:
                flags |= flag
        return int(flags)

    def meta_state(self) -> e.MetaState:
        """What the superblock has to say now."""
        u = self.uuids
        return e.MetaState(u.current, u.bitmap, u.history0, u.history1, self.meta_flags(), self.size_sectors)
