"""Addresses outside of the cluster that each server asks for an answer: `[ping]` (ha.cf: ping, ping_group)."""

from __future__ import annotations

from ipaddress import IPv4Address

import msgspec

from relevo.base.units import format_duration_ms
from relevo.config.table import Table

MAX_TARGETS = 16
MAX_ADDRESSES = 16
"""Of one target."""
MIN_INTERVAL_MS = 100
DOUBT_INTERVALS = 2.5
"""After so many intervals without an answer, two questions in a row, a target is doubtful."""
DEADPING_INTERVALS = 4
"""deadping is at least so many intervals and deadtime: see docs/internals/manager.md for what that is good for."""
SETTLE_INTERVALS = 4
"""settle is at least so many intervals."""


class Ping(msgspec.Struct, frozen=True, kw_only=True):
    """What each server asks, and when it counts as reached.

    Attributes:
        targets: name -> addresses, of which one has to answer; empty: nothing is asked.
        interval_ms: pause between two questions to an address.
        deadping_ms: a target that has been silent for so long is lost.
        settle_ms: a target counts as reached when it has answered for so long, without a break.
    """

    targets: dict[str, tuple[IPv4Address, ...]] = {}
    interval_ms: int = 1000
    deadping_ms: int = 10_000
    settle_ms: int = 60_000


def least_deadping_ms(interval_ms: int, deadtime_ms: int) -> int:
    """The shortest deadping with which a target that nobody reaches moves nothing.

    A server that says "lost" must know by then that the other one is in doubt. The other one's last answer came at most
    one interval later, it doubts 2.5 intervals after that and looks twice in an interval: 4. What it publishes arrives
    within deadtime, or it counts as dead and gets nothing.
    """
    return DEADPING_INTERVALS * interval_ms + deadtime_ms


def read_ping(root: Table, deadtime_ms: int) -> Ping:
    """The section; one without targets when it is left out, or when it cannot be understood."""
    if not root.has("ping"):
        return Ping()
    table = root.table("ping")
    default = Ping()
    interval_ms = table.duration_ms("interval", default.interval_ms)
    least_ms = least_deadping_ms(interval_ms, deadtime_ms)
    ping = Ping(
        targets=_targets(table),
        interval_ms=interval_ms,
        deadping_ms=table.duration_ms("deadping", max(default.deadping_ms, least_ms)),
        settle_ms=table.duration_ms("settle", max(default.settle_ms, SETTLE_INTERVALS * interval_ms)),
    )
    if table.sound and interval_ms < MIN_INTERVAL_MS:
        table.wrong("interval", "is too short.", f'Write at least "{format_duration_ms(MIN_INTERVAL_MS)}".')
    if table.sound and ping.deadping_ms < least_ms:
        what = f"is shorter than deadtime and {DEADPING_INTERVALS} intervals: the servers could not compare in time."
        table.wrong("deadping", what, f'Write at least "{format_duration_ms(least_ms)}", or a shorter interval.')
    if table.sound and ping.settle_ms < SETTLE_INTERVALS * interval_ms:
        least = format_duration_ms(SETTLE_INTERVALS * interval_ms)
        table.wrong("settle", f"is shorter than {SETTLE_INTERVALS} intervals.", f'Write at least "{least}".')
    table.finish()
    return ping if table.sound else Ping()


def _targets(table: Table) -> dict[str, tuple[IPv4Address, ...]]:
    inner = table.table("targets", required=True)
    example = '["192.168.0.1"]'
    found = {}
    for name in inner.names():
        texts = inner.texts(name, example)
        addresses = tuple(address for text in texts if (address := _address(inner, name, text)) is not None)
        if inner.sound and not addresses:
            inner.wrong(name, "names no address.", f"Write {name} = {example}.")
        if len(texts) > MAX_ADDRESSES:
            inner.wrong(name, f"has {len(texts)} addresses.", f"Write at most {MAX_ADDRESSES}.")
        found[name] = addresses
    if inner.sound and not found:
        table.wrong("targets", "is empty.", f"Write one, such as router = {example}, or remove [ping].")
    if len(found) > MAX_TARGETS:
        table.wrong("targets", f"has {len(found)} entries.", f"Write at most {MAX_TARGETS}.")
    table.sound = table.sound and inner.sound
    return found


def _address(table: Table, name: str, text: str) -> IPv4Address | None:
    try:
        address = IPv4Address(text)
    except ValueError:
        table.wrong(name, f"has {text!r}, which is not an IPv4 address.", f'Write {name} = ["192.168.0.1"].')
        return None
    if address.is_multicast or address.is_unspecified or address.is_loopback or address.is_reserved:
        table.wrong(name, f"has {text}, which is no other machine's address.", "Write the address of a router.")
    return address


def remarks(ping: Ping, *, decided: bool) -> tuple[str, ...]:
    """What ping targets do not do, where somebody may believe that they do.

    Args:
        ping: what is configured.
        decided: a witness, or fencing of every server, decides who may write.
    """
    if not ping.targets or decided:
        return ()
    names = ", ".join(ping.targets)
    sentence = (
        f"Ping targets ({names}) take no witness's place: they move a service to the server that still reaches them, "
        "and have no say in who may write when the servers lose each other. For that configure [witness] or fencing."
    )
    return (sentence,)
