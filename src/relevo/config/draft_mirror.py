"""The table [mirrors.NAME] of relevo.toml: a mirror's settings, or the drbd.conf that has them."""

from __future__ import annotations

import pathlib
from typing import Any, NamedTuple

import msgspec

from relevo.config.drbd.options import HANDLERS
from relevo.config.drbd_options import (
    DIGESTS,
    OWN_DEFAULTS,
    AfterSb0,
    AfterSb1,
    AfterSb2,
    DrbdOptions,
    Fencing,
    OnCongestion,
    OnIoError,
    RrConflict,
    words_of,
)
from relevo.config.model import Mirror
from relevo.config.table import Table, nearest
from relevo.config.verify_schedule import VerifySchedule, read_schedule

MAX_PORT = 65535
MIN_AL_EXTENTS = 67
MAX_AL_EXTENTS = 6433
"""What the 32 KiB activity log of drbd's meta-data v08 can hold."""
MAX_BUFFERS = 131_072
MAX_EPOCH_SIZE = 20_000
MAX_KO_COUNT = 200
MAX_SPIN_US = 10_000
_NONE = "none"


class DrbdSource(NamedTuple):
    """A mirror that a drbd.conf configures; what that cannot say is said in relevo.toml."""

    path: pathlib.Path
    alone: Any
    suspend_ms: int
    resume: bool
    spin_us: int
    verify: VerifySchedule


def read_mirror(table: Table, name: str) -> Mirror | DrbdSource | None:
    """One mirror; None when it was not understood. Its secret is filled in later."""
    found = _by_drbd(table) if table.has("drbd") else _mirror(table, name)
    if table.has("secret"):
        table.wrong("secret", "is not said here.", f'Write it in secrets.toml: [mirror] {name} = "…".')
    table.finish()
    return found if table.sound else None


def _by_drbd(table: Table) -> DrbdSource:
    path = table.absolute_path("drbd", "/etc/drbd.conf")
    source = DrbdSource(
        path,
        table.choice("alone", ("risk", "ask"), "ask"),
        table.duration_ms("suspend", 60_000),
        table.boolean("resume", default=True),
        _spin_us(table),
        read_schedule(table),
    )
    for key in sorted(_ALL_KEYS):
        if table.has(key):
            table.wrong(key, f"is for {path} to say, which configures this mirror.", "Remove one of the two.")
    return source


def _spin_us(table: Table) -> int:
    return table.duration_us("spin", 250, MAX_SPIN_US)


def _mirror(table: Table, name: str) -> Mirror:
    return Mirror(
        name=name,
        link=table.name("link", example='"cross"'),
        port=table.integer("port", 7788, 1, MAX_PORT),
        secret="",
        hmac=table.choice("hmac", ("sha1", "sha256", "md5"), "sha256"),
        alone=table.choice("alone", ("risk", "ask"), "ask"),
        timeout_ms=table.duration_ms("timeout", 6000),
        ping_interval_ms=table.duration_ms("ping_interval", 10_000),
        ping_timeout_ms=table.duration_ms("ping_timeout", 500),
        connect_interval_ms=table.duration_ms("connect_interval", 500),
        al_extents=table.integer("al_extents", 1237, MIN_AL_EXTENTS, MAX_AL_EXTENTS),
        resync_rate_bytes=table.size_bytes("resync_rate", 0, zero=True),
        suspend_ms=table.duration_ms("suspend", 60_000),
        resume=table.boolean("resume", default=True),
        spin_us=_spin_us(table),
        verify=read_schedule(table),
        options=_options(table),
    )


_CHOICES: dict[str, Any] = {
    "protocol": ("A", "B", "C"),
    "after_sb_0pri": words_of(AfterSb0),
    "after_sb_1pri": words_of(AfterSb1),
    "after_sb_2pri": words_of(AfterSb2),
    "rr_conflict": words_of(RrConflict),
    "on_io_error": words_of(OnIoError),
    "on_congestion": words_of(OnCongestion),
    "fencing": words_of(Fencing),
}
_DIGESTS = ("verify_alg", "csums_alg", "data_integrity_alg")
_FLAGS = ("always_asbp", "csums_after_crash_only", "use_rle", "tcp_cork", "al_updates")
_NUMBERS = {
    "max_buffers": (32, MAX_BUFFERS),
    "max_epoch_size": (1, MAX_EPOCH_SIZE),
    "ko_count": (0, MAX_KO_COUNT),
    "congestion_extents": (67, 65_534),
}
_DURATIONS = {
    "c_plan_ahead": "c_plan_ahead_ms",
    "c_delay_target": "c_delay_target_ms",
    "wfc_timeout": "wfc_timeout_ms",
    "degr_wfc_timeout": "degr_wfc_timeout_ms",
    "outdated_wfc_timeout": "outdated_wfc_timeout_ms",
    "disk_timeout": "disk_timeout_ms",
}
_SIZES = {
    "size": "size_bytes",
    "sndbuf": "sndbuf_bytes",
    "rcvbuf": "rcvbuf_bytes",
    "congestion_fill": "congestion_fill_bytes",
    "c_fill_target": "c_fill_target_bytes",
    "c_max_rate": "c_max_rate_bytes",
    "c_min_rate": "c_min_rate_bytes",
    "rs_discard_granularity": "rs_discard_granularity_bytes",
}
"""Key of relevo.toml -> field of `DrbdOptions`, where they are not spelled alike; the key takes a unit."""
OPTION_KEYS = (*_CHOICES, *_DIGESTS, *_FLAGS, *_NUMBERS, *_DURATIONS, *_SIZES, "handlers")
"""Every key that sets a field of `DrbdOptions`; what has no effect here has none."""
_OWN_KEYS = (
    *("link", "port", "hmac", "timeout", "ping_interval", "ping_timeout", "connect_interval"),
    *("al_extents", "resync_rate"),
)
_ALL_KEYS = frozenset((*_OWN_KEYS, *OPTION_KEYS))


def _options(table: Table) -> DrbdOptions:
    own = OWN_DEFAULTS
    found: dict[str, Any] = {}
    for key, words in _CHOICES.items():
        found[key] = table.choice(key, words, getattr(own, key))
    for key in _DIGESTS:
        word = table.choice(key, (_NONE, *DIGESTS), getattr(own, key) or _NONE)
        found[key] = "" if word == _NONE else word
    for key in _FLAGS:
        found[key] = table.boolean(key, default=getattr(own, key))
    for key, (low, high) in _NUMBERS.items():
        found[key] = table.integer(key, getattr(own, key), low, high)
    for key, field in _DURATIONS.items():
        found[field] = table.duration_ms(key, getattr(own, field), zero=True)
    for key, field in _SIZES.items():
        found[field] = table.size_bytes(key, getattr(own, field), zero=True)
    found["handlers"] = _handlers(table.table("handlers"))
    return msgspec.structs.replace(own, **found)


def _handlers(table: Table) -> dict[str, str]:
    """Name -> shell command; names are spelled as in drbd.conf."""
    commands = {}
    for name in table.names():
        if name not in HANDLERS:
            table.wrong(name, "is no handler.", nearest(name, HANDLERS))
        else:
            commands[name] = table.text(name, None, '"/usr/local/sbin/tell-me"')
    return commands
