"""Delivers alerts: by mail, by HTTP, to a command. Each target has its own queue and task; nobody waits for them."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime as dt
import email.utils
import http.client
import os
import pathlib
import signal
import smtplib
import ssl
import threading
from collections.abc import Callable, Iterable
from email.message import EmailMessage
from urllib.parse import urlsplit

import msgspec
import structlog

from relevo.base.control import Message
from relevo.base.errors import RelevoError
from relevo.config.alerts import AlertTarget, CommandAlert, MailAlert, WebhookAlert
from relevo.node.notice import mail_of, notice_of
from relevo.node.trouble import Alert

MAX_WAITING = 100
"""Alerts that wait for one target; with more the oldest is dropped, and counted."""
ATTEMPT_LIMIT_S = 20.0
"""How long one attempt may take; for mail, how long the server may leave one command unanswered."""
FIRST_PAUSE_S = 5.0
MAX_PAUSE_S = 300.0
"""Pauses between attempts double from the one to the other; an alert is tried until it is delivered."""
MAX_SAID = 300
"""Of what a target says about a failure, in characters."""
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
                await _in_thread(lambda: _mail(target, notice))
            case WebhookAlert():
                await _in_thread(lambda: _post(target, notice))
            case CommandAlert():
                await _run(target, notice)
    except NotDelivered:
        raise
    except TimeoutError:
        raise _failed(target, f"no answer within {ATTEMPT_LIMIT_S:.0f} s") from None
    except (OSError, smtplib.SMTPException, http.client.HTTPException, ValueError) as error:
        raise _failed(target, str(error) or type(error).__name__) from error


def _failed(target: AlertTarget, why: str) -> NotDelivered:
    return NotDelivered(f"The alert {target.name} cannot be delivered: {why[:MAX_SAID].rstrip('.')}.")


def _mail(target: MailAlert, notice: Message) -> None:
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
    with server:
        if target.tls == "starttls":
            server.starttls(context=ssl.create_default_context())
        if target.user:
            server.login(target.user, target.password)
        refused = server.send_message(message)
    if refused:
        _log.warning("mail_refused", target=target.name, refused=sorted(refused))


def _post(target: WebhookAlert, notice: Message) -> None:
    parts = urlsplit(target.url)
    host = parts.hostname or ""
    if parts.scheme == "https":
        context = ssl.create_default_context()
        line: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, parts.port, timeout=ATTEMPT_LIMIT_S, context=context
        )
    else:
        line = http.client.HTTPConnection(host, parts.port, timeout=ATTEMPT_LIMIT_S)
    with contextlib.closing(line):
        where = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        line.request("POST", where, msgspec.json.encode(notice), {"Content-Type": "application/json"})
        with line.getresponse() as answer:
            if answer.status // 100 != _SUCCESS:
                raise _failed(target, f"{host} answers {answer.status} {answer.reason}".rstrip())


_SUCCESS = 2
"""First digit of HTTP's codes of success."""


async def _in_thread(work: Callable[[], None]) -> None:
    """Wait for a thread of its own: one that hangs delays neither the daemon's end nor the threads that store votes."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: Exception | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def body() -> None:
        outcome: Exception | None = None
        try:
            work()
        except Exception as error:  # noqa: BLE001 - it is raised where it is awaited
            outcome = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=body, name="alert", daemon=True).start()
    await done


async def _run(target: CommandAlert, notice: Message) -> None:
    told = {f"RELEVO_ALERT_{key.upper()}": str(value) for key, value in notice.items()}
    process = await asyncio.create_subprocess_exec(
        *target.argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **told},
        cwd=pathlib.Path("/"),
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(ATTEMPT_LIMIT_S):
            _, said = await process.communicate(msgspec.json.encode(notice))
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode:
        last = said.decode(errors="replace").strip().splitlines()[-1:] or [""]
        raise _failed(target, f"{target.argv[0]} ended with status {process.returncode}. {last[0]}".rstrip())
