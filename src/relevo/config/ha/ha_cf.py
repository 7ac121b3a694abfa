"""Reads ha.cf as Heartbeat 3.0.6 does.

A `#` begins a comment wherever it stands. A line is a directive and its words. Times are seconds unless a unit follows
the number (`200ms`, `500us`, `2s`, `1min`). Media take the udpport that was set before them. Where a line is missing:
keepalive 1 s, deadtime 30 s, warntime half of deadtime; initdead is deadtime above 10 s, 12 s below a deadtime of 6 s,
and twice deadtime between.
"""

from __future__ import annotations

import ipaddress
import math
import pathlib
import re
from collections.abc import Callable

from relevo.config.errors import ConfigError
from relevo.config.ha.tree import HaCf, Medium
from relevo.config.names import is_name
from relevo.config.table import nearest

MAX_PORT = 65535
MAX_FILE_BYTES = 1 << 20
_UNITS_MS = {"us": 0.001, "usec": 0.001, "ms": 1, "msec": 1, "": 1000, "s": 1000, "sec": 1000}
_UNITS_MS |= {"m": 60_000, "min": 60_000, "h": 3_600_000, "hr": 3_600_000}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.ASCII)
_TRUE, _FALSE = {"true", "on", "yes", "y", "1"}, {"false", "off", "no", "n", "0"}
_MEANS_NOTHING = {
    **dict.fromkeys(("serial", "baud"), "heartbeats travel over networks; add a second link instead"),
    **dict.fromkeys(
        ("respawn", "apiauth", "hbgenmethod", "hopfudge", "realtime", "rtprio", "debug", "msgfmt", "compression"),
        "Relevo has no use for it",
    ),
    **dict.fromkeys(
        ("compression_threshold", "traditional_compression", "conn_logd_time", "use_logd", "memreserve", "uuidfrom"),
        "Relevo has no use for it",
    ),
    **dict.fromkeys(("crm", "cluster", "quorum", "quorum_server", "tiebreaker"), "Relevo decides by itself"),
    **dict.fromkeys(("autojoin", "deadping_action", "coredumps", "coreroot", "hbaping"), "Relevo has no use for it"),
    "opengroup": "Relevo has no use for it",
}
"""Directives of Heartbeat that are known, and why they have no effect."""


def read_ha_cf(path: pathlib.Path) -> HaCf:
    """What the file says; what is wrong with it is in `mistakes`, what has no effect in `warnings`."""
    found = HaCf(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        text = data.decode()
    except OSError as error:
        found.mistakes.append(ConfigError(path, None, f"It cannot be read ({error.strerror}).", "Check the path."))
        return found
    except UnicodeDecodeError:
        found.mistakes.append(ConfigError(path, None, "This is not UTF-8.", "Save the file as UTF-8."))
        return found
    if len(data) > MAX_FILE_BYTES:
        found.mistakes.append(ConfigError(path, None, "It is larger than 1 MiB.", "This is no ha.cf."))
        return found
    reader = _Reader(found)
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            reader.directive(number, words[0], words[1:])
    reader.finish()
    return found


class _Reader:
    def __init__(self, found: HaCf) -> None:
        self._found = found
        self._line = 0
        self._directive = ""
        times = ("keepalive", "deadtime", "warntime", "initdead", "deadping")
        texts = ("logfile", "debugfile", "logfacility", "watchdog")
        self._known: dict[str, Callable[[list[str]], None]] = {
            **dict.fromkeys(times, self._time),
            **dict.fromkeys(texts, self._text),
            "udpport": self._udpport,
            "bcast": self._bcast,
            "udp": self._bcast,
            "ucast": self._ucast,
            "mcast": self._mcast,
            "auto_failback": self._auto_failback,
            "nice_failback": self._nice_failback,
            "node": self._node,
            "ping": self._ping,
            "ping_group": self._ping_group,
            "stonith_host": self._stonith,
            "stonith": self._stonith,
        }

    def _wrong(self, what: str, remedy: str, line: int | None = None) -> None:
        self._found.mistakes.append(ConfigError(self._found.file, line or self._line, what, remedy))

    def directive(self, line: int, name: str, words: list[str]) -> None:
        """One line."""
        self._line, self._directive = line, name
        read = self._known.get(name)
        if read is not None:
            self._found.lines[name] = line
            read(words)
        elif name in _MEANS_NOTHING:
            self._found.warnings.append(f"{self._found.file}:{line}: {name} has no effect: {_MEANS_NOTHING[name]}.")
        else:
            self._wrong(f"{name!r} is no directive of ha.cf.", nearest(name, (*self._known, *_MEANS_NOTHING)))

    # ---- one value ---------------------------------------------------------------------------------------------

    def _one(self, words: list[str], example: str) -> str | None:
        if len(words) == 1:
            return words[0]
        what = f"has {len(words)} values" if words else "has no value"
        self._wrong(f"{self._directive} {what}.", f"Write {self._directive} {example}.")
        return None

    def _time(self, words: list[str]) -> None:
        written = self._one(["".join(words)] if words else [], "500ms")
        if written is None:
            return
        match = _TIME.fullmatch(written)
        if match is None or match[2] not in _UNITS_MS:
            self._wrong(f"{written!r} is no time.", f"Write seconds, or a unit: {self._directive} 2, 500ms.")
            return
        value_ms = math.ceil(float(match[1]) * _UNITS_MS[match[2]])
        if not value_ms:
            self._wrong(f"{self._directive} is zero.", f"Write another, such as {self._directive} 500ms.")
        setattr(self._found, f"{self._directive}_ms", value_ms)

    def _text(self, words: list[str]) -> None:
        written = self._one(words, "…")
        if written is not None:
            setattr(self._found, self._directive, written)

    def _port(self, written: str) -> int:
        if written.isascii() and written.isdigit() and 0 < int(written) <= MAX_PORT:
            return int(written)
        self._wrong(f"{written!r} is no port.", f"Write a number from 1 to {MAX_PORT}.")
        return self._found.udpport

    def _udpport(self, words: list[str]) -> None:
        written = self._one(words, "694")
        if written is None:
            return
        if self._found.media:
            self._wrong("udpport has no effect on the media above it.", "Write it above bcast, ucast and mcast.")
        self._found.udpport = self._port(written)

    def _boolean(self, words: list[str]) -> bool | None:
        written = self._one(words, "on")
        if written is None:
            return None
        if written.lower() in _TRUE | _FALSE:
            return written.lower() in _TRUE
        self._wrong(f"{self._directive} cannot be {written!r}.", "Write on or off.")
        return None

    def _auto_failback(self, words: list[str]) -> None:
        if words == ["legacy"]:
            self._found.failback = "legacy"
            return
        value = self._boolean(words)
        if value is not None:
            self._found.failback = "on" if value else "off"

    def _nice_failback(self, words: list[str]) -> None:
        value = self._boolean(words)
        if value is not None:
            self._found.failback = "off" if value else "legacy"

    # ---- several -----------------------------------------------------------------------------------------------

    def _bcast(self, words: list[str]) -> None:
        if not words:
            self._wrong(f"{self._directive} names no network card.", f"Write {self._directive} eth0.")
        for word in words:
            self._found.media.append(Medium("bcast", word, "", self._found.udpport, self._line))

    def _address(self, written: str, *, group: bool = False) -> bool:
        try:
            address = ipaddress.ip_address(written)
        except ValueError:
            self._wrong(f"{written!r} is no address.", "Write an address such as 192.168.0.28.")
            return False
        if address.is_multicast is not group:
            kind = "a group" if group else "one machine's"
            self._wrong(f"{written} is not {kind}.", f"Write {'225.0.0.1' if group else '192.168.0.28'}, for example.")
            return False
        return True

    def _ucast(self, words: list[str]) -> None:
        if len(words) != 2:
            self._wrong("ucast takes a network card and the peer's address.", "Write ucast eth0 192.168.0.28.")
        elif self._address(words[1]):
            self._found.media.append(Medium("ucast", words[0], words[1], self._found.udpport, self._line))

    def _mcast(self, words: list[str]) -> None:
        if len(words) != 5:
            self._wrong("mcast takes card, group, port, ttl and loop.", "Write mcast eth0 225.0.0.1 694 1 0.")
            return
        card, group, port, ttl, loop = words
        if not (ttl.isdigit() and 0 < int(ttl) < 256) or loop not in {"0", "1"}:
            self._wrong(f"ttl {ttl!r} and loop {loop!r} do not fit.", "ttl is 1 to 255, loop is 0.")
        elif self._address(group, group=True):
            self._found.media.append(Medium("mcast", card, group, self._port(port), self._line, int(ttl)))

    def _node(self, words: list[str]) -> None:
        if not words:
            self._wrong("node names no node.", "Write node and the names that uname -n gives.")
        for word in words:
            if not is_name(word):
                self._wrong(f"{word!r} is no node's name.", "Write the name that uname -n gives there.")
            elif word in self._found.nodes:
                self._wrong(f"Node {word} is there twice.", "Name each node once.")
            else:
                self._found.nodes.append(word)

    def _ping(self, words: list[str]) -> None:
        if not words:
            self._wrong("ping names no address.", "Write ping 192.168.0.1.")
        self._found.pings += [word for word in words if self._address(word)]

    def _ping_group(self, words: list[str]) -> None:
        if len(words) < 2:
            self._wrong("ping_group takes a name and addresses.", "Write ping_group routers 192.168.0.1 192.168.0.2.")
        elif sum(self._address(word) for word in words[1:]) == len(words) - 1:
            self._found.ping_groups[words[0]] = tuple(words[1:])

    def _stonith(self, words: list[str]) -> None:
        least = 2 if self._directive == "stonith" else 3
        if len(words) < least:
            self._wrong(f"{self._directive} has too few words.", "Write stonith_host * TYPE PARAMETERS.")
        self._found.stonith.append((self._directive, *words))

    # ---- the end -----------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Fill in the defaults, and see whether the values fit each other."""
        found = self._found
        dead = found.deadtime_ms
        found.warntime_ms = found.warntime_ms or dead // 2
        found.deadping_ms = found.deadping_ms or dead
        if not found.initdead_ms:
            shortest = 12_000 if dead < 6000 else 2 * dead
            found.initdead_ms = dead if dead > 10_000 else shortest
        if not found.media:
            self._wrong("No line says how heartbeats travel.", "Write bcast eth0, for example.", 1)
        if not found.nodes:
            self._wrong("No node is named.", "Write node and the names that uname -n gives.", 1)
        line = found.lines.get("deadtime", found.lines.get("keepalive", 1))
        if dead <= 2 * found.keepalive_ms:
            what = f"deadtime {dead} ms is too short for a keepalive of {found.keepalive_ms} ms."
            self._wrong(what, "deadtime is more than twice keepalive.", line)
        if found.initdead_ms < dead:
            what = f"initdead {found.initdead_ms} ms is shorter than deadtime {dead} ms."
            self._wrong(what, "initdead is at least deadtime.", found.lines.get("initdead", line))
