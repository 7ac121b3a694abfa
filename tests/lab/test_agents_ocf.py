"""The agents of Debian's resource-agents themselves, run by ours."""

from __future__ import annotations

import asyncio
import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from mirror_pair import run
from relevo.agents import ocf_meta
from relevo.agents.base import AgentFailed, StartContext, State
from relevo.agents.ocf import ROOT, OcfAgent
from relevo.config.model import OcfResource

AGENTS = ROOT / "resource.d" / "heartbeat"
CONTEXT = StartContext(epoch=1)
pytestmark = pytest.mark.skipif(not AGENTS.is_dir(), reason="the package resource-agents is not installed")


def agent(name: str, resource_id: str, **parameters: str) -> OcfAgent:
    return OcfAgent(OcfResource(id=resource_id, provider="heartbeat", agent=name, parameters=parameters))


@pytest.fixture
def card() -> Iterator[str]:
    """A network card that leads nowhere."""
    name = f"rlv{os.getpid()}"[:15]
    run("ip", "link", "add", name, "type", "dummy", check=False)
    if subprocess.run(["ip", "link", "show", name], capture_output=True, check=False).returncode:
        run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name[:13]}p")
    run("ip", "link", "set", name, "up")
    yield name
    run("ip", "link", "del", name)


def test_dummy_is_started_found_and_stopped() -> None:
    dummy = agent("Dummy", f"dummy{os.getpid()}")
    assert asyncio.run(dummy.probe()).state is State.STOPPED
    asyncio.run(dummy.start(CONTEXT))
    asyncio.run(dummy.start(CONTEXT))
    assert asyncio.run(dummy.monitor()).state is State.RUNNING
    asyncio.run(dummy.stop())
    asyncio.run(dummy.stop())
    assert asyncio.run(dummy.monitor()).state is State.STOPPED


def test_an_address_by_the_original_agent(card: str) -> None:
    address = agent("IPaddr2", "ip", ip="203.0.113.9", cidr_netmask="24", nic=card)
    asyncio.run(address.start(CONTEXT))
    assert "203.0.113.9/24" in run("ip", "-br", "addr", "show", card)
    assert asyncio.run(address.monitor()).state is State.RUNNING
    asyncio.run(address.stop())
    assert "203.0.113.9" not in run("ip", "-br", "addr", "show", card)
    assert asyncio.run(address.probe()).state is State.STOPPED


def test_wrong_parameters_are_refused_with_their_names() -> None:
    with pytest.raises(AgentFailed, match="There is no parameter 'adress'"):
        asyncio.run(agent("IPaddr2", "ip", ip="203.0.113.9", adress="x").start(CONTEXT))
    with pytest.raises(
        AgentFailed, match=r"is configured wrongly at validate-all: IP address \(the ip parameter\) is mandatory"
    ):
        asyncio.run(agent("IPaddr2", "ip").start(CONTEXT))
    with pytest.raises(AgentFailed, match=r"at (validate-all|start): "):
        asyncio.run(agent("IPaddr2", "ip", ip="no-address").start(CONTEXT))


def test_every_agents_meta_data_is_read() -> None:
    read = 0
    for program in sorted(AGENTS.iterdir()):
        if not program.is_file() or not os.access(program, os.X_OK):
            continue
        done = subprocess.run(
            [program, "meta-data"],
            capture_output=True,
            env={**os.environ, "OCF_ROOT": str(ROOT)},
            check=False,
            timeout=60,
        )
        if done.returncode == 0:
            meta = ocf_meta.parse(done.stdout)
            assert meta.timeouts_ms, program
            read += 1
    assert read > 50
    assert pathlib.Path(AGENTS / "apache").exists()
