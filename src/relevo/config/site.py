"""A mirror as this node has it, from whatever configures it: relevo.toml, or drbd.conf where there is none."""

from __future__ import annotations

import contextlib
import socket
from ipaddress import ip_address

import msgspec

from relevo.base.errors import RelevoError
from relevo.base.paths import Paths
from relevo.config.drbd import load as drbd
from relevo.config.drbd.site import resolved
from relevo.config.drbd.site import site_of as drbd_site_of
from relevo.config.drbd.tree import Conf, Host
from relevo.config.errors import ConfigError, ConfigErrors, UnknownNode
from relevo.config.load import load, whoami
from relevo.config.model import Config, Endpoint, MirrorSite, Node


class NoSuchMirror(RelevoError):
    """The configuration has no mirror of that name."""


class NoDiskHere(RelevoError):
    """The configuration names no disk of this node for the mirror."""


def configured_by_drbd(paths: Paths) -> bool:
    """Whether mirrors are configured by drbd.conf alone: there is no relevo.toml."""
    return not paths.config.exists() and paths.drbd.exists()


def find_site(paths: Paths, me: str, name: str) -> MirrorSite:
    """The mirror `name` as node `me` has it.

    Raises:
        ConfigErrors: the configuration is wrong, or asks for what cannot be done here.
        UnknownNode: `me` is none of its nodes.
        NoSuchMirror, NoDiskHere: as their names say.
    """
    if not configured_by_drbd(paths):
        return site_of(_load(paths, me), me, name)
    conf = drbd.read(paths.drbd, me)
    resource = conf.resource(name)
    if resource is None:
        known = ", ".join(resource.name for resource in conf.resources) or "none"
        what = f"There is no resource {name!r} in {paths.drbd}, and no {paths.config}."
        raise NoSuchMirror(what, f"Known: {known}.")
    site = drbd_site_of(conf, resource, me, _is_here)
    if site is None:
        hosts = ", ".join(name for host in resource.hosts for name in host.names) or "none"
        raise UnknownNode(
            f"This host is called {me!r}, which is no host of resource {name!r} in {paths.drbd} ({hosts}).",
            "Set the host name, or name this node with --node.",
        )
    return site


def sites_here(paths: Paths, me: str) -> tuple[MirrorSite, ...]:
    """Every mirror of which node `me` has a copy, in the order of their minors.

    One whose configuration names no minor has its place among the mirrors for it. A resource of drbd.conf that cannot
    be mirrored here is left out and logged.

    Raises:
        ConfigErrors: the configuration is wrong.
        UnknownNode: `me` is none of its nodes.
    """
    if configured_by_drbd(paths):
        found = _drbd_sites(drbd.read(paths.drbd, me), me)
    else:
        config = _load(paths, me)
        found = [site_of(config, me, name) for name in config.mirrors if name in config.nodes[me].disks]
    return tuple(sorted(found, key=lambda site: site.minor or 0))


def _drbd_sites(conf: Conf, me: str) -> list[MirrorSite]:
    found = []
    for resource in conf.resources:
        try:
            site = drbd_site_of(conf, resource, me, _is_here)
        except ConfigErrors as errors:
            import structlog  # slow to import, and most commands import this module

            structlog.get_logger().warning("resource_not_mirrored", resource=resource.name, problem=str(errors))
            continue
        if site is not None:
            found.append(site)
    return found


def _load(paths: Paths, me: str) -> Config:
    if not paths.config.exists():  # and no drbd.conf, else that would configure the mirrors
        what = f"There is no such file, and no {paths.drbd} either: no mirror is configured."
        raise ConfigErrors([ConfigError(paths.config, None, what, "Create one of the two (--etc, --drbd-conf).")])
    config = load(paths.config)
    whoami(config, me)
    return config


def _is_here(host: Host) -> bool:
    """Whether the address of a floating host is one of this machine: only then can a socket have it."""
    if host.address is None:
        return False
    with contextlib.suppress(ValueError, OSError):
        family = socket.AF_INET if ip_address(host.address.address).version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((host.address.address, 0))
        return True
    return False


def site_of(config: Config, me: str, name: str) -> MirrorSite:
    """The mirror `name` of a cluster as node `me` has it.

    Raises:
        NoSuchMirror: there is none of that name.
        NoDiskHere: this node has no disk for it.
    """
    mirror = config.mirrors.get(name)
    if mirror is None:
        raise NoSuchMirror(f"There is no mirror {name!r}.", f"Known: {', '.join(config.mirrors) or 'none'}.")
    here = config.nodes[me]
    if name not in here.disks:
        raise NoDiskHere(f"Node {me} has no disk for mirror {name}.", f"Add {name} to `disks` of nodes.{me}.")
    (peer,) = (node for node in config.nodes.values() if node.name != me and name in node.disks)

    def end(node: Node) -> Endpoint:
        return Endpoint(address=node.addresses[mirror.link], port=mirror.port)

    site = MirrorSite(
        mirror=resolved(mirror, me),
        cluster=config.cluster,
        source=config.drbd.get(name),
        me=me,
        peer=peer.name,
        own=end(here),
        other=end(peer),
        disk=here.disks[name],
        meta=here.meta_disk(name),
        minor=list(config.mirrors).index(name),
    )
    if name not in config.sides:
        return site
    sides = {side.name: side for side in config.sides[name]}
    own, other = sides[me], sides[peer.name]
    return msgspec.structs.replace(site, own=own.end, other=other.end, device=own.device, minor=own.minor)
