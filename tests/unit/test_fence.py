"""Fence devices: what their programs are given, levels, and what counts as fenced."""

from __future__ import annotations

import asyncio
import pathlib

import msgspec
import pytest

from relevo.agents import fence
from relevo.agents.base import AgentFailed
from relevo.config.fencing import FenceDevice
from relevo.config.model import Config
from relevo.manager.model import Alive, NodeFacts, NodeView
from relevo.node.fencer import Fencer
from relevo.node.history import History
from unit.cluster_samples import configuration

LIMIT_S = 20.0


def program(folder: pathlib.Path, name: str, *, status: int = 0) -> str:
    """A fence agent that notes what it was given."""
    path = folder / name
    path.write_text(f'#!/bin/sh\n(echo "{name}"; cat) >> {folder}/given\necho "{name} says {status}"\nexit {status}\n')
    path.chmod(0o755)
    return str(path)


def given(folder: pathlib.Path) -> list[str]:
    return (folder / "given").read_text().splitlines()


def test_the_program_is_told_on_its_standard_input(tmp_path: pathlib.Path) -> None:
    device = FenceDevice(agent=program(tmp_path, "fence_a"), parameters={"ip": "10.0.0.9", "password": "a b"})
    how = asyncio.run(fence.fence("nodo1", [device]))
    assert "(reboot)" in how
    assert given(tmp_path) == ["fence_a", "action=reboot", "nodename=nodo1", "ip=10.0.0.9", "password=a b"]


def test_all_of_a_level_or_the_next(tmp_path: pathlib.Path) -> None:
    first = FenceDevice(agent=program(tmp_path, "one"), action="off")
    second = FenceDevice(agent=program(tmp_path, "two", status=1), action="off")
    third = FenceDevice(agent=program(tmp_path, "three"), action="off", level=2)
    assert "level 2" in asyncio.run(fence.fence("nodo1", [third, first, second]))
    assert [line for line in given(tmp_path) if "=" not in line] == ["one", "two", "three"]


def test_when_no_level_succeeds_all_of_them_are_named(tmp_path: pathlib.Path) -> None:
    devices = [
        FenceDevice(agent=program(tmp_path, "one", status=1)),
        FenceDevice(agent="fence_that_is_not_there", level=2),
    ]
    with pytest.raises(AgentFailed, match=r"level 1.*one says 1.*level 2.*not installed.*by hand"):
        asyncio.run(fence.fence("nodo1", devices))


def test_a_device_that_hangs_is_no_success(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "slow"
    path.write_text("#!/bin/sh\nexec sleep 60\n")
    path.chmod(0o755)
    with pytest.raises(AgentFailed, match="did not finish within"):
        asyncio.run(fence.fence("nodo1", [FenceDevice(agent=str(path), timeout_ms=100)]))


def fenceable(device: FenceDevice) -> Config:
    config = configuration("ask")
    node = msgspec.structs.replace(config.nodes["nodo1"], fencing=(device,))
    return msgspec.structs.replace(config, nodes={**config.nodes, "nodo1": node})


def seen(alive: Alive, boot: str) -> dict[str, NodeView]:
    return {"nodo1": NodeView(alive=alive, facts=NodeFacts(boot_id=boot, config_hash="h"))}


def test_fenced_until_it_has_booted_again(tmp_path: pathlib.Path) -> None:
    async def scene() -> None:
        changed = asyncio.Event()
        fencer = Fencer(fenceable(FenceDevice(agent=program(tmp_path, "one"))), History(), changed.set)
        fencer.look(seen(Alive.DEAD, "first"))
        fencer.begin("nodo1", because="it is silent.")
        async with asyncio.timeout(LIMIT_S):
            await changed.wait()
        assert fencer.fenced == {"nodo1"}
        fencer.look(seen(Alive.ALIVE, "first"))
        assert fencer.fenced == {"nodo1"}, "what it sent before it was switched off is no sign of life"
        fencer.look(seen(Alive.ALIVE, "second"))
        assert not fencer.fenced

    asyncio.run(scene())


@pytest.mark.parametrize("told", [True, False])
def test_one_that_goes_on_after_its_fencing_is_not_off_when_it_falls_silent_later(
    tmp_path: pathlib.Path, *, told: bool
) -> None:
    now = [1000.0]
    config = fenceable(FenceDevice(agent=program(tmp_path, "one")))
    fencer = Fencer(config, History(), lambda: None, clock=lambda: now[0])
    fencer.look(seen(Alive.ALIVE, "first"))
    fencer.confirm("nodo1")  # the device lies, or a person errs
    alive = seen(Alive.ALIVE, "first") if told else {"nodo1": NodeView(alive=Alive.ALIVE)}
    now[0] += config.heartbeat.deadtime_ms / 1000
    fencer.look(alive)
    assert fencer.fenced == {"nodo1"}, "that may still be what it sent before"
    now[0] += 60
    fencer.look(alive)
    assert not fencer.fenced
    assert ("was not switched off" in fencer.troubles.get("nodo1", "")) is told, "without facts it may have booted"
    fencer.look(seen(Alive.DEAD, "first"))
    assert not fencer.fenced, "its silence now proves nothing"


def test_a_failed_fencing_of_a_silent_node_is_no_trouble_any_more_when_it_is_heard(tmp_path: pathlib.Path) -> None:
    async def scene() -> None:
        changed = asyncio.Event()
        fencer = Fencer(fenceable(FenceDevice(agent=program(tmp_path, "one", status=1))), History(), changed.set)
        fencer.look(seen(Alive.DEAD, "first"))
        fencer.begin("nodo1", because="it is silent.")
        async with asyncio.timeout(LIMIT_S):
            await changed.wait()
        assert fencer.troubles
        fencer.look(seen(Alive.ALIVE, "first"))
        assert not fencer.troubles

    asyncio.run(scene())


def test_one_that_is_heard_in_time_is_left_alone(tmp_path: pathlib.Path) -> None:
    async def scene() -> None:
        fencer = Fencer(fenceable(FenceDevice(agent=program(tmp_path, "one"))), History(), lambda: None)
        fencer.look(seen(Alive.DEAD, "first"))
        fencer.begin("nodo1", delay_ms=60_000, because="it is silent.")
        await asyncio.sleep(0)
        fencer.look(seen(Alive.ALIVE, "first"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not (tmp_path / "given").exists()
        assert not fencer.fenced

    asyncio.run(scene())


def test_a_failure_is_said_and_not_repeated_at_once(tmp_path: pathlib.Path) -> None:
    async def scene() -> None:
        changed = asyncio.Event()
        fencer = Fencer(fenceable(FenceDevice(agent=program(tmp_path, "one", status=1))), History(), changed.set)
        fencer.look(seen(Alive.DEAD, "first"))
        fencer.begin("nodo1", because="it is silent.")
        async with asyncio.timeout(LIMIT_S):
            await changed.wait()
        await asyncio.sleep(0)
        assert "one says 1" in fencer.troubles["nodo1"]
        fencer.begin("nodo1", because="it is silent.")
        await asyncio.sleep(0)
        assert given(tmp_path).count("one") == 1
        fencer.confirm("nodo1")
        assert fencer.fenced
        assert not fencer.troubles

    asyncio.run(scene())
