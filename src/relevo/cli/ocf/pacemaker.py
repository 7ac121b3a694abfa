"""What an agent tells the cluster that runs it, and what it asks: promotion scores, and whether a node was fenced."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from relevo.cli.ocf.codes import Given

TOOL_LIMIT_S = 20.0
CRM_ATTRIBUTE_SINCE = (3, 10)
"""Feature set from which on crm_attribute knows promotion scores; before, crm_master does."""
MAX_STATUS_BYTES = 16 << 20


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


def peer_is_fenced(peer: str) -> bool:
    """Whether the cluster knows for certain that a node is off: it has quorum, fences, and the node is away and clean.

    Without fencing a node that is away may be at work all the same: then nobody knows.
    """
    text = _run(["crm_mon", "--one-shot", "--as-xml"])
    return text is not None and is_fenced(text, peer)


def is_fenced(text: bytes, peer: str) -> bool:
    """The same, by what crm_mon prints."""
    if b"<!ENTITY" in text:
        return False
    try:
        root = ET.fromstring(text[:MAX_STATUS_BYTES])  # noqa: S314 - printed by a program of the cluster, as root
    except ET.ParseError:
        return False
    dc, options = root.find("summary/current_dc"), root.find("summary/cluster_options")
    if dc is None or options is None or dc.get("with_quorum") != "true" or options.get("stonith-enabled") != "true":
        return False
    for node in root.iterfind("nodes/node"):
        if node.get("name") == peer:
            return node.get("online") == "false" and node.get("unclean") == "false"
    return False


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
