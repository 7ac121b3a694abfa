"""What agents read and write as bytes and text: superblocks, mountinfo, ARP frames."""

from __future__ import annotations

import pathlib
import struct
import subprocess
from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from relevo.agents import arp, superblock
from relevo.agents.mounts import identify, mounted_at, mounts, parse_mountinfo, users_of
from relevo.agents.superblock import Found

MAC = bytes.fromhex("0a1b2c3d4e5f")
VIP = IPv4Address("192.168.0.29")


def ext(compat: int = 0x4, incompat: int = 0x40, state: int = 1, magic: int = 0xEF53) -> bytes:
    head = bytearray(superblock.NEEDED_BYTES)
    struct.pack_into("<HH", head, 1024 + 56, magic, state)
    struct.pack_into("<III", head, 1024 + 92, compat, incompat, 0)
    return bytes(head)


def test_superblocks() -> None:
    assert superblock.identify(ext()) == Found("ext4")
    assert superblock.identify(ext(incompat=0x44)) == Found("ext4", recover=True)
    assert superblock.identify(ext(state=3)) == Found("ext4", check=True)
    assert superblock.identify(ext(state=0)) == Found("ext4", check=True)
    assert superblock.identify(ext(incompat=0)) == Found("ext3")
    assert superblock.identify(ext(incompat=0, compat=0)) == Found("ext2")
    assert superblock.identify(ext(magic=0)) is None
    assert superblock.identify(b"XFSB" + bytes(superblock.NEEDED_BYTES)) == Found("xfs")
    assert superblock.identify(bytes(65600) + b"_BHRfS_M" + bytes(4000)) == Found("btrfs")
    assert superblock.identify(bytes(superblock.NEEDED_BYTES)) is None
    assert superblock.is_blank(bytes(superblock.NEEDED_BYTES))
    assert not superblock.is_blank(ext(magic=0))


@given(st.binary(max_size=4096))
def test_no_bytes_confuse_the_superblock_reader(head: bytes) -> None:
    superblock.identify(head)
    superblock.identify(head[:1080] + b"\x53\xef" + head[1082:])


MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
35 22 7:3 / /srv/with\\040blank rw,noatime - ext4 /dev/loop3 rw
36 22 7:4 / /srv/dying rw,noatime shared:7 master:2 - ext4 /run/a\\134b ro
37 35 0:44 /sub /srv/with\\040blank/x ro - tmpfs none rw,size=4k
38 22 7:5 / /srv/gone rw - xfs /dev/loop5 rw,shutdown
"""


def test_mountinfo() -> None:
    root, blank, dying, inner, gone = parse_mountinfo(MOUNTINFO)
    assert (root.id, root.parent, root.device, root.point, root.fstype) == (22, 1, (254, 0), "/", "ext4")
    assert blank.point == "/srv/with blank"
    assert blank.writable
    assert dying.source == "/run/a\\b"
    assert not dying.writable
    assert (inner.parent, inner.writable) == (35, False)
    assert not gone.writable


def test_this_machine() -> None:
    here = mounts()
    assert mounted_at(pathlib.Path("/proc")) in here
    assert mounted_at(pathlib.Path("/proc/self/there-is-none")) is None
    root = next(mount for mount in here if mount.point == "/")
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, cwd="/") as child:
        user = identify(child.pid)
        assert user is not None
        assert user in users_of(root)
    assert identify(2**22 + 1) is None


def test_arp_frames() -> None:
    request = arp.announcement(MAC, VIP, arp.REQUEST)
    assert request.hex(" ", 2) == (
        "ffff ffff ffff 0a1b 2c3d 4e5f 0806 0001 0800 0604 0001 0a1b 2c3d 4e5f c0a8 001d 0000 0000 0000 c0a8 001d"
    )
    reply = arp.announcement(MAC, VIP, arp.REPLY)
    assert reply[20:22] == b"\x00\x02"
    for frame in (request, reply, reply + bytes(18)):
        assert arp.parse_claim(frame) == arp.Claim(MAC, VIP)


def test_arp_that_claims_nothing() -> None:
    frame = arp.announcement(MAC, VIP, arp.REQUEST)
    assert arp.parse_claim(arp.announcement(MAC, IPv4Address(0), arp.REQUEST)) is None  # a probe
    assert arp.parse_claim(frame[:41]) is None
    assert arp.parse_claim(frame[:12] + b"\x08\x00" + frame[14:]) is None
    assert arp.parse_claim(frame[:15] + b"\x06" + frame[16:]) is None


@given(st.binary(max_size=64))
def test_no_frame_confuses_the_arp_reader(frame: bytes) -> None:
    arp.parse_claim(frame)
    arp.parse_claim(arp.announcement(MAC, VIP, arp.REPLY)[:16] + frame)
