"""Heartbeat's ha.cf and haresources, and drbd's resources, as the relevo.toml that means the same, line by line."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from relevo.config.drbd.site import TwoSides
from relevo.config.ha.tree import Group, HaCf, Medium, Word
from relevo.config.names import is_name
from relevo.config.ping import MIN_INTERVAL_MS, least_deadping_ms
from relevo.config.watchdog import LEAST_TIMEOUT_MS, longest_timeout_ms

NODES = 2
DEFAULT_PREFIX = 24
_FILESYSTEM_ARGUMENTS = 3
_INIT_SCRIPTS = pathlib.Path("/etc/init.d")
_FSTYPES = ("ext4", "ext3", "xfs", "btrfs")
_WEB_SERVERS = frozenset({"apache2", "apache", "httpd", "nginx", "lighttpd"})


@dataclasses.dataclass(frozen=True, slots=True)
class Sources:
    """All that is known of a site.

    Attributes:
        ha: its ha.cf; groups: its haresources; authkeys: that file.
        mirrors: drbd's resources by name; drbd: the file that configures them.
        me: this machine's name; own: its addresses by network card.
        given: node -> link (network card) -> addresses that the administrator named.
    """

    ha: HaCf
    groups: list[Group]
    authkeys: pathlib.Path
    mirrors: Mapping[str, TwoSides]
    drbd: pathlib.Path | None
    me: str
    own: Mapping[str, tuple[IPv4Interface, ...]]
    given: Mapping[str, Mapping[str, tuple[IPv4Interface, ...]]]


@dataclasses.dataclass(slots=True)
class Converted:
    """The text of relevo.toml; what has no counterpart there; what has to be known before it is complete."""

    text: str = ""
    left_out: list[str] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)


def convert(sources: Sources) -> Converted:
    """Write the configuration."""
    return _Converter(sources).convert()


class _Converter:
    def __init__(self, sources: Sources) -> None:
        self._s = sources
        self._out = Converted()
        self._lines: list[str] = []
        self._ids: dict[str, set[str]] = {}

    def convert(self) -> Converted:
        """All tables in their order."""
        ha = self._s.ha
        if len(ha.nodes) != NODES:
            self._out.missing.append(f"{ha.file} names {len(ha.nodes)} nodes; Relevo has two.")
        self._out.left_out += ha.warnings
        self._cluster()
        self._heartbeat()
        self._ping()
        self._watchdog()
        networks = self._networks()
        self._links(networks)
        self._nodes(networks)
        self._mirrors()
        for number, group in enumerate(self._s.groups, 1):
            self._service(f"service{number}" if len(self._s.groups) > 1 else "service", group, networks)
        self._rest()
        self._out.text = "\n".join(self._lines) + "\n"
        return self._out

    def _say(self, line: str, why: str = "") -> None:
        self._lines.append(f"{line}  # {why}" if why else line)

    def _where(self, directive: str) -> str:
        line = self._s.ha.lines.get(directive)
        return f"ha.cf:{line} {directive}" if line else f"Heartbeat's default, as ha.cf says nothing of {directive}"

    # ---- what both have ----------------------------------------------------------------------------------------

    def _cluster(self) -> None:
        self._say("[cluster]")
        self._say(f'name = "{"-".join(self._s.ha.nodes)}"', "Heartbeat's clusters have no name: this is of the nodes'")
        self._say(f'authkeys = "{self._s.authkeys}"', "the same keys: a Heartbeat on the other node understands us")

    def _heartbeat(self) -> None:
        ha = self._s.ha
        self._say("\n[heartbeat]")
        for name in ("keepalive", "warntime", "deadtime", "initdead"):
            self._say(f'{name} = "{_duration(getattr(ha, f"{name}_ms"))}"', self._where(name))
        self._say(f"port = {ha.udpport}", self._where("udpport"))

    def _ping(self) -> None:
        """A target for each address of `ping`, and for each group, of which one address has to answer."""
        ha = self._s.ha
        targets: dict[str, tuple[list[str], str]] = {name: ([name], "ping") for name in ha.pings}
        for number, (name, group) in enumerate(ha.ping_groups.items(), 1):
            targets[name if is_name(name) else f"group{number}"] = (list(group), "ping_group")
        lines = []
        for name, (addresses, directive) in targets.items():
            known = [text for text in addresses if isinstance(ipaddress.ip_address(text), IPv4Address)]
            if known:
                lines.append((f"{json.dumps(name)} = {json.dumps(known)}", self._where(directive)))
            if known != addresses:
                self._out.left_out.append(f"{directive} {name}: only IPv4 addresses are asked.")
        if not lines:
            return
        interval_ms = max(MIN_INTERVAL_MS, ha.keepalive_ms)
        least_ms = least_deadping_ms(interval_ms, ha.deadtime_ms)
        why = self._where("deadping")
        if ha.deadping_ms < least_ms:
            why += f" ({_duration(ha.deadping_ms)}), and the time until both servers know of each other's doubt"
        self._say("\n[ping]", "targets move a service, as ipfail did; they take no witness's place")
        self._say(f'interval = "{_duration(interval_ms)}"', "as often as a heartbeat")
        self._say(f'deadping = "{_duration(max(ha.deadping_ms, least_ms))}"', why)
        self._say("[ping.targets]")
        for line, where in lines:
            self._say(line, where)

    def _watchdog(self) -> None:
        ha = self._s.ha
        if not ha.watchdog:
            return
        if longest_timeout_ms(ha.keepalive_ms, ha.deadtime_ms) < LEAST_TIMEOUT_MS:
            room = _duration(LEAST_TIMEOUT_MS)
            self._out.left_out.append(f"watchdog {ha.watchdog}: it needs {room}; deadtime less keepalive is shorter.")
            return
        self._say("\n[watchdog]", "timeout is deadtime less keepalive, 1 min at most")
        self._say(f"device = {json.dumps(ha.watchdog)}", self._where("watchdog"))

    # ---- networks ----------------------------------------------------------------------------------------------

    def _networks(self) -> dict[str, IPv4Network]:
        """Network card -> its subnet, for each card that heartbeats travel on, and the mirrors' if that is known."""
        found: dict[str, IPv4Network] = {}
        for medium in self._s.ha.media:
            network = self._network_of(medium)
            if network is not None:
                found.setdefault(medium.interface, network)
        for sides in self._s.mirrors.values():
            address = sides.sides[0].end.address
            if not any(address in network for network in found.values()):
                self._mirror_network(found, address)
        return found

    def _network_of(self, medium: Medium) -> IPv4Network | None:
        """The subnet of a card: from what is given, from this machine, from a resource's address, else /24."""
        card = medium.interface
        there = [IPv4Address(m.address) for m in self._s.ha.media if m.interface == card and m.kind == "ucast"]
        served = [address for address, named in self._addresses() if named == card]
        there += [interface.ip for interface in served]
        known = [interface for links in self._s.given.values() for interface in links.get(card, ())]
        if self._s.me in self._s.ha.nodes:
            known += self._s.own.get(card, ())
        for interface in (*known, *served):
            if not there or any(address in interface.network for address in there):
                return interface.network
        return IPv4Network(f"{there[0]}/{DEFAULT_PREFIX}", strict=False) if there else None

    def _addresses(self) -> Iterator[tuple[IPv4Interface, str]]:
        """The addresses of haresources, with the card that they name."""
        for group in self._s.groups:
            for word in group.words:
                found = _address(word)
                if found is not None:
                    yield found

    def _mirror_network(self, found: dict[str, IPv4Network], address: object) -> None:
        for card, interfaces in self._s.own.items():
            for interface in interfaces:
                if address in interface.network:
                    found.setdefault(card, interface.network)
                    return
        self._out.missing.append(
            f"drbd's address {address} is on none of the networks that ha.cf names: run this on a node that has it, "
            "or give the mirrors addresses on one of them."
        )

    def _links(self, networks: dict[str, IPv4Network]) -> None:
        for card in dict.fromkeys(medium.interface for medium in self._s.ha.media):
            if card not in networks:
                how = f"run this on one of the nodes, or say --address NODE:{card}=ADDRESS/BITS"
                self._out.missing.append(f"The subnet of {card} is not known: {how}.")
        for card, network in networks.items():
            media = [medium for medium in self._s.ha.media if medium.interface == card]
            self._say(f"\n[links.{card}]", ", ".join(f"ha.cf:{m.line} {m.kind}" for m in media) or "drbd's network")
            self._say(f'interface = "{card}"')
            self._say(f'network = "{network}"')
            self._media(card, media)

    def _media(self, card: str, media: list[Medium]) -> None:
        """How heartbeats are sent on a card."""
        kinds = {medium.kind for medium in media}
        for kind, key in (("ucast", "unicast"), ("bcast", "broadcast")):
            if media and kind not in kinds:
                self._say(f"{key} = false", f"{kind} is not said")
        groups = [medium for medium in media if medium.kind == "mcast"]
        for medium in groups[:1]:
            self._say(f'multicast = "{medium.address}"', f"ha.cf:{medium.line}")
            if medium.ttl != 1:
                self._say(f"multicast_ttl = {medium.ttl}")
            if kinds == {"mcast"} and medium.port != self._s.ha.udpport:
                self._say(f"port = {medium.port}")
            elif medium.port not in {one.port for one in media if one.kind != "mcast"} | {self._s.ha.udpport}:
                self._out.left_out.append(f"the port {medium.port} of mcast on {card}: a link has one port.")
        self._out.left_out += [f"{one.address} on {card}: a link has one group." for one in groups[1:]]

    # ---- nodes -------------------------------------------------------------------------------------------------

    def _nodes(self, networks: dict[str, IPv4Network]) -> None:
        for node in self._s.ha.nodes:
            self._say(f"\n[nodes.{node}]")
            entries = []
            for card, network in networks.items():
                address = next((found for found in self._of_node(node, card) if found in network), None)
                if address is None:
                    what = f"The address of {node} on {card} ({network}) is not known"
                    self._out.missing.append(f"{what}: say --address {node}:{card}=ADDRESS.")
                else:
                    entries.append(f'{card} = "{address}"')
            self._say(f"addresses = {{ {', '.join(entries)} }}")

    def _of_node(self, node: str, card: str) -> Iterator[IPv4Address]:
        """Addresses of a node, the surest first."""
        yield from (interface.ip for interface in self._s.given.get(node, {}).get(card, ()))
        for sides in self._s.mirrors.values():
            for side in sides.sides:
                if side.name == node and isinstance(side.end.address, IPv4Address):
                    yield side.end.address
        if node == self._s.me:
            yield from (interface.ip for interface in self._s.own.get(card, ()))
        elif self._s.me in self._s.ha.nodes:
            media = self._s.ha.media
            yield from (IPv4Address(m.address) for m in media if m.kind == "ucast" and m.interface == card)

    # ---- mirrors and services ----------------------------------------------------------------------------------

    def _mirrors(self) -> None:
        for name in self._s.mirrors:
            self._say(f"\n[mirrors.{name}]")
            self._say(f'drbd = "{self._s.drbd}"', "address, disks, secret and options stay where they are")
            self._say('alone = "risk"', "as Heartbeat does: whoever sees the other fall silent takes over, unasked")

    def _service(self, name: str, group: Group, networks: dict[str, IPv4Network]) -> None:
        where = f"haresources:{group.line}"
        self._say(f"\n[services.{name}]", where)
        self._say(f'prefer = "{group.node}"')
        failback = self._s.ha.failback != "off"
        self._say(f"auto_failback = {str(failback).lower()}", self._where("auto_failback"))
        if self._s.ha.failback == "legacy":
            self._say(f"haresources = {json.dumps(str(group.words[0]))}", "by this word the other node asks for it")
        words = [word for word in group.words if _address(word) is None]
        addresses = [word for word in group.words if _address(word) is not None]
        if group.words != (*words, *addresses):
            self._say("# The address comes last and goes first: nobody reaches a service that is not there yet.")
        mounted: tuple[str, str] | None = None
        for word in words:
            mounted = self._resource(name, word, where, mounted) or mounted
        for word in addresses:
            self._address(name, word, networks)

    def _resource(self, name: str, word: Word, where: str, mounted: tuple[str, str] | None) -> tuple[str, str] | None:
        """One resource; of a file system its mirror and mount point."""
        head = f"\n[[services.{name}.resources]]"
        if word.agent == "drbddisk" and len(word.arguments) == 1:
            if word.arguments[0] in self._s.mirrors:
                self._say(head, str(word))
                self._say(f'type = "mirror"\nmirror = "{word.arguments[0]}"')
            else:
                self._out.missing.append(f"{where}: drbd.conf has no resource {word.arguments[0]!r}.")
            return None
        if word.agent == "Filesystem" and len(word.arguments) >= _FILESYSTEM_ARGUMENTS:
            return self._filesystem(head, word, where)
        self._program(name, head, word)
        if word.agent in _WEB_SERVERS and mounted is not None:
            mirror, folder = mounted
            self._say(f"# Relevo's own file service in the place of {word.agent} would be:")
            lines = (f"[[services.{name}.resources]]", 'type = "files"', f'root = "{folder}"', f'mirror = "{mirror}"')
            self._lines += [f"# {line}" for line in lines]
        return None

    def _program(self, name: str, head: str, word: Word) -> None:
        """Any other word: one of Heartbeat's own scripts if there is such a one, else an init script, as there."""
        own = self._s.ha.file.absolute().parent / "resource.d" / word.agent
        script = own if own.exists() else _INIT_SCRIPTS / word.agent
        ids = self._ids.setdefault(name, set())
        unique = word.agent if is_name(word.agent) and word.agent not in ids else f"program{len(ids) + 1}"
        ids.add(unique)
        self._say(head, f"{word}: {'Heartbeat' if own.exists() else 'the init'} script")
        self._say(f'type = "lsb"\nid = "{unique}"\nscript = "{script}"')
        if word.arguments:
            self._say(f"arguments = [{', '.join(json.dumps(argument) for argument in word.arguments)}]")

    def _filesystem(self, head: str, word: Word, where: str) -> tuple[str, str] | None:
        device, folder, fstype, *options = word.arguments
        mirror = next((name for name, sides in self._s.mirrors.items() if str(sides.sides[0].device) == device), None)
        if mirror is None or fstype not in _FSTYPES:
            reason = (
                f"{device} is no mirror's device" if mirror is None else f"{fstype} is none of {', '.join(_FSTYPES)}"
            )
            without = "without it the programs would work on this server's own disk"
            self._out.missing.append(f"{where}: {word}: {reason}; {without}.")
            return None
        self._say(head, str(word))
        self._say(f'type = "filesystem"\nmirror = "{mirror}"\nmountpoint = "{folder}"\nfstype = "{fstype}"')
        if options:
            self._say(f'options = "{options[0]}"')
        return mirror, folder

    def _address(self, name: str, word: Word, networks: dict[str, IPv4Network]) -> None:
        found = _address(word)
        assert found is not None
        interface, card = found
        link = next((link for link, network in networks.items() if interface.ip in network), card)
        if link not in networks:
            self._out.missing.append(f"{word} is on none of the networks that ha.cf names.")
            return
        self._say(f"\n[[services.{name}.resources]]", str(word))
        self._say(f'type = "address"\naddress = "{interface.ip}/{networks[link].prefixlen}"\nlink = "{link}"')

    # ---- what is left ------------------------------------------------------------------------------------------

    def _rest(self) -> None:
        ha = self._s.ha
        rest: list[tuple[Iterable[object], str]] = [
            (ha.stonith, "stonith, stonith_host: say how each node is switched off as [[nodes.NAME.fencing]]"),
            (ha.logfile or ha.debugfile or ha.logfacility, "log files: the daemons' log goes to their standard error"),
        ]
        self._out.left_out += [f"{what}." for found, what in rest if found]


def _duration(value_ms: int) -> str:
    """Exactly, as relevo.toml takes it."""
    for unit, size_ms in (("min", 60_000), ("s", 1000)):
        if value_ms % size_ms == 0:
            return f"{value_ms // size_ms} {unit}"
    return f"{value_ms} ms"


def _address(word: Word) -> tuple[IPv4Interface, str] | None:
    """The address of a word such as `IPaddr2::192.168.0.29/24/eth0`, and the card (empty: not said)."""
    if word.agent not in {"IPaddr", "IPaddr2"} or not word.arguments:
        return None
    address, _, rest = word.arguments[0].partition("/")
    bits, _, rest = rest.partition("/")
    card = rest.partition("/")[0].partition(":")[0]
    try:
        return IPv4Interface(f"{address}/{bits or DEFAULT_PREFIX}"), card
    except ValueError:
        return None
