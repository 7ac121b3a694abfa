"""How fast a resync (or a verify) asks: line rate while the application is idle, in the background while it works.

Pure arithmetic, one decision per slice of time. Two things bound the asking side: a *window* (bytes asked for and not
yet there) and, where a rate is bounded, a *budget* for the slice.

- Idle: the window is large, and only the configured maximum bounds the rate.
- At work: the window is what the configuration aims at (`c-fill-target`, or `c-delay-target` at the present rate), and
  the rate gives way while the application is hard at work (never below `c-min-rate`, nor below a tenth of the best
  rate that was reached) and comes back when it is not.
- Back to idle the window grows over `c-plan-ahead`. `c-plan-ahead` 0 switches all of this off: the fixed rate holds.
"""

from __future__ import annotations

import dataclasses

from relevo.config.drbd_options import DrbdOptions
from relevo.mirror.packets import SyncParam

SLICE_MS = 100
"""A bound on the rate is kept per slice of this length."""
IDLE_WINDOW_BYTES = 16 << 20
"""What may be on its way when nobody else needs the disk: enough for a fast network and a disk with a queue."""
LEAST_WINDOW_BYTES = 256 << 10
"""So much may always be asked for, in requests of a quarter of it: less would wait for the network only."""
IDLE_AFTER_MS = 500
"""The application counts as idle when it did nothing for so long."""
GENTLE_RATE_BYTES = 10 << 20
"""Upper bound per second after `resync_speed gentle`."""
UNBOUNDED_KIB = 4 << 20
"""The rate that stands for no bound on the wire (drbd: RESYNC_RATE_MAX). A kernel takes 0 for a standstill."""
SHARE = 10
"""However hard the application works, a tenth of the best rate so far is kept: a resync has to end some day."""
_GIVE_WAY = (3, 4)
_COME_BACK = (9, 8)
_LEAD = 2
"""The rate is not allowed to run ahead of what was reached by more than this factor."""
_KIB = 1024
_SECTOR_BYTES = 512
_TENTH_MS = 100


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the pace: bytes per second (0: none), milliseconds, bytes. See `DrbdOptions`."""

    rate_bytes: int
    plan_ahead_ms: int
    delay_target_ms: int
    fill_target_bytes: int
    max_rate_bytes: int
    min_rate_bytes: int

    @classmethod
    def configured(cls, options: DrbdOptions, rate_bytes: int) -> Limits:
        """What the configuration says."""
        return cls(
            rate_bytes,
            options.c_plan_ahead_ms,
            options.c_delay_target_ms,
            options.c_fill_target_bytes,
            options.c_max_rate_bytes,
            options.c_min_rate_bytes,
        )

    def fast(self) -> Limits:
        """As fast as it goes, whatever the application does."""
        return dataclasses.replace(self, rate_bytes=0, plan_ahead_ms=0)

    def gentle(self) -> Limits:
        """In the background, whatever there is room for."""
        most = min(bound for bound in (self.max_rate_bytes, GENTLE_RATE_BYTES) if bound)
        return dataclasses.replace(self, plan_ahead_ms=self.plan_ahead_ms or SLICE_MS, max_rate_bytes=most)

    @property
    def top_bytes(self) -> int:
        """The upper bound per second that always holds; 0: none."""
        return min((bound for bound in (self.rate_bytes, self.max_rate_bytes) if bound), default=0)

    def said(self, verify_alg: str, csums_alg: str) -> SyncParam:
        """P_SYNC_PARAM89. A kernel takes over what is said here for its own resync controller."""
        return SyncParam(
            _rate_kib(self.rate_bytes),
            verify_alg,
            csums_alg,
            self.plan_ahead_ms // _TENTH_MS,
            self.delay_target_ms // _TENTH_MS,
            self.fill_target_bytes // _SECTOR_BYTES,
            _rate_kib(self.max_rate_bytes),
        )

    def heard(self, packet: SyncParam) -> Limits:
        """These limits with what the peer asks for; the least rate is each side's own."""
        return Limits(
            _rate_bytes(packet.rate),
            packet.c_plan_ahead * _TENTH_MS,
            packet.c_delay_target * _TENTH_MS,
            packet.c_fill_target * _SECTOR_BYTES,
            _rate_bytes(packet.c_max_rate),
            self.min_rate_bytes,
        )


def _rate_kib(rate_bytes: int) -> int:
    return max(1, min(UNBOUNDED_KIB, rate_bytes // _KIB)) if rate_bytes else UNBOUNDED_KIB


def _rate_bytes(rate_kib: int) -> int:
    return 0 if rate_kib >= UNBOUNDED_KIB else rate_kib * _KIB


class Pace:
    """The pace of one side.

    Args:
        limits: what bounds it; may be replaced at any time.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.window_bytes = IDLE_WINDOW_BYTES
        self._bound = 0
        """Bytes per second within the slice under way; 0: no bound."""
        self._budget = 0
        self._rate = 0
        self._best = 0
        self._answered = 0
        self._application_ms: int | None = None
        self._application_waits = False
        self._began_ms = 0

    # ------------------------------------------------------------ what happens

    def application(self, now_ms: int, *, waits: bool) -> None:
        """The application did something; `waits`: it has to wait for the disk."""
        self._application_ms = now_ms
        self._application_waits = self._application_waits or waits

    def answered(self, length: int) -> None:
        """So much came."""
        self._answered += length

    def asked(self, length: int) -> None:
        """So much was asked for."""
        if self._bound:
            self._budget -= length

    # ------------------------------------------------------------ what follows

    def busy(self, now_ms: int) -> bool:
        """Whether the application is at work, as far as anybody may care."""
        if not self.limits.plan_ahead_ms or self._application_ms is None:
            return False
        return now_ms - self._application_ms < IDLE_AFTER_MS

    def begin(self, now_ms: int) -> None:
        """Something begins: from the application's present state, not from an earlier one's end."""
        self._rate = 0
        self._best = 0
        self._answered = 0
        self._application_waits = False
        self.window_bytes = self._target_window() if self.busy(now_ms) else IDLE_WINDOW_BYTES
        self._budget = 0
        self._began_ms = now_ms
        self._new_budget(now_ms)

    def next_slice(self, now_ms: int) -> None:
        """A slice of time is over: decide about the next one."""
        passed_ms = max(1, now_ms - self._began_ms)
        self._began_ms = now_ms
        seen = self._answered * 1000 // passed_ms
        self._answered = 0
        if self.busy(now_ms):
            before = self._rate or seen
            part, whole = _GIVE_WAY if self._application_waits else _COME_BACK
            following = min(before * part // whole, _LEAD * seen)
            self._best = max(self._best, seen)
            self._rate = max(self.limits.min_rate_bytes, LEAST_WINDOW_BYTES, self._best // SHARE, following)
            self.window_bytes = self._target_window()
        else:
            self._rate = 0
            self._best = max(self._best, seen)
            plan_ms = max(SLICE_MS, self.limits.plan_ahead_ms)
            self.window_bytes = min(IDLE_WINDOW_BYTES, self.window_bytes + IDLE_WINDOW_BYTES * SLICE_MS // plan_ms)
        self._application_waits = False
        self._new_budget(now_ms)

    def _target_window(self) -> int:
        limits = self.limits
        aimed = limits.fill_target_bytes or self._rate * limits.delay_target_ms // 1000
        return max(LEAST_WINDOW_BYTES, min(IDLE_WINDOW_BYTES, aimed))

    def _new_budget(self, now_ms: int) -> None:
        """What may be asked for in the slice that begins, less what was asked for too much in the one before."""
        bounds = [self.limits.top_bytes, self._rate if self.busy(now_ms) else 0]
        self._bound = min((bound for bound in bounds if bound), default=0)
        self._budget = min(0, self._budget) + self._bound * SLICE_MS // 1000 if self._bound else 0

    def room(self, on_its_way: int) -> int:
        """How much more may be asked for now, in bytes; 0 or less: wait for an answer or for the next slice.

        A request may be larger than that: what is too much is missing in the next slice.
        """
        room = self.window_bytes - on_its_way
        return min(room, self._budget) if self._bound else room
