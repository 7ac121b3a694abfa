"""A guest whose memory is filled to the last page again and again while programs write through our mirror there.

What a program has written lies in the page cache until the mirror process has taken it: a process that waits for
memory that only it can free hangs for ever. Ours runs in the guest and has its peer outside. Without its protection
the same scene suffers, which the last case shows: were it to fare as well, the first would prove nothing.
"""

from __future__ import annotations

import json
import pathlib
import tempfile
from collections.abc import Iterator

import guest_python
import pytest
from guest import GuestHung
from rig import HIGH, KERNEL_NAME, LOW, OURS_NAME, Rig, Rigs

from mirror_pair import Side, in_sync
from relevo.mirror.create import create_metadata, read_superblock

PROGRAMS = pathlib.Path(__file__).parent / "memory"
DISK_BYTES = 192 << 20
WRITING_S = 60
HUNG_TASK_S = 30
"""The guest's kernel complains of a task that waits for so long without a pause."""
LIMIT_S = 420.0
PYTHON = "PYTHONHOME=/py LD_LIBRARY_PATH=/py/lib PYTHONPATH={more}/py/app PYTHONDONTWRITEBYTECODE=1 /py/bin/python3"
RELEVO = f"{PYTHON.format(more='')} -m relevo --etc /tmp/etc --state /tmp/state --run /run --node {KERNEL_NAME} mirror"
HOG = (
    "while [ -e /tmp/writing ]; do"
    " sh -c 'echo 1000 > /proc/self/oom_score_adj; exec dd if=/dev/zero of=/dev/null bs=600M count=1' 2> /dev/null;"
    " done"
)
"""Takes all the memory that there is, is killed for it, and begins anew."""


_reached: dict[str, float] = {}
"""What the protected one reached; the unprotected one is compared with it."""


@pytest.fixture(scope="module")
def runtime() -> Iterator[pathlib.Path]:
    """The disk with Python and this project."""
    with tempfile.TemporaryDirectory(prefix="relevo-runtime-", dir="/dev/shm") as folder:
        disk = pathlib.Path(folder) / "runtime"
        guest_python.make_disk(disk, PROGRAMS)
        yield disk


class Scene:
    """Our mirror in the guest as the active server, and its peer outside."""

    def __init__(self, rig: Rig, *, protected: bool) -> None:
        self.rig = rig
        self.guest = rig.guest
        rig.begin(ours_is_lower=True)
        self.peer = Side(rig.folder, OURS_NAME, rig.ours)
        self._write_configuration()
        for disk in (self.peer.disk, self.guest.disk):
            with disk.open("r+b" if disk.exists() else "wb") as file:
                file.truncate(DISK_BYTES)
            create_metadata(disk, zeroed=True)
        self.peer.start()
        self.guest.run("mkdir -p /py /mnt && mount -o ro /dev/vdb /py", limit_s=60)
        self.guest.run(
            f"echo {HUNG_TASK_S} > /proc/sys/kernel/hung_task_timeout_secs; echo 1 > /proc/sys/vm/overcommit_memory"
        )
        more = "" if protected else "/py/app/unprotected:"
        run = RELEVO.replace("PYTHONPATH=", f"PYTHONPATH={more}", 1)
        self.guest.run(f"({run} run r0 > /tmp/mirror.log 2>&1 &)")
        try:
            self.peer.wait_for(in_sync, "a connection with the guest", 120)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.guest.run('cat /tmp/mirror.log')}") from error
        self.device = self.guest.run(f"{RELEVO} primary r0", limit_s=120).split()[-1]
        self.guest.run(f"mkfs.ext4 -q {self.device} && mount {self.device} /mnt", limit_s=120)

    def _write_configuration(self) -> None:
        def text(own_disk: str) -> str:
            disks = {OURS_NAME: str(self.peer.disk), KERNEL_NAME: own_disk}
            nodes = "".join(
                f'[nodes.{name}]\naddresses = {{ cross = "{address}" }}\ndisks = {{ r0 = "{disks[name]}" }}\n'
                for name, address in ((OURS_NAME, LOW), (KERNEL_NAME, HIGH))
            )
            return (
                '[cluster]\nname = "memory"\nsecrets = "secrets.toml"\nauthkeys = "authkeys"\n'
                '[links.cross]\ninterface = "eth1"\nnetwork = "10.27.0.0/24"\n'
                f'{nodes}[mirrors.r0]\nlink = "cross"\nalone = "risk"\ntimeout = "60 s"\nping_timeout = "30 s"\n'
            )

        files = {"secrets.toml": '[mirror]\nr0 = "open sesame"\n', "authkeys": "auth 1\n1 sha1 key\n"}
        etc = self.peer.paths.etc
        (etc / "relevo.toml").write_text(text("/dev/vda"))
        script = f"mkdir -p /tmp/etc /tmp/state\ncat > /tmp/etc/relevo.toml <<'END'\n{text('/dev/vda')}END\n"
        for name, content in files.items():
            (etc / name).touch(mode=0o600)
            (etc / name).write_text(content)
            script += f"cat > /tmp/etc/{name} <<'END'\n{content}END\nchmod 600 /tmp/etc/{name}\n"
        self.guest.run(script)

    def write_in_a_full_memory(self) -> dict[str, float]:
        """What the writer saw."""
        writer = f"{PYTHON.format(more='')} /py/app/writer.py /mnt {WRITING_S}"
        script = f"touch /tmp/writing; ({HOG}) & ({HOG}) &\n{writer}; status=$?; rm /tmp/writing; exit $status"
        told: dict[str, float] = json.loads(self.guest.run(script, limit_s=LIMIT_S).splitlines()[-1])
        print(told)
        return told

    def worker(self) -> int:
        """The mirror process's number in the guest."""
        look = "for p in /proc/[0-9]*; do if grep -q relevo.mirror.worker $p/cmdline; then echo ${p#/proc/}; fi; done"
        (found,) = self.guest.run(look).split()
        return int(found)

    def filled(self) -> int:
        """How often the memory was full."""
        return self.guest.run("dmesg").count("Out of memory: Killed process")

    def finish(self) -> None:
        """Leave in order, and compare both copies."""
        self.guest.run("umount /mnt", limit_s=120)
        self.guest.run(f"{RELEVO} secondary r0", limit_s=120)
        self.peer.wait_for(lambda status: status["peer_role"] == "Secondary", "the end of the peer's role", 60)
        self.guest.run(f"{RELEVO} down r0; sync", limit_s=120)
        assert self.peer.stop() == 0
        _, layout = read_superblock(self.peer.disk)
        with self.guest.disk.open("rb") as file:
            assert file.read(layout.data_bytes) == self.peer.data_bytes()

    def close(self) -> None:
        """Take it down, in whatever state it is."""
        if self.peer.process is not None:
            self.peer.kill()
        self.rig.close()


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
    assert int(scene.guest.run(f"awk '/VmLck/ {{print $2}}' /proc/{worker}/status")) > 0
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
