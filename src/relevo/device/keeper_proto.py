"""What a worker and its keeper say to each other: one JSON object per datagram of a SOCK_SEQPACKET socketpair."""

from __future__ import annotations

import msgspec

from relevo.base.errors import RelevoError

MAX_MESSAGE_BYTES = 16 << 10


class Attach(msgspec.Struct, frozen=True, kw_only=True, tag="attach", tag_field="do"):
    """Mount the /dev/fuse descriptor that comes along (SCM_RIGHTS) and put a loop device over it."""

    no: int
    size: int


class Detach(msgspec.Struct, frozen=True, kw_only=True, tag="detach", tag_field="do"):
    """Take the loop device and the mount away; `force` even while it is in use."""

    no: int
    force: bool = False


class Grow(msgspec.Struct, frozen=True, kw_only=True, tag="grow", tag_field="do"):
    """The served file has become larger: the loop device shall have its new size."""

    no: int
    size: int


class Run(msgspec.Struct, frozen=True, kw_only=True, tag="run", tag_field="do"):
    """Run a command; a descriptor that comes along is its standard input. Any number may be under way.

    Attributes:
        what: for the log.
        argv: the command line.
        env: its whole environment.
        timeout_ms: after that it is killed, with all that it started in its session.
        handler: a command of the administrator's: it outlives the worker, and is not run where that is refused.
    """

    no: int
    what: str
    argv: list[str]
    env: dict[str, str]
    timeout_ms: int
    handler: bool = False


class Hold(msgspec.Struct, frozen=True, kw_only=True, tag="hold", tag_field="do"):
    """Hold the /dev/fuse descriptor that comes along: should I die, the next worker gets it and the device stays."""

    no: int


class Serving(msgspec.Struct, frozen=True, kw_only=True, tag="serving", tag_field="do"):
    """I have taken over the device that an earlier worker has left."""

    no: int


DeviceOrder = Attach | Detach | Grow | Hold | Serving
Order = DeviceOrder | Run


class Resume(msgspec.Struct, frozen=True, kw_only=True, tag="resume", tag_field="do"):
    """The keeper's first word to a worker that takes over a device; the /dev/fuse descriptor comes along.

    Attributes:
        size: bytes of the device.
        device: its path.
    """

    size: int
    device: str


class KeeperReply(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of the order `no`.

    Attributes:
        ok: it was carried out.
        device: path of the block device (after attach).
        minor: the FUSE connection's number (after attach).
        loop: N of loopN (after attach).
        status: exit status of a command, 128 + N when signal N ended it, -1 when it was not run or took too long.
        output: the end of what a command printed.
        error: type of the error, with what happened and the remedy (when not ok).
    """

    no: int
    ok: bool
    device: str = ""
    minor: int = -1
    loop: int = -1
    status: int = 0
    output: str = ""
    error: str = ""
    what: str = ""
    remedy: str = ""


class KeeperProtocolBroken(RelevoError):
    """A message between worker and keeper cannot be read."""


_orders: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order)
_resumes = msgspec.json.Decoder(Resume)
_replies = msgspec.json.Decoder(KeeperReply)


def encode(message: Order | Resume | KeeperReply) -> bytes:
    """One message as a datagram."""
    return msgspec.json.encode(message)


def decode_order(datagram: bytes) -> Order:
    """An order of the worker.

    Raises:
        KeeperProtocolBroken: it is none.
    """
    try:
        return _orders.decode(datagram)
    except msgspec.DecodeError as error:
        raise KeeperProtocolBroken(f"The worker's message cannot be read ({error}).") from error


def decode_reply(datagram: bytes) -> KeeperReply:
    """An answer of the keeper.

    Raises:
        KeeperProtocolBroken: it is none.
    """
    try:
        return _replies.decode(datagram)
    except msgspec.DecodeError as error:
        raise KeeperProtocolBroken(f"The keeper's message cannot be read ({error}).") from error


def decode_resume(datagram: bytes) -> Resume:
    """The keeper's first word.

    Raises:
        KeeperProtocolBroken: it is none.
    """
    try:
        return _resumes.decode(datagram)
    except msgspec.DecodeError as error:
        raise KeeperProtocolBroken(f"The keeper's message cannot be read ({error}).") from error
