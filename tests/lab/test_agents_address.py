"""The address agent on a real interface (one end of a veth pair; the other end listens)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from agents_inside import inside, sh

from relevo.agents import arp
from relevo.agents.address import AddressAgent
from relevo.agents.announcer import BURST
from relevo.agents.base import AgentFailed, StartContext, State
from relevo.config.model import AddressResource, Link

VIP = IPv4Address("192.168.0.29")
LINK = Link(name="users", interface="eth0", network=IPv4Network("192.168.0.0/24"))
CONTEXT = StartContext(epoch=1)
WAIT_S = 5.0


def agent(interval_ms: int = 60_000, interface: str = "eth0") -> AddressAgent:
    link = Link(name="users", interface=interface, network=LINK.network)
    address = IPv4Interface(f"{VIP}/24")
    return AddressAgent(
        AddressResource(id="address", address=address, link="users", announce_interval_ms=interval_ms), link
    )


def wire() -> None:
    sh("ip", "link", "set", "lo", "up")
    sh("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer")
    for name in ("eth0", "peer"):
        sh("ip", "link", "set", name, "up")
    sh("ip", "address", "add", "192.168.0.27/24", "dev", "eth0")


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(arp.ETH_P_ARP)) as sock:
        sock.bind(("peer", arp.ETH_P_ARP))
        sock.settimeout(WAIT_S)
        yield sock


def heard(sock: socket.socket, count: int) -> list[bytes]:
    """The next frames in which somebody announces the address; fails if they do not come."""
    frames: list[bytes] = []
    while len(frames) < count:
        frame = sock.recv(2048)
        claim = arp.parse_claim(frame)
        if claim is not None and claim.address == VIP:
            frames.append(frame)
    return frames


def drain(sock: socket.socket) -> None:
    sock.settimeout(0)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.recv(2048)
    sock.settimeout(WAIT_S)


async def off_loop(sock: socket.socket, count: int) -> list[bytes]:
    return await asyncio.to_thread(heard, sock, count)


@inside
def test_start_announces_in_a_burst_and_stop_removes() -> None:
    async def scene() -> None:
        own = agent()
        with listening() as sock:
            assert (await own.probe()).state is State.STOPPED
            await own.start(CONTEXT)
            sock.settimeout(0)
            first = heard(sock, 2)  # they were on the wire before start returned
            sock.settimeout(WAIT_S)
            began = time.monotonic()
            rest = await off_loop(sock, 2 * (BURST - 1))
            assert time.monotonic() - began < WAIT_S
        operations = [frame[21] for frame in first + rest]
        assert operations == [arp.REQUEST, arp.REPLY] * BURST
        assert all(frame[:6] == arp.BROADCAST for frame in first + rest)
        assert "192.168.0.29/24 brd 192.168.0.255 scope global secondary eth0:relevo" in sh("ip", "address")
        assert (await own.monitor()).state is State.RUNNING
        await own.start(CONTEXT)  # idempotent
        await own.stop()
        assert str(VIP) not in sh("ip", "address")
        assert (await own.monitor()).state is State.STOPPED
        await own.stop()  # idempotent

    wire()
    asyncio.run(scene())


@inside
def test_conflict_is_answered_with_announcements() -> None:
    async def scene() -> None:
        own = agent()
        await own.start(CONTEXT)
        with listening() as sock:
            await off_loop(sock, 2 * (BURST - 1))
            drain(sock)
            other = b"\x02\x00\x00\x00\x00\x77"
            sock.send(arp.announcement(other, IPv4Address("192.168.0.99"), arp.REPLY))
            sock.send(arp.announcement(other, VIP, arp.REPLY))
            frames = await off_loop(sock, 2)
            assert all(arp.parse_claim(frame).hardware != other for frame in frames)  # type: ignore[union-attr]
            assert own._announcer is not None
            assert own._announcer.conflicts == 1
        await own.stop()

    wire()
    asyncio.run(scene())


@inside
def test_announces_again_at_each_interval() -> None:
    async def scene() -> None:
        own = agent(interval_ms=20)
        await own.start(CONTEXT)
        with listening() as sock:
            assert len(await off_loop(sock, 4 * BURST)) == 4 * BURST
        await own.stop()

    wire()
    asyncio.run(scene())


@inside
def test_monitor_fails_without_carrier_and_announces_when_it_is_back() -> None:
    async def scene() -> None:
        own = agent()
        await own.start(CONTEXT)
        sh("ip", "link", "set", "peer", "down")
        health = await own.monitor()
        assert health.state is State.FAILED
        assert "no carrier" in health.reason
        with pytest.raises(AgentFailed, match="no carrier"):
            await agent().start(CONTEXT)
        sh("ip", "link", "set", "peer", "up")
        with listening() as sock:
            assert (await own.monitor()).state is State.RUNNING
            await off_loop(sock, 2 * BURST)
        sh("ip", "link", "set", "eth0", "down")
        assert "is down" in (await own.monitor()).reason
        await own.stop()
        assert str(VIP) not in sh("ip", "address")

    wire()
    asyncio.run(scene())


@inside
def test_survives_an_interface_that_is_made_anew() -> None:
    async def scene() -> None:
        own = agent()
        await own.start(CONTEXT)
        sh("ip", "link", "del", "eth0")
        assert (await own.monitor()).state is State.STOPPED
        await own.stop()
        with pytest.raises(AgentFailed, match="no interface eth0"):
            await own.start(CONTEXT)
        wire()
        with listening() as sock:
            await own.start(CONTEXT)
            await off_loop(sock, 2 * BURST)
        await own.stop()

    wire()
    asyncio.run(scene())


@inside
def test_another_agent_adopts_what_is_there() -> None:
    async def scene() -> None:
        first = agent()
        await first.start(CONTEXT)
        await first.close()
        second = agent()
        with listening() as sock:
            assert (await second.probe()).state is State.RUNNING
            drain(sock)
            assert second._announcer is None
            assert (await second.monitor()).state is State.RUNNING
            await off_loop(sock, 2 * BURST)
        await second.stop()
        assert str(VIP) not in sh("ip", "address")

    wire()
    asyncio.run(scene())


@inside
def test_stop_removes_an_address_that_somebody_added_by_hand() -> None:
    async def scene() -> None:
        sh("ip", "address", "add", f"{VIP}/24", "dev", "eth0")  # without the label that we give
        own = agent()
        await own.start(CONTEXT)
        await own.stop()
        assert str(VIP) not in sh("ip", "address")

    wire()
    asyncio.run(scene())


@inside
def test_stop_tells_the_clients() -> None:
    async def scene() -> None:
        own = agent()
        await own.start(CONTEXT)
        with socket.create_server(("", 8080)) as server, socket.create_connection((str(VIP), 8080)) as client:
            server.settimeout(WAIT_S)
            client.settimeout(WAIT_S)
            held, _ = server.accept()
            with held, socket.create_connection(("192.168.0.27", 8080)) as bystander:
                await own.stop()
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
                kept, _ = server.accept()
                with kept:
                    bystander.sendall(b"x")
                    assert kept.recv(1) == b"x"  # a connection of the node's own address goes on

    wire()
    asyncio.run(scene())
