"""Our mirror process and the kernel's drbd as each other's peer, for one case."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import secrets
import subprocess
import sys
import time
from typing import Any

import msgspec
from guest import Guest
from rig import HIGH, KERNEL_NAME, LOW, OURS_NAME, Rig

from mirror_pair import WATCHDOG, Side, in_sync, run
from relevo.device import loop as loops
from relevo.mirror.create import create_metadata, read_superblock
from relevo.mirror.metadata import encode_superblock

DISK_BYTES = 48 << 20
SECRET = "open sesame"
CLUSTER = f"pair{os.getpid()}"
"""Part of the loop devices' names: that of this run alone."""
SHORT_TIMES = 'timeout = "3 s"\nping_interval = "2 s"\nping_timeout = "800 ms"\n'
"""Of ours; slow machines emulate processors slowly."""
KERNEL_SHORT_TIMES = ("timeout 30;", "ping-int 2;", "ping-timeout 8;", "connect-int 1;")
"""The same for the kernel: timeout and ping-timeout in tenths of a second, the others in seconds."""
OPTIONS_FOLDER = pathlib.Path(__file__).parent / "options"
CASE_LIMIT_S = 160.0
LOAD_LIMIT_S = 20.0
"""How long a load may take until it writes."""
BLOCK = 4096
NO_HMAC = "none"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """What a case wants of the two.

    Attributes:
        protocol: of the kernel; ours has its own in `options`.
        port: TCP port of both.
        secret, kernel_secret: the latter is the same unless given.
        hmac, kernel_hmac: sha1, sha256 or md5; `NO_HMAC`: the kernel asks for no proof of the secret.
        disk_bytes, kernel_disk_bytes: whole size of the disks, meta-data included.
        block_bytes: the block size of our disk; 0: what the file system below can do.
        net, disk, resource: further lines of the kernel's sections net, disk and of the resource itself.
        mirror: further lines of our mirror's section in relevo.toml.
        options: fields of our `DrbdOptions`.
        ours_is_lower: which side has the lower address.
        kernel_listens, kernel_calls: ports of the kernel's own, so that one side cannot open a connection to the other.
        ours_good: our copy is good from the start, so that a full resync to the kernel follows; else both are new.
    """

    protocol: str = "C"
    port: int = 7788
    secret: str = SECRET
    kernel_secret: str | None = None
    hmac: str = "sha256"
    kernel_hmac: str | None = None
    disk_bytes: int = DISK_BYTES
    kernel_disk_bytes: int | None = None
    block_bytes: int = 0
    net: tuple[str, ...] = ()
    disk: tuple[str, ...] = ()
    resource: tuple[str, ...] = ()
    mirror: str = ""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    ours_is_lower: bool = True
    kernel_listens: int | None = None
    kernel_calls: int | None = None
    ours_good: bool = True

    @property
    def kernel_bytes(self) -> int:
        """The size of the kernel's disk."""
        return self.kernel_disk_bytes or self.disk_bytes


class Ours(Side):
    """Our mirror process."""

    def load(self, device: pathlib.Path) -> subprocess.Popen[bytes]:
        """Writes of all sizes at random places of the device, until it is ended or the device fails."""
        job = ("fio", "--name=load", f"--filename={device}", "--direct=1", "--ioengine=libaio", "--rw=randwrite")
        sizes = (
            "--bsrange=4k-64k",
            "--iodepth=8",
            "--fsync=32",
            "--norandommap=1",
            "--rate_iops=300",
            "--runtime=120",
            "--time_based",
        )
        counters = pathlib.Path("/sys/block", device.resolve().name, "stat")
        before = counters.read_text()
        load = subprocess.Popen([*job, *sizes], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + LOAD_LIMIT_S
        while counters.read_text().split()[4] == before.split()[4] and time.monotonic() < end:
            time.sleep(0.02)  # the first write is announced by nobody
        return load


class Pair:
    """Both sides. `ours` is a `mirror_pair.Side`, `kernel` a `Guest`; nothing runs before `start`."""

    def __init__(self, rig: Rig, case: Case) -> None:
        self._rig = rig
        self.case = case
        self.kernel: Guest = rig.guest
        self.folder = rig.folder / "case"
        self.folder.mkdir()
        self.ours = Ours(self.folder, OURS_NAME, rig.ours)
        self.ours.environment = {
            **os.environ,
            "PYTHONPATH": str(OPTIONS_FOLDER),
            "RELEVO_INTEROP_OPTIONS": json.dumps({"protocol": case.protocol, **case.options}),
        }
        self._watchdog = subprocess.Popen(
            [sys.executable, "-c", WATCHDOG, str(CASE_LIMIT_S), str(self.folder)], stdin=subprocess.PIPE
        )
        rig.begin(ours_is_lower=case.ours_is_lower)
        self._addresses = dict(
            zip((OURS_NAME, KERNEL_NAME), (LOW, HIGH) if case.ours_is_lower else (HIGH, LOW), strict=True)
        )
        with self.ours.disk.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, case.disk_bytes)
        self._loop = ""
        if case.block_bytes:
            size = str(case.block_bytes)
            self._loop = run("losetup", "--find", "--show", "--sector-size", size, str(self.ours.disk)).strip()
        self.configure_ours()
        self.configure_kernel()
        create_metadata(self.ours.disk, zeroed=case.ours_good)
        if case.ours_good:
            _begin_generation(self.ours.disk)
        self.kernel.run("drbdadm --force create-md r0")

    # ---- configuration -----------------------------------------------------------------------------------------

    def configure_ours(self, secret: str | None = None, mirror: str = "") -> None:
        """Write our configuration; it counts from the next start on."""
        case, etc = self.case, self.ours.paths.etc
        disk = self._loop or self.ours.disk
        nodes = "".join(
            f'[nodes.{name}]\naddresses = {{ cross = "{address}" }}\ndisks = {{ r0 = "{disk}" }}\n'
            for name, address in self._addresses.items()
        )
        (etc / "relevo.toml").write_text(
            f'[cluster]\nname = "{CLUSTER}"\nsecrets = "secrets.toml"\nauthkeys = "authkeys"\n'
            '[links.cross]\ninterface = "eth1"\nnetwork = "10.27.0.0/24"\n'
            f'{nodes}[mirrors.r0]\nlink = "cross"\nport = {case.port}\nhmac = "{case.hmac}"\nalone = "risk"\n'
            f"{SHORT_TIMES}{case.mirror}\n{mirror}\n"
        )
        keys = f"[mirror]\nr0 = {json.dumps(secret or case.secret)}\n"
        for name, text in (("secrets.toml", keys), ("authkeys", "auth 1\n1 sha1 key\n")):
            path = etc / name
            path.touch(mode=0o600)
            path.write_text(text)

    def configure_kernel(self, *, net: tuple[str, ...] = (), disk: tuple[str, ...] = ()) -> None:
        """Write the kernel's drbd.conf; `drbdadm adjust r0` or the next `up` takes it."""
        case = self.case
        secret = case.secret if case.kernel_secret is None else case.kernel_secret
        lines_net: tuple[str, ...] = ()
        if case.kernel_hmac != NO_HMAC:
            lines_net = (f"cram-hmac-alg {case.kernel_hmac or case.hmac};", f'shared-secret "{secret}";')
        lines_net += (*KERNEL_SHORT_TIMES, *case.net, *net)
        lines_disk = ("resync-rate 400M;", "c-plan-ahead 0;", "c-min-rate 0;", *case.disk, *disk)
        ports = {OURS_NAME: case.kernel_calls or case.port, KERNEL_NAME: case.kernel_listens or case.port}
        hosts = "".join(f"  on {name} {{ address {ip}:{ports[name]}; }}\n" for name, ip in self._addresses.items())
        self.kernel.run(
            "cat > /etc/drbd.conf <<'END'\nglobal { usage-count no; }\ncommon { }\nresource r0 {\n"
            f"  protocol {case.protocol};\n  device /dev/drbd0;\n  disk /dev/vda;\n  meta-disk internal;\n"
            f"  net {{ {' '.join(lines_net)} }}\n  disk {{ {' '.join(lines_disk)} }}\n"
            f"  {' '.join(case.resource)}\n{hosts}}}\nEND"
        )

    # ---- the course of a case ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start both; does not wait for their connection."""
        self.start_kernel()
        self.ours.start()

    def start_kernel(self) -> None:
        """Attach the kernel's disk and let it look for its peer."""
        self.kernel.run("drbdadm up r0")

    def start_in_sync(self) -> None:
        """Start both, and wait until both copies are up to date."""
        self.start()
        self.wait_in_sync()

    def wait_in_sync(self, limit_s: float = 40.0) -> None:
        """Wait until both say that they are connected and up to date."""
        self.ours.wait_for(in_sync, "Connected and UpToDate on both", limit_s)
        self.kernel.wait_for("cs:Connected ro:[A-Za-z/]* ds:UpToDate/UpToDate", limit_s)

    def wait_lost(self) -> None:
        """Wait until both have noticed that the link is gone."""
        self.ours.wait_for(lambda status: status["connection"] == "WFConnection", "the loss of its peer", 30)
        self.kernel.wait_for("cs:WFConnection")

    def cut(self) -> None:
        """Silence between the two."""
        self._rig.cut()

    def heal(self) -> None:
        """Packets pass again."""
        self._rig.heal()

    def start_kernel_load(self) -> None:
        """The kernel's side, which is Primary, writes at random places until `end_kernel_load`, or its end."""
        place = "seek=$(($(hexdump -n 2 -e '\"%u\"' /dev/urandom) % 3800))"
        dd = f"dd if=/dev/urandom of=/dev/drbd0 bs=12k count=2 {place} oflag=direct"
        loop = f"until [ -e /tmp/enough ]; do {dd} && touch /tmp/begun; done; rm /tmp/enough"
        self.kernel.run(
            f"rm -f /tmp/enough /tmp/begun; ({loop}) > /dev/null 2>&1 & until [ -e /tmp/begun ]; do :; done"
        )

    def end_kernel_load(self) -> None:
        """No more writes of that load are under way."""
        self.kernel.run("touch /tmp/enough; while [ -e /tmp/enough ]; do sleep 0.1; done")

    def slow(self, rate: str | None) -> None:
        """Bound what passes to and from the guest (a rate of tc, such as `200kbit`); None: no bound."""
        self._rig.slow(rate)

    def skip_initial_resync(self) -> None:
        """Start both; both copies are taken as equal, which they are: nothing but zeroes."""
        create_metadata(self.ours.disk, force=True)
        self.start()
        self.kernel.wait_for("cs:Connected")
        self.kernel.run("drbdadm new-current-uuid --clear-bitmap r0")
        self.wait_in_sync()

    def cut_power_of_kernel(self) -> None:
        """The guest loses its power."""
        self.kernel.cut_power()

    def boot_kernel(self) -> None:
        """Switch the guest on again; its resource comes up as at any boot."""
        self._rig.start_guest()
        ip = self._addresses[KERNEL_NAME]
        self.kernel.run(f"ip addr flush dev eth0; ip addr add {ip}/24 dev eth0")
        self.configure_kernel()
        self.start_kernel()

    def replace_kernel_disk(self, disk_bytes: int) -> None:
        """The guest is switched off and gets a new, empty disk; its resource does not come up by itself."""
        self.kernel.cut_power()
        self._rig.replace_disk(disk_bytes)
        self._rig.start_guest()
        ip = self._addresses[KERNEL_NAME]
        self.kernel.run(f"ip addr flush dev eth0; ip addr add {ip}/24 dev eth0")
        self.configure_kernel()
        self.kernel.run("drbdadm --force create-md r0")

    # ---- judging -----------------------------------------------------------------------------------------------

    def kernel_data(self) -> bytes:
        """The whole data area of the kernel's disk, as long as ours."""
        with self.kernel.disk.open("rb") as file:
            return file.read(self.data_bytes)

    @property
    def data_bytes(self) -> int:
        """The size of the device: the smaller one of both data areas."""
        return min(read_superblock(path)[1].data_bytes for path in (self.ours.disk, self.kernel.disk))

    def compare_data(self) -> None:
        """Both data areas are equal. Nothing may be in flight."""
        if self.kernel.running:
            self.kernel.run("sync")
        theirs = self.kernel_data()
        mine = self.ours.data_bytes()[: len(theirs)]
        differing = [
            offset
            for offset in range(0, len(theirs), BLOCK)
            if mine[offset : offset + BLOCK] != theirs[offset : offset + BLOCK]
        ]
        assert not differing, f"{len(differing)} blocks differ, the first at {differing[0]}"

    def down(self) -> None:
        """Both become Secondary, then leave each other in order."""
        self.kernel.run("umount /mnt 2>/dev/null; drbdadm secondary r0")
        if self.ours.status()["role"] == "Primary":
            self.ours.call("secondary")
        assert self.ours.stop() == 0
        self.kernel.run("drbdadm down r0")

    def metadata(self) -> tuple[str, str]:
        """Our meta-data and the kernel's as drbdmeta dumps them. Both sides must be down."""
        made = run("losetup", "--find", "--show", str(self.ours.disk)).strip()
        try:
            mine = run("drbdmeta", "--force", "254", "v08", made, "internal", "dump-md")
        finally:
            run("losetup", "--detach", made)
        return mine, self.kernel.dump_metadata()

    def compare_whole(self) -> None:
        """Wait until both are in sync, compare the data whole, take both down, compare the meta-data."""
        self.wait_in_sync()
        self.compare_data()
        self.down()
        self.compare_data()
        mine, theirs = self.metadata()
        for text in (mine, theirs):
            assert "bits-set 0;" in text, text
        assert _identity(mine) == _identity(theirs), f"{mine}\n{theirs}"

    def close(self) -> bool:
        """End our side; whether everything went in order."""
        side = self.ours
        with contextlib.suppress(Exception):
            if side.process is not None and side.process.poll() is None and side.status()["role"] == "Primary":
                self.kernel.run("drbdsetup down r0", check=False)
        if side.process is not None:
            side.process.terminate()
            try:
                side.process.wait(10)
            except subprocess.TimeoutExpired:
                side.kill()
        side.clean()
        if self._loop:
            run("losetup", "--detach", self._loop, check=False)
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.close()
        quiet = self._watchdog.wait(10) == 0
        left = loops.find(f"relevo:{CLUSTER}:", self.folder)
        run("rm", "-rf", str(self.folder))
        return quiet and not left

    def tell(self) -> str:
        """Everything that helps to understand a failure."""
        mine = self.ours.log() if (self.ours.folder / "log").exists() else "(never started)"
        text = f"---- ours\n{mine}\n---- the kernel\n{self.kernel.console()}\n"
        if self.kernel.running and not self.kernel.hung:
            with contextlib.suppress(AssertionError):
                text += f"{self.kernel.run('cat /proc/drbd', check=False)}\n{self.kernel.messages()}"
        return text


def _begin_generation(disk: pathlib.Path) -> None:
    """As if this copy had been in use: a kernel takes the generation of one that never was for no generation at all."""
    superblock, layout = read_superblock(disk)
    begun = msgspec.structs.replace(superblock, current=secrets.randbits(63) << 1 | 1 << 60)
    with disk.open("r+b") as file:
        file.seek(layout.superblock)
        file.write(encode_superblock(begun))


def _identity(dump: str) -> dict[str, object]:
    """What both copies' meta-data have in common."""
    uuids = re.search(r"uuid \{([^}]*)\}", dump)
    size = re.search(r"la-size-sect (\d+)", dump)
    assert uuids is not None
    assert size is not None
    numbers = [int(number, 16) for number in re.findall(r"0x([0-9A-Fa-f]{16});", uuids[1])]
    history = [number & ~1 for number in numbers[2:4]]
    return {"size": int(size[1]), "current": numbers[0] & ~1, "bitmap": numbers[1], "history": history}
