"""A way back before a resync where the backing disk is a logical volume: in a guest, whose kernel has LVM.

nodo2, in the guest, falls behind nodo1, which is outside; before its copy is overwritten LVM makes a snapshot of it.
"""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Iterator

import pytest
from ours_inside import OursInside, relevo
from rig import Rig, Rigs

from mirror_pair import plain_file
from relevo.mirror.create import create_metadata

GUEST_DISK_BYTES = 192 << 20
VOLUME_BYTES = 64 << 20
BLOCKS, BLOCK = 2000, 4096
SLOW = 'resync_rate = "64 KiB"\nc_plan_ahead = "0 s"\ntimeout = "6 s"\nping_timeout = "3 s"'
CONFIG = """devices { dir = "/dev" scan = [ "/dev" ] obtain_device_list_from_udev = 0 }
activation { udev_sync = 0 udev_rules = 0 monitoring = 0 }
backup { backup = 0 archive = 0 }
global { use_lvmpolld = 0 }
"""
VOLUMES = "lvs --noheadings -o lv_name,lv_attr vg"


class Scene(OursInside):
    """A volume group with one volume in the guest, the mirror's disk there."""

    def __init__(self, rig: Rig, room: str) -> None:
        super().__init__(rig, "/dev/vg/data", SLOW)
        self.guest.run(
            f"mkdir -p /etc/lvm /run/lock/lvm; cat > /etc/lvm/lvm.conf <<'END'\n{CONFIG}END\n"
            "for name in pvcreate vgcreate lvcreate lvchange lvs lvremove; do ln -sf lvm /tools/$name; done;"
            f" pvcreate -q /dev/vda && vgcreate -q vg /dev/vda && lvcreate -q -y -L {VOLUME_BYTES}b -n data vg {room}"
        )
        plain_file(self.peer.disk, VOLUME_BYTES)
        create_metadata(self.peer.disk, zeroed=True)
        self.ask("create --zeroed r0")
        self.peer.start()
        self.start_inside()
        self.wait_in_sync()
        device = self.peer.promote()
        self.fill(device, b"old")
        self.ask("down r0")
        self.peer.wait_for(lambda status: status["connection"] != "Connected", "the peer's end", 60)
        self.before = self.sum("/dev/vg/data")
        self.fill(device, b"new")

    @staticmethod
    def fill(device: pathlib.Path, word: bytes) -> None:
        """Write what cannot be taken for something else."""
        with device.open("r+b") as file:
            for number in range(BLOCKS):
                file.write((word + number.to_bytes(4, "big")).ljust(BLOCK, b"."))
            file.flush()
            os.fsync(file.fileno())

    def sum(self, path: str) -> str:
        """The checksum of what was filled."""
        return self.guest.run(f"dd if={path} bs={BLOCK} count={BLOCKS} 2> /dev/null | sha256sum").split()[0]

    def resync(self) -> None:
        """Until the copy in the guest is being overwritten."""
        self.start_inside()
        self.peer.wait_for(lambda status: status["connection"] == "SyncSource", "the resync", 120)
        end = time.monotonic() + 60
        while not ((run := self.peer.status()["resync"]) and run["done_bytes"]):  # progress is announced to nobody
            assert time.monotonic() < end, f"{self.peer.status()}\n{self.peer.log()}\n{self.log()}"
            time.sleep(0.1)

    def log(self) -> str:
        """What the guest's daemon said."""
        return self.guest.run("cat /tmp/mirror.log")


@pytest.fixture
def scene(rigs: Rigs, runtime: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A scene; the parameter is what else is done to the volume group."""
    rig = Rig(rigs.image, GUEST_DISK_BYTES, runtime)
    made = None
    try:
        made = Scene(rig, request.param)
        yield made
    finally:
        if made is None:
            rig.close()
        else:
            made.close()


@pytest.mark.parametrize("scene", [""], indirect=True, ids=["room"])
def test_a_logical_volume_has_a_snapshot_until_the_resync_has_ended_well(scene: Scene) -> None:
    scene.resync()
    assert "relevo-r0-" in scene.guest.run(VOLUMES), scene.log()
    (line,) = scene.ask("saved list r0").splitlines()
    name, reason, kind, device = line.split()[:4]
    assert (reason, kind) == ("resync", "snapshot")
    assert scene.sum(device) == scene.before
    scene.peer.kill()
    assert scene.sum("/dev/vg/data") != scene.before, "a part of the resync has come"
    scene.guest.run(f"{relevo(f'saved extract r0 {name} /tmp/back')}", limit_s=120)
    assert scene.sum("/tmp/back") == scene.before
    scene.guest.run("rm /tmp/back")
    scene.peer.start()
    scene.peer.wait_for(lambda status: status["connection"] == "SyncSource", "the resync's going on", 60)
    scene.peer.call("resync_speed", speed="fast")
    scene.wait_in_sync()
    end = time.monotonic() + 60
    while "relevo-r0-" in scene.guest.run(VOLUMES):  # another process removes it, which tells nobody
        assert time.monotonic() < end, scene.log()
        time.sleep(0.5)
    assert scene.ask("saved list r0").startswith("Nothing")


@pytest.mark.parametrize("scene", ["&& lvcreate -q -y -l 100%FREE -n rest vg"], indirect=True, ids=["no-room"])
def test_without_room_for_a_snapshot_it_is_said_and_the_resync_goes_on(scene: Scene) -> None:
    scene.resync()
    assert "relevo-r0-" not in scene.guest.run(VOLUMES)
    assert "The volume group vg has no room left for a snapshot of data." in scene.log()
