"""From a resource of drbd.conf to what a mirror's process needs, on one of its hosts."""

from __future__ import annotations

import pathlib
import stat
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Literal, cast

import msgspec

from relevo.config.drbd.options import COUNT, HANDLERS, number
from relevo.config.drbd.parse_options import DISCARD_NODE
from relevo.config.drbd.places import Findings, nearest, quoted
from relevo.config.drbd.tree import Address, Conf, Host, Resource, Volume
from relevo.config.drbd.values import Values
from relevo.config.drbd_options import DIGESTS, DrbdOptions
from relevo.config.errors import ConfigErrors
from relevo.config.meta_disk import INTERNAL, MAX_INDEX, MetaDisk
from relevo.config.model import Endpoint, Mirror, MirrorSite, Side
from relevo.config.names import MAX_NAME_LENGTH, is_name

HOSTS = 2
MAX_SECRET_BYTES = 64
CLUSTER = "drbd.conf"
"""Stands for the name of the cluster where there is none."""
IsMine = Callable[[Host], bool]
_OTHERS_READ = stat.S_IRGRP | stat.S_IROTH
_HASHES = frozenset({"md5", "sha1", "sha256"})
_IPV6_LOOKS = "write the addresses of both hosts in the same family, ipv4 or ipv6."


class TwoSides(msgspec.Struct, frozen=True, kw_only=True):
    """A resource as a mirror of two sides; the same on both of them."""

    mirror: Mirror
    sides: tuple[Side, Side]


def two_sides(resource: Resource, own: Host | None = None) -> TwoSides:
    """What a resource means.

    Args:
        resource: one that has inherited everything.
        own: the host whose section disk counts; None where both have to say the same.

    Raises:
        ConfigErrors: it needs what cannot be done here; each reason with its place.
    """
    found = Findings()
    for place, what, remedy in resource.refusals:
        found.wrong(place, what, remedy)
    if not is_name(resource.name):
        what = f"{quoted(resource.name)} cannot be the name of a mirror: it becomes part of file names."
        found.wrong(resource.place, what, f"Use up to {MAX_NAME_LENGTH} letters, digits, dots, _ and -.")
    hosts = [host for host in resource.hosts if host.kind != "stacked"]
    if len(hosts) != HOSTS and not resource.refusals:
        what = f"Resource {quoted(resource.name)} has {len(hosts)} hosts, a mirror has two."
        found.wrong(resource.place, what, "Write one host section for each of two servers.")
    sides = [_side(host, found) for host in hosts]
    if len({type(side.end.address) for side in sides if side is not None}) > 1:
        found.wrong(hosts[1].place, "One host has an IPv4 address and the other an IPv6 address.", _IPV6_LOOKS)
    mirror = _mirror(resource, hosts if own is None else [own], found)
    if found.mistakes:
        raise ConfigErrors(found.mistakes)
    one, other = sides
    assert one is not None
    assert other is not None
    return TwoSides(mirror=mirror, sides=(one, other))


def site_of(conf: Conf, resource: Resource, me: str, is_mine: IsMine) -> MirrorSite | None:
    """A resource as node `me` has it; None when it has no part in it.

    Args:
        conf: the configuration.
        resource: one of its resources.
        me: this node's name.
        is_mine: says of a floating host whether its address is one of this machine.

    Raises:
        ConfigErrors: as `two_sides`.
    """
    mine = [host for host in resource.hosts if me in host.names or (host.kind == "floating" and is_mine(host))]
    if not mine and not resource.refusals:
        return None
    whole = two_sides(resource, mine[0] if mine else None)
    index = next(index for index, host in enumerate(resource.hosts) if host is mine[0])
    own, other = whole.sides[index], whole.sides[1 - index]
    return MirrorSite(
        mirror=resolved(whole.mirror, me if me in mine[0].names else own.name),
        cluster=CLUSTER,
        source=conf.file,
        me=me,
        peer=other.name,
        own=own.end,
        other=other.end,
        disk=own.disk,
        meta=own.meta,
        device=own.device,
        minor=own.minor,
    )


def resolved(mirror: Mirror, me: str) -> Mirror:
    """The mirror with `discard-node-NAME` said from the side of `me`."""
    node = mirror.options.discard_node
    if not node:
        return mirror
    policy: Literal["discard-local", "discard-remote"] = "discard-local" if node == me else "discard-remote"
    return msgspec.structs.replace(mirror, options=msgspec.structs.replace(mirror.options, after_sb_0pri=policy))


def readable_secret(resource: Resource) -> Iterator[str]:
    """A sentence about the file of the resource's secret, if others than its owner can read it."""
    setting = Values(resource.sections["net"]).setting("shared-secret")
    if setting is not None and setting.place.file.stat().st_mode & _OTHERS_READ:
        yield f"{setting.place}: others than its owner can read this secret; run chmod 600 {setting.place.file}."


# ---- one host ------------------------------------------------------------------------------------------------------


def _side(host: Host, found: Findings) -> Side | None:
    if len(host.volumes) != 1:
        place = host.volumes[1].place if host.volumes else host.place
        what = f"{' '.join(host.names)} has {len(host.volumes)} volumes, a mirror has one."
        found.wrong(place, what, "Give each volume a resource of its own.")
        return None
    (volume,) = host.volumes
    end = _end(host.address, found)
    meta = _meta(volume, found)
    disk = pathlib.Path(volume.disk or "")
    if not disk.is_absolute() or ".." in disk.parts:
        found.wrong(volume.place, f"{quoted(str(disk))} is no whole path of a disk.", "Write such as /dev/sda6.")
    if end is None or meta is None:
        return None
    assert volume.minor is not None
    return Side(
        name=host.names[0],
        end=end,
        disk=disk,
        meta=meta,
        device=pathlib.Path(volume.device or f"/dev/drbd{volume.minor}"),
        minor=volume.minor,
    )


def _end(address: Address | None, found: Findings) -> Endpoint | None:
    assert address is not None, "a host without an address is refused"
    if address.family not in {"ipv4", "ipv6"}:
        what = f"The address family {address.family} is not supported here."
        found.wrong(address.place, what, "Use ipv4 or ipv6.")
        return None
    parsed: IPv4Address | IPv6Address = ip_address(address.address)
    return Endpoint(address=parsed, port=number(address.port, COUNT))


def _meta(volume: Volume, found: Findings) -> MetaDisk | None:
    if volume.meta_index == "internal":
        return INTERNAL
    path = pathlib.Path(volume.meta_disk or "")
    if not path.is_absolute() or ".." in path.parts:
        found.wrong(volume.place, f"{quoted(str(path))} is no whole path of a disk.", "Write such as /dev/sdb1.")
        return None
    if volume.meta_index == "flexible":
        return MetaDisk(kind="flexible", path=path)
    index = number(volume.meta_index or "0", COUNT)
    if index > MAX_INDEX:
        found.wrong(volume.place, f"The index {index} of the meta-disk is too high.", f"Write 0 to {MAX_INDEX}.")
        return None
    return MetaDisk(kind="external", path=path, index=index)


# ---- the settings --------------------------------------------------------------------------------------------------


def _mirror(resource: Resource, hosts: list[Host], found: Findings) -> Mirror:
    """The settings, with the disk options of these hosts."""
    net = Values(resource.sections["net"])
    disk = _disk_values(resource, hosts, found)
    secret = net.text("shared-secret")
    for name in ("verify-alg", "csums-alg", "data-integrity-alg"):
        setting = net.setting(name)
        if setting is not None and setting.value and setting.value not in DIGESTS:
            what = f"The hash {quoted(setting.value)} of {name} is not supported here."
            found.wrong(setting.place, what, nearest(setting.value, DIGESTS))
    setting = net.setting("shared-secret")
    if setting is not None and len(secret.encode()) > MAX_SECRET_BYTES:
        what = f"shared-secret is longer than {MAX_SECRET_BYTES} bytes."
        found.wrong(setting.place, what, "Write a shorter secret.")
    congestion = net.setting("on-congestion")
    if congestion is not None and congestion.value != "block" and net.text("protocol") != "A":
        what = f"on-congestion {congestion.value} is for protocol A only, as in drbd."
        found.wrong(congestion.place, what, "Write protocol A, or on-congestion block.")
    port = number(hosts[0].address.port, COUNT) if hosts and hosts[0].address is not None else 0
    return Mirror(
        name=resource.name,
        link="",
        port=port,
        secret=secret,
        hmac=_hmac(net, found),
        alone="risk",
        timeout_ms=net.scaled("timeout"),
        ping_interval_ms=net.scaled("ping-int"),
        ping_timeout_ms=net.scaled("ping-timeout"),
        connect_interval_ms=net.scaled("connect-int"),
        al_extents=disk.count("al-extents"),
        resync_rate_bytes=_fixed_rate(disk),
        options=_options(resource, net, disk),
    )


def _disk_values(resource: Resource, hosts: list[Host], found: Findings) -> Values:
    """Those of the volume; where these hosts differ, nobody could say what holds."""
    values = [Values(host.volumes[0].disk_options) for host in hosts if len(host.volumes) == 1]
    if not values:
        return Values(resource.sections["disk"])
    names = {setting.name for host in hosts for volume in host.volumes for setting in volume.disk_options}
    for name in sorted(names):
        told = {one.text(name) for one in values}
        setting = values[-1].setting(name) or values[0].setting(name)
        if len(told) > 1 and setting is not None:
            what = f"{name} differs between the hosts ({' and '.join(sorted(told))})."
            found.wrong(setting.place, what, "Write it once, in the section disk of the resource.")
    return values[0]


def _hmac(net: Values, found: Findings) -> Literal["sha1", "sha256", "md5", "none"]:
    setting = net.setting("cram-hmac-alg")
    name = net.text("cram-hmac-alg").lower()
    if not name:
        return "none"
    if name not in _HASHES:
        assert setting is not None
        what = f"The hash {quoted(name)} of cram-hmac-alg is not supported here."
        found.wrong(setting.place, what, "Use sha256, sha1 or md5 on both servers.")
    return cast("Literal['sha1', 'sha256', 'md5', 'none']", name)


def _fixed_rate(disk: Values) -> int:
    """A rate that is written down bounds every resync; drbd's default only counts where its controller is off."""
    if disk.setting("resync-rate") is None and disk.count("c-plan-ahead"):
        return 0
    return disk.scaled("resync-rate")


def _options(resource: Resource, net: Values, disk: Values) -> DrbdOptions:
    startup = Values(resource.sections["startup"])
    handlers = Values(resource.sections["handlers"])
    told = {name: handlers.text(name) for name in HANDLERS if handlers.setting(name) is not None}
    return DrbdOptions(
        **_words(net, disk),
        max_buffers=net.count("max-buffers"),
        max_epoch_size=net.count("max-epoch-size"),
        sndbuf_bytes=net.scaled("sndbuf-size"),
        rcvbuf_bytes=net.scaled("rcvbuf-size"),
        ko_count=net.count("ko-count"),
        always_asbp=net.flag("always-asbp"),
        verify_alg=net.text("verify-alg"),
        csums_alg=net.text("csums-alg"),
        csums_after_crash_only=net.flag("csums-after-crash-only"),
        data_integrity_alg=net.text("data-integrity-alg"),
        use_rle=net.flag("use-rle"),
        congestion_fill_bytes=net.scaled("congestion-fill"),
        congestion_extents=net.count("congestion-extents"),
        tcp_cork=net.flag("tcp-cork"),
        size_bytes=disk.scaled("size"),
        al_updates=disk.flag("al-updates"),
        disk_barrier=disk.flag("disk-barrier"),
        disk_flushes=disk.flag("disk-flushes"),
        disk_drain=disk.flag("disk-drain"),
        md_flushes=disk.flag("md-flushes"),
        disk_timeout_ms=disk.scaled("disk-timeout"),
        c_plan_ahead_ms=disk.scaled("c-plan-ahead"),
        c_delay_target_ms=disk.scaled("c-delay-target"),
        c_fill_target_bytes=disk.scaled("c-fill-target"),
        c_max_rate_bytes=disk.scaled("c-max-rate"),
        c_min_rate_bytes=disk.scaled("c-min-rate"),
        rs_discard_granularity_bytes=disk.scaled("rs-discard-granularity"),
        wfc_timeout_ms=startup.scaled("wfc-timeout"),
        degr_wfc_timeout_ms=startup.scaled("degr-wfc-timeout"),
        outdated_wfc_timeout_ms=startup.scaled("outdated-wfc-timeout"),
        handlers=told,
    )


def _words(net: Values, disk: Values) -> dict[str, Any]:
    """What is one of a few words; `discard-node-NAME` becomes the name."""
    after_sb_0pri = net.text("after-sb-0pri")
    discard = after_sb_0pri.removeprefix(DISCARD_NODE) if after_sb_0pri.startswith(DISCARD_NODE) else ""
    return {
        "protocol": net.text("protocol"),
        "after_sb_0pri": "disconnect" if discard else after_sb_0pri,
        "discard_node": discard,
        "after_sb_1pri": net.text("after-sb-1pri"),
        "after_sb_2pri": net.text("after-sb-2pri"),
        "rr_conflict": net.text("rr-conflict"),
        "on_congestion": net.text("on-congestion"),
        "on_io_error": disk.text("on-io-error"),
        "fencing": disk.text("fencing"),
    }
