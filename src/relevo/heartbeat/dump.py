"""Heartbeats as people read them: one line a message, whoever sent it. Pure; where they come from: `capture`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping

import msgspec

from relevo.config.model import AuthKey
from relevo.heartbeat import wire
from relevo.heartbeat.capture import Datagram
from relevo.heartbeat.wire import Message, WireError

REMEMBERED = 4096
"""Of so many messages it is known that they came before."""
_TYPE_COLUMNS = 14


class Seen(msgspec.Struct, frozen=True):
    """A datagram taken apart: its message (None: it is none), and what is wrong with it or its signature."""

    message: Message | None
    problem: str


def look(datagram: bytes, keys: Mapping[int, AuthKey] | None) -> Seen:
    """Read a datagram; a wrong signature does not hide what it says. `keys` None: signatures are not looked at."""
    problems: list[str] = []

    def check(number: int, given: bytes, covered: bytes, accepted: Mapping[int, AuthKey]) -> None:
        if keys is None:
            return
        try:
            wire.verify(number, given, covered, accepted)
        except WireError as error:
            problems.append(error.what)

    try:
        message = wire.decode(datagram, keys or {}, check)
    except WireError as error:
        return Seen(None, error.what)
    return Seen(message, " ".join(problems))


def _number(message: Message, name: str) -> str:
    """A hexadecimal field in decimal; what is none is shown as it is."""
    text = message.text(name) or ""
    try:
        return str(int(text, 16))
    except ValueError:
        return f"?{message.printable(name)}"


def _status(message: Message) -> str:
    said = message.printable("st")
    dead = message.text("dt")
    return f"is {said}" + (f", deadtime {_number(message, 'dt')} ms" if dead else "")


def _resource(message: Message) -> str:
    held = {"none": "nothing", "local": "its own", "foreign": "the other's", "all": "everything"}
    said = message.printable("rsc_hold")
    parts = [f"holds {held.get(said, said)}"]
    stable = message.text("isstable")
    if stable is not None:
        parts.append("stable" if stable == "1" else "not stable yet")
    if message.text("info"):
        parts.append(message.printable("info"))
    return ", ".join(parts)


def _ask(message: Message) -> str:
    info, what = message.printable("info"), message.printable("rsc_hold")
    meaning = {
        "me": f"wants to give away {what} resources",
        "other": f"agrees to take {what} resources",
        "done": f"has finished handing over {what} resources",
    }
    return meaning.get(info, f"{what} resources: {info}")


def _again(message: Message) -> str:
    return f"asks {message.printable('dest')} again for {message.printable('firstseq')}-{message.printable('lastseq')}"


_SENTENCES: dict[str, Callable[[Message], str]] = {
    "status": _status,
    "NS_st": _status,
    "resource": _resource,
    "ask_resources": _ask,
    "starting": lambda _: "is ready for resources",
    "shutdone": lambda _: "has stopped everything: it is gone in order",
    "reqnodes": lambda message: f"asks {message.printable('dest')} for its list of nodes",
    "repnodes": lambda message: f"tells {message.printable('dest')} its nodes: {message.printable('nodelist')}",
    "stonith": lambda message: f"takes over from {message.printable('node')} ({message.printable('result')})",
    "NS_ackmsg": lambda message: f"has {message.printable('dest')}'s messages up to {_number(message, 'ackseq')}",
    "NS_rexmit": _again,
    "NS_nak_rexmit": lambda message: f"no longer has what {message.printable('dest')} asks for",
    "ip-request-resp": lambda message: f"may take {message.printable('ipaddr')} ({message.printable('ok')})",
}


class Dump:
    """Says of each datagram what it is.

    Args:
        keys: verify signatures; None: they are not looked at.
        zone: of the times.
    """

    def __init__(self, keys: Mapping[int, AuthKey] | None, zone: dt.tzinfo | None = None) -> None:
        self._keys = keys
        self._zone = zone
        self._before: dict[tuple[str, str, str], None] = {}

    def line(self, datagram: Datagram) -> str:
        """One line, without its end; nothing in a message reaches the terminal as it is."""
        return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in self._line(datagram))

    def _line(self, datagram: Datagram) -> str:
        at = dt.datetime.fromtimestamp(datagram.at_ms / 1000, dt.UTC).astimezone(self._zone)
        card = f"{datagram.interface} " if datagram.interface else ""
        where = f"{at:%H:%M:%S}.{at.microsecond // 1000:03d} {card}{datagram.source} > {datagram.target}"
        seen = look(datagram.payload, self._keys)
        if seen.message is None:
            return f"{where}  no heartbeat ({len(datagram.payload)} bytes): {seen.problem}"
        message = seen.message
        kind = message.printable("t")
        sentence = _SENTENCES.get(kind, _fields)(message)
        numbered = ""
        if message.text("seq"):
            numbered = f"  #{_number(message, 'seq')} of generation {_number(message, 'hg')}"
            numbered += ", again" if self._came_before(message) else ""
        wrong = f"  NOT ACCEPTED: {seen.problem}" if seen.problem else ""
        return f"{where}  {message.printable('src')} {kind:<{_TYPE_COLUMNS}} {sentence}{numbered}{wrong}"

    def _came_before(self, message: Message) -> bool:
        key = (message.printable("src"), message.printable("hg"), message.printable("seq"))
        if key in self._before:
            return True
        self._before[key] = None
        if len(self._before) > REMEMBERED:
            del self._before[next(iter(self._before))]
        return False


def _fields(message: Message) -> str:
    """A type that is not known here: everything that it says."""
    shown = [f"{name}={message.printable(name)}" for name, value in message.fields if isinstance(value, str)]
    return " ".join(part for part in shown if not part.startswith(("t=", "src=", "auth=", "ts=", "ld=", "ttl=")))
