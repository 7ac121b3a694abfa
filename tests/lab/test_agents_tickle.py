"""A client that only waits is told that its server is gone: a connection whose other end vanished in silence."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address

import pytest
from agents_inside import inside, sh

from relevo.agents.sockdiag import established
from relevo.agents.tickle import Connection, checksum, segment, tickle

VIP = IPv4Address("192.168.0.29")
WAIT_S = 10.0
_TCP_REPAIR = 19  # linux/tcp.h: a socket that is closed in this mode says nothing to the other side


@inside
def test_a_waiting_client_learns_that_its_server_is_gone() -> None:
    sh("ip", "link", "set", "lo", "up")
    sh("ip", "address", "add", f"{VIP}/32", "dev", "lo")
    with socket.create_server((str(VIP), 0)) as listening:
        client = socket.create_connection(listening.getsockname(), timeout=WAIT_S)
        served, _ = listening.accept()
        port = client.getsockname()[1]
        wanted = Connection(VIP, listening.getsockname()[1], IPv4Address(client.getsockname()[0]), port)
        assert wanted in established(VIP)
    served.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
    served.close()
    assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x01"  # established, as far as it knows
    assert wanted not in established(VIP)
    assert tickle([wanted]) == 1
    with client, pytest.raises(ConnectionResetError):
        client.recv(1)


def test_the_checksum_of_a_segment_adds_up() -> None:
    packet = segment(Connection(VIP, 445, IPv4Address("192.168.0.30"), 50123))
    pseudo = packet[12:20] + bytes([0, 6]) + (20).to_bytes(2, "big")
    assert (len(packet), checksum(pseudo + packet[20:])) == (40, 0)
