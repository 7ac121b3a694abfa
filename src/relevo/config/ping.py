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
INTERVALS_IN_DEADPING = 5
"""Two servers must not differ for longer about a target that nobody reaches: see docs/internals/manager.md."""


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


def read_ping(root: Table) -> Ping:
    """The section; one without targets when it is left out, or when it cannot be understood."""
    if not root.has("ping"):
        return Ping()
    table = root.table("ping")
    default = Ping()
    interval_ms = table.duration_ms("interval", default.interval_ms)
    longest_ms = max(default.deadping_ms, INTERVALS_IN_DEADPING * interval_ms)
    ping = Ping(
        targets=_targets(table),
        interval_ms=interval_ms,
        deadping_ms=table.duration_ms("deadping", longest_ms),
        settle_ms=table.duration_ms("settle", default.settle_ms, zero=True),
    )
    if table.sound and interval_ms < MIN_INTERVAL_MS:
        table.wrong("interval", "is too short.", f'Write at least "{format_duration_ms(MIN_INTERVAL_MS)}".')
    if table.sound and ping.deadping_ms < INTERVALS_IN_DEADPING * interval_ms:
        least = format_duration_ms(INTERVALS_IN_DEADPING * interval_ms)
        what = f"is shorter than {INTERVALS_IN_DEADPING} times interval: a few lost packets would move services."
        table.wrong("deadping", what, f'Write at least "{least}", or a shorter interval.')
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
