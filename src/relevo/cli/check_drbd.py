"""`relevo check --drbd FILE`: a drbd.conf, its warnings, its risks, and what cannot be done here."""

from __future__ import annotations

import dataclasses
import pathlib
import stat
from collections.abc import Iterator

from relevo.config.drbd.load import read
from relevo.config.drbd.site import resolved, two_sides
from relevo.config.drbd.tree import Resource
from relevo.config.drbd.values import Values
from relevo.config.errors import ConfigError, ConfigErrors
from relevo.config.model import Side
from relevo.config.risks import risks

_OTHERS_READ = stat.S_IRGRP | stat.S_IROTH


@dataclasses.dataclass(slots=True)
class Report:
    """What a drbd.conf says.

    Attributes:
        summary: one line for each resource that can be mirrored.
        warnings: options without effect and risks, each a sentence.
        mistakes: what is wrong, and why a resource cannot be mirrored here.
    """

    summary: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    mistakes: list[ConfigError] = dataclasses.field(default_factory=list)


def report(path: pathlib.Path, me: str) -> Report:
    """Read a drbd.conf as node `me` would."""
    found = Report()
    try:
        conf = read(path, me)
    except ConfigErrors as errors:
        found.mistakes.extend(errors.errors)
        return found
    found.warnings.extend(str(note) for note in conf.found.notes)
    for resource in conf.resources:
        try:
            whole = two_sides(resource)
        except ConfigErrors as errors:
            found.mistakes.extend(errors.errors)
            continue
        found.summary.append(f"resource {resource.name}: {' and '.join(map(_spell, whole.sides))}")
        found.warnings.extend(risks(resolved(whole.mirror, me)))
        found.warnings.extend(_readable(resource))
    if not conf.resources:
        found.warnings.append(f"{path} has no resource.")
    return found


def _readable(resource: Resource) -> Iterator[str]:
    """A file with a secret that others than its owner can read."""
    setting = Values(resource.sections["net"]).setting("shared-secret")
    if setting is not None and setting.place.file.stat().st_mode & _OTHERS_READ:
        yield f"{setting.place}: others than its owner can read this secret; run chmod 600 {setting.place.file}."


def _spell(side: Side) -> str:
    address, port = side.end.pair
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return f"{side.name} ({where}, {side.disk}, meta-data {side.meta})"
