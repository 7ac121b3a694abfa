"""Heartbeats are shown as they pass, by a process that opens no port of theirs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from mirror_pair import run
from relevo.config.model import AuthKey
from relevo.heartbeat import wire
from relevo.heartbeat.wire import Message

PORT = 694
KEY = AuthKey(number=1, method="crc", secret="")
LIMIT_S = 20.0


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network of its own, with nothing in it but `lo`."""
    name = f"relevo-dump-{os.getpid()}"
    run("ip", "netns", "add", name)
    run("ip", "-n", name, "link", "set", "lo", "up")
    yield name
    run("ip", "netns", "del", name)


def _send(namespace: str, payload: bytes) -> None:
    """From within the network."""
    script = f"import socket; socket.socket(type=socket.SOCK_DGRAM).sendto({payload!r}, ('127.0.0.1', {PORT}))"
    subprocess.run(["nsenter", f"--net=/run/netns/{namespace}", sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("card", [["--interface", "lo"], []], ids=["one", "all"])
def test_what_passes_is_shown(namespace: str, card: list[str]) -> None:
    assert socket.AF_PACKET
    payload = wire.encode(Message((("t", "starting"), ("src", "nodo1"), ("seq", "1f"), ("hg", "2"))), KEY)
    relevo = [sys.executable, "-m", "relevo", "--etc", "/nowhere", "heartbeat", "dump", "--count", "1", *card]
    enter = ["nsenter", f"--net=/run/netns/{namespace}"]
    with subprocess.Popen([*enter, *relevo], stdout=subprocess.PIPE, text=True) as shown:
        end = time.monotonic() + LIMIT_S
        while shown.poll() is None:  # when it has begun to listen is told to nobody
            assert time.monotonic() < end
            _send(namespace, payload)
        assert shown.stdout is not None
        line = shown.stdout.read()
    assert shown.returncode == 0
    assert "lo 127.0.0.1 > 127.0.0.1  nodo1 starting       is ready for resources  #31 of generation 2" in line


def test_a_card_that_is_not_there(namespace: str) -> None:
    words = [sys.executable, "-m", "relevo", "--etc", "/nowhere", "heartbeat", "dump", "--interface", "eth7"]
    done = subprocess.run(
        ["nsenter", f"--net=/run/netns/{namespace}", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "eth7 cannot be listened to" in done.stderr
