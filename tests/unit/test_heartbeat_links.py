"""The heartbeats' sockets on real network cards, in a network namespace of their own."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from ipaddress import IPv4Address, IPv4Network

from relevo.config.model import Link
from relevo.heartbeat.links import LinkSocket

GROUP = IPv4Address("225.0.0.1")
LIMIT_S = 60.0
AGAIN_S = 0.2
CARDS = """
ip link set lo up
ip link add card1 type veth peer name card2
for number in 1 2; do
ip addr add 10.0.0.$number/24 dev card$number
ip link set card$number up
done
for name in card1 card2 all; do
echo 1 > /proc/sys/net/ipv4/conf/$name/accept_local
echo 0 > /proc/sys/net/ipv4/conf/$name/rp_filter
done
"""
"""Both ends of one cable; each believes what comes from the other, although that is this machine's address, too."""


def test_a_group_is_heard_on_the_card_of_the_link() -> None:
    argv = ["unshare", "--net", sys.executable, __file__]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S, env={"PYTHONPATH": ":".join(sys.path)})
    assert done.stdout == "card2 hears hola\n", done.stderr


async def first(heard: asyncio.Queue[str], sender: LinkSocket) -> str:
    """Send until something is heard: a datagram may be lost while a card comes up."""
    while True:
        sender.send(b"hola", str(GROUP))
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(heard.get(), AGAIN_S)


async def talk() -> None:
    """One end sends to the group; the first that hears it is told."""
    heard: asyncio.Queue[str] = asyncio.Queue()

    def readable(sock: LinkSocket) -> None:
        for datagram, _ in sock.receive():
            heard.put_nowait(f"{sock.link.name} hears {datagram.decode()}")

    network = IPv4Network("10.0.0.0/24")
    sockets = [
        LinkSocket(Link(name=name, interface=name, network=network, multicast=GROUP), readable)
        for name in ("card1", "card2")
    ]
    for sock in sockets:
        sock.refresh()
    print(await first(heard, sockets[0]))
    for sock in sockets:
        sock.close()


if __name__ == "__main__":
    subprocess.run(["sh", "-ec", CARDS], check=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    asyncio.run(talk())
