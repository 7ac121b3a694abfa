"""The same drbd.conf, letter for letter, on both: the kernel by drbdadm, ours without any relevo.toml."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable

import pytest
from kernel_pair import BLOCK, Pair
from rig import HIGH, KERNEL_NAME, LOW, OURS_NAME

from relevo.base import sysrq

PairMaker = Callable[..., Pair]
HISTORIC = pathlib.Path(__file__).parent.parent / "data" / "historic" / "drbd.d" / "r0.res"
KERNEL_DISK = "/dev/vda"
VOLUMES = """\
common { net { protocol B; ping-int 2; } disk { c-plan-ahead 0; } }
resource r0 {
    net { connect-int 1; verify-alg crc32c; data-integrity-alg md5; }
    on OURS { volume 0 { device minor 0; disk OURDISK; meta-disk internal; } address LOW:7788; }
    on KERNEL { volume 0 { device minor 0; disk KERNELDISK; meta-disk internal;
        disk { resync-rate 100M; } } address HIGH:7788; }
    disk { resync-rate 200M; }
}
"""


def historic(pair: Pair) -> str:
    """The historic resource: nothing but addresses and disks are others."""
    before, rest = HISTORIC.read_text().split(f"on {OURS_NAME}")
    ours, kernel = rest.split(f"on {KERNEL_NAME}")
    ours = ours.replace("/dev/sda6", str(pair.ours.disk)).replace("192.168.0.27", LOW)
    kernel = kernel.replace("/dev/sda6", KERNEL_DISK).replace("192.168.0.28", HIGH)
    return f"{before}on {OURS_NAME}{ours}on {KERNEL_NAME}{kernel}"


def configure(pair: Pair, text: str) -> None:
    """Give both the same file; ours has no other one."""
    pair.kernel.run(f"cat > /etc/drbd.conf <<'END'\n{text}\nEND")
    (pair.ours.paths.etc / "relevo.toml").unlink()
    pair.ours.paths.drbd.write_text(text)
    pair.ours.environment = {**os.environ, sysrq.MASK_VARIABLE: sysrq.REQUIRED}  # its handlers may end this machine


def write_ours(pair: Pair, number: int) -> None:
    """Write a block on our side as Primary."""
    device = pair.ours.promote(epoch=0)
    with device.open("r+b", buffering=0) as file:
        file.seek(number * BLOCK)
        file.write(bytes([number]) * BLOCK)
        os.fsync(file.fileno())
    pair.ours.call("secondary")


@pytest.mark.short
def test_the_historic_resource(make_pair: PairMaker) -> None:
    pair = make_pair()
    configure(pair, historic(pair))
    pair.start_in_sync()
    write_ours(pair, 7)
    write = "dd if=/dev/urandom of=/dev/drbd0 bs=64k count=20 conv=fsync"
    pair.kernel.run(f"drbdadm primary r0 && {write} && drbdadm secondary r0")
    pair.compare_whole()


def test_without_any_proof_of_a_secret(make_pair: PairMaker) -> None:
    pair = make_pair()
    lines = historic(pair).splitlines()
    configure(pair, "\n".join(line for line in lines if "cram-hmac" not in line and "shared-secret" not in line))
    pair.start_in_sync()
    write_ours(pair, 3)
    pair.compare_whole()


def test_numbered_volumes_inherited_options_protocol_b_and_digests(make_pair: PairMaker) -> None:
    pair = make_pair()
    words = {"OURDISK": str(pair.ours.disk), "KERNELDISK": KERNEL_DISK, "LOW": LOW, "HIGH": HIGH}
    text = VOLUMES
    for word, meant in (*words.items(), ("OURS", OURS_NAME), ("KERNEL", KERNEL_NAME)):
        text = text.replace(word, meant)
    configure(pair, text)
    pair.start_in_sync()
    write_ours(pair, 5)
    pair.compare_whole()
