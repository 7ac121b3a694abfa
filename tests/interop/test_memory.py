"""A guest whose memory is filled to the last page again and again while programs write through our mirror there.

What a program has written lies in the page cache until the mirror process has taken it: a process that waits for
memory that only it can free hangs for ever. Ours runs in the guest and has its peer outside. Without its protection
the same scene suffers, which the last case shows: were it to fare as well, the first would prove nothing.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import pytest
from guest import GuestHung
from ours_inside import OursInside, python
from rig import Rig, Rigs

from relevo.mirror.create import create_metadata, read_superblock

TIMES = 'timeout = "60 s"\nping_timeout = "30 s"'
DISK_BYTES = 192 << 20
WRITING_S = 60
HUNG_TASK_S = 30
"""The guest's kernel complains of a task that waits for so long without a pause."""
LIMIT_S = 420.0
HOG = (
    "while [ -e /tmp/writing ]; do"
    " sh -c 'echo 1000 > /proc/self/oom_score_adj; exec dd if=/dev/zero of=/dev/null bs=600M count=1' 2> /dev/null;"
    " done"
)
"""Takes all the memory that there is, is killed for it, and begins anew."""


_reached: dict[str, float] = {}
"""What the protected one reached; the unprotected one is compared with it."""


class Scene(OursInside):
    """Our mirror in the guest as the active server, and its peer outside."""

    def __init__(self, rig: Rig, *, protected: bool) -> None:
        super().__init__(rig, "/dev/vda", TIMES)
        for disk in (self.peer.disk, self.guest.disk):
            with disk.open("r+b" if disk.exists() else "wb") as file:
                file.truncate(DISK_BYTES)
            create_metadata(disk, zeroed=True)
        self.peer.start()
        self.guest.run(
            f"echo {HUNG_TASK_S} > /proc/sys/kernel/hung_task_timeout_secs; echo 1 > /proc/sys/vm/overcommit_memory"
        )
        self.start_inside("" if protected else "/py/app/unprotected")
        self.wait_in_sync()
        device = self.ask("primary r0").split()[-1]
        self.guest.run(f"mkfs.ext4 -q {device} && mount {device} /mnt", limit_s=120)

    def write_in_a_full_memory(self) -> dict[str, float]:
        """What the writer saw."""
        writer = f"{python()} /py/app/writer.py /mnt {WRITING_S}"
        script = f"touch /tmp/writing; ({HOG}) & ({HOG}) &\n{writer}; status=$?; rm /tmp/writing; exit $status"
        told: dict[str, float] = json.loads(self.guest.run(script, limit_s=LIMIT_S).splitlines()[-1])
        print(told)
        return told

    def worker(self) -> int:
        """The mirror process's number in the guest."""
        told = self.guest.run("ps")
        numbers = [line.split()[0] for line in told.splitlines() if "relevo.mirror.worker" in line]
        assert len(numbers) == 1, told
        (found,) = numbers
        return int(found)

    def filled(self) -> int:
        """How often the memory was full."""
        return self.guest.run("dmesg").count("Out of memory: Killed process")

    def finish(self) -> None:
        """Leave in order, and compare both copies."""
        self.guest.run("umount /mnt", limit_s=120)
        self.ask("secondary r0")
        self.peer.wait_for(lambda status: status["peer_role"] == "Secondary", "the end of the peer's role", 60)
        self.ask("down r0")
        self.guest.run("sync")
        assert self.peer.stop() == 0
        _, layout = read_superblock(self.peer.disk)
        with self.guest.disk.open("rb") as file:
            assert file.read(layout.data_bytes) == self.peer.data_bytes()


@pytest.fixture
def scene(rigs: Rigs, runtime: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A scene; the parameter says whether the mirror process protects itself."""
    rig = Rig(rigs.image, DISK_BYTES, runtime)
    made = None
    try:
        made = Scene(rig, protected=request.param)
        yield made
    finally:
        if made is None:
            rig.close()
        else:
            made.close()


@pytest.mark.parametrize("scene", [True], indirect=True, ids=["protected"])
def test_writing_goes_on_while_the_memory_is_full(scene: Scene) -> None:
    worker = scene.worker()
    told = scene.write_in_a_full_memory()
    messages = scene.guest.run("dmesg")
    print(f"memory full {scene.filled()} times")
    assert scene.filled() >= 5, "the memory was not full often enough to say anything"
    assert "blocked for more than" not in messages, messages[-4000:]
    assert told["longest_s"] < HUNG_TASK_S
    assert scene.worker() == worker, "the mirror process was killed"
    keeper = int(scene.guest.run(f"awk '/PPid/ {{print $2}}' /proc/{worker}/status"))
    for process in (worker, keeper):
        assert int(scene.guest.run(f"awk '/VmLck/ {{print $2}}' /proc/{process}/status")) > 0
        assert int(scene.guest.run(f"cat /proc/{process}/oom_score_adj")) == -1000
    scene.finish()
    _reached.update(told)


@pytest.mark.parametrize("scene", [False], indirect=True, ids=["unprotected"])
def test_without_its_protection_the_same_scene_suffers(scene: Scene) -> None:
    if not _reached:
        pytest.skip("has nothing to compare with: the case before did not pass")
    try:
        told = scene.write_in_a_full_memory()
    except GuestHung:
        return
    assert scene.filled() >= 5
    slower = told["bytes"] < _reached["bytes"] / 2
    stands = told["longest_s"] > 3 * _reached["longest_s"]
    assert slower or stands, "the memory is not full enough to prove anything"
