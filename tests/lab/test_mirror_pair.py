"""Two real mirror daemons: device, replication, crashes, cuts, and what they refuse."""

from __future__ import annotations

import mmap
import os
import pathlib
import random
import subprocess
import threading
import time

import pytest
from labtools import PairMaker

from mirror_pair import Pair, Refused, Side, in_sync, run
from relevo.mirror import metadata
from relevo.mirror.create import read_superblock

BLOCK = 4096
STAMPED_BLOCKS = 12_000


def write(device: pathlib.Path, offset: int, data: bytes) -> None:
    """Write through the device and flush it."""
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.pwrite(fd, data, offset)
        os.fsync(fd)
    finally:
        os.close(fd)


def mounted(side: Side, device: pathlib.Path) -> pathlib.Path:
    """Mount the device's file system."""
    target = side.folder / "mnt"
    target.mkdir(exist_ok=True)
    run("mount", "-t", "ext4", str(device), str(target))
    return target


def same_data(pair: Pair) -> bool:
    return pair.one.data_bytes() == pair.two.data_bytes()


def test_a_file_system_on_the_device_is_on_both_disks(pair: Pair) -> None:
    device = pair.one.promote()
    status = pair.one.status()
    assert (status["role"], status["device"]) == ("Primary", str(device))
    run("mkfs.ext4", "-q", "-E", "nodiscard", str(device))
    target = mounted(pair.one, device)
    content = random.Random(1).randbytes(3 << 20)
    try:
        (target / "file").write_bytes(content)
        with pytest.raises(Refused) as refused:
            pair.one.call("secondary")
        assert refused.value.error == "DeviceBusy"
    finally:
        run("umount", str(target))
    pair.one.call("secondary")
    assert same_data(pair)
    assert not pair.one.device.exists()
    device = pair.two.promote(epoch=2)
    target = mounted(pair.two, device)
    try:
        assert (target / "file").read_bytes() == content
    finally:
        run("umount", str(target))
    run("e2fsck", "-fn", str(device))


def test_discards_are_replicated(pair: Pair) -> None:
    device = pair.one.promote()
    write(device, 0, random.Random(2).randbytes(8 << 20))
    run("blkdiscard", "--offset", str(1 << 20), "--length", str(4 << 20), str(device))
    run("blkdiscard", "--zeroout", "--offset", str(6 << 20), "--length", str(1 << 20), str(device))
    assert same_data(pair)
    data = pair.two.data_bytes()
    assert data[1 << 20 : 5 << 20] == bytes(4 << 20)
    assert data[6 << 20 : 7 << 20] == bytes(1 << 20)
    assert data[5 << 20 : 6 << 20] != bytes(1 << 20)


def test_both_stop_in_order_and_start_without_a_resync(pair: Pair) -> None:
    device = pair.one.promote()
    write(device, 0, b"x" * BLOCK)
    pair.one.call("secondary")
    for side in pair.sides.values():
        assert side.stop() == 0
        superblock, _ = read_superblock(side.disk)
        assert superblock.clean
        assert superblock.flags & metadata.MetaFlag.AL_CLEAN
    pair.start()
    assert [side.status()["resync_total_bytes"] for side in pair.sides.values()] == [0, 0]
    assert same_data(pair)


def test_kill_9_of_the_primary_resyncs_its_activity_log(pair: Pair) -> None:
    device = pair.one.promote()
    write(device, 0, random.Random(3).randbytes(1 << 20))
    write(device, 20 << 20, random.Random(4).randbytes(1 << 20))
    pair.one.kill()
    superblock, _ = read_superblock(pair.one.disk)
    assert not superblock.clean
    lost = pair.two.wait_for(lambda status: status["connection"] == "WFConnection", "the loss of its peer")
    assert lost["peer_lost_since_connect"]
    device = pair.two.promote(epoch=2)
    write(device, 40 << 20, random.Random(5).randbytes(1 << 20))
    pair.one.start()
    pair.wait_in_sync()
    resynced = pair.one.status()["resync_total_bytes"]
    assert 9 << 20 <= resynced <= 13 << 20  # two extents of the log, and what was written meanwhile
    assert same_data(pair)


def test_drbdmeta_reads_a_crashed_disk(pair: Pair) -> None:
    write(pair.one.promote(), 9 << 20, b"x" * BLOCK)
    pair.one.kill()
    made = run("losetup", "--find", "--show", str(pair.one.disk)).strip()
    try:
        judge = ("drbdmeta", "--force", "254", "v08", made, "internal")
        run(*judge, "apply-al")
        dump = run(*judge, "dump-md")
    finally:
        run("losetup", "--detach", made)
    assert "# bits-set 1024;" in dump  # one extent of 4 MiB
    pair.one.start()
    pair.wait_in_sync()
    assert same_data(pair)


def test_new_disks_get_a_full_resync_from_the_one_that_is_forced(make_pair: PairMaker) -> None:
    pair = make_pair(zeroed=False)
    with pair.one.disk.open("r+b") as file:
        file.write(random.Random(9).randbytes(5 << 20))
    for side in pair.sides.values():
        side.start()
        side.wait_for(lambda status: status["disk"] == "Inconsistent", "an inconsistent disk")
    with pytest.raises(Refused) as refused:
        pair.one.promote()
    assert refused.value.error == "DataNotUpToDate"
    device = pair.one.promote(force=True)
    write(device, 30 << 20, b"during the resync")
    pair.wait_in_sync()
    status = pair.two.status()
    assert status["resync_total_bytes"] >= status["size_bytes"]
    pair.one.call("secondary")
    assert same_data(pair)


def test_load_while_the_peer_comes_and_goes(make_pair: PairMaker) -> None:
    """fio writes blocks of all sizes, overlapping too, with checksums in them; the peer is killed three times."""
    pair = make_pair(mirror='timeout = "1 s"\nping_interval = "1 s"\nping_timeout = "300 ms"')
    pair.start()
    device = pair.one.promote()
    job = ("fio", "--name=load", f"--filename={device}", "--direct=1", "--ioengine=libaio", "--randseed=1")
    sizes = ("--rw=randwrite", "--bsrange=4k-256k", "--iodepth=16", "--norandommap=1", "--fsync=32", "--numjobs=2")
    load = subprocess.Popen(
        [*job, *sizes, "--runtime=8", "--time_based"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        for _ in range(3):
            pair.two.kill()
            pair.one.wait_for(lambda status: status["connection"] == "WFConnection", "the loss of its peer")
            pair.two.start()
            pair.wait_in_sync()
    finally:
        output, _ = load.communicate(timeout=60)
    assert load.returncode == 0, output.decode()
    pair.wait_in_sync()
    pair.one.call("secondary")
    assert same_data(pair)


class Stamps:
    """Numbers written into blocks: what was completed, and what was begun last, per block."""

    def __init__(self) -> None:
        self.completed: dict[int, int] = {}
        self.begun: dict[int, int] = {}
        self.rng = random.Random(10)
        self.number = 0

    def write_until_it_fails(self, device: pathlib.Path) -> None:
        """One block after the other, until the device is gone."""
        fd = os.open(device, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
        with mmap.mmap(-1, BLOCK) as page:
            try:
                while True:
                    self.number += 1
                    block = self.rng.randrange(STAMPED_BLOCKS)
                    page[:8] = self.number.to_bytes(8, "big")
                    self.begun[block] = self.number
                    os.pwritev(fd, [page], block * BLOCK)
                    self.completed[block] = self.number
            except OSError:
                return
            finally:
                os.close(fd)

    def check(self, data: bytes) -> None:
        """Nothing completed is lost in this copy; of what was under way either may be there."""
        for block, number in self.completed.items():
            found = int.from_bytes(data[block * BLOCK : block * BLOCK + 8], "big")
            assert found in {number, self.begun[block]}, (block, number, found)
            self.completed[block] = self.begun[block] = found


def test_no_completed_write_is_lost_when_either_side_is_killed_in_turn(pair: Pair) -> None:
    stamps = Stamps()
    active, passive = pair.one, pair.two
    device = active.promote()
    for epoch in range(2, 6):
        writer = threading.Thread(target=stamps.write_until_it_fails, args=(device,))
        writer.start()
        pair.wait_in_sync()  # the other has come back and caught up while we write
        before = stamps.number
        while stamps.number < before + 100:
            assert writer.is_alive()
            time.sleep(0.01)  # the writer's progress is what is waited for
        active.kill()
        writer.join(20)
        assert not writer.is_alive()
        passive.wait_for(lambda status: status["connection"] == "WFConnection", "the loss of its peer")
        stamps.check(passive.data_bytes())
        active, passive = passive, active
        device = active.promote(epoch=epoch)
        passive.start()
    pair.wait_in_sync()
    active.call("secondary")
    assert same_data(pair)


def test_a_cut_ends_in_a_resync_of_what_changed(make_pair: PairMaker) -> None:
    pair = make_pair(mirror='timeout = "1 s"\nping_interval = "1 s"\nping_timeout = "300 ms"')
    pair.start()
    device = pair.one.promote()
    write(device, 0, random.Random(6).randbytes(2 << 20))
    pair.cut()
    write(device, 4 << 20, random.Random(7).randbytes(300 * BLOCK))
    status = pair.one.status()
    assert (status["connection"], status["peer_disk"] == "UpToDate") == ("WFConnection", False)
    assert status["out_of_sync_bytes"] >= 300 * BLOCK
    pair.heal()
    pair.wait_in_sync()
    assert 300 * BLOCK <= pair.one.status()["resync_total_bytes"] <= 340 * BLOCK
    write(device, 30 << 20, b"after")
    pair.one.call("secondary")
    assert same_data(pair)


def test_writing_goes_on_during_a_resync(make_pair: PairMaker) -> None:
    pair = make_pair(mirror='timeout = "1 s"\nping_interval = "1 s"\nping_timeout = "300 ms"')
    pair.start()
    device = pair.one.promote()
    pair.two.kill()
    pair.one.wait_for(lambda status: status["connection"] == "WFConnection", "the loss of its peer")
    rng = random.Random(8)
    write(device, 0, rng.randbytes(48 << 20))
    pair.two.start()
    for _ in range(50):
        write(device, rng.randrange(48 << 20) & -BLOCK, rng.randbytes(8 * BLOCK))
    pair.wait_in_sync()
    pair.one.call("secondary")
    assert same_data(pair)


def test_a_wrong_secret_is_refused_in_a_clear_sentence(make_pair: PairMaker) -> None:
    pair = make_pair()
    pair.configure(pair.two, secret="another secret")
    for side in pair.sides.values():
        side.start()
    for side in pair.sides.values():
        status = side.wait_for(lambda status: bool(status["problem"]), "a problem")
        assert "secret" in status["problem"]
        assert status["connection"] == "WFConnection"


def test_split_brain_is_refused_until_it_is_resolved(make_pair: PairMaker) -> None:
    pair = make_pair(mirror='timeout = "1 s"\nping_interval = "1 s"\nping_timeout = "300 ms"')
    pair.start()
    device = pair.one.promote()
    write(device, 0, b"both have this".ljust(BLOCK))
    pair.cut()
    write(device, 0, b"one went on".ljust(BLOCK))
    pair.two.call("probe")
    pair.two.wait_for(lambda status: status["connection"] == "WFConnection", "the loss of its peer")
    write(pair.two.promote(epoch=2), 0, b"two went on".ljust(BLOCK))
    pair.heal()
    for side in pair.sides.values():
        status = side.wait_for(lambda status: bool(status["split_brain"]), "a split brain")
        assert status["connection"] == "StandAlone"
        assert status["problem"]
    assert pair.one.data_bytes()[:11] == b"one went on"
    assert pair.two.data_bytes()[:11] == b"two went on"
    pair.two.call("secondary")
    pair.two.call("discard")
    pair.one.call("keep")
    pair.wait_in_sync()
    assert same_data(pair)
    assert pair.two.data_bytes()[:11] == b"one went on"


def test_a_second_primary_and_a_lower_vote_are_refused(pair: Pair) -> None:
    pair.one.promote(epoch=5)
    pair.two.wait_for(lambda status: status["peer_role"] == "Primary", "a Primary peer")
    with pytest.raises(Refused) as refused:
        pair.two.promote(epoch=6)
    assert refused.value.error == "PeerIsPrimary"
    pair.one.call("secondary")
    with pytest.raises(Refused) as refused:
        pair.one.promote(epoch=4)
    assert refused.value.error == "AlreadyDenied"


def test_no_disk_is_told_and_taken_when_it_appears(make_pair: PairMaker) -> None:
    pair = make_pair()
    hidden = pair.one.disk.with_name("hidden")
    pair.one.disk.rename(hidden)
    for side in pair.sides.values():
        side.start()
    status = pair.one.status()
    assert status["disk"] == "Diskless"
    assert str(pair.one.disk) in status["problem"]
    with pytest.raises(Refused) as refused:
        pair.one.promote()
    assert refused.value.error == "NotAttached"
    hidden.rename(pair.one.disk)
    pair.wait_in_sync()


def test_who_reads_the_served_file_at_odd_places_harms_nothing(pair: Pair) -> None:
    """A root process that looks into everything below /run: what the disk cannot do is refused, and no disk error."""
    one, two = pair.sides.values()
    one.promote()
    served = one.paths.run / "mirror" / "r0" / "disk"
    fd = os.open(served, os.O_RDWR | os.O_CLOEXEC)
    try:
        for offset, length in ((0, 10), (1, BLOCK), (BLOCK, 511), (100, 100)):
            with pytest.raises(OSError, match="Invalid argument"):
                os.pread(fd, length, offset)
            with pytest.raises(OSError, match="Invalid argument"):
                os.pwrite(fd, bytes(length), offset)
        assert len(os.pread(fd, BLOCK, BLOCK)) == BLOCK
    finally:
        os.close(fd)
    for side in (one, two):
        status = side.status()
        assert (status["connection"], status["disk"], status["problem"]) == ("Connected", "UpToDate", "")


def test_a_probe_notices_a_silent_peer_at_once(pair: Pair) -> None:
    pair.two.call("probe")
    assert in_sync(pair.two.status())
    pair.cut()
    began = time.monotonic()
    pair.two.call("probe")
    pair.two.wait_for(lambda status: status["connection"] == "WFConnection", "the loss of its peer")
    assert time.monotonic() - began < 2
