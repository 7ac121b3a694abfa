"""What drbd.conf can say about a mirror beyond the plain settings of `model.Mirror`: frozen, typed, complete.

Sizes in bytes, times in milliseconds. Names and meanings are those of drbd.conf(5) of drbd 8.4.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

AfterSb0 = Literal[
    "disconnect",
    "discard-younger-primary",
    "discard-older-primary",
    "discard-zero-changes",
    "discard-least-changes",
    "discard-local",
    "discard-remote",
]
"""What to do after a split brain when neither side is Primary."""
AfterSb1 = Literal["disconnect", "consensus", "violently-as0p", "discard-secondary", "call-pri-lost-after-sb"]
"""The same when one side is Primary."""
AfterSb2 = Literal["disconnect", "violently-as0p", "call-pri-lost-after-sb"]
"""The same when both are."""
RrConflict = Literal["disconnect", "violently", "call-pri-lost"]
"""What to do when a Primary would have to become the target of a resync."""
OnCongestion = Literal["block", "pull-ahead", "disconnect"]
"""What to do when the send buffer is full."""
OnIoError = Literal["detach", "pass_on", "call-local-io-error"]
"""What an error of the backing disk leads to."""
Fencing = Literal["dont-care", "resource-only", "resource-and-stonith"]
"""What a Primary does about a peer that it has lost."""


DIGESTS = (
    *("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3-256", "sha3-384", "sha3-512"),
    "crc32c",
)
"""Hashes that can be named for payloads, verify and checksum-based resync."""


class DrbdOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the sections net, disk, startup and handlers.

    Attributes:
        protocol: when a write is complete: A in the send buffer, B received by the peer, C on the peer's disk.
        max_buffers: pages of 4 KiB that a receiver may hold for requests of the peer.
        max_epoch_size: most writes between two barriers.
        sndbuf_bytes, rcvbuf_bytes: socket buffers; 0 asks the kernel for 4 MiB.
        ko_count: a peer that leaves one request unanswered for `ko_count` times `timeout` is given up; 0 never.
        after_sb_0pri, after_sb_1pri, after_sb_2pri, rr_conflict: see the types.
        discard_node: `after-sb-0pri discard-node-NAME`: the node whose changes go; each side makes discard-local or
            discard-remote of it.
        always_asbp: policies apply also when only older generations are common.
        verify_alg, csums_alg, data_integrity_alg: hash names; empty is none.
        csums_after_crash_only: checksums spare the network only in the resync after a crash of the Primary.
        use_rle: bitmaps travel run-length encoded.
        on_congestion, congestion_fill_bytes, congestion_extents: what to do when the send buffer is full.
        tcp_cork: fill packets before they are sent.
        on_io_error: what an error of the backing disk leads to.
        fencing: what a Primary does about a peer that it has lost.
        size_bytes: upper bound of the device; 0 is none.
        al_updates: keep the activity log on the disk.
        disk_barrier, disk_flushes, disk_drain, md_flushes: how order is kept on the backing disk.
        disk_timeout_ms: a backing disk that takes longer has failed; 0 waits for ever.
        c_plan_ahead_ms: look-ahead of the resync controller; 0 switches it off: the fixed rate holds.
        c_delay_target_ms, c_fill_target_bytes: what the controller aims at: delay, or data on its way.
        c_max_rate_bytes, c_min_rate_bytes: bounds per second; 0 is no bound.
        rs_discard_granularity_bytes: runs of that length are asked for thinly: zeroes are not sent but discarded on the
            target. 0 switches it off (drbd's default).
        wfc_timeout_ms, degr_wfc_timeout_ms, outdated_wfc_timeout_ms: how long the start waits for the peer; 0 for ever.
        handlers: name of the handler -> shell command.
    """

    protocol: Literal["A", "B", "C"] = "C"
    max_buffers: int = 2048
    max_epoch_size: int = 2048
    sndbuf_bytes: int = 0
    rcvbuf_bytes: int = 0
    ko_count: int = 7
    after_sb_0pri: AfterSb0 = "disconnect"
    after_sb_1pri: AfterSb1 = "disconnect"
    after_sb_2pri: AfterSb2 = "disconnect"
    rr_conflict: RrConflict = "disconnect"
    discard_node: str = ""
    always_asbp: bool = False
    verify_alg: str = ""
    csums_alg: str = ""
    csums_after_crash_only: bool = False
    data_integrity_alg: str = ""
    use_rle: bool = True
    on_congestion: OnCongestion = "block"
    congestion_fill_bytes: int = 0
    congestion_extents: int = 1237
    tcp_cork: bool = True
    on_io_error: OnIoError = "detach"
    fencing: Fencing = "dont-care"
    size_bytes: int = 0
    al_updates: bool = True
    disk_barrier: bool = False
    disk_flushes: bool = True
    disk_drain: bool = True
    md_flushes: bool = True
    disk_timeout_ms: int = 0
    c_plan_ahead_ms: int = 2000
    c_delay_target_ms: int = 1000
    c_fill_target_bytes: int = 100 * 512
    c_max_rate_bytes: int = 0
    c_min_rate_bytes: int = 250 << 10
    rs_discard_granularity_bytes: int = 1 << 20
    wfc_timeout_ms: int = 0
    degr_wfc_timeout_ms: int = 0
    outdated_wfc_timeout_ms: int = 0
    handlers: dict[str, str] = {}


OWN_DEFAULTS = DrbdOptions(ko_count=1)
"""What relevo.toml means where it says nothing: a peer that does not answer is given up after one `timeout`, and
nothing bounds a resync; the rest is as in drbd."""


def words_of(choice: Any) -> tuple[str, ...]:
    """The words of one of the types above."""
    return tuple(get_args(choice))
