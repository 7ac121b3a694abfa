"""The FUSE codec and server, fed through a socketpair in the kernel's place."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import socket
import struct
import weakref
from collections.abc import Iterator

import pytest

from relevo.device import fuse_proto as proto
from relevo.device.buffers import PAGE_BYTES, address_of
from relevo.device.frontend import DiscardKind, FuseDiscard, FuseFlush, FuseRead, FuseWrite
from relevo.device.fuse import PATIENCE, FuseFile

SIZE = 1 << 20
HEADER = struct.Struct("=IIQQIIIHH")


class Kernel:
    """The other end of a FuseFile: sends requests as the kernel does, reads replies."""

    def __init__(self) -> None:
        self.file = FuseFile(SIZE)
        self.end, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        os.set_blocking(ours.fileno(), False)
        os.close(self.file._fd)
        self.file._fd = ours.detach()
        self.end.settimeout(5)

    def send(self, opcode: int, unique: int, body: bytes = b"") -> None:
        self.end.send(HEADER.pack(40 + len(body), opcode, unique, 1, 0, 0, 0, 0, 0) + body)

    def reply(self) -> tuple[int, int, bytes]:
        data = self.end.recv(2 << 20)
        length, error, unique = struct.unpack_from("=IiQ", data)
        assert length == len(data)
        return unique, error, data[16:]


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    kernel = Kernel()
    with contextlib.closing(kernel.end), contextlib.closing(kernel.file):
        yield kernel


def io_body(offset: int, size: int) -> bytes:
    return struct.pack("=QQIIQII", 1, offset, size, 0, 0, 0, 0)


def test_init_takes_what_is_offered_and_no_more(kernel: Kernel) -> None:
    offered = proto.InitFlag.ASYNC_READ | proto.InitFlag.MAX_PAGES | (1 << 30)
    kernel.send(proto.Opcode.INIT, 2, struct.pack("=IIIII", 7, 44, 131072, offered, 0) + bytes(44))
    assert kernel.file.receive() == []
    unique, error, body = kernel.reply()
    assert (unique, error, len(body)) == (2, 0, 64)
    major, minor, readahead, flags, background, threshold, max_write, grain, pages = struct.unpack_from(
        "=IIIIHHIIH", body
    )
    assert (major, minor, readahead) == (7, 38, 131072)
    assert flags == proto.InitFlag.ASYNC_READ | proto.InitFlag.MAX_PAGES
    assert (background, threshold, max_write, grain, pages) == (256, 192, 1 << 20, 1, 256)


def test_write_payload_is_aligned_and_held_until_the_reply(kernel: Kernel) -> None:
    for unique, letter in ((10, b"a"), (11, b"b")):
        kernel.send(proto.Opcode.WRITE, unique, io_body(8192, 4096) + letter * 4096)
    requests = []
    while len(requests) < 2:
        requests += kernel.file.receive()
    for request, letter in zip(requests, (b"a", b"b"), strict=True):
        assert isinstance(request, FuseWrite)
        assert (request.offset, request.length) == (8192, 4096)
        assert bytes(request.payload) == letter * 4096
        assert address_of(request.payload) % PAGE_BYTES == 0
    kernel.file.reply_written(11, 4096)
    assert kernel.reply() == (11, 0, struct.pack("=II", 4096, 0))
    kernel.file.reply_error(10, errno.EIO)
    assert kernel.reply() == (10, -errno.EIO, b"")
    assert kernel.file._writes == {}


def test_read_in_parts(kernel: Kernel) -> None:
    kernel.send(proto.Opcode.READ, 4, io_body(4096, 8192))
    (request,) = kernel.file.receive()
    assert isinstance(request, FuseRead)
    assert (request.unique, request.offset, request.length) == (4, 4096, 8192)
    kernel.file.reply_read(4, (b"x" * 4096, memoryview(b"y" * 4096)))
    assert kernel.reply() == (4, 0, b"x" * 4096 + b"y" * 4096)


def test_the_end_of_the_file(kernel: Kernel) -> None:
    kernel.send(proto.Opcode.READ, 4, io_body(SIZE - 512, 4096))
    (request,) = kernel.file.receive()
    assert isinstance(request, FuseRead)
    assert request.length == 512
    kernel.send(proto.Opcode.READ, 6, io_body(SIZE, 4096))
    assert kernel.file.receive() == []
    assert kernel.reply() == (6, 0, b"")
    kernel.send(proto.Opcode.WRITE, 8, io_body(SIZE - 512, 4096) + bytes(4096))
    assert kernel.file.receive() == []
    assert kernel.reply() == (8, -errno.ENOSPC, b"")


@pytest.mark.parametrize(
    ("mode", "kind"),
    [(0x03, DiscardKind.UNMAP), (0x11, DiscardKind.ZERO)],
)
def test_fallocate_is_a_discard(kernel: Kernel, mode: int, kind: DiscardKind) -> None:
    kernel.send(proto.Opcode.FALLOCATE, 12, struct.pack("=QQQII", 1, 4096, SIZE, mode, 0))
    (request,) = kernel.file.receive()
    assert isinstance(request, FuseDiscard)
    assert (request.offset, request.length, request.kind) == (4096, SIZE - 4096, kind)
    kernel.file.reply_ok(12)
    assert kernel.reply() == (12, 0, b"")


@pytest.mark.parametrize("mode", [0, 1, 2, 0x08, 0x10])
def test_other_modes_of_fallocate_are_refused(kernel: Kernel, mode: int) -> None:
    kernel.send(proto.Opcode.FALLOCATE, 12, struct.pack("=QQQII", 1, 0, 4096, mode, 0))
    assert kernel.file.receive() == []
    assert kernel.reply() == (12, -errno.EOPNOTSUPP, b"")


def test_fsync_is_a_flush(kernel: Kernel) -> None:
    kernel.send(proto.Opcode.FSYNC, 14, struct.pack("=QII", 1, 0, 0))
    (request,) = kernel.file.receive()
    assert isinstance(request, FuseFlush)
    kernel.file.reply_ok(request.unique)
    assert kernel.reply() == (14, 0, b"")


def test_attributes_and_size(kernel: Kernel) -> None:
    kernel.send(proto.Opcode.GETATTR, 20, bytes(16))
    kernel.file.receive()
    unique, error, body = kernel.reply()
    assert (unique, error, len(body)) == (20, 0, 104)
    assert struct.unpack_from("=QQQ", body, 16) == (1, SIZE, SIZE // 512)
    assert struct.unpack_from("=II", body, 16 + 60) == (0o100600, 1)
    grow = struct.pack("=IIQQ", proto.FATTR_SIZE, 0, 0, SIZE + 4096) + bytes(64)
    kernel.send(proto.Opcode.SETATTR, 22, grow)
    kernel.file.receive()
    assert kernel.reply()[1] == -errno.EPERM
    kernel.send(proto.Opcode.STATFS, 24)
    kernel.file.receive()
    unique, error, body = kernel.reply()
    assert (error, len(body)) == (0, 80)
    assert struct.unpack_from("=QQQQQIII", body) == (256, 0, 0, 1, 0, 4096, 255, 4096)


def test_open_is_direct_and_parallel(kernel: Kernel) -> None:
    kernel.send(proto.Opcode.OPEN, 30, bytes(8))
    kernel.file.receive()
    assert kernel.reply() == (30, 0, struct.pack("=QII", 1, 0x61, 0))


def test_unknown_requests_are_not_implemented_and_forget_has_no_answer(kernel: Kernel) -> None:
    kernel.send(proto.Opcode.FORGET, 2, bytes(8))
    kernel.send(22, 40, bytes(8))  # GETXATTR
    for _ in range(2):
        assert kernel.file.receive() == []
    assert kernel.reply() == (40, -errno.ENOSYS, b"")


def test_bursts_grow_and_shrink(kernel: Kernel) -> None:
    for unique in range(100, 130):
        kernel.send(proto.Opcode.FSYNC, unique, bytes(16))
    sizes = []
    while got := kernel.file.receive():
        sizes.append(len(got))
    assert sum(sizes) == 30
    assert sizes == [1] * PATIENCE + [2, 4, 8, 30 - PATIENCE - 14]
    for unique in range(200, 200 + PATIENCE - 1):
        kernel.send(proto.Opcode.FSYNC, unique, bytes(16))
        assert len(kernel.file.receive()) == 1
    assert kernel.file._burst == 1, "single requests: nothing is asked for in vain"


def test_destroy_closes(kernel: Kernel) -> None:
    assert not kernel.file.closed
    kernel.send(proto.Opcode.DESTROY, 50)
    kernel.file.receive()
    assert kernel.file.closed


def test_a_size_that_is_no_multiple_of_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        FuseFile(4097)


def test_a_closed_file_keeps_no_memory() -> None:
    kernel = Kernel()
    file = weakref.ref(kernel.file)
    gc.disable()
    try:
        kernel.file.close()
        kernel.end.close()
        del kernel
        assert file() is None, "its pool, locked in memory, is gone with it"
    finally:
        gc.enable()
