"""What a resource has without saying it: from common, from itself to its hosts and volumes; in drbdadm's order."""

from __future__ import annotations

import dataclasses

from relevo.config.drbd.options import SECTIONS
from relevo.config.drbd.tree import Conf, Host, Resource, Setting, Volume


def inherit_volumes(resource: Resource, host: Host) -> None:
    """Give a host what its resource has said about volumes before it."""
    if host.kind == "stacked":
        return
    for above in resource.volumes:
        own = volume_of(host, above.number)
        if own is None:
            own = Volume(above.number, host.place, implicit=above.implicit)
            host.volumes.append(own)
            host.volumes.sort(key=lambda one: one.number)
        own.disk = own.disk or above.disk
        own.device = own.device or above.device
        if own.minor is None:
            own.minor = above.minor
        if own.meta_disk is None:
            own.meta_disk, own.meta_index = above.meta_disk, above.meta_index


def volume_of(host: Host, number: int) -> Volume | None:
    """A host's volume of that number."""
    return next((volume for volume in host.volumes if volume.number == number), None)


def expand(conf: Conf) -> None:
    """Let every resource, host and volume inherit the options that it does not set itself.

    A volume of a host takes what it lacks from the resource first and from the resource's volume of the same number
    after that, as drbdadm does.
    """
    for resource in conf.resources:
        _name_devices(resource)
        if conf.common is not None:
            _from_common(resource, conf.common)
        for host in resource.hosts:
            for volume in host.volumes:
                _inherit(volume.disk_options, resource.sections["disk"])
            if host.proxy is not None:
                _inherit(host.proxy.options, resource.sections["proxy"])
                _inherit_plugins(host.proxy.plugins, resource.plugins)
        _from_volumes(conf, resource)


def last(settings: list[Setting], name: str) -> Setting | None:
    """The setting that counts: of several the last one."""
    return next((setting for setting in reversed(settings) if setting.name == name), None)


def _name_devices(resource: Resource) -> None:
    for host in resource.hosts:
        for volume in host.volumes:
            if volume.device is None and volume.minor is not None:
                volume.device = f"/dev/drbd{volume.minor}"


def _from_common(resource: Resource, common: Resource) -> None:
    for section in SECTIONS:
        _inherit(resource.sections[section], common.sections[section])
    resource.stacked_timeouts |= common.stacked_timeouts
    if resource.become_primary_on is None:
        resource.become_primary_on = common.become_primary_on
    if not resource.plugins:
        _inherit_plugins(resource.plugins, common.plugins)


def _from_volumes(conf: Conf, resource: Resource) -> None:
    names = {setting.name for setting in resource.sections["disk"]}
    for above in resource.volumes:
        for host in resource.hosts:
            own = volume_of(host, above.number)
            if own is not None:
                _inherit(own.disk_options, above.disk_options)
        for setting in above.disk_options:
            if setting.name in names:
                what = (
                    f"{setting.name} of volume {above.number} has no effect: drbdadm lets the section disk of the "
                    "resource win. Write it into that volume of each host."
                )
                conf.found.warn(setting.place, what)


def _inherit(own: list[Setting], above: list[Setting]) -> None:
    """Put what is missing in front, each before the one before: so drbdadm prints it."""
    names = {setting.name for setting in own}
    for setting in above:
        if setting.name not in names:
            names.add(setting.name)
            own.insert(0, dataclasses.replace(setting))


def _inherit_plugins(own: list[Setting], above: list[Setting]) -> None:
    lines = {setting.words for setting in own}
    missing = {setting.words: setting for setting in above if setting.words not in lines}
    own[:0] = reversed(missing.values())
