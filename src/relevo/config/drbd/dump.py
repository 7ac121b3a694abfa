"""Prints a configuration as `drbdadm dump` does: everything inherited, in drbdadm's layout."""

from __future__ import annotations

import re
from collections.abc import Iterator

from relevo.config.drbd.options import BY_NAME, KEYWORDS, SECTIONS, Takes
from relevo.config.drbd.tree import Address, Conf, Host, Proxy, Resource, Setting, Volume

_INDENT = 4
_NAME_END = 24
"""Column up to which names reach."""
_PLAIN = re.compile(r"[A-Za-z0-9/._-]{1,80}")


def dump(conf: Conf, me: str, *, only: str | None = None) -> str:
    """The configuration, or one resource of it, as text that drbdadm and `load.read` read back to the same meaning.

    Args:
        conf: as `load.read` gives it.
        me: this node's name, for the comments.
        only: name of a resource; None is all, with global and common.
    """
    lines: list[str] = []
    if only is None:
        lines.append(f"# {conf.file.absolute()}")
        lines.extend(_global(conf.settings))
        if conf.common is not None:
            lines.extend(("common {", *_sections(conf.common), "}", ""))
    for resource in conf.resources:
        if only in {None, resource.name}:
            lines.extend(_resource(resource, me))
    return "\n".join(lines) + "\n"


def quote(text: str) -> str:
    """A value as the file has to have it. (drbdadm leaves keywords bare, and cannot read them back then.)"""
    if _PLAIN.fullmatch(text) and text not in KEYWORDS:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _line(depth: int, text: str) -> str:
    return " " * (_INDENT * depth) + text


def _aligned(depth: int, name: str, value: str) -> str:
    width = _NAME_END - _INDENT * depth
    return _line(depth, f"{name:<{width}} {value:>3};")


def _global(settings: list[Setting]) -> Iterator[str]:
    told = [setting for setting in settings if setting.name and setting.value != BY_NAME[setting.name].default]
    if not told:
        return
    yield "global {"
    for option in ("disable-ip-verification", "minor-count", "dialog-refresh", "usage-count"):
        yield from (_global_line(setting) for setting in told if setting.name == option)
    yield from (_global_line(setting) for setting in told if setting.name.startswith("cmd-timeout"))
    yield "}"
    yield ""


def _global_line(setting: Setting) -> str:
    return _line(1, f"{setting.name};" if setting.value is None else f"{setting.name} {setting.value};")


def _resource(resource: Resource, me: str) -> Iterator[str]:
    mine = any(me in host.names for host in resource.hosts)
    yield f"# resource {quote(resource.name)} on {me}: {'not ignored' if mine else 'ignored'}, not stacked"
    yield f"# defined at {resource.place.file.absolute()}:{resource.place.line}"
    yield f"resource {quote(resource.name)} {{"
    for host in resource.hosts:
        yield from _host(host)
    yield from _sections(resource)
    yield "}"
    yield ""


def _sections(resource: Resource) -> Iterator[str]:
    for name in SECTIONS:
        settings = list(resource.sections[name])
        plugins: list[Setting] = []
        if name == "startup":
            if resource.stacked_timeouts:
                settings.append(Setting("stacked-timeouts", None, resource.place))
            if resource.become_primary_on:
                names = " ".join(map(quote, resource.become_primary_on))
                settings.append(Setting("become-primary-on", names, resource.place))
        if name == "proxy":
            plugins = resource.plugins
        yield from _section(1, name, settings, plugins)


def _section(depth: int, name: str, settings: list[Setting], plugins: list[Setting]) -> Iterator[str]:
    if not settings and not plugins:
        return
    yield _line(depth, f"{name} {{")
    for setting in settings:
        if setting.value is None:
            yield _line(depth + 1, f"{setting.name};")
        else:
            yield _aligned(depth + 1, setting.name, setting.value if _as_it_is(setting) else quote(setting.value))
    if plugins:
        yield _line(depth + 1, "plugin {")
        yield from (_line(depth + 2, f"{' '.join(line.words)};") for line in plugins)
        yield _line(depth + 1, "}")
    yield _line(depth, "}")


def _as_it_is(setting: Setting) -> bool:
    """Whether the value is a keyword that may stand there, or names that are quoted already."""
    option = BY_NAME.get(setting.name)
    if setting.value == "on" or option is None:
        return setting.value == "on"
    return option.takes is Takes.FLAG or option.name == "become-primary-on"


def _host(host: Host) -> Iterator[str]:
    if host.kind == "floating":
        assert host.address is not None
        yield _line(1, f"floating {host.address.family} {host.address} {{")
    elif host.kind == "stacked":
        yield _line(1, f"stacked-on-top-of {quote(host.names[0])} {{")
    else:
        yield _line(1, f"on {' '.join(map(quote, host.names))} {{")
    yield from _section(2, "options", host.options, [])
    for volume in host.volumes:
        yield from _volume(volume)
    if host.address is not None and host.kind != "floating":
        yield _address(2, "address", host.address)
    if host.alternate is not None:
        yield _address(2, "alternate-link-address", host.alternate)
    if host.proxy is not None:
        yield from _proxy(host.proxy)
    yield _line(1, "}")


def _volume(volume: Volume) -> Iterator[str]:
    depth = 2 if volume.implicit else 3
    if not volume.implicit:
        yield _line(2, f"volume {volume.number} {{")
    yield from _section(depth, "disk", volume.disk_options, [])
    room = " " * max(0, _NAME_END - 5 - _INDENT * depth)
    yield _line(depth, f"device{room}{quote(volume.device or '')} minor {volume.minor};")
    yield _aligned(depth, "disk", quote(volume.disk or ""))
    if volume.meta_index == "internal":
        yield _aligned(depth, "meta-disk", "internal")
    else:
        index = "" if volume.meta_index == "flexible" else f" [{volume.meta_index}]"
        yield _line(depth, f"{'meta-disk':<16} {quote(volume.meta_disk or '')}{index};")
    if not volume.implicit:
        yield _line(2, "}")


def _address(depth: int, name: str, address: Address) -> str:
    return _line(depth, f"{name:<16} {address.family} {address};")


def _proxy(proxy: Proxy) -> Iterator[str]:
    yield _line(2, f"proxy on {' '.join(map(quote, proxy.names))} {{")
    for name, address in (("inside", proxy.inside), ("outside", proxy.outside)):
        if address is not None:
            yield _address(3, name, address)
    yield from _section(3, "options", proxy.options, proxy.plugins)
    yield _line(2, "}")
