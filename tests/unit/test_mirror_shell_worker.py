"""The worker when things around it fail: its disk, /dev/fuse, the core itself."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from heartbeat_support import two_nodes
from relevo.base.control import Message
from relevo.base.paths import Paths
from relevo.cli.mirror import _sentence
from relevo.config.model import Config, Mirror
from relevo.config.site import site_of
from relevo.device.aio import AioUnavailable
from relevo.device.fuse import FuseUnavailable
from relevo.device.keeper_client import KeeperClient
from relevo.device.keeper_proto import MAX_MESSAGE_BYTES, KeeperReply, Run, decode_order, encode
from relevo.mirror import events as ev
from relevo.mirror import reattach, shell, shell_backing, shell_device
from relevo.mirror.create import create_metadata
from relevo.mirror.loop import now_ms
from relevo.mirror.parted import Parted
from relevo.mirror.requests import Then
from relevo.mirror.saved import unpack_ranges
from relevo.mirror.saver import Order

LIMIT_MS = 10_000
DISK_BYTES = 8 << 20


def config(disk: pathlib.Path) -> Config:
    found = two_nodes()
    for node in found.nodes.values():
        node.disks["r0"] = disk
    found.mirrors["r0"] = Mirror(name="r0", link="cross", port=7788, secret="the secret", alone="risk")
    return found


class Rig:
    """A worker whose loop the test turns, with a client at its control socket."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.disk = folder / "disk"
        self.paths = Paths(folder / "etc", folder / "state", folder / "run")
        self.paths.state.mkdir()
        self.keeper, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.to_keeper = KeeperClient(ours.detach())
        self.worker = shell.Worker(site_of(config(self.disk), "nodo1", "r0"), self.paths, self.to_keeper)
        self.clients: list[socket.socket] = []
        self.client = self.connect()

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(self.paths.socket("mirror-r0")))
        client.settimeout(0)
        self.clients.append(client)
        return client

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.keeper.close()
        self.to_keeper.close()
        self.worker._control.close()
        self.worker._link.close()
        if self.worker._backing.disk is not None:
            self.worker._backing.disk.close()
        self.worker._loop.close()

    def turn(self, until: Callable[[], bool]) -> None:
        end = now_ms() + LIMIT_MS
        while not until():
            assert now_ms() < end, "it did not come about"
            self.worker._loop.round(50)

    def ask(self, do: str, **arguments: object) -> Message:
        self.client.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
        return self.answer(self.client)

    def answer(self, client: socket.socket) -> Message:
        got = bytearray()

        def whole() -> bool:
            try:
                got.extend(client.recv(65536))
            except BlockingIOError:
                return False
            return got.endswith(b"\n")

        self.turn(whole)
        answer: Message = json.loads(got)
        return answer

    def make_disk(self, path: pathlib.Path | None = None) -> None:
        path = self.disk if path is None else path
        with path.open("wb") as file:
            file.truncate(DISK_BYTES)
        create_metadata(path, zeroed=True)

    def begin(self) -> None:
        """The first attempt to use the disk, to its end."""
        self.worker._backing.begin()
        self.turn(lambda: not self.worker._backing._attempts.busy)

    def attach(self) -> None:
        self.make_disk()
        self.begin()
        self.turn(lambda: self.ask("status")["connection"] == "WFConnection")


@pytest.fixture
def rig(tmp_path: pathlib.Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def test_a_missing_disk_is_told_to_watchers_and_tried_again(rig: Rig) -> None:
    rig.begin()
    assert str(rig.disk) in rig.ask("status")["problem"]
    assert rig.ask("primary", epoch=1)["error"] == "NotAttached"
    rig.attach()
    assert rig.ask("status")["problem"] == ""
    assert (rig.ask("status")["minor"], rig.ask("status")["protocol"]) == (0, "C"), "for who has no configuration"


def test_a_disk_that_cannot_be_read_is_no_end(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    plain = shell_backing.open_copy
    rig.disk.write_bytes(bytes(DISK_BYTES))
    monkeypatch.setattr(shell_backing, "open_copy", broken)
    rig.begin()
    assert "Input/output error" in rig.ask("status")["problem"]
    monkeypatch.setattr(shell_backing, "open_copy", plain)
    rig.attach()


def test_without_the_highest_vote_nothing_is_served(rig: Rig) -> None:
    note = rig.paths.state / "mirror-r0.epoch"
    note.write_text("not a number\n")
    rig.begin()
    assert str(note) in rig.ask("status")["problem"]
    note.write_text("7\n")
    rig.attach()
    assert rig.ask("primary", epoch=6)["error"] == "AlreadyDenied"


def test_a_disk_whose_queue_cannot_be_made_is_given_back(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> Any:
        raise AioUnavailable("io_setup(256) failed.", "Raise the sysctl fs.aio-max-nr.")

    plain = shell_backing.ShellDisk
    rig.make_disk()
    monkeypatch.setattr(shell_backing, "ShellDisk", none_left)
    for _ in range(2):
        rig.begin()
        assert "aio-max-nr" in rig.ask("status")["problem"], "and not: the disk is in use"
    monkeypatch.setattr(shell_backing, "ShellDisk", plain)
    rig.attach()


def attach_later(rig: Rig) -> socket.socket:
    """Ask for the disk on a connection of its own."""
    client = rig.connect()
    client.sendall(b'{"do": "attach"}\n')
    return client


def test_a_disk_that_hangs_while_it_is_attached_holds_up_nobody(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, asked, plain = threading.Event(), threading.Event(), shell_backing.open_copy

    def hanging(*arguments: Any) -> Any:
        asked.set()
        assert answers.wait(LIMIT_MS / 1000)
        return plain(*arguments)

    monkeypatch.setattr(shell_backing, "open_copy", hanging)
    monkeypatch.setattr(reattach, "ATTACH_LIMIT_MS", 400)
    answers.set()
    rig.attach()
    assert rig.ask("detach")["ok"]
    answers.clear()
    asked.clear()
    first = attach_later(rig)
    rig.turn(asked.is_set)
    assert rig.ask("status")["disk"] == "Diskless", "it answers meanwhile"
    assert rig.answer(attach_later(rig))["error"] == "CommandInProgress"
    refused = rig.answer(first)
    assert (refused["error"], refused["ok"]) == ("DiskDoesNotAnswer", False)
    answers.set()
    rig.turn(lambda: not rig.worker._backing._attempts.stuck)
    assert rig.answer(attach_later(rig))["ok"], "what came too late was closed again"
    assert rig.ask("status")["disk"] != "Diskless"


def test_who_asks_in_vain_does_not_make_the_tries_more(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell_backing, "ATTACH_RETRY_MS", LIMIT_MS)
    rig.begin()
    for _ in range(3):
        assert rig.answer(attach_later(rig))["error"] == "BackingUnusable"
    calls = [timer.call for *_, timer in rig.worker._loop._timers]
    assert calls.count(rig.worker._backing.begin) == 1


class HangingDisk:
    """A path of which the first look never ends until the test says so; a later look is at what lies there by then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hangs, self.answers = threading.Semaphore(0), threading.Event()
        self.hanging = 1
        plain = shell_backing.open_copy

        def look(*arguments: Any) -> Any:
            if self.hanging > 0:
                self.hanging -= 1
                self.hangs.release()
                assert self.answers.wait(LIMIT_MS / 1000)
            return plain(*arguments)

        monkeypatch.setattr(shell_backing, "open_copy", look)
        monkeypatch.setattr(reattach, "ATTACH_LIMIT_MS", 300)


def test_a_disk_that_hangs_at_the_start_is_told_and_used_when_it_answers(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = HangingDisk(monkeypatch)
    monkeypatch.setattr(shell_backing, "ATTACH_RETRY_MS", 50)
    rig.make_disk()
    rig.worker._backing.begin()
    assert disk.hangs.acquire(timeout=LIMIT_MS / 1000)
    assert rig.ask("status")["disk"] == "Diskless", "the loop goes on"
    refused = rig.ask("primary", epoch=1)
    assert (refused["error"], refused["what"]) == ("NotAttached", "The mirror is starting or stopping.")
    rig.turn(lambda: "could not be read within" in rig.ask("status")["problem"])
    assert rig.worker._backing._attempts.stuck == 1, "one thread waits, and no others join it"
    disk.answers.set()
    rig.turn(lambda: rig.ask("status")["connection"] == "WFConnection")
    assert rig.ask("status")["problem"] == ""


def test_who_asks_for_the_disk_while_it_is_looked_at_for_the_first_time_has_an_answer(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = HangingDisk(monkeypatch)
    rig.make_disk()
    rig.worker._backing.begin()
    assert disk.hangs.acquire(timeout=LIMIT_MS / 1000)
    asking = attach_later(rig)
    assert rig.answer(attach_later(rig))["error"] == "CommandInProgress"
    disk.answers.set()
    assert rig.answer(asking)["ok"]
    assert rig.ask("status")["connection"] == "WFConnection"


def test_another_disk_takes_the_place_of_one_that_hung_and_what_comes_late_is_closed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.attach()
    assert rig.ask("detach")["ok"]
    disk = HangingDisk(monkeypatch)
    assert rig.answer(attach_later(rig))["error"] == "DiskDoesNotAnswer"
    other = rig.disk.with_name("other")
    rig.make_disk(other)
    other.replace(rig.disk)
    assert rig.answer(attach_later(rig))["ok"], "while the first still hangs"
    used = rig.worker._backing.disk
    disk.answers.set()
    rig.turn(lambda: not rig.worker._backing._attempts.stuck)
    assert rig.worker._backing.disk is used
    assert rig.ask("status")["disk"] != "Diskless"


def test_only_so_many_attempts_are_left_behind(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.attach()
    assert rig.ask("detach")["ok"]
    disk = HangingDisk(monkeypatch)
    disk.hanging = reattach.STUCK_MAX
    for _ in range(reattach.STUCK_MAX):
        assert rig.answer(attach_later(rig))["error"] == "DiskDoesNotAnswer"
    refused = rig.answer(attach_later(rig))
    assert refused["error"] == "AttemptsHang"
    assert refused["what"] == "3 attempts to attach a disk hang, and no more are made until one of them ends."
    disk.answers.set()
    rig.turn(lambda: not rig.worker._backing._attempts.stuck)
    assert rig.answer(attach_later(rig))["ok"]


def test_the_control_socket_waits_for_the_first_look_at_the_disk_and_not_for_ever(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as a healthy disk takes nobody sees a mirror without one; one that hangs holds up nothing for long."""
    disk = HangingDisk(monkeypatch)
    monkeypatch.setattr(shell, "START_QUIET_MS", 100)
    monkeypatch.setattr(rig.worker, "_catch_signals", lambda: None)
    rig.make_disk()
    client = rig.connect()
    client.sendall(b'{"do": "status"}\n')
    seen: list[bool] = []
    accept = rig.worker._control._accept

    def accepted(events: int) -> None:
        seen.append(disk.hangs.acquire(blocking=False))
        accept(events)
        rig.worker._loop.stop()

    monkeypatch.setattr(rig.worker._control, "_accept", accepted)
    monkeypatch.setattr(rig.worker._control, "close", lambda: None)
    monkeypatch.setattr(rig.worker._link, "close", lambda: None)
    rig.worker.run()
    assert seen == [True], "the disk was being looked at, and hung"
    assert rig.answer(client)["disk"] == "Diskless"
    disk.answers.set()
    rig.turn(lambda: rig.ask("status")["connection"] == "WFConnection")


def test_a_disk_that_never_answers_leaves_its_place_to_another(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reattach, "ATTACH_LIMIT_MS", 400)
    rig.attach()
    hung = rig.worker._backing.disk
    assert hung is not None
    busy = [True]
    plain = shell_backing.ShellDisk.busy.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(
        shell_backing.ShellDisk, "busy", property(lambda disk: plain(disk) or (disk is hung and busy[0]))
    )
    hung.abandon()
    rig.ask("detach")
    rig.turn(lambda: rig.ask("status")["disk"] == "Diskless")
    refused = rig.answer(attach_later(rig))
    assert refused["error"] == "DiskDoesNotAnswer"
    assert "under way" in refused["what"]
    other = rig.disk.with_name("other")
    rig.make_disk(other)
    other.replace(rig.disk)
    assert rig.answer(attach_later(rig))["ok"], "while the first still hangs"
    assert rig.worker._backing.given_up == [hung]
    busy.clear()
    busy.append(False)
    rig.ask("status")
    assert not rig.worker._backing.given_up


def test_two_who_detach_at_the_same_time_both_have_an_answer(rig: Rig) -> None:
    rig.attach()
    clients = [rig.connect() for _ in range(3)]
    for client in clients:
        client.sendall(b'{"do": "detach"}\n')
    for client in clients:
        assert rig.answer(client)["ok"]
    assert rig.answer(attach_later(rig))["ok"]
    rig.worker._loop.round(0)
    assert rig.worker._backing.disk is not None, "it is not closed for one of them"


def test_a_disk_that_is_let_go_of_keeps_no_memory(rig: Rig) -> None:
    rig.attach()
    disk = weakref.ref(rig.worker._backing.disk)
    assert rig.ask("detach")["ok"]
    rig.turn(lambda: disk() is None)


def test_a_forced_detach_does_not_wait_for_the_disk(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.attach()
    hung = rig.worker._backing.disk
    assert hung is not None
    monkeypatch.setattr(hung._aio, "submit", lambda: None)
    patient = rig.connect()
    patient.sendall(b'{"do": "detach"}\n')
    assert rig.ask("status")["disk"] != "Diskless"
    assert rig.ask("detach", force=True)["ok"]
    assert rig.ask("status")["disk"] == "Diskless"
    assert "ok" in rig.answer(patient), "whoever was waiting has an answer too"
    rig.turn(lambda: rig.worker._backing.disk is None)
    assert rig.answer(attach_later(rig))["ok"]


def test_without_fuse_a_promotion_is_refused_and_the_mirror_goes_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: int) -> Any:
        raise FuseUnavailable("/dev/fuse cannot be opened.", "Load the module fuse.")

    monkeypatch.setattr(shell_device, "FuseFile", missing)
    rig.attach()
    assert rig.ask("primary", epoch=1, force=True)["error"] == "DeviceFailed"
    assert rig.ask("status")["role"] == "Secondary"
    assert rig.ask("outdate")["ok"]


def test_a_failure_in_a_step_ends_the_process(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the control socket nor a stream may catch it: a mirror in the middle of a step must not go on."""
    rig.attach()
    assert rig.worker._core is not None

    def wrong(_: object) -> Any:
        raise AssertionError("this cannot be")

    monkeypatch.setattr(rig.worker._core, "step", wrong)
    with pytest.raises(SystemExit):
        rig.ask("outdate")


def test_a_handler_goes_to_the_keeper_with_drbds_environment(rig: Rig) -> None:
    options = rig.worker._mirror.options
    options.handlers["split-brain"] = "/usr/lib/drbd/notify-split-brain.sh root"
    rig.attach()
    ended: list[int] = []
    try:
        for name in ("split-brain", "pri-lost"):
            rig.worker._errands.run_handler(
                ev.RunHandler(Then(lambda status, _: ended.append(status)), name, {"X": "1"})
            )
    finally:
        del options.handlers["split-brain"]
    assert ended == [0], "what is not configured is done at once, with status 0"
    order = decode_order(rig.keeper.recv(MAX_MESSAGE_BYTES))
    assert isinstance(order, Run)
    assert order.handler
    assert order.argv == ["/bin/sh", "-c", "/usr/lib/drbd/notify-split-brain.sh root"]
    wanted = {
        "DRBD_RESOURCE": "r0",
        "DRBD_VOLUME": "0",
        "DRBD_MINOR": "0",
        "DRBD_MINOR_0": "0",
        "DRBD_LL_DISK": str(rig.disk),
        "DRBD_PEER": "nodo2",
        "DRBD_PEERS": "nodo2",
        "DRBD_PEER_AF": "ipv4",
        "DRBD_CONF": str(rig.paths.config),
        "X": "1",
    }
    assert wanted.items() <= order.env.items()
    rig.keeper.send(encode(KeeperReply(no=order.no, ok=True, status=5)))
    rig.turn(lambda: len(ended) > 1)
    assert ended == [0, 5]


@pytest.mark.parametrize(("status", "required", "expected"), [(0, True, 0), (28, True, 28), (28, False, 0)])
def test_a_copy_is_saved_by_the_keeper(rig: Rig, status: int, required: bool, expected: int) -> None:
    rig.attach()
    ended: list[int] = []
    token = Then(lambda number, _: ended.append(number))
    rig.worker._errands.save_target(ev.SaveTarget(token, "split-brain", ((4096, 8192),), required, (1, 2, 3, 4)))
    datagram, fds, _, _ = socket.recv_fds(rig.keeper, MAX_MESSAGE_BYTES, 1)
    order = decode_order(datagram)
    assert isinstance(order, Run)
    assert not order.handler
    with os.fdopen(fds[0], "rb") as ranges:
        assert unpack_ranges(ranges.read()) == [(4096, 8192)]
    wanted = msgspec.json.decode(order.argv[-1], type=Order)
    assert (wanted.disk, wanted.reason, wanted.generations[0]) == (str(rig.disk), "split-brain", f"{1:016x}")
    assert wanted.data_bytes == rig.worker._errands.data_bytes > 0
    rig.keeper.send(encode(KeeperReply(no=order.no, ok=True, status=status, output="a sentence")))
    rig.turn(lambda: bool(ended))
    assert ended == [expected]


# ---------------------------------------------------------------- since when the copies are apart


def test_since_when_the_copies_are_apart_survives_a_restart(tmp_path: pathlib.Path) -> None:
    note = tmp_path / "mirror-r0.parted"

    def status(connection: str, *, split: bool = False) -> Message:
        return {"connection": connection, "split_brain": split}

    def settle(found: bool) -> None:
        end = now_ms() + LIMIT_MS
        while note.exists() is not found:
            assert now_ms() < end, "the note is not written"

    parted = Parted(note)
    parted.follow(status("WFConnection"))
    assert parted.since == "", "never together, so never parted"
    parted.follow(status("Connected"))
    parted.follow(status("WFConnection"))
    since = parted.since
    assert since.endswith("Z")
    settle(found=True)
    again = Parted(note)
    again.follow(status("WFConnection"))
    again.follow(status("StandAlone", split=True))
    assert again.since == since
    again.follow(status("SyncTarget"))
    assert again.since == ""
    settle(found=False)
    again.follow(status("SyncSource"))
    new = Parted(note)
    new.follow(status("StandAlone", split=True))
    assert new.since, "found, without anybody knowing since when"


def test_a_note_that_cannot_be_read_is_left_out(tmp_path: pathlib.Path) -> None:
    note = tmp_path / "mirror-r0.parted"
    note.write_text("long ago\n")
    assert Parted(note).since == ""


def test_a_split_brain_is_told_with_its_date(rig: Rig) -> None:
    rig.attach()
    assert rig.ask("status")["split_brain_since"] == ""
    core = rig.worker._core
    assert core is not None
    core._s.split_brain, core._s.parted_bits = True, (3, 5)
    rig.worker._changed()
    rig.worker._after()
    found = rig.ask("status")
    assert found["split_brain_since"]
    assert (found["split_brain_own_bytes"], found["split_brain_peer_bytes"]) == (3 * 4096, 5 * 4096)
    assert "12.0 KiB changed here, 20.0 KiB on the peer" in _sentence({"name": "r0", **found})
