"""The agents for Pacemaker: what they answer to each state of a mirror, and what they say of themselves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import shutil
import subprocess
import threading
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
import pytest
from typer.testing import CliRunner

from relevo.agents import ocf_meta
from relevo.base.control import ControlServer, Handler, Message
from relevo.base.errors import RelevoError
from relevo.base.paths import Paths
from relevo.cli.context import Context
from relevo.cli.main import app
from relevo.cli.ocf import mirror, pacemaker
from relevo.cli.ocf.codes import ActionFailed, Code, Given, given
from relevo.cli.ocf.mirror import MirrorActions, score
from relevo.cli.ocf.pacemaker import NOTHING_KNOWN, Peer
from relevo.lab.scene import Options, configuration, new_secrets

STATUS: dict[str, Any] = {
    "role": "Secondary",
    "disk": "UpToDate",
    "peer_disk": "UpToDate",
    "connection": "Connected",
    "device": "",
    "problem": "",
    "suspended": False,
    "split_brain": False,
    "epoch": 3,
}
GIVEN = Given(instance="r0", name="r0", limit_s=20.0, probe=False, notice=("", ""), feature_set=(3, 16, 1))
ROLES = {
    "primary": {"role": "Primary", "device": "/dev/loop9"},
    "secondary": {"role": "Secondary", "device": ""},
    "outdate": {"disk": "Outdated"},
}
DTD = pathlib.Path("/usr/share/resource-agents/ra-api-1.dtd")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 10_000),
        ({"connection": "SyncSource", "peer_disk": "Inconsistent"}, 10_000),
        ({"connection": "WFConnection", "peer_disk": "DUnknown"}, 1000),
        ({"connection": "WFConnection", "role": "Primary"}, 10_000),
        ({"disk": "Diskless", "role": "Primary"}, 10),
        ({"disk": "Diskless"}, None),
        ({"disk": "Diskless", "role": "Primary", "connection": "WFConnection", "peer_disk": "DUnknown"}, None),
        ({"disk": "Inconsistent", "connection": "SyncTarget"}, None),
        ({"disk": "Outdated", "connection": "WFConnection"}, None),
        ({"disk": "Consistent", "connection": "WFConnection"}, None),
        ({"connection": "StandAlone", "split_brain": True}, None),
        ({"connection": "StandAlone", "split_brain": True, "role": "Primary"}, 10_000),
    ],
)
def test_scores(changes: dict[str, Any], expected: int | None) -> None:
    assert score({**STATUS, **changes}) == expected


CRM_MON = """<?xml version="1.0"?>
<pacemaker-result><summary><current_dc present="true" with_quorum="{quorum}"/></summary>
<nodes><node name="nodo1" online="true" unclean="false" pending="false"/>
<node name="nodo2" online="{online}" unclean="{unclean}" pending="{pending}"/></nodes>
<resources><clone><resource id="r0:0" role="{role}"><node name="nodo2"/></resource></clone>
<resource id="other" role="Promoted"><node name="nodo2"/></resource></resources>
<node_attributes><node name="nodo1"><attribute name="a" value="1"/></node>
<node name="nodo2"><attribute name="a" value="2"/></node></node_attributes></pacemaker-result>
"""
NODE_STATE = '<node_state uname="nodo2" in_ccm="{in_ccm}" crmd="{crmd}" join="down" expected="{expected}"/>'
ON = {"quorum": "true", "online": "true", "unclean": "false", "pending": "false", "role": "Unpromoted"}
ON |= {"in_ccm": "true", "crmd": "online", "expected": "member"}
OFF = ON | {"online": "false", "in_ccm": "false", "crmd": "offline", "expected": "down"}


def seen(words: dict[str, str], peer: str = "nodo2") -> Peer:
    return pacemaker.read(CRM_MON.format(**words).encode(), NODE_STATE.format(**words).encode(), peer, "r0")


@pytest.mark.parametrize(
    ("words", "online", "off", "accounted"),
    [
        (ON, True, False, True),
        (OFF, False, True, True),
        (OFF | {"in_ccm": "0", "crmd": "0"}, False, True, True),
        (OFF | {"expected": "member"}, False, False, False),  # it has vanished, and nobody has fenced it
        (OFF | {"unclean": "true"}, False, False, False),
        (OFF | {"crmd": "online"}, False, False, False),
        (ON | {"unclean": "true"}, False, False, False),
        (ON | {"pending": "true"}, False, False, False),
        (ON | {"quorum": "false"}, True, False, False),
        (OFF | {"quorum": "false"}, False, True, False),
    ],
)
def test_what_is_known_of_the_peer(words: dict[str, str], *, online: bool, off: bool, accounted: bool) -> None:
    found = seen(words)
    assert (found.online, found.off, found.accounted_for) == (online, off, accounted)
    assert found.attributes == {"a": "2"}
    assert not found.promoted


@pytest.mark.parametrize("role", ["Promoted", "Master"])
def test_where_it_is_promoted(role: str) -> None:
    assert seen(ON | {"role": role}).promoted
    assert not seen(ON | {"role": role}, "nodo1").promoted


@pytest.mark.parametrize("text", ["", "<a/>", "hello", '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>'])
def test_words_that_say_nothing(text: str) -> None:
    assert pacemaker.read(text.encode(), text.encode(), "nodo2", "r0") == NOTHING_KNOWN
    assert not pacemaker.read(CRM_MON.format(**OFF).encode(), text.encode(), "nodo2", "r0").off
    assert seen(ON, "nodo3") == NOTHING_KNOWN


# ---------------------------------------------------------------- a mirror's process that says what the test wants


class FakeMirror:
    """Answers at a mirror's control socket."""

    def __init__(self, path: pathlib.Path, status: dict[str, Any]) -> None:
        self.status = status
        self.asked: list[Message] = []
        self.refuse = 0
        self._ready, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(path)))
        self._thread.start()
        assert self._ready.wait(5)

    async def _serve(self, path: pathlib.Path) -> None:
        async def tell(_request: Message) -> Message:
            return dict(self.status)

        gone = path.unlink  # nobody finds it any more

        def change(do: str) -> Handler:
            async def handler(request: Message) -> Message:
                self.asked.append({"do": do, **request})
                if self.refuse:
                    self.refuse -= 1
                    raise RelevoError("The peer is Primary.")
                if do in ROLES:
                    self.status |= ROLES[do]
                if do == "down":
                    gone()
                return dict(self.status)

            return handler

        orders = {do: change(do) for do in ("primary", "secondary", "down", "allow_alone", "outdate")}
        server = ControlServer(path, {"status": tell, **orders})
        await server.start()
        self._ready.set()
        await asyncio.get_running_loop().run_in_executor(None, self._end.wait)
        await server.stop()

    def requests(self) -> list[str]:
        return [str(request["do"]) for request in self.asked]

    def close(self) -> None:
        self._end.set()
        self._thread.join()


@pytest.fixture
def context(tmp_path: pathlib.Path) -> Context:
    """Where the lab's configuration lies, seen from nodo1."""
    secret = new_secrets()
    for name, text in (("secrets.toml", secret.secrets_toml), ("authkeys", secret.authkeys)):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(text)
    (tmp_path / "relevo.toml").write_text(configuration(Options()))
    return Context(Paths(tmp_path, tmp_path / "state", tmp_path / "run", tmp_path / "drbd.conf"), "nodo1")


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """No program of a cluster is run; whoever wants to know what is told to it says so."""
    monkeypatch.setattr(pacemaker, "_run", lambda _words: None)


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    told: list[int | None] = []
    monkeypatch.setattr(pacemaker, "set_score", lambda _given, value: told.append(value))
    return told


@contextlib.contextmanager
def running(context: Context, **changes: Any) -> Iterator[FakeMirror]:
    fake = FakeMirror(context.paths.socket("mirror-r0"), {**STATUS, **changes})
    try:
        yield fake
    finally:
        fake.close()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, Code.SUCCESS),
        ({"role": "Primary", "device": "/dev/loop9"}, Code.RUNNING_PROMOTED),
        ({"disk": "Outdated"}, Code.SUCCESS),
    ],
)
def test_monitor(context: Context, scores: list[int | None], changes: dict[str, Any], code: Code) -> None:
    with running(context, **changes) as fake:
        assert MirrorActions(context, GIVEN).monitor() is code
    assert scores == [score(fake.status)]


def test_a_primary_without_a_device_has_failed(context: Context, scores: list[int | None]) -> None:
    with running(context, role="Primary", problem="The disk failed."), pytest.raises(ActionFailed) as raised:
        MirrorActions(context, GIVEN).monitor()
    assert (raised.value.code, raised.value.what) == (Code.FAILED_PROMOTED, "The disk failed.")


def test_without_a_process(context: Context, scores: list[int | None], monkeypatch: pytest.MonkeyPatch) -> None:
    actions = MirrorActions(context, GIVEN)
    assert actions.monitor() is Code.NOT_RUNNING
    assert actions.demote() is Code.NOT_RUNNING
    assert actions.stop() is Code.SUCCESS
    monkeypatch.setattr(mirror, "is_held", lambda _folder: True)
    assert actions.monitor() is Code.RUNNING_PROMOTED, "its device waits for the next process: a pause"


def test_promote_is_tried_again_and_never_forced(
    context: Context, scores: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "PAUSE_S", 0.01)
    monkeypatch.setattr(mirror, "PROMOTE_PATIENCE_S", 1.0)
    with running(context) as fake:
        fake.refuse = 2
        assert MirrorActions(context, GIVEN).promote() is Code.SUCCESS
        assert fake.requests() == ["primary"] * 3
        assert {request["force"] for request in fake.asked if request["do"] == "primary"} == {False}
        assert {request["epoch"] for request in fake.asked if request["do"] == "primary"} == {3}
        fake.status["role"], fake.refuse = "Secondary", 1_000_000
        with pytest.raises(ActionFailed, match="The peer is Primary"):
            MirrorActions(context, GIVEN).promote()
        fake.refuse = 0


def test_stop_demotes_first(context: Context, scores: list[int | None]) -> None:
    with running(context, role="Primary", device="/dev/loop9") as fake:
        assert MirrorActions(context, GIVEN).stop() is Code.SUCCESS
        assert fake.requests() == ["secondary", "down"]
    assert scores == [None], "what is stopped is not to be promoted"


CURRENT, BASE = "00000000000000a1", "00000000000000b0"
LOST = {"connection": "WFConnection", "peer_disk": "DUnknown", "current_uuid": CURRENT, "bitmap_uuid": "0" * 16}
PRIMARY = {**LOST, "role": "Primary", "device": "/dev/loop9"}
SAID = "00000000000000a0"
ONLINE, GONE, UNKNOWN = Peer(quorum=True, online=True), Peer(quorum=True, off=True), Peer(quorum=True)
SERVES = Peer(quorum=True, online=True, promoted=True)


def with_attribute(peer: Peer, name: str, value: str) -> Peer:
    return msgspec.structs.replace(peer, attributes={f"relevo-{name}-r0": value})


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    attributes: dict[str, str | None] = {}
    monkeypatch.setattr(pacemaker, "set_attribute", attributes.__setitem__)
    return attributes


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        (GONE, True),
        (with_attribute(ONLINE, "outdated", SAID), True),
        (ONLINE, False),
        (UNKNOWN, False),
        (with_attribute(UNKNOWN, "outdated", SAID), False),
        (with_attribute(ONLINE, "outdated", BASE), False),
        (Peer(off=True), False),
    ],
)
def test_a_primary_that_waits_goes_on_when_its_peer_cannot_be_promoted(
    context: Context,
    scores: list[int | None],
    told: dict[str, str | None],
    monkeypatch: pytest.MonkeyPatch,
    peer: Peer,
    *,
    allowed: bool,
) -> None:
    monkeypatch.setattr(pacemaker, "look_at", lambda _name, _given: peer)
    with running(context, **PRIMARY, suspended=True) as fake:
        assert MirrorActions(context, GIVEN).monitor() is Code.RUNNING_PROMOTED
        assert fake.requests() == (["allow_alone"] if allowed else [])
    assert told == {"relevo-alone-r0": SAID}


def test_what_a_primary_says_of_its_being_alone(
    context: Context, scores: list[int | None], told: dict[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacemaker, "look_at", lambda _name, _given: GONE)
    with running(context, **PRIMARY | {"bitmap_uuid": BASE}):
        MirrorActions(context, GIVEN).monitor()
    assert told == {"relevo-alone-r0": BASE}, "what it goes on from, not what it has now"
    with running(context, **PRIMARY | {"connection": "Connected"}):
        MirrorActions(context, GIVEN).monitor()
    assert told == {"relevo-alone-r0": None}


@pytest.mark.parametrize(
    ("peer", "disk", "gives_way"),
    [
        (with_attribute(SERVES, "alone", SAID), "UpToDate", True),
        (with_attribute(SERVES, "alone", SAID), "Outdated", True),
        (with_attribute(SERVES, "alone", BASE), "UpToDate", False),
        (with_attribute(ONLINE, "alone", SAID), "UpToDate", False),
        (with_attribute(GONE, "alone", SAID), "UpToDate", False),
        (SERVES, "UpToDate", False),
    ],
)
def test_a_secondary_gives_way_to_a_primary_of_its_generation(
    context: Context,
    scores: list[int | None],
    told: dict[str, str | None],
    monkeypatch: pytest.MonkeyPatch,
    peer: Peer,
    disk: str,
    *,
    gives_way: bool,
) -> None:
    monkeypatch.setattr(pacemaker, "look_at", lambda _name, _given: peer)
    with running(context, **LOST, disk=disk) as fake:
        assert MirrorActions(context, GIVEN).monitor() is Code.SUCCESS
        assert fake.requests() == (["outdate"] if gives_way and disk == "UpToDate" else [])
        assert scores == [None if gives_way else 1000]
    assert told == ({"relevo-outdated-r0": SAID} if gives_way else {})


@pytest.mark.parametrize(
    ("alone", "peer", "promoted"),
    [
        ("ask", GONE, True),
        ("ask", ONLINE, True),
        ("ask", UNKNOWN, False),
        ("ask", NOTHING_KNOWN, False),
        ("risk", NOTHING_KNOWN, True),
    ],
)
def test_who_is_promoted_without_its_peer(
    context: Context,
    scores: list[int | None],
    monkeypatch: pytest.MonkeyPatch,
    alone: Literal["ask", "risk"],
    peer: Peer,
    *,
    promoted: bool,
) -> None:
    context.paths.config.write_text(configuration(Options(alone=alone)))
    monkeypatch.setattr(pacemaker, "look_at", lambda _name, _given: peer)
    monkeypatch.setattr(mirror, "PROMOTE_PATIENCE_S", 0.0)
    with running(context, **LOST) as fake:
        if promoted:
            assert MirrorActions(context, GIVEN).promote() is Code.SUCCESS
        else:
            with pytest.raises(ActionFailed, match="it may be at work"):
                MirrorActions(context, GIVEN).promote()
        assert fake.requests() == (["primary"] if promoted else [])


# ---------------------------------------------------------------- the command line


def run(context: Context, agent: str, action: str, monkeypatch: pytest.MonkeyPatch, **env: str) -> tuple[int, str]:
    for name in os.environ:
        if name.startswith("OCF_"):
            monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(f"OCF_RESKEY_{name}", value)
    done = CliRunner().invoke(app, [*context.arguments(), "ocf", agent, action])
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("agent", "action", "env", "code", "part"),
    [
        ("mirror", "monitor", {}, 6, "mirror is missing"),
        ("mirror", "monitor", {"mirror": "../x"}, 6, "which is no name"),
        ("mirror", "dance", {"mirror": "r0"}, 3, "no action 'dance'"),
        ("mirror", "validate-all", {"mirror": "r0"}, 0, ""),
        ("mirror", "validate-all", {"mirror": "r9"}, 5, "r9"),
        ("mirror", "monitor", {"mirror": "r9"}, 7, ""),
        ("mirror", "stop", {"mirror": "r9"}, 0, ""),
        ("files", "monitor", {}, 6, "name is missing"),
        ("files", "validate-all", {"name": "files"}, 0, ""),
        ("files", "validate-all", {"name": "other"}, 5, "no files resource called 'other'"),
        ("files", "monitor", {"name": "files"}, 7, ""),
        ("files", "stop", {"name": "files"}, 0, ""),
        ("files", "promote", {"name": "files"}, 3, "no action"),
    ],
)
def test_answers(
    context: Context,
    scores: list[int | None],
    monkeypatch: pytest.MonkeyPatch,
    agent: str,
    action: str,
    env: dict[str, str],
    code: int,
    part: str,
) -> None:
    status, said = run(context, agent, action, monkeypatch, **env)
    assert status == code, said
    assert part in said
    assert ("ocf-exit-reason:" in said) is bool(part)


def test_what_pacemaker_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    env = {
        "OCF_RESOURCE_INSTANCE": "r0:1",
        "OCF_RESKEY_mirror": "r0",
        "OCF_RESKEY_CRM_meta_timeout": "20000",
        "OCF_RESKEY_CRM_meta_interval": "3000",
        "OCF_RESKEY_CRM_meta_notify_type": "post",
        "OCF_RESKEY_CRM_meta_notify_operation": "promote",
        "OCF_RESKEY_crm_feature_set": "3.16.1",
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert given("mirror") == Given(
        instance="r0:1",
        name="r0",
        limit_s=18.0,
        probe=False,
        notice=("post", "promote"),
        feature_set=(3, 16, 1),
    )


@pytest.mark.parametrize("agent", ["mirror", "files"])
def test_meta_data(context: Context, agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    status, text = run(context, agent, "meta-data", monkeypatch)
    assert status == 0
    meta = ocf_meta.parse(text.encode())
    assert len(meta.parameters) == 1
    assert {"start", "stop", "monitor", "meta-data", "validate-all"} <= set(meta.timeouts_ms)
    if shutil.which("xmllint") and DTD.exists():
        check = ["xmllint", "--noout", "--nonet", "--dtdvalid", str(DTD), "-"]
        done = subprocess.run(check, input=text.encode(), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_agents_are_installed(context: Context, tmp_path: pathlib.Path) -> None:
    words = [*context.arguments(), "ocf", "install", "--root", str(tmp_path / "root")]
    assert CliRunner().invoke(app, words).exit_code == 0
    folder = tmp_path / "root/usr/lib/ocf/resource.d/relevo"
    for name in ("mirror", "files"):
        done = subprocess.run([folder / name, "meta-data"], capture_output=True, check=True)
        assert ocf_meta.parse(done.stdout).parameters
    (folder / "files").write_text("#!/bin/sh\n")
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert "is not one of Relevo's" in str(done.exception)


@pytest.mark.parametrize(
    ("feature_set", "program"), [((3, 16, 1), "crm_attribute --promotion=r0"), ((3, 4, 1), "crm_master --quiet")]
)
def test_how_a_score_is_told(monkeypatch: pytest.MonkeyPatch, feature_set: tuple[int, ...], program: str) -> None:
    said: list[str] = []
    monkeypatch.setattr(pacemaker, "_run", lambda words: said.append(" ".join(words)))
    monkeypatch.setattr(shutil, "which", lambda _name: "/usr/sbin/crm_master")
    told = Given(instance="r0", name="r0", limit_s=1.0, probe=False, notice=("", ""), feature_set=feature_set)
    pacemaker.set_score(told, 10)
    pacemaker.set_score(told, None)
    assert said == [f"{program} --lifetime reboot --update 10", f"{program} --lifetime reboot --delete"]
