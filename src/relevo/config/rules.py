"""What has to hold between the parts of a configuration; each rule writes down where it is broken."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from ipaddress import IPv4Address

from relevo.config import together
from relevo.config.draft import Draft
from relevo.config.locate import KeyPath
from relevo.config.meta_disk import MetaDisk
from relevo.config.model import (
    AddressResource,
    FilesResource,
    FilesystemResource,
    Link,
    LsbResource,
    Mirror,
    MirrorResource,
    NfsResource,
    OcfResource,
    Resource,
    Service,
    SmbResource,
    SystemdResource,
)
from relevo.config.risks import risks

MIN_NODES = 2
MIRROR_NODES = 2
MIN_KEEPALIVE_MS = 10
"""Each heartbeat is signed and sent on every link by a process before which all others have to wait."""


def compare(draft: Draft) -> None:
    """Apply every rule to what could be understood."""
    for rule in (
        _timings,
        _links,
        _nodes,
        _addresses,
        _prefixes,
        _disks,
        _meta_disks,
        _mirrors,
        _suspensions,
        _verifies,
        _congestion,
        _ports,
        _services,
        together.company,
        _shared,
        _pings,
    ):
        rule(draft)


def _timings(draft: Draft) -> None:
    beat = draft.heartbeat
    if beat is None:
        return
    wrong = draft.source.mistake
    section = "heartbeat"
    if beat.keepalive_ms < MIN_KEEPALIVE_MS:
        what = f"keepalive ({beat.keepalive_ms} ms) is too short."
        wrong((section, "keepalive"), what, f'Write at least "{MIN_KEEPALIVE_MS} ms"; 200 ms are quick.')
    if beat.deadtime_ms < 2 * beat.keepalive_ms:
        what = f"deadtime ({beat.deadtime_ms} ms) is shorter than twice keepalive ({beat.keepalive_ms} ms)."
        wrong((section, "deadtime"), what, "One lost message would be a death: write a longer deadtime.")
    if beat.warntime_ms >= beat.deadtime_ms:
        what = f"warntime ({beat.warntime_ms} ms) is not shorter than deadtime ({beat.deadtime_ms} ms)."
        wrong((section, "warntime"), what, "Write a shorter warntime, or leave it out: it is half of deadtime then.")
    if beat.warntime_ms <= beat.keepalive_ms:
        what = f"warntime ({beat.warntime_ms} ms) is not longer than keepalive ({beat.keepalive_ms} ms)."
        wrong((section, "warntime"), what, "Every message would be late: write a longer warntime.")
    if beat.initdead_ms < beat.deadtime_ms:
        what = f"initdead ({beat.initdead_ms} ms) is shorter than deadtime ({beat.deadtime_ms} ms)."
        wrong((section, "initdead"), what, "Write at least deadtime; twice of it leaves time to boot.")


def _links(draft: Draft) -> None:
    seen: list[Link] = []
    for link in draft.links.values():
        path: KeyPath = ("links", link.name, "network")
        for other in seen:
            if link.network.overlaps(other.network):
                what = f"{link.network} of link {link.name!r} overlaps {other.network} of link {other.name!r}."
                draft.source.mistake(path, what, "Give each link a network of its own.")
        if not link.broadcast and not link.unicast and link.multicast is None:
            what = f"Link {link.name!r} has neither broadcast, unicast nor multicast: no heartbeat would be sent on it."
            draft.source.mistake(("links", link.name), what, "Leave at least one of them in.")
        seen.append(link)


def _nodes(draft: Draft) -> None:
    names = draft.declared.get("nodes", ())
    if len(names) < MIN_NODES and "nodes" in draft.source.values:
        what = f"A cluster has at least {MIN_NODES} nodes, this one has {len(names)}."
        draft.source.mistake(("nodes",), what, "Add a table [nodes.NAME].")


def _in_network(draft: Draft, path: KeyPath, address: IPv4Address, link: Link) -> None:
    network = link.network
    if address not in network:
        what = f"{address} is outside {network}, the network of link {link.name!r}."
        draft.source.mistake(path, what, f"Write an address of {network}.")
    elif network.num_addresses > 2 and address in {network.network_address, network.broadcast_address}:
        kind = "network" if address == network.network_address else "broadcast"
        draft.source.mistake(path, f"{address} is the {kind} address of {network}.", "Write the address of a host.")


def _addresses(draft: Draft) -> None:
    owners: dict[IPv4Address, str] = {}
    for path, address, link_name, owner in _all_addresses(draft):
        if not draft.knows("links", link_name, path):
            continue
        if link_name in draft.links:
            _in_network(draft, path, address, draft.links[link_name])
        if address in owners:
            draft.source.mistake(path, f"{address} already belongs to {owners[address]}.", "Give each its own address.")
        else:
            owners[address] = owner
    for name, node in draft.nodes.items():
        for link_name in draft.declared.get("links", ()):
            if link_name not in node.addresses:
                what = f"Node {name!r} has no address on link {link_name!r}."
                draft.source.mistake(("nodes", name, "addresses"), what, f'Add {link_name} = "…".')


def _all_addresses(draft: Draft) -> Iterator[tuple[KeyPath, IPv4Address, str, str]]:
    for name, node in draft.nodes.items():
        for link, address in node.addresses.items():
            yield ("nodes", name, "addresses", link), address, link, f"node {name!r}"
    for path, service, resource in _resources(draft):
        if isinstance(resource, AddressResource):
            owner = f"service {service.name!r}"
            yield (*path, "address"), resource.address.ip, resource.link, owner


def _pings(draft: Draft) -> None:
    """What a server asks is outside of the cluster: what moves with a service, or is a server, says nothing."""
    owners = {address: owner for _, address, _, owner in _all_addresses(draft)}
    for name, addresses in draft.ping.targets.items():
        for address in addresses:
            if address in owners:
                what = f"{address} of the ping target {name!r} belongs to {owners[address]}."
                remedy = "Name a machine outside of the cluster, such as the router."
                draft.source.mistake(("ping", "targets", name), what, remedy)


def _prefixes(draft: Draft) -> None:
    for path, _, resource in _resources(draft):
        if not isinstance(resource, AddressResource) or resource.link not in draft.links:
            continue
        link = draft.links[resource.link]
        expected = link.network.prefixlen
        if resource.address.network.prefixlen != expected and resource.address.ip in link.network:
            what = f"{resource.address} has another prefix length than {link.network}, the network of {link.name!r}."
            draft.source.mistake((*path, "address"), what, f"Write {resource.address.ip}/{expected}.")


def _disks(draft: Draft) -> None:
    for name, node in draft.nodes.items():
        seen: dict[str, str] = {}
        for mirror, disk in node.disks.items():
            path: KeyPath = ("nodes", name, "disks", mirror)
            draft.knows("mirrors", mirror, path)
            if str(disk) in seen:
                what = f"{disk} is already the disk of mirror {seen[str(disk)]!r}."
                draft.source.mistake(path, what, "Give each mirror a disk of its own.")
            seen[str(disk)] = mirror


def _meta_disks(draft: Draft) -> None:
    """Meta-data of a mirror that is there, on a disk that holds no data, in a place of its own."""
    for name, node in draft.nodes.items():
        data = {str(disk): mirror for mirror, disk in node.disks.items()}
        seen: list[MetaDisk] = []
        for mirror, place in node.meta_disks.items():
            path: KeyPath = ("nodes", name, "meta_disks", mirror)
            if mirror not in node.disks:
                what = f"Node {name!r} has no disk of mirror {mirror!r}."
                draft.source.mistake(path, what, f'Add {mirror} = "…" to its disks, or remove this.')
            if place.path is None:
                continue
            if str(place.path) in data:
                what = f"{place.path} is the disk of mirror {data[str(place.path)]!r}."
                draft.source.mistake(path, what, 'Write "internal", or another disk.')
            if any(place.overlaps(other) for other in seen):
                what = f"{place} already holds the meta-data of another mirror."
                draft.source.mistake(path, what, 'Give each an index of its own, such as "/dev/NAME[0]".')
            seen.append(place)


def _mirrors(draft: Draft) -> None:
    all_nodes_understood = len(draft.nodes) == len(draft.declared.get("nodes", ()))
    for name, mirror in draft.mirrors.items():
        draft.knows("links", mirror.link, ("mirrors", name, "link"))
        owners = [node.name for node in draft.nodes.values() if name in node.disks]
        if all_nodes_understood and len(owners) != MIRROR_NODES:
            on = f" ({', '.join(owners)})" if owners else ""
            what = f"Mirror {name!r} has a disk on {len(owners)} nodes{on}, it needs exactly {MIRROR_NODES}."
            remedy = f'Write disks = {{ {name} = "/dev/…" }} in the tables of the two nodes that shall have it.'
            draft.source.mistake(("mirrors", name), what, remedy)


def _suspensions(draft: Draft) -> None:
    """Writes that wait for a permission must not fail before it can come."""
    beat, witness = draft.heartbeat, draft.witness
    for name, mirror in draft.mirrors.items():
        if mirror.alone != "ask" or beat is None:
            continue
        if witness is not None and mirror.suspend_ms <= witness.timeout_ms:
            what = f"suspend ({mirror.suspend_ms} ms) is over before the witness has had its timeout to answer."
            draft.source.mistake(("mirrors", name, "suspend"), what, "Write a longer one; the default is 60 s.")
        fenced = any(node.fencing for node in draft.nodes.values() if name in node.disks)
        if witness is None and fenced and mirror.suspend_ms <= beat.deadtime_ms:
            what = f"suspend ({mirror.suspend_ms} ms) is over before a silent node is dead and could be fenced."
            draft.source.mistake(("mirrors", name, "suspend"), what, "Write a longer one; the default is 60 s.")


def _verifies(draft: Draft) -> None:
    for name, mirror in draft.mirrors.items():
        if mirror.verify.every_ms and not mirror.options.verify_alg:
            what = f"Mirror {name!r} shall compare its copies, but has no verify_alg to do it with."
            remedy = 'Add verify_alg = "crc32c" (in drbd.conf: verify-alg crc32c), or remove verify_every.'
            draft.source.mistake(("mirrors", name, "verify_every"), what, remedy)


def _congestion(draft: Draft) -> None:
    for name, mirror in draft.mirrors.items():
        if mirror.options.on_congestion != "block" and mirror.options.protocol != "A":
            what = f"on_congestion is for protocol A only; mirror {name!r} has protocol {mirror.options.protocol}."
            draft.source.mistake(("mirrors", name, "on_congestion"), what, 'Write on_congestion = "block".')


def _ports(draft: Draft) -> None:
    users: dict[int, str] = {}

    def use(path: KeyPath, port: int, user: str) -> None:
        if port in users:
            draft.source.mistake(path, f"TCP port {port} is already used by {users[port]}.", "Write another port.")
        users.setdefault(port, user)

    for name, mirror in draft.mirrors.items():
        use(("mirrors", name, "port"), mirror.port, f"mirror {name!r}")
    for path, service, resource in _resources(draft):
        if isinstance(resource, FilesResource | SmbResource | NfsResource):
            use((*path, "port"), resource.port, f"{resource.id!r} of service {service.name!r}")


def _resources(draft: Draft) -> Iterator[tuple[KeyPath, Service, Resource]]:
    for service in draft.services.values():
        for path, resource in _places(service):
            yield path, service, resource


def _places(service: Service) -> Iterator[tuple[KeyPath, Resource]]:
    """Each resource of a service with where it is written down."""
    index = 0
    for resource in service.resources:
        if isinstance(resource, SmbResource | NfsResource):
            kind = "smb" if isinstance(resource, SmbResource) else "nfs"
            yield ("services", service.name, kind), resource
        else:
            yield ("services", service.name, "resources", index), resource
            index += 1


def _services(draft: Draft) -> None:
    for name, service in draft.services.items():
        if not service.resources:
            draft.source.mistake(("services", name), f"Service {name!r} has no resources.", "Add one, or remove it.")
        if draft.knows("nodes", service.prefer, ("services", name, "prefer")):
            _preferred_has_disks(draft, service)
        _Order(draft, service).check()


def _preferred_has_disks(draft: Draft, service: Service) -> None:
    node = draft.nodes.get(service.prefer)
    if node is None:
        return
    mirrors = {resource.mirror for resource in service.resources if isinstance(resource, MirrorResource)}
    for name in sorted(mirrors & set(draft.declared.get("mirrors", ())) - set(node.disks)):
        what = f"Node {node.name!r} is preferred, but has no disk of mirror {name!r}."
        draft.source.mistake(("services", service.name, "prefer"), what, "Prefer a node that has one.")


def _shared(draft: Draft) -> None:
    """Ids of files resources name sockets, mirrors have one Primary, mountpoints one file system: once in a cluster."""
    seen: dict[tuple[str, str], str] = {}
    for path, service, resource in _resources(draft):
        if isinstance(resource, MirrorResource):
            key, word = ("mirror", resource.mirror), "mirror"
        elif isinstance(resource, FilesystemResource):
            key, word = ("mountpoint", str(resource.mountpoint)), "mountpoint"
        elif isinstance(resource, FilesResource):
            key, word = ("files", resource.id), "id"
        elif isinstance(resource, SystemdResource):
            key, word = ("unit", resource.unit), "unit"
        else:
            continue
        other = seen.setdefault(key, service.name)
        if other != service.name:
            what = f"{word} {key[1]!r} is already used by service {other!r}."
            draft.source.mistake((*path, word), what, "Only one service can have it.")


class _Order:
    """The order of the resources of one service: each stands after what it needs, addresses come last."""

    def __init__(self, draft: Draft, service: Service) -> None:
        self._draft = draft
        self._service = service
        self._ids: set[str] = set()
        self._mirrors: set[str] = set()
        self._filesystems: list[FilesystemResource] = []
        self._address_seen = False

    def check(self) -> None:
        for path, resource in _places(self._service):
            if resource.id in self._ids:
                what = f"There is already a resource {resource.id!r} in service {self._service.name!r}."
                self._draft.source.mistake((*path, "id"), what, 'Give this one a name of its own with id = "…".')
            self._ids.add(resource.id)
            if self._address_seen and not isinstance(resource, AddressResource):
                what = f"Resource {resource.id!r} comes after an address: clients would find the address before it."
                self._draft.source.mistake(path, what, "Put addresses last.")
            match resource:
                case MirrorResource():
                    self._mirror(path, resource)
                case FilesystemResource():
                    self._filesystem(path, resource)
                case FilesResource():
                    self._files(path, resource)
                case AddressResource():
                    self._address_seen = True
                case SmbResource() | NfsResource() | OcfResource() | LsbResource() | SystemdResource():
                    pass  # was put where it belongs, or what it needs is known to nobody here

    def _mirror(self, path: KeyPath, resource: MirrorResource) -> None:
        self._draft.knows("mirrors", resource.mirror, (*path, "mirror"))
        if resource.mirror in self._mirrors:
            what = f"Mirror {resource.mirror!r} is there twice."
            self._draft.source.mistake((*path, "mirror"), what, "Remove one of the two resources.")
        self._mirrors.add(resource.mirror)

    def _filesystem(self, path: KeyPath, resource: FilesystemResource) -> None:
        source = self._draft.source
        if self._draft.knows("mirrors", resource.mirror, (*path, "mirror")) and resource.mirror not in self._mirrors:
            what = f"File system {resource.id!r} stands before its mirror {resource.mirror!r}."
            source.mistake(path, what, f'Put a resource of type "mirror" with mirror = "{resource.mirror}" before it.')
        if str(resource.mountpoint) == "/":
            source.mistake((*path, "mountpoint"), "/ cannot be a mountpoint.", "Write a folder such as /srv/relevo.")
        for other in self._filesystems:
            if other.mirror == resource.mirror or other.mountpoint == resource.mountpoint:
                what = f"File system {resource.id!r} has the mirror or the mountpoint of {other.id!r}."
                source.mistake(path, what, "Give each file system its own mirror and mountpoint.")
        self._filesystems.append(resource)

    def _files(self, path: KeyPath, resource: FilesResource) -> None:
        source = self._draft.source
        if not self._draft.knows("mirrors", resource.mirror, (*path, "mirror")):
            return
        below = [fs for fs in self._filesystems if resource.root.is_relative_to(fs.mountpoint)]
        if not below:
            what = f"{resource.root} lies on no file system that stands before {resource.id!r} in this service."
            source.mistake((*path, "root"), what, "Write a folder inside the mountpoint of one.")
            return
        nearest_fs = max(below, key=lambda fs: len(fs.mountpoint.parts))
        if nearest_fs.mirror != resource.mirror:
            what = f"{resource.root} lies on mirror {nearest_fs.mirror!r}, not on {resource.mirror!r}."
            source.mistake((*path, "mirror"), what, f'Write mirror = "{nearest_fs.mirror}".')


def weaknesses(mirrors: dict[str, Mirror], signing_method: str, by_drbd: Collection[str]) -> Iterator[str]:
    """What is allowed, but a risk that has to be named; a drbd.conf configures the mirrors `by_drbd`."""
    if signing_method != "sha256":
        why = {"crc": "no secret at all: anyone on a link can forge heartbeats"}.get(signing_method, "an outdated hash")
        yield f"Heartbeats are signed with {signing_method} ({why}); use a key of method sha256."
    for mirror in mirrors.values():
        yield from risks(mirror, toml=mirror.name not in by_drbd)


def unguarded(services: Mapping[str, Service]) -> Iterator[str]:
    """Services for which nobody is asked when the servers lose each other: a vote or a fence guards data."""
    for name, service in services.items():
        if not any(isinstance(part, MirrorResource) for part in service.resources):
            yield (
                f"Service {name} has no mirror: a server that sees the other one fall silent starts it without proof; "
                "if only the network is cut, it runs on both."
            )


def undecided(mirrors: dict[str, Mirror], *, with_witness: bool, unfenced: tuple[str, ...]) -> Iterator[str]:
    """What happens to a mirror whose servers lose each other, where that is not what one may expect."""
    for name, mirror in mirrors.items():
        if mirror.alone == "ask" and not with_witness and unfenced:
            yield (
                f'Mirror {name!r} has alone = "ask", there is no [witness], and {" and ".join(unfenced)} cannot be '
                "fenced ([[nodes.NAME.fencing]]): a server that loses the other one serves no more until a person "
                "decides."
            )
        if mirror.alone == "risk" and with_witness:
            yield f'The witness has no say in mirror {name!r}: it has alone = "risk".'
