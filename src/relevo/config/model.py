"""The configuration as the rest of the program sees it: frozen, typed, complete (every default filled in)."""

from __future__ import annotations

import pathlib
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address
from typing import Literal

import msgspec

from relevo.config.alerts import AlertsPolicy, AlertTarget
from relevo.config.drbd_options import OWN_DEFAULTS, DrbdOptions
from relevo.config.fencing import FenceDevice, Fencing
from relevo.config.meta_disk import INTERNAL, MetaDisk
from relevo.config.ping import Ping
from relevo.config.verify_schedule import NEVER, VerifySchedule
from relevo.config.watchdog import WatchdogDevice
from relevo.config.window import Window


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A network between the nodes.

    Attributes:
        name: `users`, `cross`.
        interface: the network card, the same name on every node.
        network: its subnet.
        port: UDP port of the heartbeats on it.
        broadcast: send heartbeats to the subnet's broadcast address.
        unicast: send heartbeats to each peer's address.
        multicast: send them to this group as well; None: to none.
        multicast_ttl: over so many routers; 1: none.
    """

    name: str
    interface: str
    network: IPv4Network
    port: int = 694
    broadcast: bool = True
    unicast: bool = True
    multicast: IPv4Address | None = None
    multicast_ttl: int = 1


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A server.

    Attributes:
        name: its host name (`uname -n`).
        addresses: link name -> its own address there.
        disks: mirror name -> path of the backing disk on this node (a partition, a volume or a file).
        meta_disks: mirror name -> where its meta-data lies on this node, for those that do not have it internal.
        fencing: how the other nodes switch this one off; empty: they cannot.
        capacity: how much its services may cost together; 0: as much as they like.
    """

    name: str
    addresses: dict[str, IPv4Address]
    disks: dict[str, pathlib.Path]
    meta_disks: dict[str, MetaDisk] = {}
    fencing: tuple[FenceDevice, ...] = ()
    capacity: int = 0

    def meta_disk(self, mirror: str) -> MetaDisk:
        """Where the meta-data of a mirror lies on this node."""
        return self.meta_disks.get(mirror, INTERNAL)


class HeartbeatTimings(msgspec.Struct, frozen=True, kw_only=True):
    """When a silent node is late and when it is dead; all in milliseconds."""

    keepalive_ms: int = 500
    warntime_ms: int = 1500
    deadtime_ms: int = 3000
    initdead_ms: int = 10_000


class AuthKey(msgspec.Struct, frozen=True, kw_only=True):
    """The key that signs heartbeats: one line of the `authkeys` file.

    Attributes:
        number: key number, sent with each message.
        method: how messages are signed.
        secret: the text of the key (empty for crc).
    """

    number: int
    method: Literal["crc", "md5", "sha1", "sha256"]
    secret: str


class AuthKeys(msgspec.Struct, frozen=True, kw_only=True):
    """All keys of the `authkeys` file: the one named by `auth` signs, every one verifies."""

    signing: AuthKey
    accepted: dict[int, AuthKey]


class Mirror(msgspec.Struct, frozen=True, kw_only=True):
    """The same blocks on two disks.

    Attributes:
        name: resource name, `r0`.
        link: the link that carries it.
        port: TCP port on both nodes.
        secret: shared secret of the challenge-response authentication.
        hmac: its hash, as drbd's cram-hmac-alg; `none`: the peer is not asked to prove itself (a drbd.conf without it).
        alone: what a Primary without its peer does: `risk` goes on (a named risk), `ask` suspends until permitted.
        timeout_ms: how long a request may stay unanswered before the link is given up (drbd: timeout).
        ping_interval_ms: idle time before a keep-alive is sent (drbd: ping-int).
        ping_timeout_ms: how long its answer may take (drbd: ping-timeout).
        connect_interval_ms: pause between attempts to connect (drbd: connect-int).
        al_extents: size of the activity log in extents of 4 MiB (drbd: al-extents).
        resync_rate_bytes: upper bound of a resync per second; 0 is no bound.
        suspend_ms: how long I/O may wait for permission before it fails (alone = "ask").
        resume: where the kernel can, a new process takes over the device of one that died: a pause, no I/O errors.
        spin_us: how long its process looks again before it goes to sleep while requests come fast; 0: never.
        verify: when both copies are compared by themselves.
        options: everything else that drbd.conf can say. What relevo.toml configures gives a peer up after one `timeout`
            (drbd: ko-count 1); a drbd.conf that says nothing has drbd's 7.
    """

    name: str
    link: str
    port: int = 7788
    secret: str
    hmac: Literal["sha1", "sha256", "md5", "none"] = "sha256"
    alone: Literal["risk", "ask"] = "ask"
    timeout_ms: int = 6000
    ping_interval_ms: int = 10_000
    ping_timeout_ms: int = 500
    connect_interval_ms: int = 500
    al_extents: int = 1237
    resync_rate_bytes: int = 0
    suspend_ms: int = 60_000
    resume: bool = True
    spin_us: int = 250
    verify: VerifySchedule = NEVER
    options: DrbdOptions = OWN_DEFAULTS


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where one side of a mirror listens."""

    address: IPv4Address | IPv6Address
    port: int

    @property
    def pair(self) -> tuple[str, int]:
        """As sockets take it."""
        return str(self.address), self.port


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a mirror that drbd.conf configures.

    Attributes:
        name: the host's name (of a floating one its address).
        end: where it listens.
        disk, meta: its backing disk and where the meta-data lies.
        device, minor: the name and number under which drbd would offer the device there.
    """

    name: str
    end: Endpoint
    disk: pathlib.Path
    meta: MetaDisk
    device: pathlib.Path
    minor: int


class MirrorSite(msgspec.Struct, frozen=True, kw_only=True):
    """A mirror as one node has it: all that its process needs to know, wherever it was configured.

    Attributes:
        mirror: its settings.
        cluster: name of the cluster; `drbd.conf` where there is none.
        me, peer: names of this node and of the other one.
        own, other: where each of them listens.
        disk: the backing disk here.
        meta: where its meta-data lies.
        device: the name under which drbd would offer the device (`/dev/drbd0`); None if no drbd.conf names one.
        minor: its minor number there.
        source: the drbd.conf that configures the mirror; None if relevo.toml does.
    """

    mirror: Mirror
    cluster: str
    me: str
    peer: str
    own: Endpoint
    other: Endpoint
    disk: pathlib.Path
    meta: MetaDisk = INTERNAL
    device: pathlib.Path | None = None
    minor: int | None = None
    source: pathlib.Path | None = None


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a resource's operations, in milliseconds; `monitor_interval_ms` 0 means never."""

    start_timeout_ms: int = 20_000
    stop_timeout_ms: int = 20_000
    monitor_interval_ms: int = 2000
    monitor_timeout_ms: int = 10_000


class MirrorResource(msgspec.Struct, frozen=True, kw_only=True, tag="mirror", tag_field="type"):
    """Be Primary of a mirror. `mirror` names it."""

    id: str
    mirror: str
    operation: Operation = Operation()


class FilesystemResource(msgspec.Struct, frozen=True, kw_only=True, tag="filesystem", tag_field="type"):
    """Mount the file system that lies on a mirror."""

    id: str
    mirror: str
    mountpoint: pathlib.Path
    fstype: Literal["ext4", "ext3", "xfs", "btrfs"] = "ext4"
    options: str = "noatime"
    operation: Operation = Operation()


class FilesTls(msgspec.Struct, frozen=True, kw_only=True):
    """TLS of a file service: `tls_…` of its resource.

    Attributes:
        port: TCP port, on every address.
        certificate, key: PEM files on both servers; None: one is made and kept on the volume.
        names: what one that is made is for, beside the addresses of the service and the names of the nodes.
        only: plain HTTP is sent on to TLS.
    """

    port: int
    certificate: pathlib.Path | None = None
    key: pathlib.Path | None = None
    names: tuple[str, ...] = ()
    only: bool = False

    @property
    def given(self) -> bool:
        """Whether the certificate is given."""
        return self.certificate is not None


class FilesResource(msgspec.Struct, frozen=True, kw_only=True, tag="files", tag_field="type"):
    """Serve a folder over HTTP.

    Attributes:
        root: the folder, on a file system resource of the same service.
        port: TCP port, on every address.
        mirror: the mirror below `root`, asked for the number of copies.
        when_degraded: with one copy left, accept changes (and say so) or refuse them.
        upload_expiry_ms: age at which a broken-off upload is cleaned up.
        bin_expiry_ms: how long the bin keeps what a person deleted; 0: there is no bin.
        tls: None: plain HTTP only.
    """

    id: str
    root: pathlib.Path
    mirror: str
    port: int = 80
    when_degraded: Literal["accept", "refuse"] = "accept"
    upload_expiry_ms: int = 86_400_000
    bin_expiry_ms: int = 30 * 86_400_000
    tls: FilesTls | None = None
    operation: Operation = Operation()


class AddressResource(msgspec.Struct, frozen=True, kw_only=True, tag="address", tag_field="type"):
    """Hold an IP address on a link."""

    id: str
    address: IPv4Interface
    link: str
    announce_interval_ms: int = 60_000
    operation: Operation = Operation()


PROGRAM_OPERATION = Operation(
    start_timeout_ms=60_000, stop_timeout_ms=60_000, monitor_interval_ms=10_000, monitor_timeout_ms=20_000
)
"""What other people's agents get unless something else is said: they start daemons, and looking costs them more."""


class OcfResource(msgspec.Struct, frozen=True, kw_only=True, tag="ocf", tag_field="type"):
    """Whatever an agent of the Open Cluster Framework runs (package resource-agents, and others').

    Attributes:
        provider, agent: `heartbeat` and `apache`: the program OCF_ROOT/resource.d/heartbeat/apache.
        parameters: what the agent is given, by the names of its meta-data.
    """

    id: str
    provider: str
    agent: str
    parameters: dict[str, str] = {}
    operation: Operation = PROGRAM_OPERATION


class LsbResource(msgspec.Struct, frozen=True, kw_only=True, tag="lsb", tag_field="type"):
    """A program that an init script starts and stops.

    Attributes:
        script: its path.
        arguments: what stands before `start`, `stop`, `status` (Heartbeat's own scripts want that).
    """

    id: str
    script: pathlib.Path
    arguments: tuple[str, ...] = ()
    operation: Operation = PROGRAM_OPERATION


SYSTEMD_OPERATION = Operation(
    start_timeout_ms=100_000, stop_timeout_ms=100_000, monitor_interval_ms=10_000, monitor_timeout_ms=20_000
)
"""systemd gives a unit 90 s to start and to stop unless the unit says otherwise; its own verdict should come first."""


class SystemdResource(msgspec.Struct, frozen=True, kw_only=True, tag="systemd", tag_field="type"):
    """A unit of systemd. `unit` is its full name, such as `apache2.service`."""

    id: str
    unit: str
    operation: Operation = SYSTEMD_OPERATION


SMB_OPERATION = Operation(monitor_interval_ms=5000)
"""A look is a connection: the server starts a process for it."""


class SmbResource(msgspec.Struct, frozen=True, kw_only=True, tag="smb", tag_field="type"):
    """The shares of a files resource as network drives (SMB 2 and 3), by Samba's smbd.

    Attributes:
        files: id of the files resource, whose accounts and shares these are.
        root: its root.
        port: TCP port, on every address; what Windows connects to is 445 and cannot be changed there.
        workgroup: shown by clients.
        encrypt: refuse clients that do not encrypt; otherwise they may.
        durable: what is on stable storage when it is answered: every `close` and change of names, or each `write` too.
    """

    id: str = "smb"
    files: str
    root: pathlib.Path
    port: int = 445
    workgroup: str = "WORKGROUP"
    encrypt: bool = False
    durable: Literal["close", "write"] = "close"
    operation: Operation = SMB_OPERATION


class NfsExport(msgspec.Struct, frozen=True, kw_only=True):
    """One share for some hosts.

    Attributes:
        share: its name among the accounts' shares.
        clients: addresses and networks of the hosts.
        write: they may change files, as far as uids and modes let them.
        root: their root is root here too; otherwise it is nobody.
        user: everyone there acts as this user of the accounts; empty: as the uid that the host names.
    """

    share: str
    clients: tuple[str, ...]
    write: bool = False
    root: bool = False
    user: str = ""


class NfsResource(msgspec.Struct, frozen=True, kw_only=True, tag="nfs", tag_field="type"):
    """Shares of a files resource for hosts (NFS 4), by NFS-Ganesha.

    Attributes:
        files: id of the files resource, whose shares these are.
        root: its root.
        exports: which shares, for whom.
        port: TCP port, on every address.
        grace_ms: how long clients may claim their locks again after a start; whole seconds.
    """

    id: str = "nfs"
    files: str
    root: pathlib.Path
    exports: tuple[NfsExport, ...]
    port: int = 2049
    grace_ms: int = 8000
    operation: Operation = SMB_OPERATION


Resource = (
    MirrorResource
    | NfsResource
    | FilesystemResource
    | FilesResource
    | SmbResource
    | AddressResource
    | OcfResource
    | LsbResource
    | SystemdResource
)


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """An ordered group of resources that run together on one node: started in order, stopped in reverse.

    Attributes:
        prefer: the node where it belongs.
        auto_failback: go back there when that node has returned and its data is up to date.
        migration_threshold: failures of a resource on a node after which the service moves.
        failure_timeout_ms: age at which a failure is forgotten.
        failback_delay_ms: it goes back only when that node has been there and ready so long.
        failback_window: it goes back only in this part of the day; None: at any time.
        priority: of two for which a server has no room together the one with the higher priority runs.
        cost: what it takes of a server's capacity.
        after: services that have to be started, on whatever node, before it is.
        along_with: the service on whose node it runs, started after that one; empty: none.
        apart_from: services that are never on the same node.
        haresources: the first word of its line there: an original Heartbeat with auto_failback legacy asks by it.
    """

    name: str
    prefer: str
    resources: tuple[Resource, ...]
    auto_failback: bool = True
    migration_threshold: int = 3
    failure_timeout_ms: int = 600_000
    failback_delay_ms: int = 0
    failback_window: Window | None = None
    priority: int = 0
    cost: int = 0
    after: tuple[str, ...] = ()
    along_with: str = ""
    apart_from: tuple[str, ...] = ()
    haresources: str = ""


class Witness(msgspec.Struct, frozen=True, kw_only=True):
    """The third vote: a small server that knows whose copy is the newest, and who leads.

    Attributes:
        address: its host name or address, `port` its UDP port.
        key: what signs requests and answers.
        lease_ms: for how long a node leads a service each time; a take-over waits until the other's is over.
        timeout_ms: how long an answer may take, all repetitions included.
    """

    address: str
    port: int = 7693
    key: str
    lease_ms: int = 3000
    timeout_ms: int = 1000


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """One whole cluster.

    Attributes:
        sides: mirror name -> both sides, for those that a drbd.conf configures.
        drbd: mirror name -> that file.
        alerts: who is told of trouble, `alerts_policy` when.
        ping: addresses outside of the cluster that each server asks.
        watchdog: what resets a server whose node daemon hangs; None: nothing does.
        hash: SHA-256 (hexadecimal) of what is configured, secrets included, paths of the files not.
    """

    cluster: str
    nodes: dict[str, Node]
    links: dict[str, Link]
    heartbeat: HeartbeatTimings
    authkeys: AuthKeys
    mirrors: dict[str, Mirror]
    services: dict[str, Service]
    sides: dict[str, tuple[Side, Side]] = {}
    drbd: dict[str, pathlib.Path] = {}
    witness: Witness | None = None
    fencing: Fencing = Fencing()
    alerts: tuple[AlertTarget, ...] = ()
    alerts_policy: AlertsPolicy = AlertsPolicy()
    ping: Ping = Ping()
    watchdog: WatchdogDevice | None = None
    hash: str

    def peers_of(self, name: str) -> tuple[Node, ...]:
        """The other nodes, in the order of their names."""
        return tuple(node for key, node in sorted(self.nodes.items()) if key != name)
