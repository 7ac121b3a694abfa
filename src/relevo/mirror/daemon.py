"""`relevo mirror run NAME`: the keeper, which makes the device and takes it away, and its worker."""

from __future__ import annotations

import sys

from relevo.base.errors import RelevoError
from relevo.base.paths import Paths
from relevo.config.model import Config
from relevo.device.keeper import KEEPER_FD, Keeper

LOOP_NAME_BYTES = 63


class NoDiskHere(RelevoError):
    """The configuration names no disk of this node for the mirror."""


def run(config: Config, me: str, paths: Paths, name: str) -> int:
    """Mirror until told to stop. Main thread only.

    Args:
        config: the cluster.
        me: this node's name.
        paths: where configuration, state and sockets lie.
        name: the mirror's name.

    Returns:
        the exit status of the process.

    Raises:
        NoDiskHere: this node has no disk for it.
    """
    if name not in config.nodes[me].disks:
        raise NoDiskHere(f"Node {me} has no disk for mirror {name}.", f"Add {name} to `disks` of nodes.{me}.")
    loop_name = f"relevo:{config.cluster}:{me}:{name}".encode()[:LOOP_NAME_BYTES].decode(errors="ignore")
    keeper = Keeper(loop_name, paths.run / "mirror" / name)
    folders = [str(folder) for folder in (paths.etc, paths.state, paths.run)]
    return keeper.run([sys.executable, "-m", "relevo.mirror.worker", me, name, *folders, KEEPER_FD])
