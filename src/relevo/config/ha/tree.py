"""What Heartbeat's files say, complete: its defaults are filled in where a line is missing."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal

from relevo.config.errors import ConfigError

Failback = Literal["on", "off", "legacy"]


@dataclasses.dataclass(frozen=True, slots=True)
class Medium:
    """One way on which heartbeats travel.

    Attributes:
        kind: `bcast`, `ucast` or `mcast`.
        interface: the network card.
        address: the peer's (ucast) or the group's (mcast); empty for bcast.
        port: UDP port; ttl: of mcast.
        line: where it stands.
    """

    kind: Literal["bcast", "ucast", "mcast"]
    interface: str
    address: str
    port: int
    line: int
    ttl: int = 1


@dataclasses.dataclass(slots=True)
class HaCf:
    """ha.cf.

    Attributes:
        file: its path.
        keepalive_ms, warntime_ms, deadtime_ms, initdead_ms, deadping_ms: as in Heartbeat.
        udpport: of bcast and ucast media that come after the line.
        media: in their order.
        nodes: names as `uname -n` gives them, in their order.
        failback: auto_failback; `legacy` where the file says nothing.
        pings: addresses outside of the cluster that are asked for an answer.
        ping_groups: name -> addresses of which one has to answer.
        logfile, debugfile, logfacility, watchdog: as written; empty: not said.
        stonith: the lines `stonith_host` and `stonith`, in words.
        lines: directive -> line of its last occurrence.
        mistakes: what is wrong; warnings: what is read and has no meaning any more.
    """

    file: pathlib.Path
    keepalive_ms: int = 1000
    warntime_ms: int = 0
    deadtime_ms: int = 30_000
    initdead_ms: int = 0
    deadping_ms: int = 0
    udpport: int = 694
    media: list[Medium] = dataclasses.field(default_factory=list)
    nodes: list[str] = dataclasses.field(default_factory=list)
    failback: Failback = "legacy"
    pings: list[str] = dataclasses.field(default_factory=list)
    ping_groups: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    logfile: str = ""
    debugfile: str = ""
    logfacility: str = ""
    watchdog: str = ""
    stonith: list[tuple[str, ...]] = dataclasses.field(default_factory=list)
    lines: dict[str, int] = dataclasses.field(default_factory=dict)
    mistakes: list[ConfigError] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Word:
    """One resource of haresources: `Filesystem::/dev/drbd0::/srv::ext4` is the agent and three arguments."""

    agent: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return "::".join((self.agent, *self.arguments))


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """One line of haresources: what runs together, in this order, and where it belongs."""

    node: str
    words: tuple[Word, ...]
    line: int
