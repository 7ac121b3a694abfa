"""Who is told of trouble, and how: `[[alerts]]` and `[alerts_policy]` of relevo.toml."""

from __future__ import annotations

import os
import pathlib
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from relevo.config.table import Table, nearest

KINDS = (
    "node_lost",
    "one_copy",
    "resync_stuck",
    "split_brain",
    "witness_lost",
    "ping_lost",
    "configuration_differs",
    "service_down",
    "service_twice",
    "service_blocked",
    "certificate",
)
"""Everything that people can be told of."""
LANGUAGES = ("en", "es")
Language = Literal["en", "es"]
MAX_TARGETS = 16
MAX_PORT = 65_535
PORTS = {"none": 25, "starttls": 587, "tls": 465}
"""How a mail server is usually reached."""
MIN_HOLD_MS = 1000
"""Shorter than this a hold time does not leave the servers the time to hear of each other what they have told."""


class MailAlert(msgspec.Struct, frozen=True, kw_only=True, tag="mail", tag_field="type"):
    """A mail by SMTP (RFC 5321).

    Attributes:
        name: how the status and `secrets.toml` call it.
        server, port: where the mail is handed in.
        sender, to: addresses.
        tls: `starttls` and `tls` verify the server's certificate.
        user, password: empty: the server asks for none.
        events: the kinds that are told, of `KINDS`.
        language: of the text.
    """

    name: str
    server: str
    port: int
    sender: str
    to: tuple[str, ...]
    tls: Literal["none", "starttls", "tls"] = "none"
    user: str = ""
    password: str = ""
    events: tuple[str, ...] = KINDS
    language: Language = "en"


class WebhookAlert(msgspec.Struct, frozen=True, kw_only=True, tag="webhook", tag_field="type"):
    """A JSON object, by POST, to an HTTP server. `url` is where; the rest as in `MailAlert`."""

    name: str
    url: str
    events: tuple[str, ...] = KINDS
    language: Language = "en"


class CommandAlert(msgspec.Struct, frozen=True, kw_only=True, tag="command", tag_field="type"):
    """A program that gets the JSON object on its standard input. `argv` is its command line; the rest as above."""

    name: str
    argv: tuple[str, ...]
    events: tuple[str, ...] = KINDS
    language: Language = "en"


AlertTarget = MailAlert | WebhookAlert | CommandAlert


class AlertsPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When people are told.

    Attributes:
        raise_after_ms: trouble is told when it has lasted so long, without a break.
        clear_after_ms: its end is told when it has been over for so long, without a break.
        stuck_after_ms: a resync that has not moved for so long is stuck.
    """

    raise_after_ms: int = 10_000
    clear_after_ms: int = 10_000
    stuck_after_ms: int = 120_000


def read_alerts(root: Table) -> tuple[tuple[AlertTarget, ...], AlertsPolicy]:
    """Both sections; what cannot be understood is written down and left out."""
    policy = _policy(root.table("alerts_policy"))
    tables = root.tables("alerts") if root.has("alerts") else []
    if len(tables) > MAX_TARGETS:
        root.wrong("alerts", f"has {len(tables)} entries.", f"Write at most {MAX_TARGETS}.")
    found: list[AlertTarget] = []
    for table in tables:
        target = _target(table)
        if target is None:
            continue
        if target.name in {other.name for other in found}:
            table.wrong("name", f"is used twice: {target.name!r}.", "Give each of the alerts a name of its own.")
        found.append(target)
    return tuple(found), policy


def remarks(targets: tuple[AlertTarget, ...]) -> tuple[str, ...]:
    """What is allowed, but weak, or will not work on this server: one sentence each."""
    open_ones = (target for target in targets if isinstance(target, MailAlert) and target.user and target.tls == "none")
    commands = (target for target in targets if isinstance(target, CommandAlert))
    return (
        *(f'The alert {mail.name} sends its password as it is (tls = "none").' for mail in open_ones),
        *(
            f"The alert {command.name} cannot run on this server: {command.argv[0]} is no program."
            for command in commands
            if not os.access(command.argv[0], os.X_OK)
        ),
    )


def _policy(table: Table) -> AlertsPolicy:
    default = AlertsPolicy()
    policy = AlertsPolicy(
        raise_after_ms=table.duration_ms("raise_after", default.raise_after_ms),
        clear_after_ms=table.duration_ms("clear_after", default.clear_after_ms),
        stuck_after_ms=table.duration_ms("stuck_after", default.stuck_after_ms),
    )
    for key, value_ms in (("raise_after", policy.raise_after_ms), ("clear_after", policy.clear_after_ms)):
        if table.sound and value_ms < MIN_HOLD_MS:
            table.wrong(key, "is too short.", f'Write at least "{MIN_HOLD_MS // 1000} s".')
    table.finish()
    return policy


def _target(table: Table) -> AlertTarget | None:
    kind = table.choice("type", ("mail", "webhook", "command"))
    if not table.sound:
        return None  # which keys it may have depends on its type
    name = table.name("name", kind)
    events = _events(table)
    language: Language = table.choice("language", LANGUAGES, "en")
    target: AlertTarget
    if kind == "mail":
        target = _mail(table, name, events, language)
    elif kind == "webhook":
        target = WebhookAlert(name=name, url=_url(table), events=events, language=language)
    else:
        target = CommandAlert(name=name, argv=_argv(table), events=events, language=language)
    table.finish()
    return target if table.sound else None


def _events(table: Table) -> tuple[str, ...]:
    if not table.has("events"):
        return KINDS
    events = table.texts("events", '["node_lost", "one_copy"]')
    for event in events:
        if event not in KINDS:
            table.wrong("events", f"has no {event!r}.", nearest(event, KINDS))
    if not events:
        table.wrong("events", "is empty.", "Name some, or leave the line out: all of them.")
    return events


def _mail(table: Table, name: str, events: tuple[str, ...], language: Language) -> MailAlert:
    tls = table.choice("tls", tuple(PORTS), "none")
    mail = MailAlert(
        name=name,
        server=table.text("server", None, '"mail.example.org"'),
        port=table.integer("port", PORTS[tls], 1, MAX_PORT),
        sender=table.text("from", None, '"relevo@example.org"'),
        to=table.texts("to", '["admin@example.org"]'),
        tls=tls,
        user=table.text("user", None) if table.has("user") else "",
        events=events,
        language=language,
    )
    if not mail.to:
        table.wrong("to", "names nobody.", 'Write to = ["admin@example.org"].')
    for key, address in (("from", mail.sender), *(("to", address) for address in mail.to)):
        if table.sound and not _is_address(address):
            table.wrong(key, f"is no mail address: {address!r}.", 'Write one such as "admin@example.org".')
    return mail


def _is_address(text: str) -> bool:
    local, at, domain = text.rpartition("@")
    return bool(local and at and domain) and text.isascii() and text.isprintable() and not set(text) & set(' ,;<>"')


def _url(table: Table) -> str:
    url = table.text("url", None, '"https://example.org/hook"')
    try:
        parts = urlsplit(url)
        right = (
            parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0 and parts.username is None
        )
    except ValueError:
        right = False
    if url and not right:
        table.wrong("url", f"is no http or https address: {url!r}.", 'Write one such as "https://example.org/hook".')
    return url


def _argv(table: Table) -> tuple[str, ...]:
    argv = table.texts("argv", '["/usr/local/bin/tell"]')
    if not argv or not pathlib.Path(argv[0]).is_absolute():
        table.wrong("argv", "does not begin with the full path of a program.", 'Write ["/usr/local/bin/tell"].')
    return argv
