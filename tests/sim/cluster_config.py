"""The configuration of the cluster simulation: two servers, one service on a mirror, and a second one that needs it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from relevo.config import model as config_model
from relevo.config.fencing import FenceDevice
from relevo.config.ping import Ping

LINKS = ("users", "cross")
MIRROR_LINK = "cross"
NODES = ("nodo1", "nodo2")
RESOURCES = ("mirror", "filesystem", "files", "address")
SERVICE = "web"
APP = "app"
APP_RESOURCES = ("program", "app_address")
"""A service without a mirror, at home on the other node, that needs the first one: nobody permits or refuses it."""
LEASE_MS = 5000
"""Longer than deadtime: a take-over has to wait for it."""


TARGET = "router"
PING = Ping(targets={TARGET: (IPv4Address("192.168.0.1"),)}, interval_ms=1000, deadping_ms=7000, settle_ms=10_000)
"""deadping is as short as it may be."""
PING_LOSS = 0.05


def configuration(
    *,
    auto_failback: bool = True,
    witness: bool = False,
    ask: bool = False,
    fencing: bool = False,
    ping: bool = False,
    two: bool = False,
) -> config_model.Config:
    resources = (
        config_model.MirrorResource(id="mirror", mirror="r0"),
        config_model.FilesystemResource(id="filesystem", mirror="r0", mountpoint=Path("/srv")),
        config_model.FilesResource(id="files", root=Path("/srv"), mirror="r0"),
        config_model.AddressResource(id="address", address=IPv4Interface("192.168.0.29/24"), link="users"),
    )
    key = config_model.AuthKey(number=1, method="sha1", secret="x")
    return config_model.Config(
        cluster="sim",
        nodes={
            name: config_model.Node(
                name=name,
                addresses={link: IPv4Address(f"10.{index}.0.{number}") for index, link in enumerate(LINKS)},
                disks={"r0": Path("/dev/null")},
                fencing=(FenceDevice(agent="sim"),) if fencing else (),
            )
            for number, name in enumerate(NODES, 1)
        },
        links={
            link: config_model.Link(name=link, interface=link, network=IPv4Network(f"10.{index}.0.0/24"))
            for index, link in enumerate(LINKS)
        },
        heartbeat=config_model.HeartbeatTimings(),
        authkeys=config_model.AuthKeys(signing=key, accepted={1: key}),
        mirrors={
            "r0": config_model.Mirror(
                name="r0", link=MIRROR_LINK, secret="x", alone="ask" if witness or ask or fencing else "risk"
            )
        },
        witness=config_model.Witness(address="witness", key="x", lease_ms=LEASE_MS) if witness else None,
        services={
            SERVICE: config_model.Service(
                name=SERVICE, prefer="nodo1", resources=resources, auto_failback=auto_failback
            ),
            **({APP: _app()} if two else {}),
        },
        ping=PING if ping else Ping(),
        hash="h",
    )


def _app() -> config_model.Service:
    program, address = APP_RESOURCES
    resources = (
        config_model.OcfResource(id=program, provider="sim", agent="sim"),
        config_model.AddressResource(id=address, address=IPv4Interface("192.168.0.30/24"), link="users"),
    )
    return config_model.Service(name=APP, prefer="nodo2", resources=resources, after=(SERVICE,))
