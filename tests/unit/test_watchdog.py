"""The watchdog: petted after completed rounds only, closed with a V only when nothing is protected any more."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pathlib
import re
import struct
from typing import Any

import msgspec
import pytest

from relevo.base.paths import Paths
from relevo.cli.check_watchdog import remarks
from relevo.config.load import load
from relevo.config.watchdog import WatchdogDevice
from relevo.lab.scene import Options, configuration
from relevo.manager.model import Plan, ServiceState
from relevo.node import watchdog
from relevo.node.brain import Brain
from relevo.node.daemon import Daemon
from relevo.node.watchdog import RETRY_MS, Device, Null, watchdog_of
from unit.cluster_samples import configuration as sample

HEADER = pathlib.Path("/usr/include/linux/watchdog.h")
LONGEST_MS = 9800


def settings(device: pathlib.Path) -> WatchdogDevice:
    return WatchdogDevice(device=device, timeout_ms=9000, longest_ms=LONGEST_MS)


class Reader:
    """The other end of a FIFO in the device's place."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.path = folder / "watchdog"
        os.mkfifo(self.path)
        self._fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)

    async def readable(self) -> None:
        there = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._fd, there.set)
        await there.wait()
        asyncio.get_running_loop().remove_reader(self._fd)

    def read(self) -> bytes:
        try:
            return os.read(self._fd, 4096)
        except BlockingIOError:
            return b""


def ioc(direction: int, number: int, size: int) -> int:
    """asm-generic/ioctl.h: 2 bits direction, 14 size, 8 type, 8 number."""
    return direction << 30 | size << 16 | ord("W") << 8 | number


def test_the_numbers_are_those_of_the_kernel() -> None:
    read, both = 2, 3
    assert ioc(read, 0, struct.calcsize("=II32s")) == watchdog.WDIOC_GETSUPPORT
    assert ioc(both, 6, 4) == watchdog.WDIOC_SETTIMEOUT
    assert ioc(read, 7, 4) == watchdog.WDIOC_GETTIMEOUT
    if HEADER.exists():
        text = HEADER.read_text()
        for name, words in {
            "GETSUPPORT": "_IOR(WATCHDOG_IOCTL_BASE, 0, struct watchdog_info)",
            "SETTIMEOUT": "_IOWR(WATCHDOG_IOCTL_BASE, 6, int)",
            "GETTIMEOUT": "_IOR(WATCHDOG_IOCTL_BASE, 7, int)",
        }.items():
            assert re.search(rf"WDIOC_{name}\s+{re.escape(words)}", text)
        assert re.search(rf"WDIOF_MAGICCLOSE\s+0x{watchdog.WDIOF_MAGICCLOSE:04x}", text)


@pytest.mark.parametrize(("disarm", "last"), [(True, b"V"), (False, b"")])
def test_each_pet_is_a_byte_and_only_the_last_may_be_a_v(tmp_path: pathlib.Path, last: bytes, *, disarm: bool) -> None:
    reader = Reader(tmp_path)
    device = Device(settings(reader.path))
    for _ in range(3):
        device.pet(0)
    assert reader.read() == b"\0\0\0"
    assert (device.trouble, device.state()["armed"]) == ("", True)
    device.close(disarm=disarm)
    assert reader.read() == last


def test_what_is_no_watchdog_gets_nothing_written_and_is_named(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    alone = tmp_path / "fifo"
    os.mkfifo(alone)
    for path, why in (
        (file, "is no device"),
        (tmp_path / "none", "No such file"),
        (alone, "cannot be used"),
        (pathlib.Path("/dev/null"), "cannot be used (Inappropriate ioctl"),
    ):
        device = Device(settings(path))
        device.pet(0)
        assert why in device.trouble
        assert not device.state()["armed"]
        device.close(disarm=True)
    assert file.read_text() == "precious"


def test_one_that_could_not_be_opened_is_tried_again(tmp_path: pathlib.Path) -> None:
    device = Device(settings(tmp_path / "watchdog"))
    device.pet(0)
    reader = Reader(tmp_path)
    device.pet(RETRY_MS - 1)
    assert device.trouble
    device.pet(RETRY_MS)
    assert (device.trouble, reader.read()) == ("", b"\0")


def test_a_fifo_whose_reader_stands_still_is_named_until_it_reads_again(tmp_path: pathlib.Path) -> None:
    reader = Reader(tmp_path)
    device = Device(settings(reader.path))
    device.pet(0)
    while not device.trouble:
        device.pet(0)
    assert "does not take what is written" in device.trouble
    while reader.read():
        pass
    device.pet(0)
    assert (device.trouble, reader.read()) == ("", b"\0")


class Driver:
    """A driver as far as its ioctls go; what is written goes to /dev/null."""

    def __init__(self, *, seconds: int, settable: bool) -> None:
        self.seconds = seconds
        self.settable = settable

    def ioctl(self, _fd: int, number: int, argument: bytes) -> bytes:
        if number == watchdog.WDIOC_GETSUPPORT:
            return struct.pack("=II32s", 0x8180, 0, b"Software Watchdog")
        if number == watchdog.WDIOC_SETTIMEOUT:
            if not self.settable:
                raise OSError(95, "Operation not supported")
            (self.seconds,) = struct.unpack("=i", argument)
        return struct.pack("=i", self.seconds)


@pytest.mark.parametrize(
    ("seconds", "settable", "armed", "trouble"),
    [
        (60, True, True, ""),
        (9, False, True, ""),
        (60, False, True, "longer than deadtime less keepalive (9.8 s)"),
        (1, False, False, "may reset a busy server: it is not used"),
    ],
)
def test_the_timeout_that_counts_is_the_drivers(
    monkeypatch: pytest.MonkeyPatch, seconds: int, trouble: str, *, settable: bool, armed: bool
) -> None:
    monkeypatch.setattr(fcntl, "ioctl", Driver(seconds=seconds, settable=settable).ioctl)
    device = Device(settings(pathlib.Path("/dev/null")))
    device.pet(0)
    state = device.state()
    assert (state["armed"], state["identity"], state["stoppable"]) == (armed, "Software Watchdog", True)
    assert trouble in device.trouble
    assert bool(trouble) is bool(device.trouble)
    device.close(disarm=False)


def test_none_is_none() -> None:
    none = watchdog_of(None)
    assert isinstance(none, Null)
    none.pet(0)
    none.close(disarm=True)
    assert (none.state(), none.trouble) == (None, "")


@pytest.fixture
def etc(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "relevo.toml").write_text(configuration(Options()))
    for name, text in (("secrets.toml", '[mirror]\nr0 = "sesame"\n'), ("authkeys", "auth 1\n1 sha256 open\n")):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_only_a_completed_round_pets(etc: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second round hangs where an event loop can: nothing else pets, however long that takes."""
    reader = Reader(etc)
    config = msgspec.structs.replace(load(etc / "relevo.toml"), watchdog=settings(reader.path))
    rounds: list[asyncio.Event] = []
    hangs = asyncio.Event()

    async def think(*_: Any) -> Plan:
        rounds.append(asyncio.Event())
        if len(rounds) == 2:
            hangs.set()
            await asyncio.Event().wait()
        return Plan()

    monkeypatch.setattr(Brain, "think", think)

    async def scene() -> None:
        daemon = Daemon(config, "nodo1", Paths(etc, etc / "state", etc / "run"))
        task = asyncio.create_task(daemon.run())
        async with asyncio.timeout(30):
            await hangs.wait()
        assert reader.read() == b"\0"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())
    assert reader.read() == b"", "what runs here was not probed yet: it stays armed"


@pytest.mark.parametrize(("state", "last"), [(ServiceState.STOPPED, b"V"), (ServiceState.STARTED, b"")])
def test_an_orderly_stop_disarms_only_where_nothing_runs(
    etc: pathlib.Path, monkeypatch: pytest.MonkeyPatch, state: ServiceState, last: bytes
) -> None:
    reader = Reader(etc)
    config = msgspec.structs.replace(load(etc / "relevo.toml"), watchdog=settings(reader.path))

    async def scene() -> None:
        daemon = Daemon(config, "nodo1", Paths(etc, etc / "state", etc / "run"))
        facts = {name: msgspec.structs.replace(told, state=state) for name, told in daemon._executor.facts().items()}
        assert facts
        task = asyncio.create_task(daemon.run())
        async with asyncio.timeout(30):
            await reader.readable()
        reader.read()
        monkeypatch.setattr(daemon._executor, "facts", lambda: facts)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())
    assert reader.read().lstrip(b"\0") == last


def test_check_says_what_it_can_without_starting_it(tmp_path: pathlib.Path) -> None:
    device = tmp_path / "watchdog1"
    config = msgspec.structs.replace(sample(), watchdog=settings(device))
    assert list(remarks(sample())) == []
    assert "modprobe softdog" in "".join(remarks(config))
    device.touch()
    assert list(remarks(config, tmp_path / "sys")) == []
    known = tmp_path / "sys" / "watchdog1"
    known.mkdir(parents=True)
    (known / "identity").write_text("Software Watchdog\n")
    (known / "nowayout").write_text("1\n")
    softdog, unstoppable = remarks(config, tmp_path / "sys")
    assert "not for a kernel" in softdog
    assert "nowayout" in unstoppable
