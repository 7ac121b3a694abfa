"""Structures of the loop driver, the mount table, and the messages between worker and keeper."""

from __future__ import annotations

import os
import pathlib
import socket
import struct
from collections.abc import Callable

import pytest

from relevo.device import loop, mount
from relevo.device.keeper_client import KeeperClient, KeeperGone
from relevo.device.keeper_proto import (
    MAX_MESSAGE_BYTES,
    Attach,
    Detach,
    KeeperProtocolBroken,
    KeeperReply,
    decode_order,
    decode_reply,
    encode,
)
from relevo.device.serve import Runner

TABLE = b"""21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
90 21 0:44 / /run/relevo/mirror/r0/disk rw,nosuid - fuse.relevo relevo:a rw,user_id=0
91 90 0:47 / /run/relevo/mirror/r0/disk rw,nosuid shared:7 - fuse.relevo relevo:b rw,user_id=0
92 21 0:48 / /mnt/with\\040space rw,nosuid - fuse.relevo relevo:c rw,user_id=0
93 21 0:49 / /mnt/sshfs rw - fuse.sshfs host: rw
"""


def test_loop_configuration_has_the_kernels_layout() -> None:
    info = loop.INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, 20, b"relevo:a", b"", b"", 0, 0)
    config = loop.CONFIG.pack(5, 4096, info)
    assert struct.unpack_from("=II", config) == (5, 4096)
    assert struct.unpack_from("=I", config, 8 + 52) == (20,)  # lo_flags
    assert config[8 + 56 : 8 + 56 + 9] == b"relevo:a\0"
    assert len(config) == 304


def test_a_long_loop_name_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="63 bytes"):
        loop.attach(-1, tmp_path / "device", "x" * 64)


@pytest.mark.parametrize(
    ("path", "minor"),
    [
        ("/run/relevo/mirror/r0/disk", 47),
        ("/mnt/with space", 48),
        ("/mnt/sshfs", None),
        ("/", None),
        ("/nowhere", None),
    ],
)
def test_the_connection_is_read_from_the_mount_table(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, path: str, minor: int | None
) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(TABLE)
    monkeypatch.setattr(mount, "MOUNT_INFO", table)
    assert mount.connection_minor(pathlib.Path(path)) == minor


@pytest.mark.parametrize("order", [Attach(no=1, size=1 << 40), Detach(no=2), Detach(no=3, force=True)])
def test_orders_come_back_as_they_were(order: Attach | Detach) -> None:
    assert decode_order(encode(order)) == order


def test_replies_come_back_as_they_were() -> None:
    reply = KeeperReply(no=7, ok=False, error="DeviceBusy", what="It is in use.", remedy="Unmount it.")
    assert decode_reply(encode(reply)) == reply


@pytest.mark.parametrize("decode", [decode_order, decode_reply])
@pytest.mark.parametrize(
    "datagram", [b"", b"{", b"[]", b'{"do":"format","no":1}', b'{"do":"attach","no":1,"size":"big"}']
)
def test_strange_messages_are_refused(decode: Callable[[bytes], object], datagram: bytes) -> None:
    with pytest.raises(KeeperProtocolBroken):
        decode(datagram)


def test_the_client_sends_the_descriptor_and_numbers_its_orders() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client = KeeperClient(theirs.detach())
    with ours:
        assert client.receive() == []
        assert client.attach(ours.fileno(), 4096) == 1
        datagram, fds, _, _ = socket.recv_fds(ours, MAX_MESSAGE_BYTES, 1)
        assert decode_order(datagram) == Attach(no=1, size=4096)
        assert os.fstat(fds[0]).st_ino == os.fstat(ours.fileno()).st_ino
        os.close(fds[0])
        assert client.detach(force=True) == 2
        assert decode_order(ours.recv(MAX_MESSAGE_BYTES)) == Detach(no=2, force=True)
        ours.send(encode(KeeperReply(no=1, ok=True)))
        ours.send(encode(KeeperReply(no=2, ok=True)))
        assert [reply.no for reply in client.receive()] == [1, 2]
    with pytest.raises(KeeperGone):
        client.receive()
    with pytest.raises(KeeperGone):
        client.detach()
    client.close()


def test_the_runner_serves_in_rounds() -> None:
    runner = Runner()
    reading, writing = os.pipe()
    log: list[str] = []

    def ready() -> None:
        log.append(os.read(reading, 1).decode())
        if log[-1] == "b":
            runner.forget(reading)
            runner.stop()

    runner.watch(reading, ready)
    runner.after_each_round(lambda: log.append("|"))
    os.write(writing, b"ab")
    runner.run()
    assert log == ["a", "|", "b", "|"]
    runner.close()
    os.close(reading)
    os.close(writing)
