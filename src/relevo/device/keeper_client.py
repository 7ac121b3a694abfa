"""The worker's end of its keeper: asks for the device without ever waiting, so that it fits an epoll loop."""

from __future__ import annotations

import os
import socket

from relevo.base.errors import RelevoError
from relevo.device.keeper_proto import (
    MAX_MESSAGE_BYTES,
    Attach,
    Detach,
    Grow,
    Hold,
    KeeperReply,
    Order,
    Resume,
    Run,
    Serving,
    decode_reply,
    decode_resume,
    encode,
)


class MessageTooLong(RelevoError):
    """An order does not fit into one datagram."""


class KeeperGone(RelevoError):
    """The keeper has died: nobody can take the device away in order, the worker must end."""


class KeeperClient:
    """Orders to the keeper. One device at a time: attach, then detach.

    Args:
        fd: the socketpair's end that came in the worker's arguments (taken over, closed on exec from here on).

    Attributes:
        resume: the device that a dead worker has left and this one has to take over, with the descriptor of /dev/fuse;
            None when there is none.
    """

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)  # noqa: FBT003 - positional only
        self._socket = socket.socket(fileno=fd)
        self._socket.settimeout(0)
        self._next = 1
        self.resume = self._first_word()

    def _first_word(self) -> tuple[Resume, int] | None:
        """The keeper says it before it starts the worker, or not at all; everything else it says is an answer."""
        try:
            datagram, fds, _, _ = socket.recv_fds(self._socket, MAX_MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        if not datagram or not fds:
            raise KeeperGone("The keeper has closed its connection.")
        return decode_resume(datagram), fds[0]

    def fileno(self) -> int:
        """Readable when `receive` has something."""
        return self._socket.fileno()

    def attach(self, fuse_fd: int, size_bytes: int) -> int:
        """Ask for the device of a `FuseFile`; go on serving it: its answers are needed before the reply comes.

        Returns:
            the number that the reply will carry.

        Raises:
            KeeperGone: the keeper has died.
        """
        return self._send(Attach(no=self._next, size=size_bytes), [fuse_fd])

    def detach(self, *, force: bool = False) -> int:
        """Ask for the device to be taken away; go on serving until the reply. Without `force` it fails when in use.

        Raises:
            KeeperGone: the keeper has died.
        """
        return self._send(Detach(no=self._next, force=force), [])

    def grow(self, size_bytes: int) -> int:
        """Ask for the device to get the size that its `FuseFile` has now; go on serving until the reply.

        Raises:
            KeeperGone: the keeper has died.
        """
        return self._send(Grow(no=self._next, size=size_bytes), [])

    def run(
        self,
        what: str,
        argv: list[str],
        env: dict[str, str],
        timeout_ms: int,
        *,
        handler: bool = False,
        input_fd: int | None = None,
    ) -> int:
        """Ask for a command to be run; the reply comes when it has ended.

        Args:
            what: for the log.
            argv: the command line.
            env: its whole environment.
            timeout_ms: after that it is killed.
            handler: a command of the administrator's, see `keeper_proto.Run`.
            input_fd: its standard input; stays the caller's.

        Returns:
            the number that the reply will carry.

        Raises:
            KeeperGone: the keeper has died.
            MessageTooLong: the command does not fit into one message.
        """
        order = Run(no=self._next, what=what, argv=argv, env=env, timeout_ms=timeout_ms, handler=handler)
        if len(encode(order)) > MAX_MESSAGE_BYTES:
            problem = f"The command of {what} is longer than {MAX_MESSAGE_BYTES} bytes."
            raise MessageTooLong(problem, "Put it in a script.")
        return self._send(order, [] if input_fd is None else [input_fd])

    def hold(self, fuse_fd: int) -> int:
        """Have the keeper hold the descriptor of the device: it then outlives this worker (see `held.py`).

        Raises:
            KeeperGone: the keeper has died.
        """
        return self._send(Hold(no=self._next), [fuse_fd])

    def serving(self) -> int:
        """Tell that the device of `resume` is served again.

        Raises:
            KeeperGone: the keeper has died.
        """
        return self._send(Serving(no=self._next), [])

    def _send(self, order: Order, fds: list[int]) -> int:
        try:
            socket.send_fds(self._socket, [encode(order)], fds)
        except OSError as error:
            raise KeeperGone(f"The keeper does not answer ({error.strerror}).") from error
        self._next += 1
        return order.no

    def receive(self) -> list[KeeperReply]:
        """The replies that have come.

        Raises:
            KeeperGone: the keeper has died.
        """
        replies: list[KeeperReply] = []
        while True:
            try:
                datagram = self._socket.recv(MAX_MESSAGE_BYTES)
            except BlockingIOError:
                return replies
            except OSError as error:
                raise KeeperGone(f"The keeper does not answer ({error.strerror}).") from error
            if not datagram:
                raise KeeperGone("The keeper has closed its connection.")
            replies.append(decode_reply(datagram))

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
