"""A power cut of one server is told by mail, by HTTP and to a command, once, and so is its end."""

from __future__ import annotations

import email
import email.policy
import json
import mailbox
import pathlib
import subprocess
from typing import Any

import pytest
from labtools import LabMaker, end, start

from relevo.lab.scene import ADDRESSES, CLIENT
from relevo.lab.story import Status, Story

DEBIAN_PYTHON = "/usr/bin/python3"
MAIL_SERVER = """
import sys
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox
Controller(Mailbox(sys.argv[1]), hostname="0.0.0.0", port=25).start()
print("ready", flush=True)
sys.stdin.read()
"""
WEB_SERVER = """
import http.server, sys
class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        with open(sys.argv[1], "ab") as file:
            file.write(self.rfile.read(int(self.headers["Content-Length"])) + b"\\n")
        self.send_response(204)
        self.end_headers()
server = http.server.HTTPServer(("0.0.0.0", 8081), Hook)
print("ready", flush=True)
server.serve_forever()
"""
TOLD = [("node_lost", "nodo2"), ("one_copy", "r0")]


def _settings(folder: pathlib.Path) -> str:
    client = ADDRESSES[CLIENT]["eth0"].partition("/")[0]
    return f"""
[alerts_policy]
raise_after = "2 s"
clear_after = "1 s"

[[alerts]]
type = "mail"
server = "{client}"
from = "relevo@example.org"
to = ["admin@example.org"]
language = "es"

[[alerts]]
type = "webhook"
url = "http://{client}:8081/hook?from=relevo"

[[alerts]]
type = "command"
argv = ["/bin/sh", "-c", 'cat >>"$0"; echo " $RELEVO_ALERT_CHANGE" >>"$0"', "{folder}/command"]

[[alerts]]
name = "nobody"
type = "webhook"
url = "http://{client}:9/"
events = ["node_lost"]
"""


def _told(state: Status) -> list[tuple[str, str]]:
    return [(entry["kind"], entry["subject"]) for entry in state["alerts"]["told"]]


def _delivered(state: Status) -> bool:
    return not any(target["waiting"] for target in state["alerts"]["targets"] if target["name"] != "nobody")


def _mails(folder: pathlib.Path) -> list[str]:
    """The subjects in the mail server's folder, decoded."""
    texts = [mail.as_bytes() for mail in mailbox.Maildir(folder / "mail", create=False)]
    return [str(email.message_from_bytes(text, policy=email.policy.default)["Subject"]) for text in texts]


def _posts(folder: pathlib.Path) -> list[dict[str, Any]]:
    path = folder / "posts"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_power_cut_and_its_end_are_told_once(make_lab: LabMaker, tmp_path: pathlib.Path) -> None:
    if subprocess.run([DEBIAN_PYTHON, "-c", "import aiosmtpd"], capture_output=True).returncode:
        pytest.skip("Debian's python3-aiosmtpd is not installed.")
    folder = tmp_path / "lab" / "shared"
    lab = make_lab(name="lab", limit_s=150.0, disk_bytes=64 << 20, further=_settings(folder))
    lab.up()
    assert lab.shared == folder
    mail_server = lab.popen(
        CLIENT, [DEBIAN_PYTHON, "-c", MAIL_SERVER, str(folder / "mail")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert mail_server.stdout is not None
    assert mail_server.stdout.readline() == b"ready\n"
    web_server = start(lab, CLIENT, WEB_SERVER, str(folder / "posts"))
    try:
        story = Story(lab)
        # What was told while both servers came up is over and delivered.
        story.await_status("Quiet", "nodo1", lambda state: not _told(state) and _delivered(state))
        lab.run("nodo1", ["relevo", "alerts", "test", "mail"], check=True)
        mails, posts = len(_mails(folder)), len(_posts(folder))
        lab.crash("nodo2")
        state = story.await_status(
            "Two alerts, and one that cannot be delivered",
            "nodo1",
            lambda state: _told(state) == TOLD and _delivered(state) and any("nobody" in a for a in state["alarms"]),
        )
        assert len(_mails(folder)) == mails + len(TOLD)
        assert [(p["kind"], p["subject"], p["change"]) for p in _posts(folder)[posts:]] == [
            (*t, "raised") for t in TOLD
        ]
        lab.boot("nodo2")
        story.await_status("The all-clear", "nodo1", lambda state: not _told(state) and _delivered(state))
        state = story.await_status("Nothing left at nodo2", "nodo2", lambda state: not _told(state))
        assert [target["waiting"] for target in state["alerts"]["targets"]] == [[], [], [], []]
        cleared = [(p["kind"], p["subject"]) for p in _posts(folder)[posts + 2 :] if p["change"] == "cleared"]
        assert sorted(cleared) == TOLD
        assert len(_posts(folder)) == posts + 4
        subjects = _mails(folder)
        assert len(subjects) == mails + 4
        assert any("aviso: Se ha perdido el servidor nodo2" in subject for subject in subjects)
        assert any("todo en orden: El espejo r0 vuelve a tener dos copias" in subject for subject in subjects)
        lines = (folder / "command").read_text().splitlines()
        assert [line.rpartition(" ")[2] for line in lines[-4:]] == ["raised", "raised", "cleared", "cleared"]
        assert json.loads(lines[-4].rpartition(" ")[0])["kind"] == "node_lost"
    finally:
        end(mail_server)
        end(web_server)
