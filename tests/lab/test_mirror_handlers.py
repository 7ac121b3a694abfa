"""The handlers of the historic drbd.conf, in a lab: what they write to the reset button cuts only their own node."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from labtools import LabMaker, assert_masked, is_off

from relevo.lab.lab import Lab, Unit
from relevo.lab.process import wait_until
from relevo.lab.scene import MACHINES, SERVERS

LIMIT_S = 60.0
HISTORIC = "echo o > /proc/sysrq-trigger ; halt -f"
HANDLERS = f"""
[mirrors.r0.handlers]
pri-on-incon-degr = "{HISTORIC}"
pri-lost-after-sb = "env > /srv/handler.env; {HISTORIC}"
local-io-error = "{HISTORIC}"
split-brain = "env > /srv/split-brain.env"
"""
POLICIES: dict[str, str | int] = {
    "after_sb_0pri": "discard-older-primary",
    "after_sb_1pri": "call-pri-lost-after-sb",
    "timeout": "3 s",
    "connect_interval": "1 s",
}


@pytest.fixture
def mirrored(make_lab: LabMaker) -> Lab:
    """Two servers with a mirror in sync and nothing else; the mask is there before any handler could run."""
    lab = make_lab(disk_bytes=64 << 20, limit_s=150.0, mirror=POLICIES)
    lab.up(service=False, units=[Unit(name="idle", argv=("sleep", "infinity"))])
    for name in MACHINES:
        assert_masked(lab, name)
    for name in SERVERS:
        lab.run(name, ["sh", "-c", "cat >> /etc/relevo/relevo.toml"], stdin=HANDLERS.encode(), check=True)
        lab.run(name, ["relevo", "mirror", "create", "r0", "--zeroed"], check=True)
        lab.define(name, [Unit(name="mirror", argv=("relevo", "mirror", "run", "r0"))])
        lab.unit(name, "mirror", "start")
    for name in SERVERS:
        await_state(lab, name, lambda found: found["connection"] == "Connected" and found["disk"] == "UpToDate")
    return lab


def state(lab: Lab, name: str) -> dict[str, Any]:
    done = lab.run(name, ["relevo", "mirror", "status", "r0", "--json"], capture=True)
    found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {"connection": "", "disk": ""}
    return found


def await_state(lab: Lab, name: str, wanted: Any) -> dict[str, Any]:
    """The command line has no way to wait for any state: ask again and again."""
    end = time.monotonic() + LIMIT_S
    while not wanted(found := state(lab, name)):
        assert time.monotonic() < end, found
        time.sleep(0.2)
    return found


def primary(lab: Lab, name: str) -> str:
    done = lab.run(name, ["relevo", "mirror", "primary", "--force", "r0"], check=True)
    return done.stdout.decode().strip()


def part(lab: Lab) -> None:
    """nodo1 is Primary and its device is in use; nodo2 becomes Primary on its own for a while, and writes."""
    device = primary(lab, "nodo1")
    lab.run("nodo1", ["sh", "-c", f"mkfs.ext4 -q {device} && mount {device} /mnt && echo one > /mnt/file"], check=True)
    lab.cut("nodo1")
    await_state(lab, "nodo2", lambda found: found["connection"] == "WFConnection")
    device = primary(lab, "nodo2")
    lab.run("nodo2", ["sh", "-c", f"mount {device} /mnt && echo two > /mnt/file && umount /mnt"], check=True)
    lab.run("nodo2", ["relevo", "mirror", "secondary", "r0"], check=True)
    lab.run("nodo1", ["sh", "-c", "echo more > /mnt/file; sync -f /mnt/file"], check=True)


def test_a_primary_that_lost_the_split_brain_is_reset_and_nobody_else(mirrored: Lab) -> None:
    part(mirrored)
    for name in MACHINES:
        assert_masked(mirrored, name)
    mirrored.heal("nodo1")
    assert wait_until(lambda: is_off(mirrored, "nodo1"), LIMIT_S)
    assert not is_off(mirrored, "nodo2")
    assert not is_off(mirrored, "client")
    mirrored.boot("nodo1", units=False)
    told = mirrored.run("nodo1", ["cat", "/srv/handler.env"], check=True).stdout.decode().splitlines()
    assert {"DRBD_RESOURCE=r0", "DRBD_PEER=nodo2", "DRBD_PEER_ADDRESS=10.27.0.2", "DRBD_MINOR=0"} <= set(told)


def test_what_the_loser_had_written_is_kept_and_comes_back(mirrored: Lab) -> None:
    part(mirrored)
    mirrored.run("nodo1", ["umount", "/mnt"], check=True)
    mirrored.heal("nodo1")
    for name in SERVERS:
        await_state(mirrored, name, lambda found: found["connection"] == "Connected" and found["disk"] == "UpToDate")
    assert not is_off(mirrored, "nodo1")
    assert state(mirrored, "nodo1")["role"] == "Secondary", "it has given up its role, for nothing used its device"
    done = mirrored.run("nodo1", ["relevo", "mirror", "saved", "list", "r0", "--json"], check=True)
    (copy,) = json.loads(done.stdout)["copies"]
    assert copy["reason"] == "split-brain"
    command = f"cp /dev/relevo/r0 /srv/image && relevo mirror saved extract r0 {copy['name']} /srv/image --onto"
    mirrored.run("nodo1", ["sh", "-c", command], check=True)
    found = mirrored.run("nodo1", ["debugfs", "-R", "cat /file", "/srv/image"], check=True).stdout
    assert found == b"more\n"
    device = primary(mirrored, "nodo2")
    found = mirrored.run("nodo2", ["debugfs", "-R", "cat /file", device], check=True).stdout
    assert found == b"two\n"
    mirrored.run("nodo1", ["relevo", "mirror", "saved", "remove", "r0", copy["name"], "--yes"], check=True)
    done = mirrored.run("nodo1", ["relevo", "mirror", "saved", "list", "r0"], check=True)
    assert done.stdout == b"Nothing has been saved of mirror r0 here.\n"
