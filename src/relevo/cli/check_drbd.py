"""`relevo check --drbd FILE`: a drbd.conf, its warnings, its risks, and what cannot be done here."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator

from relevo.config.drbd.load import read
from relevo.config.drbd.site import readable_secret, resolved, two_sides
from relevo.config.errors import ConfigError, ConfigErrors
from relevo.config.model import Side
from relevo.config.risks import risks


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
        found.warnings.extend(risks(resolved(whole.mirror, me), toml=False))
        found.warnings.extend(readable_secret(resource))
        found.warnings.extend(_here(whole.sides, me, resource.name))
    if not conf.resources:
        found.warnings.append(f"{path} has no resource.")
    return found


def _here(sides: Iterable[Side], me: str, resource: str) -> Iterator[str]:
    """What keeps a resource from running on this machine."""
    named = [side for side in sides if not _floating(side)]
    own = [side for side in named if side.name == me]
    if named and not own:
        names = " and ".join(side.name for side in named)
        yield f"This machine is called {me}: resource {resource} is of {names} and does not run here."
    for side in own:
        if not side.disk.exists():
            yield f"There is no {side.disk} on this machine, the disk of resource {resource}: it will not start."


def _floating(side: Side) -> bool:
    """It is known by its address; which machine has that may change."""
    return side.name == side.end.pair[0]


def _spell(side: Side) -> str:
    address, port = side.end.pair
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return f"{side.name} ({where}, {side.disk}, meta-data {side.meta})"
