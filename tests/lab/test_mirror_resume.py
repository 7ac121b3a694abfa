"""kill -9 of a mirror's worker while its device is in use: a pause where the kernel can resend, else a clean end."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess

import pytest
from labtools import PairMaker
from stamped_load import StampedLoad

from mirror_pair import Pair, Side, in_sync, run
from relevo.device.held import MAX_RESUMES, is_held
from relevo.mirror.create import read_superblock
from relevo.mirror.metadata import MetaFlag

FAST = 'timeout = "1 s"\nping_interval = "1 s"\nping_timeout = "300 ms"\n'


def kill_worker(side: Side) -> None:
    os.kill(side.worker(), signal.SIGKILL)


def taken_over(side: Side, times: int) -> None:
    """Wait until the device was taken over so often."""
    side.wait_for(lambda status: status["role"] == "Primary" and len(side.events("resumed")) == times, "its return")


def everything_is_there(pair: Pair, load: StampedLoad) -> None:
    """Every acknowledged write is on both disks, and they are equal."""
    pair.one.call("secondary")
    data = pair.one.data_bytes()
    assert load.problems(data) == []
    assert data == pair.two.data_bytes()


def test_a_killed_worker_is_a_pause_and_nothing_is_missing(pair: Pair) -> None:
    load = StampedLoad(pair.one.promote()).start()
    generation = int(pair.one.status()["current_uuid"], 16)
    try:
        for times in range(1, MAX_RESUMES + 1):
            load.await_progress()
            kill_worker(pair.one)
            taken_over(pair.one, times)
            load.await_progress()
        pair.wait_in_sync()
        assert int(pair.one.status()["current_uuid"], 16) == generation, "it was Primary all the time"
    finally:
        load.stop()
    assert load.errors == []
    everything_is_there(pair, load)


def test_killed_during_the_resync_that_follows(pair: Pair) -> None:
    load = StampedLoad(pair.one.promote()).start()
    try:
        load.await_progress()
        kill_worker(pair.one)
        pair.one.wait_for(lambda status: status["connection"] == "SyncSource", "a resync")
        kill_worker(pair.one)
        taken_over(pair.one, 2)
        pair.wait_in_sync()
        load.await_progress()
    finally:
        load.stop()
    assert load.errors == []
    everything_is_there(pair, load)


def test_killed_while_the_peer_is_away(make_pair: PairMaker) -> None:
    """It was alone before: it goes on alone at once, and the peer gets everything when it returns."""
    pair = make_pair(mirror=FAST)
    pair.start()
    load = StampedLoad(pair.one.promote()).start()
    try:
        load.await_progress()
        pair.two.kill()
        load.await_progress()
        kill_worker(pair.one)
        taken_over(pair.one, 1)
        assert pair.one.events("resumed")[-1]["waits"] is False
        load.await_progress()
        pair.two.start()
        pair.wait_in_sync()
    finally:
        load.stop()
    assert load.errors == []
    everything_is_there(pair, load)


def test_both_workers_killed_at_once(pair: Pair) -> None:
    load = StampedLoad(pair.one.promote()).start()
    try:
        load.await_progress()
        kill_worker(pair.one)
        kill_worker(pair.two)
        taken_over(pair.one, 1)
        pair.wait_in_sync()
        load.await_progress()
    finally:
        load.stop()
    assert load.errors == []
    everything_is_there(pair, load)


def test_the_peer_dies_for_good_at_the_same_moment(make_pair: PairMaker) -> None:
    """Its copy was good: this side waits for it, then goes on alone in a new generation."""
    pair = make_pair(mirror=FAST)
    pair.start()
    load = StampedLoad(pair.one.promote()).start()
    try:
        load.await_progress()
        pair.two.kill()
        kill_worker(pair.one)
        taken_over(pair.one, 1)
        load.await_progress()
        assert int(pair.one.status()["bitmap_uuid"], 16) != 0
        pair.two.start()
        pair.wait_in_sync()
    finally:
        load.stop()
    assert load.errors == []
    everything_is_there(pair, load)


@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
def test_a_file_system_goes_on(make_pair: PairMaker, fstype: str) -> None:
    pair = make_pair(disk_bytes=(352 if fstype == "xfs" else 64) << 20)
    pair.start()
    device = pair.one.promote()
    target = pair.one.folder / "mnt"
    target.mkdir()
    run(f"mkfs.{fstype}", "-q", str(device))
    run("mount", str(device), str(target))
    try:
        for number in range(1, MAX_RESUMES + 1):
            writer = subprocess.Popen(["dd", "if=/dev/urandom", f"of={target}/{number}", "bs=64k", "count=256"])
            kill_worker(pair.one)
            assert writer.wait(60) == 0
            run("sync", "--file-system", str(target))
            taken_over(pair.one, number)
        names = sorted(path.name for path in target.iterdir() if path.is_file())
        assert names == ["1", "2", "3"]
    finally:
        run("umount", str(target), limit_s=60)
    run(*(("xfs_repair", "-n") if fstype == "xfs" else ("e2fsck", "-fn")), str(device))
    pair.wait_in_sync()
    pair.one.call("secondary")
    assert pair.one.data_bytes() == pair.two.data_bytes()


def test_too_many_deaths_take_the_device_away(pair: Pair) -> None:
    """A request that kills every worker must not keep its device waiting for ever."""
    device = pair.one.promote()
    load = StampedLoad(device, writers=2).start()
    try:
        for times in range(1, MAX_RESUMES + 1):
            load.await_progress(50)
            kill_worker(pair.one)
            taken_over(pair.one, times)
        kill_worker(pair.one)
        pair.one.wait_for(lambda status: status["role"] == "Secondary" and in_sync(status), "its return")
    finally:
        load.stop()
    assert load.errors
    assert not device.exists()
    assert not is_held(device.parent)
    pair.wait_in_sync()
    assert load.problems(pair.two.data_bytes()) == [], "what was acknowledged is there"


def test_elsewhere_the_worker_takes_its_device_along_and_starts_anew(make_pair: PairMaker) -> None:
    """As where the kernel cannot resend: errors at once, a clean tear-down, a Secondary to be promoted again."""
    pair = make_pair(mirror="resume = false")
    pair.start()
    load = StampedLoad(pair.one.promote()).start()
    try:
        load.await_progress()
        assert not is_held(pair.one.device.parent)
        kill_worker(pair.one)
        status = pair.one.wait_for(lambda status: status["role"] == "Secondary" and in_sync(status), "its return")
    finally:
        load.stop()
    assert load.errors
    assert status["was_primary_at_start"]
    assert not pair.one.device.exists()
    pair.wait_in_sync()
    assert load.problems(pair.two.data_bytes()) == [], "what was acknowledged is there"
    again = StampedLoad(pair.one.promote(epoch=2), first_block=4096).start()
    again.await_progress()
    again.stop()
    assert again.errors == []


def test_the_superblock_says_primary_all_the_time(pair: Pair) -> None:
    """A power cut right after the take-over has to find a crashed Primary."""
    load = StampedLoad(pair.one.promote(), writers=2).start()
    try:
        load.await_progress(50)
        kill_worker(pair.one)
        taken_over(pair.one, 1)
        flags = MetaFlag(read_superblock(pathlib.Path(pair.one.disk))[0].flags)
    finally:
        load.stop()
    assert MetaFlag.PRIMARY_IND in flags
    assert MetaFlag.AL_CLEAN not in flags
