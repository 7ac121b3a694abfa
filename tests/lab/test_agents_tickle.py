"""A client that only waits is told that its server is gone: a connection whose other end vanished in silence."""

from __future__ import annotations

import asyncio
import pathlib
import socket
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from agents_inside import inside, sh

from relevo.agents.address import AddressAgent
from relevo.agents.base import StartContext
from relevo.agents.sockdiag import established
from relevo.agents.tickle import Connection, checksum, segment, tickle
from relevo.base.control import ControlServer, Message
from relevo.config.model import AddressResource, Link

VIP = IPv4Address("192.168.0.29")
CLIENT = "192.168.0.30"
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


@inside
def test_whoever_takes_the_address_tells_the_clients_of_before(tmp_path: pathlib.Path) -> None:
    async def story() -> None:
        told = [[str(VIP), port, CLIENT, client.getsockname()[1]]]

        async def clients(_: Message) -> Message:
            return {"clients": told}

        server = ControlServer(tmp_path / "files.sock", {"clients": clients})
        link = Link(name="users", interface="eth0", network=IPv4Network("192.168.0.0/24"))
        resource = AddressResource(id="address", address=IPv4Interface(f"{VIP}/24"), link="users")
        agent = AddressAgent(resource, link, tmp_path / "files.sock")
        await server.start()
        await agent.start(StartContext(epoch=1))
        with pytest.raises(ConnectionResetError):
            await asyncio.to_thread(client.recv, 1)
        await agent.stop()
        await server.stop()

    sh("ip", "link", "set", "lo", "up")
    sh("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer")
    for name in ("eth0", "peer"):
        sh("ip", "link", "set", name, "up")
    for address in (CLIENT, str(VIP)):
        sh("ip", "address", "add", f"{address}/24", "dev", "eth0")
    with socket.create_server((str(VIP), 0)) as listening:
        port = listening.getsockname()[1]
        client = socket.create_connection((str(VIP), port), WAIT_S, source_address=(CLIENT, 0))
        served, _ = listening.accept()
    served.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
    served.close()
    sh("ip", "address", "del", f"{VIP}/24", "dev", "eth0")
    with client:
        asyncio.run(story())


def test_the_checksum_of_a_segment_adds_up() -> None:
    packet = segment(Connection(VIP, 445, IPv4Address("192.168.0.30"), 50123))
    pseudo = packet[12:20] + bytes([0, 6]) + (20).to_bytes(2, "big")
    assert (len(packet), checksum(pseudo + packet[20:])) == (40, 0)
