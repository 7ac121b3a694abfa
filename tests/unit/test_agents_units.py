"""Units of systemd as resources: how they are configured, what `check` says, and where there is no systemd."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from relevo.agents import systemd_bus
from relevo.agents.base import AgentFailed, StartContext, State
from relevo.agents.build import build
from relevo.agents.systemd import SystemdAgent
from relevo.agents.systemd_bus import BusFailed, Unit
from relevo.base.paths import Paths
from relevo.cli.check_agents import remarks, unit_remarks
from relevo.config.errors import ConfigErrors
from relevo.config.load import load
from relevo.config.model import Config, SystemdResource

BASE = """
[cluster]
name = "c"
[links.l]
interface = "eth0"
network = "10.0.0.0/24"
[nodes.a]
addresses = { l = "10.0.0.1" }
[nodes.b]
addresses = { l = "10.0.0.2" }
"""


def configured(folder: pathlib.Path, *services: str) -> Config:
    (folder / "authkeys").touch(mode=0o600)
    (folder / "authkeys").write_text("auth 1\n1 sha256 word\n")
    tables = "".join(
        f'[services.s{number}]\nprefer = "a"\n[[services.s{number}.resources]]\ntype = "systemd"\n{lines}\n'
        for number, lines in enumerate(services)
    )
    (folder / "relevo.toml").write_text(BASE + tables)
    return load(folder / "relevo.toml")


def unit(tmp_path: pathlib.Path, lines: str) -> SystemdResource:
    found = configured(tmp_path, lines).services["s0"].resources[0]
    assert isinstance(found, SystemdResource)
    return found


def test_it_is_configured_by_its_unit(tmp_path: pathlib.Path) -> None:
    found = unit(tmp_path, 'unit = "apache2"\nmonitor_interval = "5 s"')
    assert (found.id, found.unit) == ("systemd", "apache2.service")
    assert (found.operation.monitor_interval_ms, found.operation.stop_timeout_ms) == (5000, 100_000)
    assert unit(tmp_path, 'id = "nfs"\nunit = "nfs-server@a.b.target"').unit == "nfs-server@a.b.target"
    config = configured(tmp_path, 'unit = "x"')
    assert isinstance(build(config.services["s0"].resources[0], config, Paths()), SystemdAgent)


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        ("", "unit is missing"),
        ('unit = "apache2@"', "is a template"),
        ('unit = "../evil"', "is not the name of a unit"),
        ('unit = ".service"', "is not the name of a unit"),
        ('unit = "a b.service"', "is not the name of a unit"),
        ('unit = "x"\nscript = "/x"', "has no key 'script'"),
    ],
)
def test_mistakes_in_it(tmp_path: pathlib.Path, lines: str, part: str) -> None:
    with pytest.raises(ConfigErrors, match=part):
        configured(tmp_path, lines)


def test_a_unit_belongs_to_one_service(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigErrors, match=r"unit 'x.service' is already used by service 's0'"):
        configured(tmp_path, 'unit = "x"', 'unit = "x.service"')


def test_where_systemd_does_not_run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = SystemdAgent(SystemdResource(id="web", unit="web.service"), runs_here=tmp_path / "none")
    with pytest.raises(AgentFailed, match="web: systemd does not run here"):
        asyncio.run(agent.start(StartContext(epoch=1)))
    asyncio.run(agent.stop())
    assert asyncio.run(agent.probe()).state is State.STOPPED
    monkeypatch.setattr(systemd_bus, "RUNS_HERE", tmp_path / "none")
    assert "does not run on this server" in next(remarks(configured(tmp_path, 'unit = "x"')))


def test_a_bus_that_is_away_is_no_stopped_unit(tmp_path: pathlib.Path) -> None:
    resource = SystemdResource(id="web", unit="web.service")
    agent = SystemdAgent(resource, runs_here=tmp_path, socket=tmp_path / "socket", units=tmp_path)
    found = asyncio.run(agent.monitor())
    assert found.state is State.FAILED
    assert "does not answer" in found.reason
    with pytest.raises(BusFailed):
        asyncio.run(agent.stop())


@pytest.mark.parametrize(
    ("active", "state", "part"),
    [
        ("active", State.RUNNING, ""),
        ("activating", State.RUNNING, "is activating (auto-restart)"),
        ("reloading", State.RUNNING, "is reloading"),
        ("inactive", State.STOPPED, ""),
        ("failed", State.FAILED, "has failed: signal, status 9"),
    ],
)
def test_what_a_state_means(active: str, state: State, part: str) -> None:
    agent = SystemdAgent(SystemdResource(id="web", unit="web.service"))
    found = agent._health(Unit("loaded", active, "auto-restart", "disabled", "signal", 9))
    assert found.state is state
    assert part in found.reason


@pytest.mark.parametrize(
    ("found", "part"),
    [
        (Unit("not-found", "inactive", "dead", ""), "has no unit web.service"),
        (Unit("masked", "inactive", "dead", "masked"), "is masked"),
        (Unit("loaded", "active", "running", "enabled"), "systemctl disable web.service"),
        (Unit("loaded", "active", "running", "disabled", stop_limit_ms=300_000), "stop_timeout is 1 min 40 s; systemd"),
        (Unit("loaded", "active", "running", "static", stop_limit_ms=90_000), ""),
    ],
)
def test_what_check_says(found: Unit, part: str) -> None:
    said = list(unit_remarks(SystemdResource(id="web", unit="web.service"), found))
    assert [part in sentence for sentence in said] == ([True] if part else []), said
