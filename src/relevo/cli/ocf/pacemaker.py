"""What an agent tells the cluster that runs it, and what it asks: promotion scores, and what is known of the peer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from xml.etree import ElementTree as ET

import msgspec

from relevo.cli.ocf.codes import Given

TOOL_LIMIT_S = 20.0
CRM_ATTRIBUTE_SINCE = (3, 10)
"""Feature set from which on crm_attribute knows promotion scores; before, crm_master does."""
MAX_STATUS_BYTES = 16 << 20
_GONE = frozenset({"false", "offline", "0"})
"""What in_ccm and crmd of a node's state are when it is away; from Pacemaker 2.1.7 on they are points in time."""
_PROMOTED = frozenset({"Promoted", "Master"})


class Peer(msgspec.Struct, frozen=True):
    """What the cluster knows of another node.

    Attributes:
        quorum: this part of the cluster has quorum: without it nothing is known.
        online: it is a member, and what it runs is known.
        off: it was fenced, or has left in order after it had stopped everything. A node that only vanished is not off.
        promoted: the resource that asks is promoted there.
        attributes: its node attributes.
    """

    quorum: bool = False
    online: bool = False
    off: bool = False
    promoted: bool = False
    attributes: dict[str, str] = {}

    @property
    def accounted_for(self) -> bool:
        """Nothing runs there that the cluster does not know of."""
        return self.quorum and (self.online or self.off)


NOTHING_KNOWN = Peer()


def set_score(given: Given, score: int | None) -> None:
    """Say how good it would be to promote the copy here; None: it must not be promoted.

    A cluster that does not answer is no reason to fail: the next look says it again.
    """
    if given.feature_set >= CRM_ATTRIBUTE_SINCE or shutil.which("crm_master") is None:
        words = ["crm_attribute", f"--promotion={given.instance}", "--lifetime", "reboot"]
    else:
        words = ["crm_master", "--quiet", "--lifetime", "reboot"]
    words += ["--delete"] if score is None else ["--update", str(score)]
    _run(words)


def set_attribute(name: str, value: str | None) -> None:
    """Set an attribute of this node, which lasts until it leaves the cluster; None: take it away."""
    _run(["attrd_updater", "--name", name, *(["--delete"] if value is None else ["--update", value])])


def look_at(peer: str, given: Given) -> Peer:
    """What the cluster knows of another node; nothing, if it does not answer."""
    status = _run(["crm_mon", "--one-shot", "--as-xml", "--show-node-attributes"])
    state = _run(["cibadmin", "--query", "--xpath", f"//node_state[@uname='{peer}']"])
    return read(status or b"", state or b"", peer, given.instance)


def read(status: bytes, state: bytes, peer: str, instance: str) -> Peer:
    """The same, by what crm_mon prints, and by the state of the node in the cluster's information base."""
    root, node_state = _parsed(status), _parsed(state)
    dc = root.find("summary/current_dc")
    for node in root.iterfind("nodes/node"):
        if node.get("name") == peer:
            clean = node.get("unclean") == "false"
            away = all(node_state.get(name) in _GONE for name in ("in_ccm", "crmd"))
            return Peer(
                quorum=dc is not None and dc.get("with_quorum") == "true",
                online=clean and node.get("online") == "true" and node.get("pending") != "true",
                off=clean and node.get("online") == "false" and away and node_state.get("expected") == "down",
                promoted=any(
                    resource.get("id", "").partition(":")[0] == instance.partition(":")[0]
                    for resource in root.iterfind("resources//resource")
                    if resource.get("role") in _PROMOTED and resource.find(f"node[@name='{peer}']") is not None
                ),
                attributes={
                    attribute.get("name", ""): attribute.get("value", "")
                    for found in root.iterfind("node_attributes/node")
                    for attribute in found.iterfind("attribute")
                    if found.get("name") == peer
                },
            )
    return NOTHING_KNOWN


def _parsed(text: bytes) -> ET.Element:
    """A document; an empty one for what is none."""
    empty = ET.Element("nothing")
    if b"<!ENTITY" in text:
        return empty
    try:
        return ET.fromstring(text[:MAX_STATUS_BYTES])  # noqa: S314 - printed by a program of the cluster, as root
    except ET.ParseError:
        return empty


def _run(words: Sequence[str]) -> bytes | None:
    """The output; None when it failed, which goes to the log of the cluster."""
    try:
        done = subprocess.run(words, capture_output=True, timeout=TOOL_LIMIT_S, env=os.environ, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        sys.stderr.write(f"{words[0]}: {error}\n")
        return None
    if done.returncode:
        sys.stderr.write(f"{words[0]}: {done.stderr.decode(errors='replace').strip()}\n")
        return None
    return done.stdout
