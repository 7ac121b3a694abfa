"""What has to hold between the parts of a drbd.conf; drbdadm's rules, each in a sentence."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from relevo.config.drbd import options as known
from relevo.config.drbd.parse_options import DISCARD_NODE
from relevo.config.drbd.places import Place, quoted
from relevo.config.drbd.resolve import last
from relevo.config.drbd.tree import Conf, Host, Resource, Setting, Volume

_PAIR = 2


def uniqueness(conf: Conf) -> None:
    """No address and port, minor, device, disk or place of meta-data twice on a host."""
    seen: dict[tuple[str, ...], Place] = {}
    for resource in conf.resources:
        for host in resource.hosts:
            for what, key, place in _claims(host):
                first = seen.setdefault(key, place)
                if first is not place:
                    text = f"{what} is already used at {first}."
                    conf.found.wrong(place, text, "Give each its own.")


def _claims(host: Host) -> Iterator[tuple[str, tuple[str, ...], Place]]:
    if host.address is not None:
        address = host.address
        key = ("address", address.address, address.port)
        local = host.kind == "on" and ipaddress.ip_address(address.address.partition("%")[0]).is_loopback
        for name in host.names if local else ("",):
            yield f"Address {address}", (*key, name), address.place
    for name in host.names:
        for volume in host.volumes:
            place = volume.place
            if volume.minor is not None:
                yield f"Minor {volume.minor} of {name}", ("minor", name, str(volume.minor)), place
            if volume.device is not None:
                yield f"{volume.device} of {name}", ("device", name, volume.device), place
            if volume.disk is not None:
                yield f"The disk {volume.disk} of {name}", ("disk", name, volume.disk), place
            if volume.meta_disk not in {None, "internal"}:
                where = f"{volume.meta_disk}[{volume.meta_index}]"
                yield f"The meta-data's place {where} of {name}", ("meta", name, where), place


def completeness(conf: Conf, me: str) -> None:
    """Every host says what it must, all hosts have the same volumes, and names that are mentioned are there."""
    for resource in conf.resources:
        for host in resource.hosts:
            _complete(conf, resource, host)
        _same_volumes(conf, resource)
        _resync_after(conf, resource)
        mine = [host for host in resource.hosts if me in host.names]
        if len(mine) > 1:
            conf.found.wrong(mine[1].place, f"There is a second host section for {me}.", "Remove one.")
        if mine:
            _names(conf, resource)
        _without_effect(conf, resource)
    if conf.common is not None:
        _without_effect(conf, conf.common)
    for setting in conf.settings:
        _note(conf, setting)


def _complete(conf: Conf, resource: Resource, host: Host) -> None:
    if host.kind == "stacked":
        return
    who = f"{host.kind} {' '.join(host.names)}"
    if host.address is None:
        conf.found.wrong(host.place, f"{who} has no address.", "Add: address ADDRESS:PORT;")
    for volume in host.volumes:
        lacks = [
            word
            for word, value in (("device", volume.minor), ("disk", volume.disk), ("meta-disk", volume.meta_disk))
            if value is None
        ]
        for word in lacks:
            late = any(_says(above, word) for above in resource.volumes if above.number == volume.number)
            remedy = f"Put {word} before the host sections." if late else f"Add: {word} …;"
            conf.found.wrong(volume.place, f"Volume {volume.number} of {who} has no {word}.", remedy)
    if any(volume.implicit for volume in host.volumes) and any(volume.number for volume in host.volumes):
        what = f"{who} mixes volumes with and without numbers."
        conf.found.wrong(host.place, what, "Number each volume.")


def _says(volume: Volume, word: str) -> bool:
    return {"device": volume.minor, "disk": volume.disk, "meta-disk": volume.meta_disk}[word] is not None


def _same_volumes(conf: Conf, resource: Resource) -> None:
    hosts = [host for host in resource.hosts if host.kind != "stacked"]
    for host in hosts[1:]:
        one, other = _volumes(hosts[0]), _volumes(host)
        for number in sorted(one.keys() ^ other.keys()):
            has, lacks = (hosts[0], host) if number in one else (host, hosts[0])
            what = f"Volume {number} is on {' '.join(has.names)}, not on {' '.join(lacks.names)}."
            conf.found.wrong(lacks.place, what, "Give each host the same volumes.")
        for number in sorted(one.keys() & other.keys()):
            if one[number] != other[number]:
                what = f"Volume {number} has a number on one host and none on the other."
                conf.found.wrong(host.place, what, "Write both the same way.")


def _volumes(host: Host) -> dict[int, bool]:
    return {volume.number: volume.implicit for volume in host.volumes}


def _resync_after(conf: Conf, resource: Resource) -> None:
    """drbdadm drops one that names no resource, with a warning."""
    kept = []
    for setting in resource.sections["disk"]:
        if setting.name == "resync-after" and conf.resource((setting.value or "").partition("/")[0]) is None:
            conf.found.warn(setting.place, f"resync-after names no resource: {quoted(setting.value or '')}.")
        else:
            kept.append(setting)
    resource.sections["disk"][:] = kept


def _names(conf: Conf, resource: Resource) -> None:
    wrong = conf.found.wrong
    two = len(resource.hosts) == _PAIR
    names = {name for host in resource.hosts for name in host.names}
    known_names = f"Known: {', '.join(sorted(names))}."
    policy = last(resource.sections["net"], "after-sb-0pri")
    if policy is not None and two and (policy.value or "").startswith(DISCARD_NODE):
        node = (policy.value or "").removeprefix(DISCARD_NODE)
        if node not in names:
            wrong(policy.place, f"after-sb-0pri names {quoted(node)}, which is no host here.", known_names)
    primaries = resource.become_primary_on or ()
    if "both" in primaries and last(resource.sections["net"], "allow-two-primaries") is None:
        what = "become-primary-on both needs allow-two-primaries, which is not set."
        wrong(resource.place, what, "Name one host.")
    for name in primaries:
        if two and name not in names and name != "both":
            wrong(resource.place, f"become-primary-on names {quoted(name)}, which is no host here.", known_names)
    if two and (resource.hosts[0].proxy is None) != (resource.hosts[1].proxy is None):
        wrong(resource.place, "One host has a proxy and the other has none.", "Give it to both or to none.")


def _without_effect(conf: Conf, resource: Resource) -> None:
    """Warn of every option that has no effect here, unless it asks for what is done anyway."""
    for settings in resource.sections.values():
        counted: dict[str, Setting] = {}
        for setting in settings:
            _note(conf, setting)
            if setting.name in counted:
                conf.found.warn(setting.place, f"{setting.name} is set twice in one section: this one counts.")
            counted[setting.name] = setting
    for host in resource.hosts:
        for setting in host.options:
            _note(conf, setting)
        for volume in host.volumes:
            for setting in volume.disk_options:
                _note(conf, setting)
    if resource.become_primary_on:
        _note_name(conf, resource.place, "become-primary-on")
    if resource.stacked_timeouts:
        _note_name(conf, resource.place, "stacked-timeouts")


def _note(conf: Conf, setting: Setting) -> None:
    option = known.BY_NAME.get(setting.name)
    if option is None or option.honoured or (option.harmless and setting.value == option.harmless):
        return
    _note_name(conf, setting.place, setting.name)


def _note_name(conf: Conf, place: Place, name: str) -> None:
    conf.found.warn(place, f"{name} has no effect: {known.BY_NAME[name].without_effect}.")
