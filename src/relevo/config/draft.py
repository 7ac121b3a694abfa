"""From TOML tables to the model, one function per section; what cannot be understood is written down and left out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from relevo.base.units import format_duration_ms
from relevo.config.alerts import AlertsPolicy, AlertTarget, read_alerts
from relevo.config.draft_mirror import MAX_PORT, DrbdSource, read_mirror
from relevo.config.draft_shares import with_shares
from relevo.config.fencing import FenceDevice, Fencing
from relevo.config.locate import KeyPath
from relevo.config.meta_disk import INTERNAL, MetaDisk, MetaDiskWrong, parse_meta_disk
from relevo.config.model import (
    PROGRAM_OPERATION,
    SYSTEMD_OPERATION,
    AddressResource,
    FilesResource,
    FilesTls,
    FilesystemResource,
    HeartbeatTimings,
    Link,
    LsbResource,
    Mirror,
    MirrorResource,
    Node,
    OcfResource,
    Operation,
    Resource,
    Service,
    Side,
    SystemdResource,
    Witness,
)
from relevo.config.names import HOST_REMEDY, NO_HOST, is_host, is_name
from relevo.config.ping import Ping, read_ping
from relevo.config.table import Source, Table, nearest
from relevo.config.watchdog import WatchdogDevice, read_watchdog
from relevo.config.window import Window

PROFILES_MS = {"normal": (500, 3000), "fast": (200, 1200)}
"""Name -> keepalive and deadtime, both in milliseconds."""
MIN_INITDEAD_MS = 10_000
MAX_TTL = 255
MAX_INTERFACE_LENGTH = 15
MAX_MIGRATION_THRESHOLD = 1_000_000
MAX_WEIGHT = 1_000_000
"""Of a priority, a cost, a capacity."""
UNIT_SUFFIXES = (".service", ".socket", ".mount", ".automount", ".timer", ".path", ".target", ".swap")
"""Kinds of units of systemd that can be started and stopped; the first one is what a name without an ending means."""
_UNIT_NAME = re.compile(r"[A-Za-z0-9:_\\@-][A-Za-z0-9:_.\\@-]{0,254}", re.ASCII)
MAX_LEVEL = 9
"""Pacemaker's highest level of fencing."""
WITNESS_PORT = 7693
MAX_LEASE_MS = 600_000
MIN_LEASE_MS = 3000
"""A leader renews it three times, and is sure to look once a second only."""


@dataclasses.dataclass(slots=True)
class Draft:
    """What could be understood of a configuration, before the parts are compared with each other.

    Attributes:
        drbd: name of a mirror -> the drbd.conf that configures it, for those that one does.
        sides: such a mirror -> both of its sides.
        declared: section (`nodes`, `links`, `mirrors`) -> every name in it, also of what could not be understood.
    """

    source: Source
    cluster: str = ""
    secrets: str = ""
    authkeys: str = ""
    heartbeat: HeartbeatTimings | None = None
    links: dict[str, Link] = dataclasses.field(default_factory=dict)
    nodes: dict[str, Node] = dataclasses.field(default_factory=dict)
    mirrors: dict[str, Mirror] = dataclasses.field(default_factory=dict)
    drbd: dict[str, DrbdSource] = dataclasses.field(default_factory=dict)
    sides: dict[str, tuple[Side, Side]] = dataclasses.field(default_factory=dict)
    services: dict[str, Service] = dataclasses.field(default_factory=dict)
    witness: Witness | None = None
    fencing: Fencing = dataclasses.field(default_factory=Fencing)
    alerts: tuple[AlertTarget, ...] = ()
    alerts_policy: AlertsPolicy = dataclasses.field(default_factory=AlertsPolicy)
    ping: Ping = dataclasses.field(default_factory=Ping)
    watchdog: WatchdogDevice | None = None
    declared: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def knows(self, section: str, name: str, path: KeyPath) -> bool:
        """Whether a name is declared in a section; writes it down at the path where it is used if not."""
        known = self.declared.get(section, ())
        if name not in known:
            kind = section.removesuffix("s")
            remedy = nearest(name, known) if known else f"Add a table [{section}.{name}], or remove this."
            self.source.mistake(path, f"There is no {kind} {name!r}.", remedy)
        return name in known


def read_draft(source: Source) -> Draft:
    """Read every section of a parsed `relevo.toml`; secrets are filled in later."""
    draft = Draft(source)
    root = Table(source, (), source.values)
    cluster = root.table("cluster", required=True)
    profile = "normal"
    if cluster.sound:
        draft.cluster = cluster.name("name", example='"oficina"')
        profile = cluster.choice("profile", tuple(PROFILES_MS), profile)
        draft.secrets = cluster.text("secrets", "secrets.toml")
        draft.authkeys = cluster.text("authkeys", "authkeys")
        cluster.finish()
    port = _heartbeat(root, draft, profile)
    _links(root, draft, port)
    _nodes(root, draft)
    mirrors = root.table("mirrors")
    draft.declared["mirrors"] = mirrors.names()
    for name in draft.declared["mirrors"]:
        _mirror(mirrors.table(name), name, draft)
    services = root.table("services")
    draft.declared["services"] = services.names()
    for name in draft.declared["services"]:
        _service(services.table(name), name, draft)
    fencing = root.table("fencing")
    draft.fencing = Fencing(
        delay_ms=fencing.duration_ms("delay", 2000, zero=True), retry_ms=fencing.duration_ms("retry", 15_000)
    )
    fencing.finish()
    if root.has("witness"):
        _witness(root.table("witness"), draft)
    draft.alerts, draft.alerts_policy = read_alerts(root)
    beat = draft.heartbeat or HeartbeatTimings()
    draft.ping = read_ping(root, beat.deadtime_ms)
    draft.watchdog = read_watchdog(root, beat.keepalive_ms, beat.deadtime_ms)
    root.finish()
    return draft


def _heartbeat(root: Table, draft: Draft, profile: str) -> int:
    table = root.table("heartbeat")
    keepalive_ms, deadtime_ms = PROFILES_MS[profile]
    keepalive_ms = table.duration_ms("keepalive", keepalive_ms)
    deadtime_ms = table.duration_ms("deadtime", deadtime_ms)
    timings = HeartbeatTimings(
        keepalive_ms=keepalive_ms,
        deadtime_ms=deadtime_ms,
        warntime_ms=table.duration_ms("warntime", deadtime_ms // 2),
        initdead_ms=table.duration_ms("initdead", max(MIN_INITDEAD_MS, 2 * deadtime_ms)),
    )
    port = table.integer("port", 694, 1, MAX_PORT)
    table.finish()
    if table.sound:
        draft.heartbeat = timings
    return port


def _links(root: Table, draft: Draft, port: int) -> None:
    links = root.table("links", required=True)
    draft.declared["links"] = links.names()
    for name in draft.declared["links"]:
        table = links.table(name)
        link = Link(
            name=name,
            interface=table.text("interface", example='"eth0"'),
            network=table.network("network"),
            port=table.integer("port", port, 1, MAX_PORT),
            broadcast=table.boolean("broadcast", default=True),
            unicast=table.boolean("unicast", default=True),
            multicast=table.address("multicast") if table.has("multicast") else None,
            multicast_ttl=table.integer("multicast_ttl", 1, 1, MAX_TTL),
        )
        if link.multicast is not None and not link.multicast.is_multicast:
            table.wrong("multicast", f"is not a group: {link.multicast}.", 'Write one such as "239.255.0.1".')
        if len(link.interface) > MAX_INTERFACE_LENGTH or "/" in link.interface or " " in link.interface:
            table.wrong("interface", f"is no network card: {link.interface!r}.", "Write its name as in ip link.")
        table.finish()
        if table.sound:
            draft.links[name] = link


def _nodes(root: Table, draft: Draft) -> None:
    nodes = root.table("nodes", required=True)
    draft.declared["nodes"] = nodes.names()
    for name in draft.declared["nodes"]:
        table = nodes.table(name)
        addresses = table.table("addresses", required=True)
        disks = table.table("disks")
        metas = table.table("meta_disks")
        devices = table.tables("fencing") if table.has("fencing") else []
        node = Node(
            name=name,
            addresses={link: addresses.address(link) for link in addresses.names()},
            disks={mirror: disks.absolute_path(mirror, "/dev/vg0/r0") for mirror in disks.names()},
            meta_disks={mirror: _meta_disk(metas, mirror) for mirror in metas.names()},
            fencing=tuple(_fence_device(device) for device in devices),
            capacity=table.integer("capacity", 0, 0, MAX_WEIGHT),
        )
        table.finish()
        if all(part.sound for part in (table, addresses, disks, metas, *devices)):
            draft.nodes[name] = node


def _fence_device(table: Table) -> FenceDevice:
    parameters = table.table("parameters")
    device = FenceDevice(
        agent=table.text("agent", None, '"fence_ipmilan"'),
        parameters={name: parameters.text(name) for name in parameters.names()},
        level=table.integer("level", 1, 1, MAX_LEVEL),
        action=table.choice("action", ("reboot", "off"), "reboot"),
        timeout_ms=table.duration_ms("timeout", 60_000),
    )
    for reserved in {"action", "nodename"} & set(device.parameters):
        parameters.wrong(reserved, "is given by Relevo itself.", "Leave it out.")
    table.finish()
    table.sound = table.sound and parameters.sound
    return device


def _meta_disk(table: Table, mirror: str) -> MetaDisk:
    text = table.text(mirror, None, '"internal"')
    try:
        return parse_meta_disk(text or "internal")
    except MetaDiskWrong as error:
        table.wrong(mirror, error.what, error.remedy)
        return INTERNAL


def _mirror(table: Table, name: str, draft: Draft) -> None:
    found = read_mirror(table, name)
    if isinstance(found, DrbdSource):
        draft.drbd[name] = found
    elif found is not None:
        draft.mirrors[name] = found


_WINDOW = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])-([01]?[0-9]|2[0-3]):([0-5][0-9])")
_WINDOW_EXAMPLE = '"22:00-05:00"'


def _window(table: Table, key: str) -> Window | None:
    if not table.has(key):
        return None
    text = table.text(key, None, _WINDOW_EXAMPLE)
    match = _WINDOW.fullmatch(text)
    begin, end = (int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])) if match else (0, 0)
    if begin == end:
        table.wrong(key, f"is no part of a day: {text!r}.", f"Write begin and end, such as {_WINDOW_EXAMPLE}.")
        return None
    return Window(begin=begin, end=end)


def _service(table: Table, name: str, draft: Draft) -> None:
    prefer = table.name("prefer", example='"nodo1"')
    entries = table.tables("resources")
    resources = [resource for entry in entries if (resource := _resource(entry)) is not None]
    service = Service(
        name=name,
        prefer=prefer,
        resources=with_shares(table, resources),
        auto_failback=table.boolean("auto_failback", default=True),
        migration_threshold=table.integer("migration_threshold", 3, 1, MAX_MIGRATION_THRESHOLD),
        failure_timeout_ms=table.duration_ms("failure_timeout", 600_000),
        failback_delay_ms=table.duration_ms("failback_delay", 0, zero=True),
        failback_window=_window(table, "failback_window"),
        priority=table.integer("priority", 0, 0, MAX_WEIGHT),
        cost=table.integer("cost", 0, 0, MAX_WEIGHT),
        after=table.texts("after", '["db"]') if table.has("after") else (),
        along_with=table.name("along_with", example='"db"') if table.has("along_with") else "",
        apart_from=table.texts("apart_from", '["db"]') if table.has("apart_from") else (),
        haresources=table.text("haresources", "", '"192.168.0.29"'),
    )
    if table.sound and not service.auto_failback and (service.failback_delay_ms or service.failback_window):
        table.wrong("auto_failback", "is false: a delay or window has no effect.", "Remove one of the two.")
    table.finish()
    if table.sound and len(resources) == len(entries):
        draft.services[name] = service


def _witness(table: Table, draft: Draft) -> None:
    witness = Witness(
        address=table.text("address", None, '"192.168.0.30"'),
        port=table.integer("port", WITNESS_PORT, 1, MAX_PORT),
        key="",
        lease_ms=table.duration_ms("lease", 3000),
        timeout_ms=table.duration_ms("timeout", 1000),
    )
    if table.sound and not is_host(witness.address):
        table.wrong("address", NO_HOST, HOST_REMEDY)
    if table.sound and witness.lease_ms > MAX_LEASE_MS:
        table.wrong("lease", "is too long.", f"Write at most {format_duration_ms(MAX_LEASE_MS)}.")
    if table.sound and witness.lease_ms < MIN_LEASE_MS:
        why = f"Three renewals, one a second, have to fit: write at least {format_duration_ms(MIN_LEASE_MS)}."
        table.wrong("lease", "is too short.", why)
    if table.sound and witness.timeout_ms >= witness.lease_ms:
        table.wrong(
            "timeout", "is not shorter than lease.", "One lost answer would end the lease: write a shorter one."
        )
    table.finish()
    if table.sound:
        draft.witness = witness


def _resource(table: Table) -> Resource | None:
    kind: str = table.choice("type", tuple(_RESOURCES))
    if not table.sound:
        return None  # which keys it may have depends on its type
    read, operation = _RESOURCES[kind]
    resource = read(table, table.name("id", kind), _operation(table, operation))
    table.finish()
    return resource if table.sound else None


def _operation(table: Table, default: Operation) -> Operation:
    return Operation(
        start_timeout_ms=table.duration_ms("start_timeout", default.start_timeout_ms),
        stop_timeout_ms=table.duration_ms("stop_timeout", default.stop_timeout_ms),
        monitor_interval_ms=table.duration_ms("monitor_interval", default.monitor_interval_ms, zero=True),
        monitor_timeout_ms=table.duration_ms("monitor_timeout", default.monitor_timeout_ms),
    )


def _mirror_resource(table: Table, resource_id: str, operation: Operation) -> Resource:
    return MirrorResource(id=resource_id, mirror=table.name("mirror", example='"r0"'), operation=operation)


def _filesystem(table: Table, resource_id: str, operation: Operation) -> Resource:
    options = table.text("options", "noatime", '"noatime"')
    if "ro" in options.split(","):
        table.wrong("options", "makes the file system read-only.", "Leave out ro.")
    return FilesystemResource(
        id=resource_id,
        mirror=table.name("mirror", example='"r0"'),
        mountpoint=table.absolute_path("mountpoint", "/srv/relevo"),
        fstype=table.choice("fstype", ("ext4", "ext3", "xfs", "btrfs"), "ext4"),
        options=options,
        operation=operation,
    )


def _files(table: Table, resource_id: str, operation: Operation) -> Resource:
    port = table.integer("port", 80, 1, MAX_PORT)
    return FilesResource(
        id=resource_id,
        root=table.absolute_path("root", "/srv/relevo"),
        mirror=table.name("mirror", example='"r0"'),
        port=port,
        when_degraded=table.choice("when_degraded", ("accept", "refuse"), "accept"),
        upload_expiry_ms=table.duration_ms("upload_expiry", 86_400_000),
        bin_expiry_ms=table.duration_ms("bin_expiry", 30 * 86_400_000, zero=True),
        tls=_files_tls(table, port),
        operation=operation,
    )


_DNS_NAME = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9][A-Za-z0-9-]{0,62}")
_TLS_KEYS = ("tls_certificate", "tls_key", "tls_names", "tls_only")


def _files_tls(table: Table, plain_port: int) -> FilesTls | None:
    """`tls_…` of a files resource."""
    given = {word for word in _TLS_KEYS if table.has(word)}
    if not table.has("tls_port"):
        for word in sorted(given):
            table.wrong(word, "has no effect without tls_port.", "Add tls_port = 443.")
        return None
    chain = table.absolute_path("tls_certificate", "/etc/relevo/tls/chain.pem") if "tls_certificate" in given else None
    key = table.absolute_path("tls_key", "/etc/relevo/tls/key.pem") if "tls_key" in given else None
    if (chain is None) != (key is None):
        lone = "tls_key" if chain is None else "tls_certificate"
        table.wrong(lone, "stands alone: a certificate and its key belong together.", "Give both, or none.")
    names = table.texts("tls_names", '["files.example.org"]')
    for name in names:
        if _DNS_NAME.fullmatch(name) is None:
            table.wrong(
                "tls_names", f"holds {name!r}, which is no DNS name.", 'Write names such as "files.example.org".'
            )
    if names and chain is not None:
        table.wrong(
            "tls_names", "has no effect with tls_certificate.", "A given certificate says itself what it is for."
        )
    port = table.integer("tls_port", 443, 1, MAX_PORT)
    if port == plain_port:
        table.wrong("tls_port", "is the same as port.", "Give plain HTTP and TLS a port each.")
    only = table.boolean("tls_only", default=False)
    return FilesTls(port=port, certificate=chain, key=key, names=names, only=only)


def _address(table: Table, resource_id: str, operation: Operation) -> Resource:
    return AddressResource(
        id=resource_id,
        address=table.address_with_prefix("address"),
        link=table.name("link", example='"users"'),
        announce_interval_ms=table.duration_ms("announce_interval", 60_000),
        operation=operation,
    )


def _ocf(table: Table, resource_id: str, operation: Operation) -> Resource:
    words = table.text("agent", None, '"heartbeat:apache"').removeprefix("ocf:").split(":")
    if len(words) != 2 or not all(is_name(word) for word in words):
        table.wrong("agent", "is not the name of an agent.", 'Write provider and name, such as "heartbeat:apache".')
        words = ["", ""]
    parameters = table.table("parameters")
    return OcfResource(
        id=resource_id,
        provider=words[0],
        agent=words[1],
        parameters={name: parameters.text(name) for name in parameters.names()},
        operation=operation,
    )


def _lsb(table: Table, resource_id: str, operation: Operation) -> Resource:
    return LsbResource(
        id=resource_id,
        script=table.absolute_path("script", "/etc/init.d/apache2"),
        arguments=table.texts("arguments", '["r0"]'),
        operation=operation,
    )


def _systemd(table: Table, resource_id: str, operation: Operation) -> Resource:
    unit = table.text("unit", None, '"apache2.service"')
    if unit and not unit.endswith(UNIT_SUFFIXES):
        unit += UNIT_SUFFIXES[0]
    if unit and not _UNIT_NAME.fullmatch(unit):
        table.wrong("unit", f"is not the name of a unit: {unit!r}.", 'Write one such as unit = "apache2.service".')
    elif "@." in unit:
        table.wrong("unit", "is a template.", f'Name an instance of it: unit = "{unit.replace("@.", "@NAME.")}".')
    return SystemdResource(id=resource_id, unit=unit, operation=operation)


_RESOURCES: dict[str, tuple[Callable[[Table, str, Operation], Resource], Operation]] = {
    "mirror": (_mirror_resource, Operation()),
    "filesystem": (_filesystem, Operation()),
    "files": (_files, Operation()),
    "address": (_address, Operation()),
    "ocf": (_ocf, PROGRAM_OPERATION),
    "lsb": (_lsb, PROGRAM_OPERATION),
    "systemd": (_systemd, SYSTEMD_OPERATION),
}
