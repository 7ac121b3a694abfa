"""Alerts in relevo.toml, and on their way: retried until they arrive, bounded, kept through a restart."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import os
import pathlib
import re
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Iterator

import msgspec
import pytest

from relevo.config.alerts import KINDS, AlertsPolicy, AlertTarget, CommandAlert, MailAlert, WebhookAlert
from relevo.config.errors import ConfigErrors
from relevo.config.load import load, warnings
from relevo.config.model import Config
from relevo.lab.scene import Options, configuration
from relevo.node import courier
from relevo.node.alerts import Alerts, NoAlerts
from relevo.node.courier import MAX_WAITING, Courier, NotDelivered, deliver
from relevo.node.history import History
from relevo.node.notice import text_of
from relevo.node.store import Store
from relevo.node.trouble import Alert

LOST = Alert(kind="node_lost", subject="nodo2", change="raised")
MAIL = '[[alerts]]\ntype = "mail"\nserver = "mail.example.org"\nfrom = "r@example.org"\nto = ["a@example.org"]\n'


def _load(folder: pathlib.Path, further: str, secret: str = "") -> Config:
    (folder / "relevo.toml").write_text(configuration(Options(further=further)))
    for name, text in (
        ("secrets.toml", f'[mirror]\nr0 = "sesame"\n{secret}'),
        ("authkeys", "auth 1\n1 sha256 open\n"),
    ):
        path = folder / name
        path.touch(mode=0o600)
        path.write_text(text)
    return load(folder / "relevo.toml")


def test_what_to_do_about_configurations_depends_on_why_they_differ() -> None:
    for language, word in (("en", "restarted"), ("es", "reiniciar")):
        for subject, told in (("nodo2", True), ("", False)):
            alert = Alert(kind="configuration_differs", subject=subject, change="raised")
            assert (word in text_of(alert, language)) is told  # type: ignore[arg-type]


def test_the_settings_with_their_defaults_and_the_password(tmp_path: pathlib.Path) -> None:
    further = MAIL + (
        'tls = "starttls"\nuser = "r"\n[[alerts]]\nname = "chat"\ntype = "webhook"\nurl = "https://example.org/x"\n'
        'events = ["split_brain"]\nlanguage = "es"\n[[alerts]]\ntype = "command"\nargv = ["/bin/tell", "me"]\n'
        '[alerts_policy]\nraise_after = "3 s"\n'
    )
    config = _load(tmp_path, further, '[alerts]\nmail = "geheim"\n')
    mail, chat, command = config.alerts
    assert mail == MailAlert(
        name="mail", server="mail.example.org", port=587, sender="r@example.org", to=("a@example.org",),
        tls="starttls", user="r", password="geheim", events=KINDS, language="en",
    )  # fmt: skip
    assert chat == WebhookAlert(name="chat", url="https://example.org/x", events=("split_brain",), language="es")
    assert command == CommandAlert(name="command", argv=("/bin/tell", "me"))
    assert config.alerts_policy == AlertsPolicy(raise_after_ms=3000)
    missing = "The alert command cannot run on this server: /bin/tell is no program."
    assert [sentence for sentence in warnings(config) if "alert" in sentence] == [missing]
    config = _load(tmp_path, MAIL + 'user = "r"\n', '[alerts]\nmail = "geheim"\n')
    assert 'The alert mail sends its password as it is (tls = "none").' in warnings(config)


@pytest.mark.parametrize(
    ("further", "sentence"),
    [
        (MAIL + MAIL, "alerts[2].name is used twice: 'mail'. Give each of the alerts a name of its own."),
        (MAIL + 'events = ["node_los"]\n', "alerts[1].events has no 'node_los'. Did you mean 'node_lost'?"),
        (MAIL.replace("a@", "a b@"), "alerts[1].to is no mail address: 'a b@example.org'."),
        (MAIL + 'user = "r"\n', "alerts"),
        ('[[alerts]]\ntype = "webhook"\nurl = "ftp://x/"\n', "alerts[1].url is no http or https address: 'ftp://x/'."),
        ('[[alerts]]\ntype = "command"\nargv = ["tell"]\n', "alerts[1].argv does not begin with the full path"),
        ('[alerts_policy]\nraise_after = "5 ms"\n', 'alerts_policy.raise_after is too short. Write at least "1 s".'),
    ],
)
def test_a_mistake_is_a_sentence(tmp_path: pathlib.Path, further: str, sentence: str) -> None:
    with pytest.raises(ConfigErrors, match=re.escape(sentence)):
        _load(tmp_path, further)


def _command(script: str, *arguments: object) -> CommandAlert:
    return CommandAlert(name="tell", argv=(sys.executable, "-c", script, *map(str, arguments)))


COPY = "import os, sys; open(sys.argv[1], 'a').write(sys.stdin.read() + os.environ['RELEVO_ALERT_KIND'] + '\\n')"


def test_a_command_gets_the_alert_and_its_failure_is_told(tmp_path: pathlib.Path) -> None:
    notice = Courier(_command(""), "oficina", "nodo1", (), lambda: None).notice(LOST)
    asyncio.run(deliver(_command(COPY, tmp_path / "out"), notice))
    line = (tmp_path / "out").read_text()
    assert line.endswith("}node_lost\n")
    assert msgspec.json.decode(line.removesuffix("node_lost\n")) == notice
    with pytest.raises(NotDelivered, match=r"ended with status 1\. broken"):
        asyncio.run(deliver(_command("raise SystemExit('broken')"), notice))


def test_what_a_command_leaves_in_the_background_does_not_have_it_run_again(tmp_path: pathlib.Path) -> None:
    """A shell with `mail … &`: it has told people, and would tell them every five minutes."""
    notice = Courier(_command(""), "oficina", "nodo1", (), lambda: None).notice(LOST)
    script = f"sleep 1000 & echo $! > {tmp_path}/pid"
    began = asyncio.run(_timed(deliver(CommandAlert(name="tell", argv=("/bin/sh", "-c", script)), notice)))
    try:
        assert began < courier.ATTEMPT_LIMIT_S / 2
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


async def _timed(work: Awaitable[None]) -> float:
    begun = asyncio.get_running_loop().time()
    await work
    return asyncio.get_running_loop().time() - begun


@contextlib.contextmanager
def _dripping(greeting: bytes) -> Iterator[int]:
    """A server that says this, and then a byte now and then for ever; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        gone = threading.Event()

        def serve() -> None:
            line, _ = listening.accept()
            with line, contextlib.suppress(OSError):
                line.sendall(greeting)
                while not gone.wait(0.02):
                    line.sendall(b"x")
            gone.set()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
            assert gone.wait(10), "the other end hangs up"
        finally:
            gone.set()
            thread.join()


@pytest.mark.parametrize("kind", ["webhook", "mail"])
def test_a_server_that_answers_byte_by_byte_holds_up_nobody(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "WHOLE_LIMIT_S", 0.5)
    notice = Courier(_command(""), "oficina", "nodo1", (), lambda: None).notice(LOST)
    with _dripping(b"HTTP/1.1 200 OK\r\nX: " if kind == "webhook" else b"220 slow\r\n250-") as port:
        target: AlertTarget = WebhookAlert(name="chat", url=f"http://127.0.0.1:{port}/")
        if kind == "mail":
            target = MailAlert(
                name="chat", server="127.0.0.1", port=port, sender="a@example.org", to=("b@example.org",)
            )
        with pytest.raises(NotDelivered, match="no whole answer"):
            asyncio.run(deliver(target, notice))


class _Hook(http.server.BaseHTTPRequestHandler):
    answers: list[int]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.answers.pop(0))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def _web_server(*answers: int) -> Iterator[tuple[str, list[int]]]:
    left = list(answers)
    server = http.server.HTTPServer(("127.0.0.1", 0), type("Hook", (_Hook,), {"answers": left}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", left
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_what_is_refused_is_tried_again_until_it_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "FIRST_PAUSE_S", 0.01)

    async def scene(url: str) -> None:
        changed = asyncio.Event()
        one = Courier(WebhookAlert(name="chat", url=url), "oficina", "nodo1", (), changed.set)
        one.add(LOST)
        task = asyncio.create_task(one.run())
        async with asyncio.timeout(10):
            await changed.wait()
            assert "127.0.0.1 answers 503" in one.trouble
            assert len(one.waiting) == 1
            while one.waiting:
                changed.clear()
                await changed.wait()
        assert one.trouble == ""
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with _web_server(503, 302, 204) as (url, left):
        asyncio.run(scene(url))
        assert left == []


def test_a_queue_is_bounded_and_takes_only_its_kinds() -> None:
    one = Courier(CommandAlert(name="tell", argv=("/bin/true",), events=("node_lost",)), "c", "n", (), lambda: None)
    one.add(Alert(kind="one_copy", subject="r0", change="raised"))
    assert not one.waiting
    for _ in range(MAX_WAITING + 2):
        one.add(LOST)
    assert (len(one.waiting), one.dropped) == (MAX_WAITING, 2)


def _alerts(config: Config, folder: pathlib.Path) -> Alerts:
    return Alerts(config, "nodo1", Store(folder / "state"), History(), lambda: None)


DEAD = {
    "nodes": {"nodo2": {"state": "dead", "same_config": True}},
    "mirrors": {},
    "services": {},
    "witness": None,
    "certificates": {},
    "ping": {},
}


def test_a_restart_loses_neither_what_waits_nor_what_people_know(tmp_path: pathlib.Path) -> None:
    config = _load(tmp_path, '[[alerts]]\ntype = "command"\nargv = ["/nonexistent/tell"]\n')

    async def scene() -> None:
        changed = asyncio.Event()
        first = Alerts(config, "nodo1", Store(tmp_path / "state"), History(), changed.set)
        task = asyncio.create_task(first.run())
        assert first.look(DEAD, {}, 0) == {"node_lost:nodo2": "seen"}
        assert first.look(DEAD, {}, 10_000) == {"node_lost:nodo2": "told"}
        async with asyncio.timeout(10):
            await changed.wait()
        why = "The program /nonexistent/tell is not installed"
        assert first.alarms() == [f"The alert command cannot be delivered: {why}. Waiting: 1."]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        again = _alerts(config, tmp_path)
        assert again.look(DEAD, {}, 20_000) == {"node_lost:nodo2": "told"}
        (target,) = again.state()["targets"]
        assert target["waiting"] == ["Server nodo2 is lost: nobody hears it."]
        with pytest.raises(NoAlerts, match="There is no alert 'chat'"):
            await again.handlers()["alerts_test"]({"name": "chat"})
        (result,) = (await again.handlers()["alerts_test"]({}))["results"]
        assert "is not installed" in result["why"]

    asyncio.run(scene())


def test_nobody_is_told_where_nothing_is_configured(tmp_path: pathlib.Path) -> None:
    none = _alerts(_load(tmp_path, ""), tmp_path)
    assert none.look(DEAD, {}, 0) == {}
    assert none.state() == {"told": [], "targets": []}
