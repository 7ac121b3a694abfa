"""Faults: a power cut lets no goodbye out and loses what was not flushed; links are cut in silence or pulled."""

from __future__ import annotations

import pathlib
import subprocess
from subprocess import PIPE

import pytest
from labtools import ECHO, PORT, PYTHON, LabMaker, answer_of, end, python, start

from relevo.device.connection import connection_at
from relevo.device.fuse import FuseFile
from relevo.device.loop import is_bound
from relevo.device.mount import mount_fuse_file, umount
from relevo.lab import fusectl
from relevo.lab.lab import Lab, Unit
from relevo.lab.mounts import fuse_minors
from relevo.lab.process import wait_until
from relevo.lab.scene import DISK_PATH

SERVER = """
import socket
s = socket.create_server(("", 5001)); print("ready", flush=True)
c, _ = s.accept()
while True:
    c.sendall(c.recv(100))
"""
WITNESS = """
import json, socket, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)); wire.bind(("eth0", 0))
c = socket.create_connection((sys.argv[1], 5001)); c.sendall(b"x"); c.recv(1); c.setblocking(False)
print("ready", flush=True)
sys.stdin.readline()
wire.setblocking(False); ends = 0
try:
    while True:
        frame = wire.recv(2048)
        if frame[26:30] == socket.inet_aton(sys.argv[1]) and frame[23] == 6 and frame[47] & 0x05:
            ends += 1
except BlockingIOError:
    pass
try:
    state = "closed" if c.recv(1) == b"" else "data"
except BlockingIOError:
    state = "open"
except ConnectionError:
    state = "reset"
print(json.dumps([ends, state]))
"""
WRITE = """
import json, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
for block in range(64):
    os.pwrite(fd, b"F" * 4096, block * 4096)
os.fsync(fd)
for block in range(64, 192):
    os.pwrite(fd, b"U" * 4096, block * 4096)
os.pwrite(fd, b"O" * 4096, 0)
print(json.dumps("written"))
"""
READ = """
import json, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
print(json.dumps("".join(chr(os.pread(fd, 1, block * 4096)[0]) for block in range(192))))
"""


def _watch_end(lab: Lab, how: str) -> list[object]:
    """What the client sees of a connection to nodo1: packets with FIN or RST, and the state of its own end."""
    server = start(lab, "nodo1", SERVER)
    witness = start(lab, "client", WITNESS, "192.168.0.27")
    if how == "crash":
        lab.crash("nodo1")
    else:
        end(server)
        lab.run("nodo1", ["true"], check=True)
    out, _ = witness.communicate(b"now\n", timeout=10)
    end(server)
    return [int(out.split(b",")[0][1:]) > 0, out.split(b'"')[1].decode()]


def test_a_power_cut_sends_neither_fin_nor_rst(lab: Lab) -> None:
    assert _watch_end(lab, "crash") == [False, "open"]


def test_a_killed_process_does_send_them(lab: Lab) -> None:
    """The counter-check: the witness of the test above can see what it must not see there."""
    seen, state = _watch_end(lab, "kill")
    assert seen
    assert state in ("closed", "reset")


def test_a_power_cut_loses_unflushed_data_and_keeps_flushed_data(lab: Lab) -> None:
    python(lab, "nodo1", WRITE, DISK_PATH)
    assert lab.status()["machines"]["nodo1"]["disk"]["unflushed_blocks"] == 129
    forgot = lab.crash("nodo1")
    assert forgot["unflushed_blocks"] == 129
    lab.boot("nodo1")
    read = python(lab, "nodo1", READ, DISK_PATH)
    assert read[1:64] == "F" * 63, "what was flushed is there"
    assert read[0] in "FO", "a flushed block that was written again is old or new"
    lost = read[64:].count("\0") + (read[0] == "F")
    assert lost == forgot["lost_blocks"]
    assert lost > 0
    assert set(read[64:]) <= {"\0", "U"}


def test_what_is_forgotten_follows_from_the_seed(make_lab: LabMaker) -> None:
    seen = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        lab = make_lab(name, disk_bytes=4 << 20, seed=seed)
        lab.up(service=False)
        python(lab, "nodo1", WRITE, DISK_PATH)
        lab.crash("nodo1")
        image = lab.image("nodo1").read_bytes()
        seen.append(bytes(image[block * 4096] for block in range(192)))
        lab.down()
    assert seen[0] == seen[1] != seen[2]


def test_an_orderly_power_off_loses_nothing(lab: Lab) -> None:
    python(lab, "nodo1", WRITE, DISK_PATH)
    lab.stop("nodo1")
    lab.boot("nodo1")
    assert python(lab, "nodo1", READ, DISK_PATH) == "O" + "F" * 63 + "U" * 128


FILE_SYSTEM = """
import json, os, stat, subprocess, sys
for number in range(64):
    os.mknod(f"/dev/loop{number}", stat.S_IFBLK | 0o600, os.makedev(7, number))
subprocess.run(["mkfs.ext4", "-q", "-F", sys.argv[1]], check=True)
os.makedirs("/mnt/disk", exist_ok=True)
subprocess.run(["mount", "-o", "loop," + sys.argv[2], sys.argv[1], "/mnt/disk"], check=True)
folder = os.open("/mnt/disk", os.O_RDONLY)
for number in range(24):
    fd = os.open(f"/mnt/disk/{number}", os.O_CREAT | os.O_WRONLY)
    os.write(fd, bytes([65 + number]) * 40000); os.fsync(fd); os.close(fd); os.fsync(folder)
print("ready", flush=True)
number = 0
while True:
    with open(f"/mnt/disk/more{number % 50}", "wb") as out:
        out.write(b"m" * 100000)
    number += 1
"""
DEVICE_OF = "import os, sys; print(os.minor(os.stat(sys.argv[1]).st_dev))"
CHECK = """
import json, subprocess, sys
again = subprocess.run(["e2fsck", "-f", "-p", sys.argv[1]], stdout=subprocess.DEVNULL).returncode
clean = subprocess.run(["e2fsck", "-f", "-n", sys.argv[1]], stdout=subprocess.DEVNULL).returncode
good = 0
for number in range(24):
    out = subprocess.run(["debugfs", "-R", f"cat /{number}", sys.argv[1]], capture_output=True).stdout
    good += out == bytes([65 + number]) * 40000
print(json.dumps([again <= 1, clean == 0, good]))
"""


CHANCES = 5


def _crash_under_writer(lab: Lab, options: str) -> list[object]:
    """ext4 on the test disk, 24 files fsynced, a writer at work, a power cut: repaired?, clean?, files whole."""
    writer = start(lab, "nodo1", FILE_SYSTEM, DISK_PATH, options)
    device = python(lab, "nodo1", DEVICE_OF, "/mnt/disk")
    assert is_bound(device)
    lab.crash("nodo1")
    assert wait_until(lambda: not is_bound(device), 10), "the kernel takes a loop device away with its last user"
    end(writer)
    lab.boot("nodo1")
    return python(lab, "nodo1", CHECK, DISK_PATH)


def test_a_file_system_survives_a_power_cut_under_a_writer(lab: Lab) -> None:
    assert _crash_under_writer(lab, "barrier=1") == [True, True, 24]


def test_a_file_system_without_flushes_does_not(lab: Lab) -> None:
    """The counter-check: this disk finds out those who leave their flushes out."""
    for _ in range(CHANCES):  # what is lost is a matter of chance, and ext4 may be lucky
        *_, good = _crash_under_writer(lab, "barrier=0")
        if good < 24:
            break
    assert good < 24


@pytest.mark.parametrize(
    ("link", "cut", "whole"), [("eth0", "192.168.0.28", "10.27.0.2"), ("eth1", "10.27.0.2", "192.168.0.28")]
)
def test_a_cut_link_is_silent_and_keeps_its_carrier(lab: Lab, link: str, cut: str, whole: str) -> None:
    echo = start(lab, "nodo2", ECHO, str(PORT))
    assert answer_of(lab, "nodo1", cut) == "nodo2"
    lab.cut("nodo1", link)
    assert answer_of(lab, "nodo1", cut, silence=True) == "silence"
    assert answer_of(lab, "nodo1", whole) == "nodo2"
    assert _carrier(lab, link) == "1"
    assert lab.status()["machines"]["nodo1"]["links"][link]["state"] == "silent"
    lab.heal("nodo1", link)
    assert answer_of(lab, "nodo1", cut) == "nodo2"
    end(echo)


def test_all_links_are_cut_and_stay_cut_over_a_crash(lab: Lab) -> None:
    echo = start(lab, "nodo2", ECHO, str(PORT))
    lab.cut("nodo1")
    lab.crash("nodo1")
    lab.boot("nodo1")
    assert answer_of(lab, "nodo1", "192.168.0.28", silence=True) == "silence"
    assert answer_of(lab, "nodo1", "10.27.0.2", silence=True) == "silence"
    assert answer_of(lab, "client", "192.168.0.28") == "nodo2", "the others are not touched"
    lab.heal("nodo1")
    assert answer_of(lab, "nodo1", "192.168.0.28") == "nodo2"
    assert answer_of(lab, "nodo1", "10.27.0.2") == "nodo2"
    end(echo)


def test_a_pulled_cable_drops_the_carrier(lab: Lab) -> None:
    lab.cut("nodo1", "eth0", cable=True)
    assert _carrier(lab, "eth0") == "0"
    assert _carrier(lab, "eth1") == "1"
    lab.heal("nodo1")
    assert _carrier(lab, "eth0") == "1"


def _carrier(lab: Lab, link: str) -> str:
    return lab.run("nodo1", ["cat", f"/sys/class/net/{link}/carrier"], check=True).stdout.decode().strip()


SERVED_FILE = """
import pathlib, select, sys, subprocess
from relevo.device.fuse import FuseFile
from relevo.device.frontend import FuseFlush, FuseRead
from relevo.device.loop import is_bound
from relevo.device.mount import mount_fuse_file
import os
disk = os.open(sys.argv[1], os.O_RDWR)
served = FuseFile(16 << 20)
mount_fuse_file(served.fileno(), pathlib.Path("/run/served"))
print("serving", flush=True)
while not served.closed:
    select.select([served], [], [])
    for request in served.receive():
        if isinstance(request, FuseRead):
            served.reply_read(request.unique, (os.pread(disk, request.length, request.offset),))
        elif isinstance(request, FuseFlush):
            pass  # never answered: whoever waits for it waits in the kernel
        else:
            os.pwrite(disk, request.payload, request.offset); served.reply_written(request.unique, request.length)
"""
WAITS = """
import os
fd = os.open("/run/served", os.O_RDWR); os.write(fd, b"x" * 4096); print("waits", flush=True); os.fsync(fd)
"""


def test_a_power_cut_ends_processes_that_wait_for_a_dead_file_server(make_lab: LabMaker) -> None:
    lab = make_lab(disk_bytes=64 << 20)
    units = [
        Unit(name="server", argv=(PYTHON, "-c", SERVED_FILE, DISK_PATH)),
        Unit(name="waiter", argv=(PYTHON, "-c", WAITS)),
    ]
    lab.up(service=False, units=units)
    assert wait_until(lambda: "waits" in lab.logs("nodo1"), 10)
    lab.unit("nodo1", "server", "freeze")
    machine = lab.machine("nodo1").power()
    (connection,) = fusectl.mounted(machine.pid)
    assert connection.minor in lab.folder.load("machines/nodo1/fuse.json", [])
    lab.crash("nodo1")
    assert not machine.alive()
    assert not connection.alive
    lab.boot("nodo1")
    assert lab.run("nodo1", ["true"]).returncode == 0


def test_another_labs_connection_is_not_this_ones(tmp_path: pathlib.Path) -> None:
    """A machine that is just starting has a copy of the host's mount table, with whatever another lab has mounted."""
    other = FuseFile(4096)
    mount_fuse_file(other.fileno(), tmp_path / "other")
    copy = subprocess.Popen(["unshare", "--mount", "sh", "-c", "echo; exec cat"], stdin=PIPE, stdout=PIPE, text=True)
    try:
        assert copy.stdout is not None
        assert copy.stdout.readline() == "\n"
        connection = connection_at(tmp_path / "other")
        assert connection is not None
        assert connection.minor in fuse_minors(copy.pid)
        assert fusectl.mounted(copy.pid) == []
        assert [found.minor for found in fusectl.mounted_below(tmp_path)] == [connection.minor]
        assert fusectl.unclaimed([connection.minor]) == []
        umount(tmp_path / "other")
        assert [found.minor for found in fusectl.mounted(copy.pid)] == [connection.minor]
    finally:
        copy.communicate()
        umount(tmp_path / "other", lazy=True)
        other.close()
