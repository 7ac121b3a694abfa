"""`relevo volume format` on a real loop device; the mirror's control socket is played by the test."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from agents_inside import inside, sh

from relevo.agents import superblock, volume
from relevo.base.control import ControlServer, Message
from relevo.base.errors import RelevoError
from relevo.base.paths import Paths
from relevo.config.load import load
from relevo.config.model import Config
from relevo.lab.scene import Options, configuration, new_secrets

EQUAL = {
    "role": "Secondary",
    "peer_role": "Secondary",
    "connection": "Connected",
    "disk": "UpToDate",
    "peer_disk": "UpToDate",
    "epoch": 7,
}


class Peer:
    """Answers as a mirror does, and remembers what it was asked."""

    def __init__(self, device: pathlib.Path, status: dict[str, Any]) -> None:
        self.device = device
        self.status = status
        self.asked: list[str] = []
        self.promoted_with: Message = {}

    async def on_status(self, request: Message) -> Message:
        return self.status

    async def on_primary(self, request: Message) -> Message:
        self.asked.append("primary")
        self.promoted_with = request
        return {"device": str(self.device)}

    async def on_secondary(self, request: Message) -> Message:
        self.asked.append("secondary")
        return {}


@contextlib.asynccontextmanager
async def mirror(paths: Paths, device: pathlib.Path, **changes: object) -> AsyncIterator[Peer]:
    peer = Peer(device, {**EQUAL, **changes})
    handlers = {"status": peer.on_status, "primary": peer.on_primary, "secondary": peer.on_secondary}
    server = ControlServer(paths.socket("mirror-r0"), handlers)
    await server.start()
    try:
        yield peer
    finally:
        await server.stop()


def configure(folder: pathlib.Path) -> tuple[Config, Paths]:
    secrets = new_secrets()
    for name, text in (
        ("relevo.toml", configuration(Options())),
        ("secrets.toml", secrets.secrets_toml),
        ("authkeys", secrets.authkeys),
    ):
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    return load(folder / "relevo.toml"), Paths(folder, folder / "state", folder / "run")


@contextlib.contextmanager
def loop_device(folder: pathlib.Path) -> Any:
    disk = folder / "disk"
    with disk.open("wb") as file:
        file.truncate(32 << 20)
    device = sh("losetup", "--find", "--show", str(disk))
    try:
        yield pathlib.Path(device)
    finally:
        sh("losetup", "--detach", device)


def found_on(device: pathlib.Path) -> superblock.Found | None:
    with device.open("rb") as file:
        return superblock.identify(file.read(superblock.NEEDED_BYTES))


@inside
def test_formats_once_and_again_only_by_force(tmp_path: pathlib.Path) -> None:
    config, paths = configure(tmp_path)

    async def scene(device: pathlib.Path) -> None:
        async with mirror(paths, device) as peer:
            await volume.format_volume(config, paths, "r0")
            assert peer.promoted_with == {"force": False, "epoch": 7}
            assert peer.asked == ["primary", "secondary"]
            assert found_on(device) == superblock.Found("ext4")
            with pytest.raises(volume.VolumeNotEmpty, match=r"ext4 file system.*--force"):
                await volume.format_volume(config, paths, "r0")
            assert peer.asked == ["primary", "secondary"] * 2
            sh("debugfs", "-w", "-R", "mkdir mine", str(device))
            await volume.format_volume(config, paths, "r0", force=True)
            assert "mine" not in sh("debugfs", "-R", "ls /", str(device))

    with loop_device(tmp_path) as device:
        asyncio.run(scene(device))


@inside
def test_refuses_and_changes_nothing(tmp_path: pathlib.Path) -> None:
    config, paths = configure(tmp_path)

    async def refused(device: pathlib.Path, error: type[RelevoError], **status: object) -> None:
        async with mirror(paths, device, **status) as peer:
            with pytest.raises(error):
                await volume.format_volume(config, paths, "r0")
            assert peer.asked == []

    async def scene(device: pathlib.Path) -> None:
        await refused(device, volume.VolumeInUse, role="Primary")
        await refused(device, volume.VolumeInUse, peer_role="Primary")
        await refused(device, volume.VolumeNotReady, connection="WFConnection", peer_disk="DUnknown")
        await refused(device, volume.VolumeNotReady, connection="SyncTarget", disk="Inconsistent")
        with pytest.raises(RelevoError, match="no mirror 'r9'"):
            await volume.format_volume(config, paths, "r9")
        async with mirror(paths, device, disk="Inconsistent", peer_disk="Inconsistent") as peer:
            await volume.format_volume(config, paths, "r0")
            assert peer.promoted_with["force"] is True

    with loop_device(tmp_path) as device:
        asyncio.run(scene(device))


@inside
def test_refuses_while_the_service_runs(tmp_path: pathlib.Path) -> None:
    config, paths = configure(tmp_path)

    async def status(request: Message) -> Message:
        return {"services": {"web": {"states": {"nodo1": "stopped", "nodo2": "started"}}}}

    async def scene(device: pathlib.Path) -> None:
        node = ControlServer(paths.socket("node"), {"status": status})
        await node.start()
        async with mirror(paths, device) as peer:
            with pytest.raises(volume.VolumeInUse, match="started on nodo2"):
                await volume.format_volume(config, paths, "r0")
            assert peer.asked == []
        await node.stop()

    with loop_device(tmp_path) as device:
        asyncio.run(scene(device))


@inside
def test_unknown_data_is_not_destroyed(tmp_path: pathlib.Path) -> None:
    config, paths = configure(tmp_path)

    async def scene(device: pathlib.Path) -> None:
        async with mirror(paths, device) as peer:
            with pytest.raises(volume.VolumeNotEmpty, match="unknown kind"):
                await volume.format_volume(config, paths, "r0")
            assert peer.asked == ["primary", "secondary"]
        assert b"precious" in sh("head", "-c", "8", str(device)).encode()

    with loop_device(tmp_path) as device:
        device.write_bytes(b"precious")
        asyncio.run(scene(device))
