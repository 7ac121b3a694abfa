"""ARP over Ethernet: frames, and the socket that announces an address and hears who else claims it.

Frame (RFC 826): destination, source, type 0x0806; hardware 1, protocol 0x0800, lengths 6 and 4, operation, then sender
and target, each hardware and protocol address. An announcement (RFC 5227) names the same protocol address as sender and
target and is broadcast; some hosts learn only from requests, some only from replies, so both forms are sent.
"""

from __future__ import annotations

import ctypes
import dataclasses
import socket
import struct
from ipaddress import IPv4Address

ETH_P_ARP = 0x0806
REQUEST, REPLY = 1, 2
BROADCAST = b"\xff" * 6
_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
FRAME_BYTES = _ETHERNET.size + _ARP.size
_HEAD = (1, 0x0800, 6, 4)
_SENDER_ADDRESS_AT = _ETHERNET.size + 14
MAX_FRAME_BYTES = 2048

_SO_ATTACH_FILTER = 26
_BPF_LOAD_WORD, _BPF_JUMP_EQUAL, _BPF_RETURN = 0x20, 0x15, 0x06


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """Somebody says that a protocol address is at a hardware address."""

    hardware: bytes
    address: IPv4Address


def announcement(hardware: bytes, address: IPv4Address, operation: int) -> bytes:
    """The frame that tells everyone on the link where an address is.

    Args:
        hardware: of the interface that has the address, 6 bytes.
        address: the address.
        operation: REQUEST or REPLY.
    """
    assert len(hardware) == 6, "an Ethernet address has 6 bytes"
    target = BROADCAST if operation == REPLY else bytes(6)
    body = _ARP.pack(*_HEAD, operation, hardware, address.packed, target, address.packed)
    return _ETHERNET.pack(BROADCAST, hardware, ETH_P_ARP) + body


def parse_claim(frame: bytes) -> Claim | None:
    """What an ARP frame claims; None when it is no ARP for IPv4 over Ethernet, or claims nothing (a probe)."""
    if len(frame) < FRAME_BYTES:
        return None
    if _ETHERNET.unpack_from(frame)[2] != ETH_P_ARP:
        return None
    *head, _, hardware, address, _, _ = _ARP.unpack_from(frame, _ETHERNET.size)
    if tuple(head) != _HEAD or address == bytes(4):
        return None
    return Claim(hardware, IPv4Address(address))


class ArpSocket:
    """A packet socket on one interface; hears only ARP whose sender claims one address.

    Raises:
        OSError: no such interface, or not permitted.
    """

    def __init__(self, interface: str, address: IPv4Address) -> None:
        self._address = address
        # Protocol 0 hears nothing until the filter is in place.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
        try:
            _attach_filter(self._socket, address)
            self._socket.bind((interface, ETH_P_ARP))
        except BaseException:
            self._socket.close()
            raise

    @property
    def hardware(self) -> bytes:
        """The hardware address that the interface has now."""
        return bytes(self._socket.getsockname()[4])

    def fileno(self) -> int:
        """For the event loop: readable when somebody claims the address."""
        return self._socket.fileno()

    def announce(self) -> None:
        """Send both forms of the announcement.

        Raises:
            OSError: the interface is down or gone.
        """
        hardware = self.hardware
        for operation in (REQUEST, REPLY):
            self._socket.send(announcement(hardware, self._address, operation))

    def claim(self) -> Claim | None:
        """The next claim of the address by another interface, without waiting; None when there is none.

        Raises:
            OSError: the interface is down or gone.
        """
        while True:
            try:
                frame = self._socket.recv(MAX_FRAME_BYTES)
            except BlockingIOError:
                return None
            claim = parse_claim(frame)
            if claim is not None and claim.address == self._address and claim.hardware != self.hardware:
                return claim

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _attach_filter(sock: socket.socket, address: IPv4Address) -> None:
    """Let the kernel pass only frames whose ARP sender address is this one (classic BPF, see linux/filter.h)."""
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (_BPF_LOAD_WORD, 0, 0, _SENDER_ADDRESS_AT),
            (_BPF_JUMP_EQUAL, 0, 1, int(address)),
            (_BPF_RETURN, 0, 0, 0xFFFFFFFF),
            (_BPF_RETURN, 0, 0, 0),
        )
    )
    buffer = ctypes.create_string_buffer(program, len(program))
    count = len(program) // 8
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", count, ctypes.addressof(buffer)))
