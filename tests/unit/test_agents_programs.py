"""Agents of other people: OCF programs and init scripts, real processes with every answer they may give."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.agents import ocf, ocf_meta
from relevo.agents.base import AgentFailed, StartContext, State
from relevo.agents.lsb import LsbAgent
from relevo.agents.ocf import OcfAgent
from relevo.config.model import LsbResource, OcfResource, Operation

CONTEXT = StartContext(epoch=1)
META = """warning: something
<?xml version="1.0"?>
<!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">
<resource-agent name="web" version="1.0">
<parameters>
<parameter name="root" required="1"><content type="string" /></parameter>
<parameter name="port" required="1"><content type="integer" default="80" /></parameter>
</parameters>
<actions>
<action name="start" timeout="40s" /><action name="stop" timeout="60" /><action name="monitor" timeout="500ms"/>
</actions>
</resource-agent>
"""
PROGRAM = """#!/bin/sh
echo "$1" >> {folder}/actions
env > {folder}/env.$1
if [ "$1" = meta-data ]; then cat {folder}/meta; exit 0; fi
[ -e {folder}/status.$1 ] || exit 0
[ ! -e {folder}/words ] || cat {folder}/words
exit "$(cat {folder}/status.$1)"
"""


class Web:
    """An OCF agent whose answers the test chooses."""

    def __init__(self, folder: pathlib.Path, **parameters: str) -> None:
        self.folder = folder
        program = folder / "ocf" / "resource.d" / "tests" / "web"
        program.parent.mkdir(parents=True)
        program.write_text(PROGRAM.format(folder=folder))
        program.chmod(0o755)
        (folder / "meta").write_text(META)
        operation = Operation(start_timeout_ms=5000, stop_timeout_ms=5000, monitor_interval_ms=7000)
        resource = OcfResource(id="web1", provider="tests", agent="web", parameters=parameters, operation=operation)
        self.agent = OcfAgent(resource, folder / "ocf")

    def answers(self, action: str, status: int, words: str = "") -> None:
        (self.folder / f"status.{action}").write_text(str(status))
        (self.folder / "words").write_text(words)

    def env(self, action: str) -> dict[str, str]:
        lines = (self.folder / f"env.{action}").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    @property
    def actions(self) -> list[str]:
        return (self.folder / "actions").read_text().split()


@pytest.fixture(autouse=True)
def notes(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocf, "TEMPORARY", tmp_path / "notes")


def test_start_looks_at_the_parameters_first_and_gives_them(tmp_path: pathlib.Path) -> None:
    web = Web(tmp_path, root="/srv/a b")
    asyncio.run(web.agent.start(CONTEXT))
    assert web.actions == ["meta-data", "validate-all", "start"]
    found = web.env("start")
    expected = {
        "OCF_RESKEY_root": "/srv/a b",
        "OCF_ROOT": str(tmp_path / "ocf"),
        "OCF_RESOURCE_INSTANCE": "web1",
        "OCF_RESOURCE_TYPE": "web",
        "OCF_RESOURCE_PROVIDER": "tests",
        "OCF_RA_VERSION_MAJOR": "1",
        "OCF_RESKEY_CRM_meta_timeout": "5000",
        "HA_RSCTMP": str(tmp_path / "notes"),
        "LC_ALL": "C.UTF-8",
    }
    assert {name: found.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("parameters", "part"),
    [({}, "'root' is missing"), ({"root": "x", "prt": "1"}, "no parameter 'prt'. Did you mean 'port'?")],
)
def test_parameters_that_do_not_fit_are_refused_before_anything_runs(
    tmp_path: pathlib.Path, parameters: dict[str, str], part: str
) -> None:
    web = Web(tmp_path, **parameters)
    with pytest.raises(AgentFailed, match=part):
        asyncio.run(web.agent.start(CONTEXT))
    assert web.actions == ["meta-data"]


@pytest.mark.parametrize(("action", "status"), [("validate-all", 6), ("start", 1), ("start", 5)])
def test_a_failure_says_who_what_and_why(tmp_path: pathlib.Path, action: str, status: int) -> None:
    web = Web(tmp_path, root="/srv")
    web.answers(action, status, "no such\nfolder")
    with pytest.raises(AgentFailed) as raised:
        asyncio.run(web.agent.start(CONTEXT))
    what = f"web1 (ocf:tests:web) {ocf.MEANINGS[status]} at {action}: no such folder"
    assert raised.value.what == what


def test_an_agent_that_cannot_validate_is_started(tmp_path: pathlib.Path) -> None:
    web = Web(tmp_path, root="/srv")
    web.answers("validate-all", 3)
    asyncio.run(web.agent.start(CONTEXT))
    assert web.actions[-1] == "start"


@pytest.mark.parametrize(
    ("status", "state"),
    [(0, State.RUNNING), (7, State.STOPPED), (1, State.FAILED), (8, State.FAILED), (99, State.FAILED)],
)
def test_what_monitor_says(tmp_path: pathlib.Path, status: int, state: State) -> None:
    web = Web(tmp_path, root="/srv")
    web.answers("monitor", status)
    assert asyncio.run(web.agent.monitor()).state is state
    assert web.env("monitor")["OCF_RESKEY_CRM_meta_interval"] == "7000"
    assert asyncio.run(web.agent.probe()).state is state
    assert web.env("monitor")["OCF_RESKEY_CRM_meta_interval"] == "0", "a probe"


def test_stop(tmp_path: pathlib.Path) -> None:
    web = Web(tmp_path, root="/srv")
    asyncio.run(web.agent.stop())
    web.answers("stop", 7)
    asyncio.run(web.agent.stop())
    web.answers("stop", 1)
    with pytest.raises(AgentFailed, match="failed at stop"):
        asyncio.run(web.agent.stop())


def test_an_agent_that_is_not_installed(tmp_path: pathlib.Path) -> None:
    agent = OcfAgent(OcfResource(id="x", provider="heartbeat", agent="none"), tmp_path)
    with pytest.raises(AgentFailed, match=r"x: there is no agent .*/resource.d/heartbeat/none"):
        asyncio.run(agent.start(CONTEXT))
    asyncio.run(agent.stop())
    assert asyncio.run(agent.monitor()).state is State.STOPPED


def test_an_agent_that_hangs_is_ended_and_what_it_started_lives(tmp_path: pathlib.Path) -> None:
    web = Web(tmp_path, root="/srv")
    program = tmp_path / "ocf" / "resource.d" / "tests" / "web"
    program.write_text(f"#!/bin/sh\n[ $1 = monitor ] || exec sleep 100\nsetsid sleep 5 & echo $! > {tmp_path}/pid\n")
    began = time.monotonic()
    web.agent._resource = _quick(web.agent._resource)
    with pytest.raises(AgentFailed, match="did not finish"):
        asyncio.run(web.agent.stop())
    assert asyncio.run(web.agent.monitor()).state is State.RUNNING
    assert time.monotonic() - began < 5, "nobody waits for what an agent has started"
    child = int((tmp_path / "pid").read_text())
    assert pathlib.Path(f"/proc/{child}").exists()


def _quick(resource: OcfResource) -> OcfResource:
    operation = Operation(stop_timeout_ms=300, monitor_timeout_ms=3000)
    return OcfResource(id=resource.id, provider=resource.provider, agent=resource.agent, operation=operation)


# ---------------------------------------------------------------- meta-data


def test_meta_data() -> None:
    meta = ocf_meta.parse(META.encode())
    assert set(meta.parameters) == {"root", "port"}
    assert meta.timeouts_ms == {"start": 40_000, "stop": 60_000, "monitor": 500}
    assert ocf_meta.mistakes(meta, {"root": "x"}) == []


@pytest.mark.parametrize(
    "text", ["", "hello", "<a/>", "<?xml?><resource-agent>", '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>']
)
def test_what_is_no_meta_data(text: str) -> None:
    with pytest.raises(ocf_meta.MetaDataUnusable):
        ocf_meta.parse(text.encode())


@given(st.binary(max_size=300))
def test_nothing_breaks_the_reader(data: bytes) -> None:
    for text in (data, META.encode()[: len(data)] + data + META.encode()[len(data) :]):
        with contextlib.suppress(ocf_meta.MetaDataUnusable):
            ocf_meta.parse(text)


# ---------------------------------------------------------------- init scripts


def script(folder: pathlib.Path, **statuses: int) -> LsbAgent:
    path = folder / "init"
    cases = "".join(f"{action}) exit {status};;" for action, status in statuses.items())
    path.write_text(f'#!/bin/sh\necho "$@" >> {folder}/actions\necho oh dear\ncase $2 in {cases} esac\n')
    path.chmod(0o755)
    return LsbAgent(LsbResource(id="web", script=path, arguments=("r0",)))


def test_an_init_script(tmp_path: pathlib.Path) -> None:
    agent = script(tmp_path)
    asyncio.run(agent.start(CONTEXT))
    assert asyncio.run(agent.monitor()).state is State.RUNNING
    asyncio.run(agent.stop())
    assert (tmp_path / "actions").read_text() == "r0 start\nr0 status\nr0 stop\n"


@pytest.mark.parametrize(
    ("status", "state"), [(1, State.STOPPED), (2, State.STOPPED), (3, State.STOPPED), (4, State.FAILED)]
)
def test_what_status_says(tmp_path: pathlib.Path, status: int, state: State) -> None:
    assert asyncio.run(script(tmp_path, status=status).monitor()).state is state


def test_a_script_that_fails(tmp_path: pathlib.Path) -> None:
    agent = script(tmp_path, start=1, stop=4)
    with pytest.raises(AgentFailed, match=r"web: `.*/init start` ended with status 1: oh dear"):
        asyncio.run(agent.start(CONTEXT))
    with pytest.raises(AgentFailed, match="stop` ended with status 4"):
        asyncio.run(agent.stop())


def test_a_script_that_is_not_there(tmp_path: pathlib.Path) -> None:
    agent = LsbAgent(LsbResource(id="web", script=tmp_path / "none"))
    with pytest.raises(AgentFailed, match="there is no script"):
        asyncio.run(agent.start(CONTEXT))
    asyncio.run(agent.stop())
    assert asyncio.run(agent.monitor()).state is State.STOPPED


# ---------------------------------------------------------------- in relevo.toml


def _load(tmp_path: pathlib.Path, resource: str) -> Any:
    from relevo.config.load import load

    (tmp_path / "authkeys").touch(mode=0o600)
    (tmp_path / "authkeys").write_text("auth 1\n1 sha256 word\n")
    (tmp_path / "relevo.toml").write_text(
        '[cluster]\nname = "c"\n[links.l]\ninterface = "eth0"\nnetwork = "10.0.0.0/24"\n'
        '[nodes.a]\naddresses = { l = "10.0.0.1" }\n[nodes.b]\naddresses = { l = "10.0.0.2" }\n'
        f'[services.s]\nprefer = "a"\n[[services.s.resources]]\n{resource}\n'
    )
    return load(tmp_path / "relevo.toml").services["s"].resources[0]


def test_both_kinds_are_configured_with_their_own_time_limits(tmp_path: pathlib.Path) -> None:
    found = _load(tmp_path, 'type = "ocf"\nagent = "ocf:heartbeat:apache"\nparameters = { port = "81" }')
    assert (found.provider, found.agent, found.parameters, found.id) == ("heartbeat", "apache", {"port": "81"}, "ocf")
    assert (found.operation.start_timeout_ms, found.operation.monitor_interval_ms) == (60_000, 10_000)
    found = _load(tmp_path, 'type = "lsb"\nid = "web"\nscript = "/etc/init.d/apache2"\narguments = ["x"]')
    assert (found.id, str(found.script), found.arguments) == ("web", "/etc/init.d/apache2", ("x",))


@pytest.mark.parametrize(
    ("resource", "part"),
    [
        ('type = "ocf"\nagent = "apache"', "is not the name of an agent"),
        ('type = "ocf"\nagent = "heartbeat:apache"\nparameters = { port = 81 }', "must be a text"),
        ('type = "lsb"\nscript = "apache2"', "is not an absolute path"),
        ('type = "lsb"\nscript = "/etc/init.d/apache2"\narguments = [1]', "must be a list of texts"),
        ('type = "lbs"\nscript = "/etc/init.d/apache2"', "Did you mean 'lsb'?"),
    ],
)
def test_mistakes_in_it(tmp_path: pathlib.Path, resource: str, part: str) -> None:
    from relevo.config.errors import ConfigErrors

    with pytest.raises(ConfigErrors, match=part):
        _load(tmp_path, resource)


def test_check_says_what_will_go_wrong_on_this_server(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from relevo.cli.main import app

    Web(tmp_path)
    monkeypatch.setattr(ocf, "ROOT", tmp_path / "ocf")
    resource = (
        'type = "ocf"\nagent = "tests:web"\nparameters = { prt = "1" }\nstart_timeout = "10 s"\nstop_timeout = "70 s"'
    )
    other = '\n[[services.s.resources]]\ntype = "lsb"\nscript = "/nowhere/init"'
    third = '\n[[services.s.resources]]\ntype = "ocf"\nid = "o"\nagent = "tests:none"'
    _load(tmp_path, resource + other + third)
    done = CliRunner().invoke(app, ["--etc", str(tmp_path), "--node", "a", "check"])
    assert done.exit_code == 0
    for part in (
        "s/ocf: There is no parameter 'prt'. Did you mean 'port'?",
        "s/ocf: The parameter 'root' is missing",
        "s/ocf: start_timeout is 10.0 s; the agent's author advises 40.0 s.",
        "s/lsb: /nowhere/init is no program on this server.",
        "s/o: there is no agent",
    ):
        assert part in done.output
    assert "stop_timeout" not in done.output
