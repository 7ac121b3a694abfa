"""Which settings of a mirror have changed, old and new, in the words of relevo.toml: for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from relevo.base.units import format_bytes, format_duration_ms
from relevo.config.model import Endpoint, Mirror, MirrorSite
from relevo.config.verify_schedule import VerifySchedule

_SECRET = frozenset({"secret"})
"""Told as changed, never shown."""
_OF_SITE = {"disk": "disks", "meta": "meta_disks", "device": "device", "own": "address", "other": "peer's address"}
_UNSET = "(none)"


def differences(old: MirrorSite, new: MirrorSite) -> tuple[str, ...]:
    """Each changed setting as `name: old -> new`, in the order of the configuration's structures."""
    found = [(_OF_SITE[name], _said(name, a), _said(name, b)) for name, a, b in _changed(old, new, tuple(_OF_SITE))]
    found += _of_mirror(old.mirror, new.mirror)
    return tuple(f"{name}: {was} -> {becomes}" for name, was, becomes in found)


def _changed(old: msgspec.Struct, new: msgspec.Struct, names: tuple[str, ...]) -> Iterator[tuple[str, Any, Any]]:
    for name in names:
        a, b = getattr(old, name), getattr(new, name)
        if a != b:
            yield name, a, b


def _of_mirror(old: Mirror, new: Mirror) -> Iterator[tuple[str, str, str]]:
    options = old.options, new.options
    for one, other in ((old, new), options):
        for name, a, b in _changed(one, other, one.__struct_fields__):
            match a:
                case VerifySchedule():
                    yield from _of_schedule(a, b)
                case dict():
                    yield from _of_handlers(a, b)
                case _ if name in _SECRET:
                    yield name, "(the old one)", "(another one)"
                case _ if not isinstance(a, msgspec.Struct):
                    yield _key(name), _said(name, a), _said(name, b)


def _of_schedule(old: VerifySchedule, new: VerifySchedule) -> Iterator[tuple[str, str, str]]:
    if old.every_ms != new.every_ms:
        yield "verify_every", _said("every_ms", old.every_ms or None), _said("every_ms", new.every_ms or None)
    if old.at != new.at:
        yield "verify_at", old.at or _UNSET, new.at or _UNSET


def _of_handlers(old: dict[str, str], new: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield f"handlers.{name}", old.get(name, _UNSET), new.get(name, _UNSET)


def _key(name: str) -> str:
    """The key of relevo.toml: a quantity's has no unit in its name."""
    for unit in ("_ms", "_us", "_bytes"):
        name = name.removesuffix(unit)
    return name


def _said(name: str, value: Any) -> str:
    """A value as people write it."""
    if value is None or value == "":
        return _UNSET
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Endpoint):
        return f"{value.address} port {value.port}"
    if name.endswith("_ms"):
        return format_duration_ms(value)
    if name.endswith("_us"):
        return f"{value} us"
    if name.endswith("_bytes"):
        return format_bytes(value)
    return str(value)
