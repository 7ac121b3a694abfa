"""Network drives and NFS through a power cut: what was acknowledged is there, and clients that try again succeed."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

import nfs_put
from lab_maker import LabMaker
from relevo.lab.lab import Lab
from relevo.lab.scene import CLIENT, VIRTUAL_IP

TOOLS = ("smbd", "smbclient", "ganesha.nfsd", "nfs-cp")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"cannot run: {', '.join(MISSING)} not installed")
LIMIT_S = 120.0
PASSWORD = "a long password"
FURTHER = """
[services.web.smb]
[services.web.nfs]
grace = "5 s"
[[services.web.nfs.exports]]
share = "docs"
clients = ["192.168.0.0/24"]
write = true
user = "root"
"""
WAITER = f"""
import socket, sys
sock = socket.create_connection(("{VIRTUAL_IP}", 445))
print(sock.getsockname()[1], flush=True)
try:
    sock.recv(1)
except ConnectionResetError:
    print("reset")
"""
BIG_MIB = 96
NFS_BYTES = 400_000


def again_and_again(attempt: Callable[[], bool], what: str) -> int:
    """A client that tries again until it succeeds; how often it had to."""
    end, count = time.monotonic() + LIMIT_S, 0
    while not attempt():
        assert time.monotonic() < end, f"{what} did not succeed"
        count += 1
        time.sleep(0.2)
    return count


class Client:
    """The client machine, with one user of the accounts."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def smb(self, *commands: str) -> bool:
        share, who = f"//{VIRTUAL_IP}/docs", f"root%{PASSWORD}"
        argv = ["timeout", "60", "smbclient", share, "-U", who, "-c", "; ".join(commands)]
        done = self.lab.run(CLIENT, argv, capture=True)
        return done.returncode == 0 and b"NT_STATUS" not in done.stdout + done.stderr

    def nfs(self, *argv: str) -> bool:
        return self.lab.run(CLIENT, ["timeout", "20", *argv], capture=True).returncode == 0

    @staticmethod
    def url(name: str) -> str:
        return f"nfs://{VIRTUAL_IP}/docs/{name}?version=4"


@pytest.fixture
def client(make_lab: LabMaker) -> Client:
    """Both servers up, nodo1 active, a share that both protocols offer."""
    lab = make_lab(limit_s=170.0, disk_bytes=512 << 20, further=FURTHER)
    lab.up()
    # given on the passive server: the hash that Windows compares crosses to the active one, sealed
    lab.run("nodo2", ["sh", "-c", f"echo '{PASSWORD}' | relevo user add root --admin --password-stdin"], check=True)
    lab.run("nodo1", ["relevo", "share", "add", "docs", "/docs"], check=True)
    # whoever asks for the first page without an account sees something: that is how a lab knows that it is up
    lab.run("nodo1", ["sh", "-c", "relevo share add open /open && relevo share set open --public"], check=True)
    lab.run("nodo1", ["chown", "200000", "/srv/relevo/docs"], check=True)
    made = Client(lab)
    again_and_again(lambda: made.smb("ls"), "the first login")
    return made


def test_a_power_cut_in_the_middle_of_puts(client: Client) -> None:
    lab, shared = client.lab, client.lab.shared
    big, before, small = shared / "big", shared / "before", shared / "small"
    big.write_bytes(random.Random(1).randbytes(BIG_MIB << 20))
    before.write_bytes(b"acknowledged before" * 1000)
    small.write_bytes(bytes(range(256)) * (NFS_BYTES // 256))
    put = [sys.executable, nfs_put.__file__, str(small)]
    assert client.smb(f"put {before} before-smb")
    assert client.nfs(*put[:2], str(before), client.url("before-nfs"))
    waiting = lab.popen(CLIENT, [sys.executable, "-c", WAITER], stdout=subprocess.PIPE)
    assert waiting.stdout is not None
    port = waiting.stdout.readline().decode().strip()
    saved = lab.path("nodo1", "srv/relevo/.relevo/accounts/clients.json")
    again_and_again(lambda: saved.exists() and f",{port}]" in saved.read_text(), "the list of who is connected")
    running = lab.popen(
        CLIENT,
        ["smbclient", f"//{VIRTUAL_IP}/docs", "-U", f"root%{PASSWORD}", "-c", f"put {big} big"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    stored = lab.path("nodo1", "srv/relevo/docs/big")
    again_and_again(lambda: stored.exists() and stored.stat().st_size > 1 << 20, "the beginning of the put")
    lab.crash("nodo1")
    # Who only waits for an answer sends nothing: it is told that its connection is gone.
    assert waiting.communicate(timeout=LIMIT_S)[0].strip() == b"reset"
    said, _ = running.communicate(timeout=LIMIT_S)
    assert b"NT_STATUS" in said, said
    again_and_again(lambda: client.smb(f"put {big} big"), "the put by SMB")
    again_and_again(lambda: client.nfs(*put, client.url("small")), "the put by NFS")
    for name, source in (("big", big), ("small", small), ("before-smb", before), ("before-nfs", before)):
        got = shared / "got"
        assert client.smb(f"get {name} {got}")
        assert got.read_bytes() == source.read_bytes(), name
        got.unlink()
        assert client.nfs("nfs-cp", client.url(name), str(got))
        assert got.read_bytes() == source.read_bytes(), name
        got.unlink()
    lab.boot("nodo1")
    lab.wait_until_up()
    again_and_again(lambda: client.smb("ls"), "SMB after the return")
    again_and_again(lambda: client.nfs("nfs-ls", client.url("")), "NFS after the return")
