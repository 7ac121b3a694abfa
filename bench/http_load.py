"""What clients do to a web server: the same few lines of HTTP/1.1 over kept connections for every contender."""

from __future__ import annotations

import concurrent.futures
import itertools
import socket
import threading
import time
from collections.abc import Callable

BUFFER_BYTES = 256 << 10
PATIENCE_S = 600.0


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._connect()

    def _connect(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self._port), PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def put(self, path: str, size_bytes: int, piece: bytes) -> None:
        """Store a file that is made of one piece again and again.

        Raises:
            AssertionError: it was not stored.
        """
        head = f"PUT {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {size_bytes}\r\n\r\n".encode()
        if size_bytes == len(piece):
            self._socket.sendall(head + piece)
        else:
            self._socket.sendall(head)
            for offset in range(0, size_bytes, len(piece)):
                self._socket.sendall(piece[: size_bytes - offset])
        status, _ = self._answer()
        assert status in {200, 201, 204}, f"PUT {path}: {status}"

    def get(self, path: str, accept: str = "*/*") -> int:
        """Fetch something; how many bytes its body has.

        Raises:
            AssertionError: it is not there.
        """
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\nAccept: {accept}\r\n\r\n".encode())
        status, length = self._answer()
        assert status == 200, f"GET {path}: {status}"
        return length

    def _answer(self) -> tuple[int, int]:
        """Status and length of the body, which is read and forgotten."""
        head, have = b"", 0
        while b"\r\n\r\n" not in head:
            piece = self._socket.recv(BUFFER_BYTES)
            assert piece, "the server closed the connection"
            head += piece
        head, _, body = head.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        if fields.get(b"transfer-encoding") == b"chunked":
            length = self._chunked(body)
        else:
            length, have = int(fields.get(b"content-length", b"0")), len(body)
            while have < length:
                have += self._receive()
        if fields.get(b"connection") == b"close":
            self.close()
            self._connect()
        return int(head.split()[1]), length

    def _receive(self) -> int:
        count = self._socket.recv_into(self._buffer)
        assert count, "the server closed the connection"
        return count

    def _chunked(self, body: bytes) -> int:
        received, tail = len(body), body[-7:]
        while not tail.endswith(b"\r\n0\r\n\r\n") and tail != b"0\r\n\r\n":
            count = self._receive()
            received += count
            tail = (tail + bytes(self._buffer[max(0, count - 7) : count]))[-7:]
        return received

    def close(self) -> None:
        """End the connection."""
        self._socket.close()


def at_once(port: int, clients: int, jobs: int, job: Callable[[Client, int], object]) -> float:
    """How long it takes some clients to do numbered jobs, from the moment when all are connected; seconds."""
    numbers, lock = itertools.count(), threading.Lock()
    ready = threading.Barrier(clients + 1)

    def work() -> None:
        client = Client(port)
        ready.wait(PATIENCE_S)
        while True:
            with lock:
                number = next(numbers)
            if number >= jobs:
                client.close()
                return
            job(client, number)

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        working = [pool.submit(work) for _ in range(clients)]
        ready.wait(PATIENCE_S)
        begun = time.perf_counter()
        for one in working:
            one.result()
        return time.perf_counter() - begun
