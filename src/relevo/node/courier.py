"""Delivers alerts: by mail, by HTTP, to a command. Each target has its own queue and task; nobody waits for them."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime as dt
import email.utils
import http.client
import os
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterable
from email.message import EmailMessage
from urllib.parse import urlsplit

import msgspec
import structlog

from relevo.agents.aside import aside
from relevo.agents.base import AgentFailed
from relevo.agents.tools import run_tool
from relevo.base.control import Message
from relevo.base.errors import RelevoError
from relevo.config.alerts import AlertTarget, CommandAlert, MailAlert, WebhookAlert
from relevo.node.notice import mail_of, notice_of
from relevo.node.trouble import Alert

MAX_WAITING = 100
"""Alerts that wait for one target; with more the oldest is dropped, and counted."""
ATTEMPT_LIMIT_S = 20.0
"""How long a command may take, and how long a server may leave one question unanswered."""
WHOLE_LIMIT_S = 60.0
"""How long a mail or a webhook may take in all: a server that answers byte by byte holds up nobody for ever."""
FIRST_PAUSE_S = 5.0
MAX_PAUSE_S = 300.0
"""Pauses between attempts double from the one to the other; an alert is tried until it is delivered."""
MAX_SAID = 300
"""Of what a target says about a failure, in characters."""
_Line = http.client.HTTPConnection | smtplib.SMTP
_log = structlog.get_logger()


class NotDelivered(RelevoError):
    """A target did not take an alert."""


class Courier:
    """The way to one target.

    Args:
        target: who is told.
        cluster, me: who tells.
        waiting: what an earlier run of this daemon has not delivered.
        changed: called when what waits has changed.

    Attributes:
        waiting: notices that are not delivered yet, oldest first.
        trouble: why the last attempt failed; empty when it did not.
        dropped: how many were given up because too many waited.
    """

    def __init__(
        self, target: AlertTarget, cluster: str, me: str, waiting: Iterable[Message], changed: Callable[[], None]
    ) -> None:
        self.target = target
        self.waiting = collections.deque(waiting, maxlen=MAX_WAITING)
        self.trouble = ""
        self.dropped = 0
        self._cluster = cluster
        self._me = me
        self._changed = changed
        self._news = asyncio.Event()
        if self.waiting:
            self._news.set()

    def add(self, alert: Alert) -> None:
        """Take an alert, if this target is told of its kind."""
        if alert.kind in self.target.events:
            self.dropped += len(self.waiting) == MAX_WAITING
            self.waiting.append(self.notice(alert))
            self._news.set()

    def notice(self, alert: Alert) -> Message:
        """The alert of this moment as the target gets it."""
        at = dt.datetime.now(tz=dt.UTC).isoformat(timespec="seconds")
        return notice_of(alert, self.target.language, cluster=self._cluster, node=self._me, at=at)

    async def run(self) -> None:
        """Deliver until cancelled."""
        pause_s = FIRST_PAUSE_S
        while True:
            await self._news.wait()
            self._news.clear()
            while self.waiting:
                first = self.waiting[0]
                try:
                    await deliver(self.target, first)
                except NotDelivered as error:
                    if self.trouble != str(error):
                        self.trouble = str(error)
                        self._changed()
                        _log.warning("alert_not_delivered", target=self.target.name, why=self.trouble)
                    await asyncio.sleep(pause_s)  # nothing tells when the target can be reached again
                    pause_s = min(MAX_PAUSE_S, 2 * pause_s)
                    continue
                pause_s, self.trouble = FIRST_PAUSE_S, ""
                if self.waiting and self.waiting[0] is first:
                    self.waiting.popleft()
                self._changed()


async def deliver(target: AlertTarget, notice: Message) -> None:
    """One attempt.

    Raises:
        NotDelivered: the target did not take it.
    """
    try:
        match target:
            case MailAlert():
                await _in_time(lambda lines: _mail(target, notice, lines))
            case WebhookAlert():
                await _in_time(lambda lines: _post(target, notice, lines))
            case CommandAlert():
                await _run(target, notice)
    except NotDelivered:
        raise
    except TimeoutError:
        raise _failed(target, f"no whole answer within {ATTEMPT_LIMIT_S:.0f} s") from None
    except (OSError, smtplib.SMTPException, http.client.HTTPException, ValueError) as error:
        raise _failed(target, str(error) or type(error).__name__) from error


def _failed(target: AlertTarget, why: str) -> NotDelivered:
    return NotDelivered(f"The alert {target.name} cannot be delivered: {why[:MAX_SAID].rstrip('.')}.")


def _mail(target: MailAlert, notice: Message, lines: list[_Line]) -> None:
    message = EmailMessage()
    message["Subject"], body = mail_of(notice, target.language)
    message["From"], message["To"] = target.sender, ", ".join(target.to)
    message["Date"] = email.utils.format_datetime(dt.datetime.fromisoformat(notice["at"]))
    message["Message-ID"] = email.utils.make_msgid(domain=target.sender.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(body)
    if target.tls == "tls":
        context = ssl.create_default_context()
        server: smtplib.SMTP = smtplib.SMTP_SSL(target.server, target.port, timeout=ATTEMPT_LIMIT_S, context=context)
    else:
        server = smtplib.SMTP(target.server, target.port, timeout=ATTEMPT_LIMIT_S)
    lines.append(server)
    with contextlib.closing(server):
        if target.tls == "starttls":
            server.starttls(context=ssl.create_default_context())
        if target.user:
            server.login(target.user, target.password)
        refused = server.send_message(message)
        with contextlib.suppress(OSError, smtplib.SMTPException):  # it has taken the mail: no second one for a bad end
            server.quit()
    if refused:
        _log.warning("mail_refused", target=target.name, refused=sorted(refused))


def _post(target: WebhookAlert, notice: Message, lines: list[_Line]) -> None:
    parts = urlsplit(target.url)
    host = parts.hostname or ""
    if parts.scheme == "https":
        context = ssl.create_default_context()
        line: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, parts.port, timeout=ATTEMPT_LIMIT_S, context=context
        )
    else:
        line = http.client.HTTPConnection(host, parts.port, timeout=ATTEMPT_LIMIT_S)
    lines.append(line)
    with contextlib.closing(line):
        where = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        line.request("POST", where, msgspec.json.encode(notice), {"Content-Type": "application/json"})
        with line.getresponse() as answer:
            if answer.status // 100 != _SUCCESS:
                raise _failed(target, f"{host} answers {answer.status} {answer.reason}".rstrip())


_SUCCESS = 2
"""First digit of HTTP's codes of success."""


async def _in_time(work: Callable[[list[_Line]], None]) -> None:
    """Wait for a thread of its own, for so long: its connection is ended then, and with it the thread.

    Raises:
        TimeoutError: it took too long.
    """
    lines: list[_Line] = []
    try:
        async with asyncio.timeout(WHOLE_LIMIT_S):
            await aside(lambda: work(lines))
    except TimeoutError:
        for line in lines:
            if line.sock is not None:
                with contextlib.suppress(OSError):
                    line.sock.shutdown(socket.SHUT_RDWR)
        raise


async def _run(target: CommandAlert, notice: Message) -> None:
    """Its first process counts: what that leaves in the background neither holds this up nor has it told again."""
    told = {f"RELEVO_ALERT_{key.upper()}": str(value) for key, value in notice.items()}
    given = msgspec.json.encode(notice)
    try:
        done = await run_tool(*target.argv, limit_s=ATTEMPT_LIMIT_S, environment={**os.environ, **told}, given=given)
    except AgentFailed as error:
        raise _failed(target, error.what) from error
    if done.status:
        last = done.output.decode(errors="replace").strip().splitlines()[-1:] or [""]
        raise _failed(target, f"{target.argv[0]} ended with status {done.status}. {last[0]}".rstrip())
