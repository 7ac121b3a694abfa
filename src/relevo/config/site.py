"""A mirror as this node has it, from whatever configures it."""

from __future__ import annotations

from relevo.base.errors import RelevoError
from relevo.base.paths import Paths
from relevo.config.load import load, whoami
from relevo.config.model import Config, Endpoint, MirrorSite, Node


class NoSuchMirror(RelevoError):
    """The configuration has no mirror of that name."""


class NoDiskHere(RelevoError):
    """The configuration names no disk of this node for the mirror."""


def find_site(paths: Paths, me: str, name: str) -> MirrorSite:
    """The mirror `name` as node `me` has it.

    Raises:
        ConfigErrors: the configuration is wrong.
        UnknownNode: `me` is none of its nodes.
        NoSuchMirror, NoDiskHere: as their names say.
    """
    config = load(paths.config)
    whoami(config, me)
    return site_of(config, me, name)


def sites_here(paths: Paths, me: str) -> tuple[MirrorSite, ...]:
    """Every mirror of which node `me` has a copy, in the order of their minors.

    One whose configuration names no minor has its place among the mirrors for it.

    Raises:
        ConfigErrors: the configuration is wrong.
        UnknownNode: `me` is none of its nodes.
    """
    config = load(paths.config)
    whoami(config, me)
    return tuple(site_of(config, me, name) for name in config.mirrors if name in config.nodes[me].disks)


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

    return MirrorSite(
        mirror=mirror,
        cluster=config.cluster,
        me=me,
        peer=peer.name,
        own=end(here),
        other=end(peer),
        disk=here.disks[name],
        meta=here.meta_disk(name),
        minor=list(config.mirrors).index(name),
    )
