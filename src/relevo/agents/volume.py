"""Put a file system on the volume of a mirror: the only place that ever does, and only when a person says so."""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
from typing import Any

from relevo.agents.filesystem import read_head
from relevo.agents.superblock import identify, is_blank
from relevo.agents.tools import run_tool
from relevo.base.control import DaemonUnreachable, acall
from relevo.base.errors import RelevoError
from relevo.base.paths import Paths
from relevo.config.model import Config, FilesystemResource

MKFS_LIMIT_S = 600.0
LOOK_LIMIT_S = 20.0
ASK_LIMIT_S = 60.0
DEMOTE_ATTEMPTS = 20
DEMOTE_PAUSE_S = 0.1
"""Between attempts to demote: a tool that looked at the device may hold it for a moment."""
_UP_TO_DATE, _INCONSISTENT = "UpToDate", "Inconsistent"
_BLKID_FOUND_NOTHING = 2

_EXT4_FEATURES = "64bit,metadata_csum"
_EXT4_WRITE_ALL_NOW = "lazy_itable_init=0,lazy_journal_init=0"
MKFS: dict[str, tuple[str, ...]] = {
    # Nothing is kept back for root, lazy work would go on during service, and damage makes the file system read-only,
    # which `monitor` sees.
    "ext4": (
        *("mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-e", "remount-ro"),
        *("-O", _EXT4_FEATURES, "-E", _EXT4_WRITE_ALL_NOW),
    ),
    "ext3": ("mkfs.ext3", "-q", "-F", "-b", "4096", "-m", "0", "-e", "remount-ro", "-E", _EXT4_WRITE_ALL_NOW),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
}


class VolumeInUse(RelevoError):
    """The volume is mounted or served somewhere."""


class VolumeNotEmpty(RelevoError):
    """Something lies on the volume already."""


class VolumeNotReady(RelevoError):
    """The mirror is not in a state in which both disks get the file system."""


@dataclasses.dataclass(frozen=True, slots=True)
class Formatted:
    """What was made."""

    mirror: str
    fstype: str
    device: pathlib.Path


def fstype_of(config: Config, mirror: str) -> str:
    """The type that the configuration wants on a mirror; ext4 when no service says."""
    for service in config.services.values():
        for resource in service.resources:
            if isinstance(resource, FilesystemResource) and resource.mirror == mirror:
                return resource.fstype
    return "ext4"


async def format_volume(
    config: Config, paths: Paths, mirror: str, *, fstype: str = "", force: bool = False
) -> Formatted:
    """Become Primary, make a file system, become Secondary again.

    Args:
        config: the cluster.
        paths: where control sockets lie.
        mirror: its name.
        fstype: of the file system; empty takes the one that the configuration wants.
        force: destroy what is on the volume.

    Raises:
        VolumeInUse, VolumeNotReady, VolumeNotEmpty: nothing was changed.
        RelevoError: as the mirror or the tools say.
    """
    if mirror not in config.mirrors:
        raise RelevoError(f"There is no mirror {mirror!r}.", f"Known: {', '.join(config.mirrors) or 'none'}.")
    fstype = fstype or fstype_of(config, mirror)
    if fstype not in MKFS:
        raise RelevoError(f"{fstype!r} is no type that can be made here.", f"Known: {', '.join(MKFS)}.")
    await _service_is_stopped(config, paths, mirror)
    socket = paths.socket(f"mirror-{mirror}")
    status = await acall(socket, "status", timeout_s=ASK_LIMIT_S)
    promote = _promotion(mirror, status)
    answer = await acall(socket, "primary", timeout_s=ASK_LIMIT_S, **promote)
    try:
        device = pathlib.Path(answer["device"])
        if not force:
            await _is_empty(mirror, device)
        done = await run_tool(*MKFS[fstype], str(device), limit_s=MKFS_LIMIT_S)
        if done.status:
            raise RelevoError(f"{MKFS[fstype][0]} failed on the volume of mirror {mirror}: {done.words}.")
    finally:
        await _demote(socket)
    return Formatted(mirror, fstype, device)


def _promotion(mirror: str, status: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the promotion; refuses unless both disks are there and equal, or both are new."""
    if status["role"] == "Primary" or status["peer_role"] == "Primary":
        where = "here" if status["role"] == "Primary" else "on the other node"
        raise VolumeInUse(f"Mirror {mirror} is in use: Primary {where}.", "Stop its service first (relevo standby).")
    disks = (status["disk"], status["peer_disk"])
    if status["connection"] != "Connected" or disks not in {(_UP_TO_DATE,) * 2, (_INCONSISTENT,) * 2}:
        raise VolumeNotReady(
            f"Mirror {mirror} is {status['connection']}, its disk {disks[0]}, the other one {disks[1]}: "
            "both disks have to be connected and equal, or both new.",
            f"See relevo mirror status {mirror} on both nodes.",
        )
    # Two new disks: what is written now is what counts, and the other one is filled from here.
    return {"force": disks[0] == _INCONSISTENT, "epoch": int(status.get("epoch", 0))}


async def _service_is_stopped(config: Config, paths: Paths, mirror: str) -> None:
    """Refuse while the manager of this node runs a service on the mirror, or is about to."""
    services = [
        service.name
        for service in config.services.values()
        if any(getattr(resource, "mirror", None) == mirror for resource in service.resources)
    ]
    try:
        state = await acall(paths.socket("node"), "status", timeout_s=ASK_LIMIT_S)
    except DaemonUnreachable:
        return  # nobody manages anything here; the roles of the mirror tell the rest
    for name in services:
        states = dict(state.get("services", {}).get(name, {}).get("states", {}))
        busy = [f"{word} on {node}" for node, word in states.items() if word in {"started", "starting", "stopping"}]
        if busy:
            raise VolumeInUse(f"Service {name} is {' and '.join(busy)}.", "Put both nodes on standby first.")


async def _is_empty(mirror: str, device: pathlib.Path) -> None:
    remedy = f"If it shall be destroyed: relevo volume format {mirror} --force."
    head = await read_head(device, LOOK_LIMIT_S)
    found = identify(head)
    if found is not None:
        raise VolumeNotEmpty(f"There is a {found.fstype} file system on the volume of mirror {mirror}.", remedy)
    done = await run_tool("blkid", "--probe", str(device), limit_s=LOOK_LIMIT_S)
    if done.status != _BLKID_FOUND_NOTHING or not is_blank(head):
        what = done.words if done.status == 0 else "data of an unknown kind"
        raise VolumeNotEmpty(f"There is something on the volume of mirror {mirror}: {what}.", remedy)


async def _demote(socket: pathlib.Path) -> None:
    for attempt in range(1, DEMOTE_ATTEMPTS + 1):
        try:
            await acall(socket, "secondary", timeout_s=ASK_LIMIT_S)
        except RelevoError:
            if attempt == DEMOTE_ATTEMPTS:
                raise
        else:
            return
        await asyncio.sleep(DEMOTE_PAUSE_S)
