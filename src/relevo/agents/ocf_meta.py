"""What an OCF agent says of itself: its parameters and how long its actions may take. Pure.

The format is that of the Open Cluster Framework's resource agent API 1.0 and 1.1 (`meta-data`, an XML document).
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import msgspec

from relevo.base.errors import RelevoError
from relevo.config.table import nearest

MAX_BYTES = 1 << 20
_TIME = re.compile(r"(\d+)\s*(ms|s|sec|m|min|h)?", re.ASCII)
_UNITS_MS = {"ms": 1, "": 1000, "s": 1000, "sec": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000}
_END = b"</resource-agent>"
_TRUE = frozenset({"1", "true", "yes"})


class MetaDataUnusable(RelevoError):
    """An agent's meta-data is no such document."""


class Parameter(msgspec.Struct, frozen=True):
    """One parameter of an agent; `default` None: it has none."""

    name: str
    required: bool
    default: str | None


class MetaData(msgspec.Struct, frozen=True):
    """Parameters by name, and the time-outs that the agent's author advises, in milliseconds, by action."""

    parameters: dict[str, Parameter]
    timeouts_ms: dict[str, int]


def parse(text: bytes) -> MetaData:
    """Read a document; what was printed before and after it does not count.

    Raises:
        MetaDataUnusable: there is none.
    """
    begin, end = text.find(b"<?xml"), text.rfind(_END)
    if begin >= 0 and end > begin:
        text = text[begin : end + len(_END)]
    if b"<!ENTITY" in text[:MAX_BYTES]:  # nothing in a description of parameters needs one
        raise MetaDataUnusable("The meta-data defines entities.", "Look whether this is an OCF agent.")
    try:
        root = ET.fromstring(text[:MAX_BYTES])  # noqa: S314 - what an agent prints that runs as root anyway
    except ET.ParseError as error:
        raise MetaDataUnusable(f"The meta-data is no XML ({error}).", "Look whether this is an OCF agent.") from None
    if root.tag != "resource-agent":
        raise MetaDataUnusable(f"The meta-data describes a {root.tag}.", "Look whether this is an OCF agent.")
    parameters = {}
    for entry in root.iterfind("parameters/parameter"):
        name = entry.get("name", "")
        content = entry.find("content")
        default = None if content is None else content.get("default")
        parameters[name] = Parameter(name, entry.get("required", "0").lower() in _TRUE, default)
    timeouts = {}
    for entry in root.iterfind("actions/action"):
        match = _TIME.fullmatch(entry.get("timeout", "").strip())
        if match is not None:
            timeouts[entry.get("name", "")] = int(match[1]) * _UNITS_MS[match[2] or ""]
    return MetaData(parameters, timeouts)


def mistakes(meta: MetaData, given: dict[str, str]) -> list[str]:
    """What is wrong with the parameters that are given: one sentence each, remedy included."""
    found = [
        f"There is no parameter {name!r}. {nearest(name, meta.parameters)}"
        for name in given
        if name not in meta.parameters
    ]
    for name, parameter in meta.parameters.items():
        if parameter.required and parameter.default is None and name not in given:
            found.append(f'The parameter {name!r} is missing: add parameters = {{ {name} = "…" }}.')
    return found
