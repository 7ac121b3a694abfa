"""The daemon around the membership: it never goes on half."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

import pytest

from files_bench import until
from heartbeat_support import two_nodes
from relevo.base.control import acall
from relevo.base.paths import Paths
from relevo.heartbeat import daemon
from relevo.heartbeat.membership import Membership


class Broken(Exception):
    """A step failed."""


@pytest.mark.parametrize("when", ["tick", "persisted"])
def test_a_failed_step_ends_the_process(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Alive but silent would be the worst: the peer would take over from a server that serves."""
    paths = Paths(tmp_path, tmp_path / "state", tmp_path / "run")
    monkeypatch.setattr(daemon.realtime, "acquire", lambda: None)
    plain = Membership.step
    broken = False

    def step(self: Membership, event: Any) -> Any:
        if broken:
            raise Broken
        return plain(self, event)

    async def main() -> None:
        nonlocal broken
        monkeypatch.setattr(Membership, "step", step)
        service = daemon._Daemon(two_nodes(), "nodo1", paths)
        running = asyncio.create_task(service.run())
        await until(paths.socket("heartbeat").exists)
        assert (await acall(paths.socket("heartbeat"), "status"))["me"] == "nodo1"
        if when == "persisted":
            assert service._timer is not None
            service._timer.cancel()
            service._persist({})
        broken = True
        with pytest.raises(Broken):
            await running
        service._disk.shutdown()

    asyncio.run(main())
