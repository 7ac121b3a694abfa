"""A configuration of two nodes and one service, for the tests of arbiter and manager."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any, Literal

from relevo.config.model import (
    AddressResource,
    AuthKey,
    AuthKeys,
    Config,
    FilesResource,
    FilesystemResource,
    HeartbeatTimings,
    Link,
    Mirror,
    MirrorResource,
    Node,
    Service,
    Witness,
)

NODES = ("nodo1", "nodo2")


def service(**changes: Any) -> Service:
    resources = (
        MirrorResource(id="mirror", mirror="r0"),
        FilesystemResource(id="filesystem", mirror="r0", mountpoint=Path("/srv")),
        FilesResource(id="files", root=Path("/srv"), mirror="r0"),
        AddressResource(id="address", address=IPv4Interface("192.168.0.29/24"), link="users"),
    )
    return Service(**{"name": "web", "prefer": "nodo1", "resources": resources, **changes})


def configuration(alone: Literal["risk", "ask"] = "risk", witness: Witness | None = None) -> Config:
    key = AuthKey(number=1, method="sha1", secret="x")
    return Config(
        cluster="sample",
        nodes={
            name: Node(name=name, addresses={"users": IPv4Address(f"10.0.0.{number}")}, disks={"r0": Path("/disk")})
            for number, name in enumerate(NODES, 1)
        },
        links={"users": Link(name="users", interface="eth0", network=IPv4Network("10.0.0.0/24"))},
        heartbeat=HeartbeatTimings(),
        authkeys=AuthKeys(signing=key, accepted={1: key}),
        mirrors={"r0": Mirror(name="r0", link="users", secret="x", alone=alone)},
        services={"web": service()},
        witness=witness,
        hash="h",
    )
