"""Mirrors that a drbd.conf configures, without any relevo.toml."""

from __future__ import annotations

import os
import pathlib

import pytest
from labtools import PairMaker

from mirror_pair import ADDRESSES, Pair, run
from relevo.base import sysrq

HISTORIC = pathlib.Path(__file__).parent.parent / "data" / "historic" / "drbd.d" / "r0.res"

DEVICE = {"nodo1": "/dev/drbd40961", "nodo2": "/dev/drbd40962"}


@pytest.fixture
def pair(make_pair: PairMaker) -> Pair:
    return make_pair()


def historic(pair: Pair) -> str:
    """The historic resource with the addresses and disks of this pair.

    /dev is that of the whole machine: the devices have a minor number that nobody uses.
    """
    before, rest = HISTORIC.read_text().split("on nodo1")
    first, second = rest.split("on nodo2")
    text = before
    for name, host, address in (("nodo1", first, "192.168.0.27"), ("nodo2", second, "192.168.0.28")):
        here = host.replace("/dev/sda6", str(pair.sides[name].disk)).replace(address, ADDRESSES[name])
        here = here.replace("/dev/drbd0", DEVICE[name])
        text += f"on {name}{here}"
    return text


def write(device: pathlib.Path, data: bytes) -> None:
    with device.open("r+b", buffering=0) as file:
        file.write(data)
    run("blockdev", "--flushbufs", str(device))


def test_the_historic_resource_runs_as_it_stands(pair: Pair) -> None:
    pair.configure_by_drbd(historic(pair))
    pair.start()
    pair.one.promote(epoch=0)
    write(pathlib.Path(DEVICE["nodo1"]), b"datos" * 10_000)
    pair.one.call("secondary")
    write(pair.two.promote(epoch=0), b"otros" * 1000)
    pair.two.call("secondary")
    assert pair.one.data_bytes() == pair.two.data_bytes()
    assert pair.one.data_bytes()[:5] == b"otros"
    for side in pair.sides.values():
        assert side.stop() == 0
        assert not pathlib.Path(DEVICE[side.name]).exists()


def test_alone_a_server_goes_on_as_drbd_did(pair: Pair) -> None:
    pair.configure_by_drbd(historic(pair))
    pair.start()
    device = pair.one.promote(epoch=0)
    pair.two.kill()
    pair.one.wait_for(lambda status: status["connection"] == "WFConnection", "a peer that is gone")
    write(device, b"solo" * 1000)
    pair.two.start()
    pair.wait_in_sync(40)
    assert pair.two.data_bytes() == pair.one.data_bytes()


def test_another_secret_is_refused(pair: Pair) -> None:
    pair.configure_by_drbd(historic(pair))
    other = pair.two.paths.drbd
    other.write_text(other.read_text().replace('shared-secret "123"', 'shared-secret "321"'))
    for side in pair.sides.values():
        side.start()
    status = pair.one.wait_for(lambda status: bool(status["problem"]), "a refusal", 60)
    assert "secret" in status["problem"]


def test_without_cram_hmac_alg_nobody_proves_anything(pair: Pair) -> None:
    text = historic(pair)
    lines = [line for line in text.splitlines() if "cram-hmac-alg" not in line and "shared-secret" not in line]
    pair.configure_by_drbd("\n".join(lines))
    pair.start()
    write(pair.one.promote(epoch=0), b"abierto")
    pair.one.call("secondary")
    assert pair.two.data_bytes()[:7] == b"abierto"


def test_over_ipv6(pair: Pair) -> None:
    text = historic(pair)
    for name, number in (("nodo1", 1), ("nodo2", 2)):
        address = f"fd00:27::{number}"
        run("ip", "-n", pair.sides[name].namespace, "addr", "add", f"{address}/64", "dev", "eth1", "nodad")
        text = text.replace(ADDRESSES[name] + ":", f"ipv6 [{address}]:")
    pair.configure_by_drbd(text)
    pair.start()
    write(pair.one.promote(epoch=0), b"seis")
    pair.one.call("secondary")
    assert pair.two.data_bytes()[:4] == b"seis"


def test_named_by_relevo_toml(pair: Pair) -> None:
    nodes = "".join(f'[nodes.{name}]\naddresses = {{ cross = "{ip}" }}\n' for name, ip in ADDRESSES.items())
    for side in pair.sides.values():
        side.paths.drbd.write_text(historic(pair))
        (side.paths.etc / "relevo.toml").write_text(
            f'[cluster]\nname = "{pair.cluster}"\n[links.cross]\ninterface = "eth1"\nnetwork = "10.27.0.0/24"\n'
            f'{nodes}[mirrors.r0]\ndrbd = "{side.paths.drbd}"\n'
        )
        side.environment = {**os.environ, sysrq.MASK_VARIABLE: sysrq.REQUIRED}  # its handlers may end this machine
    pair.start()
    write(pair.one.promote(), b"ambos")
    pair.two.kill()
    pair.one.wait_for(lambda status: bool(status["suspended"]), "the wait for permission", 40)  # alone = "ask", as here
    pair.one.call("allow_alone", epoch=2)
    pair.one.wait_for(lambda status: not status["suspended"], "writes that go on")
    pair.two.start()
    pair.wait_in_sync(60)
    pair.one.call("secondary")
    assert pair.two.data_bytes() == pair.one.data_bytes()
