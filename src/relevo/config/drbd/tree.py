"""What a drbd.conf says, as it is written: nothing inherited, nothing converted. Every part knows its place."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal

from relevo.config.drbd.options import SECTIONS
from relevo.config.drbd.places import Findings, Place


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One option; `name` as 8.4 spells it, `value` None where nothing follows the name.

    `words` are those of `become-primary-on`, or of a line of `plugin`.
    """

    name: str
    value: str | None
    place: Place
    words: tuple[str, ...] = ()


@dataclasses.dataclass(slots=True)
class Volume:
    """One volume of a host, or of a whole resource.

    Attributes:
        number: 0 where the file names none (`implicit`).
        device: `/dev/drbd0`; minor: its number.
        meta_index: `internal`, `flexible`, or the digits between the brackets.
        disk_options: its section disk.
    """

    number: int
    place: Place
    implicit: bool = False
    device: str | None = None
    minor: int | None = None
    disk: str | None = None
    meta_disk: str | None = None
    meta_index: str | None = None
    disk_options: list[Setting] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """`family` is ipv4, ipv6, ssocks or sdp; `port` as it is written."""

    family: str
    address: str
    port: str
    place: Place

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.family == "ipv6" else f"{self.address}:{self.port}"


@dataclasses.dataclass(slots=True)
class Proxy:
    """`proxy on HOST { … }` of a host."""

    names: tuple[str, ...]
    inside: Address | None = None
    outside: Address | None = None
    options: list[Setting] = dataclasses.field(default_factory=list)
    plugins: list[Setting] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True)
class Host:
    """One side: `on NAMES { … }`, `floating ADDRESS { … }` or `stacked-on-top-of RESOURCE { … }`.

    Attributes:
        names: the host names; of a floating one its address, of a stacked one the resource below.
    """

    kind: Literal["on", "floating", "stacked"]
    names: tuple[str, ...]
    place: Place
    address: Address | None = None
    alternate: Address | None = None
    volumes: list[Volume] = dataclasses.field(default_factory=list)
    options: list[Setting] = dataclasses.field(default_factory=list)
    proxy: Proxy | None = None


@dataclasses.dataclass(slots=True)
class Resource:
    """A resource, or the section common.

    Attributes:
        sections: name of the section -> its options, in the order in which they are written.
        plugins: of the section proxy.
        volumes: what is written outside of the hosts.
        become_primary_on: names; None where nothing is said.
        refusals: what is valid for drbdadm but cannot be done here; such a resource is not mirrored.
    """

    name: str
    place: Place
    sections: dict[str, list[Setting]] = dataclasses.field(default_factory=lambda: {name: [] for name in SECTIONS})
    plugins: list[Setting] = dataclasses.field(default_factory=list)
    hosts: list[Host] = dataclasses.field(default_factory=list)
    volumes: list[Volume] = dataclasses.field(default_factory=list)
    become_primary_on: tuple[str, ...] | None = None
    stacked_timeouts: bool = False
    refusals: list[tuple[Place, str, str]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True)
class Conf:
    """A whole configuration: a file and all that it includes."""

    file: pathlib.Path
    found: Findings
    settings: list[Setting] = dataclasses.field(default_factory=list)
    common: Resource | None = None
    resources: list[Resource] = dataclasses.field(default_factory=list)

    def resource(self, name: str) -> Resource | None:
        """The resource of that name."""
        return next((resource for resource in self.resources if resource.name == name), None)
