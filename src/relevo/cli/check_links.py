"""`relevo check --links`: which card carries which link, and does what is sent on it arrive? Changes nothing.

Each server is asked by ICMP echo (RFC 792) over the card of each link, once with a small packet and once with the
largest that the card takes, not to be divided. Answers are read from all cards, before any filter of the kernel's: one
that comes back over another card means that cables are swapped.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Interface

from pyroute2 import IPRoute

from relevo.base.icmp import ICMP_HEADER_BYTES, IP_HEADER_BYTES, echo_reply, echo_request
from relevo.config.model import Config, Link

ANSWER_LIMIT_S = 1.0
"""How long an answer may take on a network of a cluster."""
SMALL_BYTES = 64
_ETH_P_IP = 0x0800
_IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE = 10, 3
_MAX_PACKET_BYTES = 1 << 16


@dataclasses.dataclass(frozen=True, slots=True)
class Card:
    """A network card of this server."""

    index: int
    up: bool
    carrier: bool
    mtu: int
    addresses: tuple[IPv4Interface, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What became of a question: the index of the card that brought the answer (None: none came), and whether a large
    packet was answered as well."""

    index: int | None
    large: bool = False


def cards() -> dict[str, Card]:
    """The cards of this server, by name. Raises OSError."""
    with IPRoute() as netlink:
        addresses: dict[int, list[IPv4Interface]] = {}
        for found in netlink.get_addr(family=socket.AF_INET):
            text = f"{found.get_attr('IFA_ADDRESS')}/{found['prefixlen']}"
            addresses.setdefault(int(found["index"]), []).append(IPv4Interface(text))
        return {
            str(link.get_attr("IFLA_IFNAME")): Card(
                index=int(link["index"]),
                up=link["state"] == "up",
                carrier=bool(link.get_attr("IFLA_CARRIER")),
                mtu=int(link.get_attr("IFLA_MTU")),
                addresses=tuple(addresses.get(int(link["index"]), ())),
            )
            for link in netlink.get_links()
        }


def here(config: Config, me: str, found: Mapping[str, Card]) -> dict[str, str]:
    """Link -> what is wrong with its card on this server; those that can be used are left out."""
    wrong: dict[str, str] = {}
    for name, link in config.links.items():
        card, own = found.get(link.interface), config.nodes[me].addresses[name]
        if card is None:
            wrong[name] = f"there is no card {link.interface}; the cards here are {', '.join(sorted(found))}."
        elif not card.up:
            wrong[name] = f"{link.interface} is down: ip link set {link.interface} up."
        elif not card.carrier:
            wrong[name] = f"{link.interface} has no carrier: is the cable plugged in?"
        elif (problem := _address(link, card, own, found)) is not None:
            wrong[name] = problem
    return wrong


def _address(link: Link, card: Card, own: IPv4Address, found: Mapping[str, Card]) -> str | None:
    for address in card.addresses:
        if address.ip == own:
            if address.network == link.network:
                return None
            return f"{own} on {link.interface} is in {address.network}, the link's network is {link.network}."
    for name, other in found.items():
        if own in (address.ip for address in other.addresses):
            return f"{own} is on {name}, the link is on {link.interface}: are the names of the cards swapped?"
    listed = ", ".join(map(str, card.addresses)) or "none"
    return f"{link.interface} does not have {own} (its addresses: {listed})."


def shared_cards(config: Config) -> list[str]:
    """Links that lie on one card: they fail together."""
    by_card = sorted(config.links.values(), key=lambda link: link.interface)
    return [
        f"links {' and '.join(link.name for link in links)} are on one card, {card}: they fail together."
        for card, group in itertools.groupby(by_card, key=lambda link: link.interface)
        if len(links := list(group)) > 1
    ]


def verdict(link: Link, node: str, target: IPv4Address, card: Card, answer: Answer, names: Mapping[int, str]) -> str:
    """One sentence on the way to a server, and whether it is good ("" is the answer for that it is)."""
    if answer.index is None:
        return f"{node} ({target}) does not answer over {link.interface} within {ANSWER_LIMIT_S:g} s."
    if answer.index != card.index:
        other = names.get(answer.index, "another card")
        return f"{node} ({target}) was asked over {link.interface} and answers over {other}: are the cables swapped?"
    if not answer.large:
        return (
            f"{node} ({target}) answers small packets, and none of {card.mtu} bytes, the MTU of {link.interface}: "
            "give both cards, and the switch between them, the same MTU."
        )
    return ""


def ask(interface: str, own: IPv4Address, target: IPv4Address, mtu: int) -> Answer:
    """Ask over one card. Raises OSError: not permitted, no such card."""
    small = _echo(interface, own, target, SMALL_BYTES)
    if small is None:
        return Answer(None)
    return Answer(small, large=_echo(interface, own, target, mtu) is not None)


def _echo(interface: str, own: IPv4Address, target: IPv4Address, size_bytes: int) -> int | None:
    """The index of the card over which an echo of this size (with IP header) comes back; None: it does not."""
    mark = os.urandom(4)
    number, sequence = struct.unpack("!HH", mark)
    packet = echo_request(number, sequence, bytes(size_bytes - IP_HEADER_BYTES - ICMP_HEADER_BYTES))
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP)) as ear,
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as mouth,
    ):
        mouth.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        mouth.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
        mouth.bind((str(own), 0))
        mouth.sendto(packet, (str(target), 0))
        end = time.monotonic() + ANSWER_LIMIT_S
        while (left_s := end - time.monotonic()) > 0:
            ear.settimeout(left_s)
            try:
                heard, where = ear.recvfrom(_MAX_PACKET_BYTES)
            except TimeoutError:
                return None
            reply = echo_reply(heard)
            if reply is not None and (reply.source, reply.identifier, reply.sequence) == (target, number, sequence):
                return int(socket.if_nametoindex(where[0]))
    return None


def look(config: Config, me: str) -> tuple[list[str], list[str]]:
    """What is right, and what is wrong, a sentence each.

    Raises:
        OSError: this needs root.
    """
    found = cards()
    names = {card.index: name for name, card in found.items()}
    broken = here(config, me, found)
    good: list[str] = []
    wrong = [f"link {name}: {problem}" for name, problem in broken.items()]
    for name, link in config.links.items():
        if name in broken:
            continue
        card, own = found[link.interface], config.nodes[me].addresses[name]
        for node in _others(config, me):
            target = config.nodes[node].addresses[name]
            problem = verdict(link, node, target, card, ask(link.interface, own, target, card.mtu), names)
            (wrong if problem else good).append(
                f"link {name}: {problem or f'{link.interface} ({own}) reaches {node} ({target}), MTU {card.mtu}.'}"
            )
    return good, wrong + shared_cards(config)


def _others(config: Config, me: str) -> Iterable[str]:
    return (name for name in config.nodes if name != me)
