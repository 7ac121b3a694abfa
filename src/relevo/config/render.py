"""Write a `relevo.toml` with its secrets and heartbeat keys for two servers of one kind."""

from __future__ import annotations

import dataclasses
import pathlib

from relevo.config.model import HeartbeatTimings


@dataclasses.dataclass(frozen=True, slots=True)
class Rendered:
    """The three files, as text.

    Attributes:
        toml: `relevo.toml`, the same on both servers.
        secrets: `secrets.toml`, mode 0600.
        authkeys: `authkeys`, mode 0600.
    """

    toml: str
    secrets: str
    authkeys: str

    def write(self, folder: pathlib.Path) -> None:
        """Put the files into a folder, which is made if needed."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, text, mode in (
            ("relevo.toml", self.toml, 0o644),
            ("secrets.toml", self.secrets, 0o600),
            ("authkeys", self.authkeys, 0o600),
        ):
            path = folder / name
            path.touch(mode)
            path.chmod(mode)
            path.write_text(text, encoding="utf-8")


@dataclasses.dataclass(frozen=True, slots=True)
class RenderedLink:
    """A link: its card and network, and the address of each node on it."""

    interface: str
    network: str
    addresses: dict[str, str]


def render(
    *,
    cluster: str,
    timings: HeartbeatTimings,
    links: dict[str, RenderedLink],
    disks: dict[str, str],
    mirror_link: str,
    address: str,
    address_link: str,
    secret: str,
    authkey: str,
    prefer: str,
    auto_failback: bool = True,
    alone: str = "risk",
    mirror: str = "r0",
    service: str = "web",
    mountpoint: str = "/srv/relevo",
    heartbeat_port: int = 694,
) -> Rendered:
    """One mirror with a file system, its file service and one address, as TOML.

    Args:
        cluster: its name.
        timings: of the heartbeats.
        links: by name.
        disks: node name -> backing disk of the mirror.
        mirror_link: the link that carries the mirror.
        address: the virtual address with its prefix length.
        address_link: the link that has it.
        secret: of the mirror.
        authkey: the line of the key without its number, such as `sha256 SECRET`.
        prefer: the node where the service belongs.
        auto_failback: whether it goes back there.
        alone: `risk` or `ask`.
        mirror: its name.
        service: its name.
        mountpoint: of the file system, and root of the file service.
        heartbeat_port: UDP.
    """
    parts = [
        _section("cluster", name=cluster, secrets="secrets.toml", authkeys="authkeys"),
        _section(
            "heartbeat",
            keepalive=f"{timings.keepalive_ms} ms",
            warntime=f"{timings.warntime_ms} ms",
            deadtime=f"{timings.deadtime_ms} ms",
            initdead=f"{timings.initdead_ms} ms",
            port=heartbeat_port,
        ),
    ]
    parts += [_section(f"links.{name}", interface=link.interface, network=link.network) for name, link in links.items()]
    parts += [
        _section(
            f"nodes.{node}",
            addresses={name: link.addresses[node] for name, link in links.items()},
            disks={mirror: disk},
        )
        for node, disk in disks.items()
    ]
    resources: tuple[dict[str, object], ...] = (
        {"type": "mirror", "mirror": mirror},
        {"type": "filesystem", "mirror": mirror, "mountpoint": mountpoint},
        {"type": "files", "root": mountpoint, "mirror": mirror},
        {"type": "address", "address": address, "link": address_link},
    )
    parts += [
        _section(f"mirrors.{mirror}", link=mirror_link, alone=alone),
        _section(f"services.{service}", prefer=prefer, auto_failback=auto_failback),
        *(f"[[services.{service}.resources]]\n{_pairs(resource)}" for resource in resources),
    ]
    return Rendered("\n".join(parts), _section("mirror", **{mirror: secret}), f"auth 1\n1 {authkey}\n")


def _section(title: str, **values: object) -> str:
    return f"[{title}]\n{_pairs(values)}"


def _pairs(values: dict[str, object]) -> str:
    return "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())


def _toml(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case dict():
            return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
        case _:
            return _quoted(str(value))


def _quoted(text: str) -> str:
    # TOML lets no control character stand in a text, DEL included.
    return '"' + "".join(f"\\u{ord(char):04x}" if ord(char) < 32 or char in '"\\\x7f' else char for char in text) + '"'
